"""Reads a person's parts, and the weights that a run starts from.

Sources are workdirs, folders of adapters, folders of models (see roles.py), and "studio" for the package's weights.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from anchor_jax.config.find import load_config
from anchor_jax.config.fit import check_model
from anchor_jax.config.networks import ScheduleConfig
from anchor_jax.config.parts import PARTS
from anchor_jax.config.run import DataConfig, LoRAConfig, ModelConfig, RunConfig
from anchor_jax.config.stored import read_settings
from anchor_jax.core.errors import UserError, one_line
from anchor_jax.core.shapes import NdArray, PyTree
from anchor_jax.files.manifest import find_damage, write_list
from anchor_jax.files.shipped import folder_of, is_shipped
from anchor_jax.formats.diffusers import Model, read_json_object, with_own_fields
from anchor_jax.formats.folders import ModelFolder, find_place, read_models, stored_models, write_models
from anchor_jax.formats.lora import load_adapters
from anchor_jax.formats.roles import LORA_FILE, ROLES, SHARED
from anchor_jax.formats.tensors import weights_hash
from anchor_jax.models.controlnet import fit_stem
from anchor_jax.models.lora import init_lora, merge_weights
from anchor_jax.models.networks import Networks
from anchor_jax.store.part import Part
from anchor_jax.store.restart import has_checkpoint
from anchor_jax.store.workdir import read_reference_image, read_weights, texture_of_part
from anchor_jax.texture.background.film_plate import film_plate_of
from anchor_jax.texture.channels import branch_channels, kind_of, shared_channels

STEP = "step.json"  # in a part's folder of a saved person
# The networks of body and head, which are the keys of their weights.
_NETWORKS = ("unet", "controlnet", "null_context", "vae", "image_encoder")


@dataclasses.dataclass(frozen=True)
class CheckpointChoice:
  """A choice among a part's weights.

  Attributes:
    averaged: for a workdir, whether to read the averaged weights if there are any.
    step: for a workdir, see `read_weights`.
    base: for a folder of adapters, the weights they are merged into (as for config.init); empty for those that training
      started from.
  """

  averaged: bool = True
  step: str = "newest"
  base: str = ""


NEWEST = CheckpointChoice()


def parts_in(path: str | Path) -> tuple[str, ...]:
  """Returns which of "vae", "body" and "head" `read_part` can read at `path`.

  Args:
    path: a workdir, a folder of adapters, a folder of models, or "studio" for the package's weights.

  Raises:
    UserError: no such folder.
  """
  folder = _folder(path)
  if is_workdir(folder):
    return tuple(part for part in PARTS if _is_trained(folder / part) and (folder / part / "config.json").exists())
  return tuple(part for part in PARTS if not _missing(folder, part))


def read_part(path: str | Path, part: str, choice: CheckpointChoice = NEWEST) -> Part:
  """Returns one part of a person.

  Args:
    path: as for `parts_in`.
    part: "vae", "body" or "head".
    choice: a workdir's checkpoint, or the base of adapters.

  Raises:
    UserError: there is no such part, or its files do not fit together.
  """
  folder = _folder(path)
  if not is_workdir(folder) and any(find_place(folder, part, role) for part in PARTS for role in ROLES):
    saved = _read_saved(folder, part, choice)
    if is_shipped(path) and part != "vae":  # these sample with the settings of their fine-tuning config
      sample = load_config(f"studio_finetune.py:{part}").sample
      saved = dataclasses.replace(saved, config=dataclasses.replace(saved.config, sample=sample))
    return saved
  config = read_settings(folder / part)
  if (folder / part / LORA_FILE).exists():
    if choice.step != "newest" or not choice.averaged:
      raise UserError(f"{folder} holds adapters of a single step: omit --checkpoint-step and --weights")
    networks, weights, step = _read_adapted(folder / part / LORA_FILE, config, choice.base)
  else:
    if choice.base:
      raise UserError(f"--base={choice.base} is for adapters only, and {folder} holds all weights: omit it")
    trained, step = read_weights(folder / part, choice.averaged, choice.step)
    frozen = read_base(folder / part, config)
    networks, weights = Networks(config.model, config.dtype), _merge(frozen, trained, config.lora)
  return _stored_part(folder / part, config, networks, weights, step, read_reference_image(folder / part))


def initial_weights(config: RunConfig) -> tuple[Networks, PyTree]:
  """Returns the networks and weights that a run starts from, by config.init.

  Sizes of networks found there replace those in config.model; other networks that the run needs are random, by
  config.seed. With config.lora.rank, "lora" holds new adapters.

  Raises:
    UserError: config.init is not a folder, holds nothing for this part, or holds a pose branch that does not fit
      config.data.pose_channels.
  """
  sizes, weights = {}, {}
  if config.init:
    folder = folder_of(config.init)
    sizes, weights = _read_trained(folder, config.part) if is_workdir(folder) else read_models(folder, config.part)
    for name in sizes.keys() & weights.keys():  # a run may choose remat, temporal layers, ...
      run_as = config.model.own_refiner if name == "refiner" else getattr(config.model, name)
      model = with_own_fields(Model(sizes[name], weights[name]), run_as or sizes[name])
      sizes[name], weights[name] = model.config, model.params
  if config.model.own_refiner is None and (config.model.refiner is None or "refiner" not in weights):
    sizes["refiner"] = None
    weights.pop("refiner", None)
  if config.zero_snr:
    sizes["schedule"] = ends_at_noise(sizes.get("schedule", config.model.schedule))
  model = with_pose_channels(dataclasses.replace(config, model=dataclasses.replace(config.model, **sizes)))
  check_model(model, config.part)
  if "controlnet" in weights:
    channels = weights["controlnet"]["controlnet_cond_embedding"]["conv_in"]["kernel"].shape[2]
    shared = shared_channels(config.data.pose_channels, channels)
    if shared is not None and shared < model.controlnet.conditioning_channels:
      _check_new_channels(config, kind_of(channels) or "")
    weights["controlnet"] = fit_stem(weights["controlnet"], model.controlnet.conditioning_channels, shared)
  networks = Networks(model, config.dtype)
  missing = [name for name in _needed(config.part, model) if name not in weights]
  if missing:

    def random_weights(key):
      initial = networks.init(key)
      return {name: initial[name] for name in missing}

    # Optimizing a program that runs once would take XLA a minute.
    options = {"xla_backend_optimization_level": 0}
    weights |= jax.jit(random_weights, compiler_options=options)(jax.random.key(config.seed))
  return networks, with_adapters(weights, config)


def ends_at_noise(schedule: ScheduleConfig) -> ScheduleConfig:
  """Returns the schedule with velocity prediction and a last step of pure noise (Lin et al. 2024)."""
  return dataclasses.replace(
    schedule,
    prediction_type="v_prediction",
    timestep_spacing="trailing",
    rescale_betas_zero_snr=True,
    set_alpha_to_one=True,
  )


def with_pose_channels(config: RunConfig) -> ModelConfig:
  """Returns the sizes, with the number of input channels of the pose branch that config.data.pose_channels needs.

  Raises:
    UserError: the pose branch was trained with other channels.
  """
  kind, branch = config.data.pose_channels, config.model.controlnet
  if shared_channels(kind, branch.conditioning_channels) is None:
    raise UserError(
      f"the pose branch that training starts from takes {branch.conditioning_channels} channels, which no value of"
      f' config.data.pose_channels gives ("{kind}" gives {branch_channels(kind)}): start from other weights'
    )
  branch = dataclasses.replace(branch, conditioning_channels=branch_channels(kind))
  return dataclasses.replace(config.model, controlnet=branch)


def _check_new_channels(config: RunConfig, before: str) -> None:
  """Raises UserError if the pose branch has new input channels and no adapter is trained for them."""
  stem = "/controlnet_cond_embedding/conv_in"
  adapted = "controlnet" in config.lora.networks and any(stem.endswith(f"/{name}") for name in config.lora.targets)
  if config.lora.rank and not adapted:
    raise UserError(
      f'config.data.pose_channels="{config.data.pose_channels}" gives the pose branch channels that it has not been'
      f' trained with, and adapters do not change its stem: set it to "{before}", or start from other weights'
    )


def read_base(folder: Path, config: RunConfig) -> PyTree:
  """Returns the frozen networks of a part's run, which it saved in FOLDER/base.

  Raises:
    UserError: one of them is missing or damaged.
  """
  base, names = folder / "base", frozen_names(config)
  if not names:
    return {}
  remedy = "copy the workdir again, or train this part again"
  if not base.is_dir():
    raise UserError(f"{base} is missing, with the networks that were not trained: {remedy}")
  if damage := find_damage(base):
    raise UserError(f"{base} is damaged ({damage}): {remedy}")
  if missing := [name for name in names if find_place(base, config.part, name) is None]:
    raise UserError(f"{base} lacks {', '.join(missing)}: {remedy}")
  return read_models(base, config.part)[1]


def resumed_weights(folder: Path, config: RunConfig) -> tuple[Networks, PyTree]:
  """Returns the networks and weights with which a part's run resumes, from its own folder only.

  Args:
    folder: WORKDIR/PART, with a checkpoint.
    config: its settings, with the sizes of its networks.

  Returns:
    The networks; and weights as from `initial_weights`, with zeros for the trained ones, which `Checkpoints.restore`
    fills in.

  Raises:
    UserError: a frozen network is missing or damaged.
  """
  networks, names = Networks(config.model, config.dtype), _needed(config.part, config.model)
  frozen = read_base(folder, config)
  shapes = jax.eval_shape(networks.init, jax.random.key(0))
  weights = {name: frozen.get(name) for name in names}
  for name in names:
    if weights[name] is None:
      weights[name] = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes[name])
  return networks, with_adapters(weights, config)


def with_adapters(weights: PyTree, config: RunConfig) -> PyTree:
  """Returns the weights, with new adapters as "lora" if the run trains adapters; depends only on config.seed."""
  if not config.lora.rank:
    return weights
  return {**weights, "lora": init_lora(jax.random.fold_in(jax.random.key(config.seed), 1), weights, config.lora)}


def trained_keys(config: RunConfig) -> tuple[str, ...]:
  """Returns the names of the networks that a run trains; the others are frozen."""
  if config.part == "vae":
    return ("vae",)
  networks = ("lora",) if config.lora.rank else ("unet", "controlnet")
  if config.model.own_refiner is not None and not config.lora.rank and not config.only_temporal:
    networks += ("refiner",)
  # Without dropout the null branch gets no gradient, and weight decay alone would shrink it.
  return networks + ("null_context",) * (config.condition_dropout > 0) + ("image_encoder",) * config.train_image_encoder


def frozen_names(config: RunConfig) -> tuple[str, ...]:
  """Returns the names of the networks that a run needs and does not train."""
  return tuple(name for name in _needed(config.part, config.model) if name not in trained_keys(config))


def _needed(part: str, model: ModelConfig) -> tuple[str, ...]:
  """Returns the names of a run's networks; the autoencoder is trained without the others."""
  return ("vae",) if part == "vae" else _NETWORKS + ("refiner",) * (model.own_refiner is not None)


