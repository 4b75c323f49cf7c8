"""Converts folders of diffusers and transformers for training, and trained people back into such folders.

A source is a pipeline's folder (unet/, vae/, scheduler/, image_encoder/, text_encoder/, controlnet/) or one model's; to
go out also a workdir of training. Nothing is written unless every key of every model fits.
"""

from pathlib import Path

from anchor_jax.architecture import UNetConfig
from anchor_jax.errors import UserError
from anchor_jax.files import new_folder
from anchor_jax.store.complete import complete
from anchor_jax.store.diffusers import load_config, load_tensors, save_tensors
from anchor_jax.store.folders import ModelFolder, StoredModel, check_target, open_folder, stored_models, write_models
from anchor_jax.store.roles import PARTS, ROLES, SHARED, Place


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
) -> ModelFolder | None:
  """Writes the folder of models that --config.init takes; returns what is in it (None for a single model).

  Args:
    source: a pipeline's folder, or one model's.
    target: created, or replaced where it holds models already.
    image_encoder, controlnet: folders of those models, where the pipeline has none.
    head: an inpainting pipeline (or UNet) for the head.
    make_controlnet: make a pose branch from each UNet that has none.
    make_head: make a head UNet from the body's.
    stem_widths: channels of the new pose branches' stems.
    dtype: "float32", "float16", "bfloat16", or None for the types in the files.

  Raises:
    UserError: something cannot be read; all missing, unexpected and mis-shaped keys are named, nothing is written.
  """
  _check(source, target)
  if (source / "config.json").exists():
    config = load_config(source)
    tensors = load_tensors(source, config)
    with new_folder(target) as folder:
      save_tensors(folder, config, tensors, dtype)
    return None
  models = open_folder(source)
  for role, path in (("image_encoder", image_encoder), ("controlnet", controlnet)):
    if path is not None:
      config = load_config(path, ROLES[role].config)
      models.models[Place(SHARED, role)] = StoredModel(config, load_tensors(path, config))
  if head is not None:
    path = head if (head / "config.json").exists() else head / "unet"
    config = load_config(path, UNetConfig)
    if config.in_channels == config.out_channels:
      raise UserError(f"{path} has {config.in_channels} input channels: give an inpainting UNet, or --make-head")
    models.models[Place("head", "unet")] = StoredModel(config, load_tensors(path, config))
  complete(models, make_controlnet, make_head, stem_widths)
  with new_folder(target) as folder:
    write_models(folder, models, dtype)
  return models


def to_diffusers(
  source: Path, target: Path, weights: str = "ema", dtype: str | None = None, step: str = "newest", base: str = ""
) -> ModelFolder | None:
  """Writes folders that diffusers and transformers load; returns what is in them (None for a single model).

  What body and head have alike is written once; where they differ, null contexts too, each has its own. Networks are
  written alone, not what is known of the person: her picture, and texture and room (config.data.appearance).

  Args:
    source: a workdir, a folder of adapters, a folder of models or one model's.
    target: created, or replaced where it holds models already.
    weights: "ema" for a workdir's averaged weights where there are any, "raw" for the others.
    dtype: as in `from_diffusers`.
    step: of a workdir: newest, best or a number.
    base: the weights that adapters change, where they aren't those that training started from.

  Raises:
    UserError: as in `from_diffusers`.
  """
  from anchor_jax.store.weights import CheckpointChoice, is_workdir, parts_in, read_part  # orbax takes a second

  if not is_workdir(source):
    return from_diffusers(source, target, make_controlnet=False, dtype=dtype)
  _check(source, target)
  choice, trained = CheckpointChoice(weights == "ema", step, base), parts_in(source)
  # An autoencoder alone is a folder of models too; beside a body it is the one that the body was trained with.
  parts = {part: read_part(source, part, choice) for part in trained if part in PARTS or len(trained) == 1}
  models = ModelFolder.of_parts(
    {
      part if part in PARTS else SHARED: stored_models(stored.networks.model, stored.weights)
      for part, stored in parts.items()
    }
  )
  with new_folder(target) as folder:
    write_models(folder, models, dtype)
  return models


def to_adapters(
  workdir: Path, target: Path, weights: str = "ema", dtype: str | None = None, step: str = "newest"
) -> list[str]:
  """Writes what a workdir's parts learned as adapters, without the networks that these change; returns the parts.

  Args:
    workdir: of runs with config.lora.rank.
    target: created, or replaced where it holds adapters already.
    weights, dtype, step: as in `to_diffusers`.

  Raises:
    UserError: no such run, or `target` holds something else.
  """
  from anchor_jax.store.saving import write_adapters
  from anchor_jax.store.weights import CheckpointChoice, is_workdir, parts_in

  _check(workdir, target)
  parts = [part for part in parts_in(workdir) if part in PARTS] if is_workdir(workdir) else []
  if not parts:
    raise UserError(f"{workdir} holds no trained body or head: give the --workdir of a run with --config.lora.rank=N")
  with new_folder(target) as folder:
    for part in parts:
      write_adapters(workdir, part, folder, CheckpointChoice(averaged=weights == "ema", step=step), dtype or "float32")
  return parts


def _check(source: Path, target: Path) -> None:
  """Refuses a source that is none and a target whose replacement would delete the source or anything but models."""
  if not source.is_dir():
    raise UserError(f"no folder {source}")
  inside, outside = target.absolute().resolve(), source.absolute().resolve()
  if inside == outside or outside.is_relative_to(inside):
    raise UserError(f"{target} holds what is to be converted; choose another folder")
  check_target(target)
