"""Converts models of diffusers and transformers for training, and trained people into folders of diffusers models.

A source is a folder of a pipeline (unet/, vae/, scheduler/, image_encoder/, text_encoder/, controlnet/) or one model,
or a single file of latent diffusion; `to_diffusers` also takes a workdir. Nothing is written unless every key of every
model fits.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from anchor_jax.config.networks import ControlNetConfig, UNetConfig
from anchor_jax.core.errors import UserError
from anchor_jax.files.outputs import new_folder
from anchor_jax.files.shipped import folder_of
from anchor_jax.formats.diffusers import DTYPES, load_network_config, load_tensors, save_tensors
from anchor_jax.formats.folders import (
  MODELS,
  ModelFolder,
  StoredModel,
  check_models_target,
  open_folder,
  stored_models,
  write_models,
)
from anchor_jax.formats.lora import holds_lora, merge_lora, read_lora, write_lora
from anchor_jax.formats.roles import PERSON_PARTS, ROLES, SHARED, ModelPlace
from anchor_jax.formats.single_file import is_single_file, open_network, open_single_file, open_tensors
from anchor_jax.store.derive import add_derived_models


@dataclasses.dataclass(frozen=True)
class FileChoice:
  """Options for single files, and adapters to merge.

  Attributes:
    averaged, prediction: see `open_single_file`.
    loras: (file of adapters, strength), merged in this order.
  """

  averaged: bool = False
  prediction: str = ""
  loras: Sequence[tuple[Path, float]] = ()


DEFAULT_CHOICE = FileChoice()


def from_diffusers(
  source: Path,
  target: Path,
  image_encoder: Path | None = None,
  controlnet: Path | None = None,
  head: Path | None = None,
  make_controlnet: bool = True,
  make_head: bool = False,
  stem_widths: tuple[int, ...] = (16, 32, 96, 256),
  dtype: str | None = None,
  choice: FileChoice = DEFAULT_CHOICE,
) -> ModelFolder | None:
  """Writes a folder of models for --config.init; returns its content (None for a single model).

  Args:
    source: a folder of a pipeline or one model, or a single .safetensors: a complete model, one network, or adapters,
      which are written under diffusers' names.
    target: created, or replaced if it holds models.
    image_encoder: folder of that model, if the pipeline has none.
    controlnet: folder or file of that model, if the pipeline has none.
    head: an inpainting pipeline (or UNet) for the head, or a single file of one.
    make_controlnet: derive a pose branch for each UNet without one.
    make_head: derive a head UNet from the body's.
    stem_widths: channels of the new pose branches' stems.
    dtype: "float32", "float16", "bfloat16", or None for the types in the files.
    choice: options for single files.

  Raises:
    UserError: something cannot be read. The message names all missing, unexpected and mis-shaped keys; nothing is
      written.
  """
  _check(source, target, image_encoder, controlnet, head, *(file for file, _ in choice.loras))
  if is_single_file(source) and holds_lora(tensors := open_tensors(source)):
    changes = read_lora(source, tensors)
    with new_folder(target, MODELS) as folder:
      write_lora(folder, changes, None if dtype is None else DTYPES[dtype])
    return None
  if is_single_file(source):
    models = open_single_file(source, choice.averaged, choice.prediction)
    single = next(iter(models.models.values())) if len(models.models) == 1 else None
  elif (source / "config.json").exists():
    config = load_network_config(source)
    models, single = ModelFolder(), StoredModel(config, load_tensors(source, config))
  else:
    models, single = open_folder(source), None
  if single is not None:
    if choice.loras:
      raise UserError(f"{source} holds a single network: give a complete model for --lora")
    assert single.config is not None
    with new_folder(target, MODELS) as folder:
      save_tensors(folder, single.config, single.tensors, dtype)
    return None
  if not is_single_file(source) and (choice.averaged or choice.prediction):
    raise UserError(f"{source} is a folder, which has one set of weights and says what they predict: omit --ema and"
                    " --prediction")  # fmt: skip
  for file, strength in choice.loras:
    merge_lora(models, read_lora(file, open_tensors(file)), strength, file)
  if image_encoder is not None:
    if image_encoder.is_file():
      raise UserError(f"{image_encoder} is a file: give CLIP's folder, which has its sizes in config.json")
    config = load_network_config(image_encoder, ROLES["image_encoder"].config)
    models.models[ModelPlace(SHARED, "image_encoder")] = StoredModel(config, load_tensors(image_encoder, config))
  if controlnet is not None:
    models.models[ModelPlace(SHARED, "controlnet")] = _network(controlnet, ControlNetConfig)
  if head is not None:
    path = head if is_single_file(head) or (head / "config.json").exists() else head / "unet"
    unet = _network(path, UNetConfig)
    assert isinstance(unet.config, UNetConfig)
    if unet.config.in_channels == unet.config.out_channels:
      raise UserError(f"{path} has {unet.config.in_channels} input channels: give an inpainting UNet, or --make-head")
    models.models[ModelPlace("head", "unet")] = unet
  add_derived_models(models, make_controlnet, make_head, stem_widths)
  with new_folder(target, MODELS) as folder:
    write_models(folder, models, dtype)
  return models


def _network(path: Path, kind: type[UNetConfig] | type[ControlNetConfig]) -> StoredModel:
  """Returns the network of a class from its folder or a single file."""
  if is_single_file(path):
    return open_network(path, kind)
  config = load_network_config(path, kind)
  return StoredModel(config, load_tensors(path, config))


def to_diffusers(
  source: Path, target: Path, weights: str = "ema", dtype: str | None = None, step: str = "newest", base: str = ""
) -> ModelFolder | None:
  """Writes folders that diffusers and transformers load; returns their content (None for a single model).

  Models that are equal in body and head, null contexts included, are written once. Only networks are written, without
  the person's reference image and texture.

  Args:
    source: a workdir, a folder of adapters, a folder of models or one model's.
    target: created, or replaced if it holds models.
    weights: "ema" for a workdir's averaged weights if it has any, "raw" for the last ones.
    dtype: as in `from_diffusers`.
    step: of a workdir: newest, best or a number.
    base: the weights that adapters change; empty for those that training started from.

  Raises:
    UserError: as in `from_diffusers`.
  """
  from anchor_jax.store.weights import CheckpointChoice, is_workdir, parts_in, read_part  # orbax takes a second

  source = folder_of(source)
  if not is_workdir(source):
    return from_diffusers(source, target, make_controlnet=False, dtype=dtype)
  _check(source, target, Path(base) if base else None)
  choice, trained = CheckpointChoice(weights == "ema", step, base), parts_in(source)
  # A workdir may hold only an autoencoder; beside a body, it is the one that the body was trained with.
  parts = {part: read_part(source, part, choice) for part in trained if part in PERSON_PARTS or len(trained) == 1}
  models = ModelFolder.of_parts(
    {
      part if part in PERSON_PARTS else SHARED: stored_models(stored.networks.model, stored.weights)
      for part, stored in parts.items()
    }
  )
  with new_folder(target, MODELS) as folder:
    write_models(folder, models, dtype)
  return models


def to_adapters(
  workdir: Path, target: Path, weights: str = "ema", dtype: str | None = None, step: str = "newest"
) -> list[str]:
  """Writes the adapters of a workdir's parts, without the networks that they change; returns the parts' names.

  Args:
    workdir: of runs with config.lora.rank.
    target: created, or replaced if it holds adapters.
    weights, dtype, step: as in `to_diffusers`.

  Raises:
    UserError: no such run, or `target` holds something else.
  """
  from anchor_jax.store.saving import write_adapters
  from anchor_jax.store.weights import CheckpointChoice, is_workdir, parts_in

  workdir = folder_of(workdir)
  _check(workdir, target)
  parts = [part for part in parts_in(workdir) if part in PERSON_PARTS] if is_workdir(workdir) else []
  if not parts:
    raise UserError(f"{workdir} holds no trained body or head: give the --workdir of a run with --config.lora.rank=N")
  with new_folder(target, MODELS) as folder:
    for part in parts:
      write_adapters(workdir, part, folder, CheckpointChoice(averaged=weights == "ema", step=step), dtype or "float32")
  return parts


def _check(source: Path, target: Path, *other_inputs: Path | None) -> None:
  """Raises UserError for a missing source, or a target whose replacement would delete an input or files of others."""
  if not source.is_dir() and not is_single_file(source):
    raise UserError(f"no folder or file {source}")
  inside = Path(os.path.realpath(target))  # unlike Path.resolve, accepts loops of links, which readers report
  for path in (source, *other_inputs):
    resolved = path and Path(os.path.realpath(path))
    if resolved and resolved.is_relative_to(inside):
      raise UserError(f"{target} holds an input of the conversion; choose another folder")
  check_models_target(target)