def write_folder(folder: Path, networks: Networks, weights: PyTree, names: tuple[str, ...], dtype: str) -> None:
  """Writes the named networks and the noise schedule as shared models of a folder, with a list of its files."""
  folder.mkdir(parents=True, exist_ok=True)
  models = stored_models(networks.model, {name: weights[name] for name in names})
  write_models(folder, ModelFolder.of_parts({SHARED: models}), dtype)
  write_list(folder, "base")


def is_workdir(folder: Path) -> bool:
  """Whether a folder is a workdir with a checkpoint, or a folder of adapters."""
  return any(_is_trained(folder / part) for part in PARTS)


def has_weights(folder: Path) -> bool:
  """Whether a part's folder, of a workdir or adapters, holds weights that another run can start from."""
  return has_checkpoint(folder) or (folder / LORA_FILE).exists()


def _is_trained(folder: Path) -> bool:
  return (folder / "checkpoints").is_dir() or (folder / LORA_FILE).exists()


def _folder(path: str | Path) -> Path:
  """Returns the existing folder that a user names; see shipped.py."""
  folder = folder_of(path)
  if not os.path.isdir(folder):  # Path.is_dir raises for a name that is too long
    raise UserError(
      f"no folder {one_line(folder)}: give the --workdir of a training run, adapters, or a folder of models"
    )
  return folder


def _missing(folder: Path, part: str) -> list[str]:
  """Returns the names of the networks that `part` needs and a folder of models lacks."""
  found = {name: find_place(folder, part, name) for name in (("vae",) if part == "vae" else _NETWORKS)}
  if part == "head" and found["unet"] and found["unet"].part == SHARED:
    found["unet"] = None  # it is the body's, without the head's input channels
  return [name for name, place in found.items() if place is None]


def _read_saved(folder: Path, part: str, choice: CheckpointChoice) -> Part:
  """Returns a part from a folder of models, with or without the files that `write_person` adds."""
  if choice.step != "newest" or choice.base:
    raise UserError(f"{folder} holds models without checkpoints: omit --checkpoint-step and --base")
  if missing := _missing(folder, part):
    remedy = "python -m anchor_jax.convert from-diffusers adds missing networks"
    raise UserError(f"{folder} holds no {part}, it lacks {', '.join(missing)}: {remedy}")
  sizes, weights = read_models(folder, part)
  saved = (folder / part / STEP).exists()  # else there are no settings; vae/config.json is the network's
  config = (
    read_settings(folder / part) if saved else RunConfig(part=part, data=DataConfig(pose_channels=_kind(part, sizes)))
  )
  config = dataclasses.replace(config, model=dataclasses.replace(ModelConfig(refiner=None), **sizes))
  step = read_json_object(folder / part / STEP).get("step") if saved else 0
  if type(step) is not int:
    raise UserError(f"{folder / part / STEP} holds no step: save the person again")
  reference_image = read_reference_image(folder / part) if saved else None
  return _stored_part(folder / part, config, Networks(config.model, config.dtype), weights, step, reference_image)


def _kind(part: str, sizes: Mapping[str, Any]) -> str:
  """Returns config.data.pose_channels for models without settings, from the pose branch's number of input channels."""
  branch = sizes.get("controlnet")
  return "" if part == "vae" or branch is None else kind_of(branch.conditioning_channels) or ""


def _stored_part(
  folder: Path, config: RunConfig, networks: Networks, weights: PyTree, step: int, reference_image: NdArray | None
) -> Part:
  kind, channels = config.data.pose_channels, networks.model.controlnet.conditioning_channels
  if config.part != "vae" and channels != branch_channels(kind):
    raise UserError(
      f"the pose branch in {folder} takes {channels} channels of an unknown kind: save the person again from the"
      " workdir"
    )
  check_model(networks.model, config.part)
  return Part(config, networks, weights, step, reference_image, texture_of_part(folder, kind), film_plate_of(folder))


def _read_adapted(file: Path, config: RunConfig, base: str) -> tuple[Networks, PyTree, int]:
  """Returns networks with adapters merged into the weights that they change, and the adapters' step."""
  adapters = load_adapters(file)
  base = base or config.init
  try:
    networks, weights = initial_weights(dataclasses.replace(config, init=base, lora=LoRAConfig()))
  except UserError as error:
    raise UserError(f"the weights that {file} changes can't be read: name them with --base=DIR ({error})") from error
  own = {} if adapters.null_context is None else {"null_context": adapters.null_context}
  weights |= own
  if weights_hash({name: weights[name] for name in weights if name not in own}) != adapters.base_hash:
    raise UserError(f"{file} changes other weights than those in {base!r}: name them with --base=DIR")
  try:
    return networks, _merge(weights, {"lora": adapters.tree}, LoRAConfig()), adapters.step
  except (KeyError, TypeError, ValueError) as error:
    raise UserError(f"{file} does not fit the networks it should change: write it again with convert lora") from error


def _merge(frozen: PyTree, trained: PyTree, config: LoRAConfig) -> PyTree:
  return jax.tree.map(np.asarray, merge_weights(frozen, trained, config))


def _read_trained(folder: Path, part: str) -> tuple[dict[str, Any], PyTree]:
  """Returns what `part` starts from in a workdir: itself, else the networks it shares with the parts trained before.

  A part without a checkpoint is ignored, since it may belong to the run that is starting.
  """
  shared = {part: None} if has_weights(folder / part) else {"vae": ("vae",), "body": ("vae", "image_encoder")}
  sizes, weights = {}, {}
  for source, names in shared.items():
    if has_weights(folder / source):
      read = read_part(folder, source)
      names = names or tuple(read.weights)
      settings = [ROLES[name].setting for name in names if ROLES[name].setting]
      sizes |= {name: getattr(read.config.model, name) for name in settings}
      weights |= {name: read.weights[name] for name in names}
      if source == part:
        sizes["schedule"] = read.config.model.schedule
  if not weights:
    raise UserError(f"{folder} holds nothing that {part} can start from: train its {' or '.join(shared)} first")
  return sizes, weights
