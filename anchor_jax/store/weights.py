"""Where weights come from and go to: made anew, the shipped ones, a diffusers folder, or a workdir's part.

A folder of models holds diffusers folders; those of one part may stand in a folder named after it:

    vae/  image_encoder/  scheduler/         for both parts
    body/unet/  body/controlnet/  body/null_context.safetensors      (and the same below head/)
"""

import dataclasses
import shutil
from importlib import resources
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import load_file, save_file

from anchor_jax.architecture import CLIPVisionConfig, ControlNetConfig, UNetConfig, VAEConfig
from anchor_jax.config import LoRAConfig, ModelConfig, RunConfig
from anchor_jax.errors import UserError
from anchor_jax.files import new_file
from anchor_jax.models.lora import init_lora, merge_weights
from anchor_jax.models.networks import Networks
from anchor_jax.shapes import NdArray, PyTree, UInt8
from anchor_jax.store import adapters as lora
from anchor_jax.store.diffusers import Model, load_model, load_schedule, save_model, save_schedule, with_own_fields
from anchor_jax.store.workdir import (
  APPEARANCE,
  PARTS,
  read_appearance,
  read_settings,
  read_weights,
  write_settings,
)

_KINDS = {
  "unet": UNetConfig,
  "controlnet": ControlNetConfig,
  "vae": VAEConfig,
  "image_encoder": CLIPVisionConfig,
}


@dataclasses.dataclass(frozen=True)
class CheckpointChoice:
  """Which of a trained part's weights to read.

  Attributes:
    averaged: the averaged ones, if there are any.
    step: see `read_weights`.
    base: what adapters are merged into where they stand alone (see `write_adapters`): as config.init, and by default
      what training started from.
  """

  averaged: bool = True
  step: str = "newest"
  base: str = ""


NEWEST = CheckpointChoice()


@dataclasses.dataclass(frozen=True)
class StoredPart:
  """One part of a person as it is stored: everything that sampling needs, on the host.

  Attributes:
    config: the settings it was trained with; the defaults, with the sizes found, in a folder of diffusers models.
    networks: modules of config.model's sizes.
    weights: all networks' weights by name, numpy, float32; adapters merged in.
    step: of the training; 0 where there is none on record.
    appearance: a picture of the person, uint8 [H W 3]; None in a folder of diffusers models.
  """

  config: RunConfig
  networks: Networks
  weights: PyTree
  step: int
  appearance: UInt8[NdArray, "H W 3"] | None


def shipped() -> Path:
  """The folder of the pre-trained studio weights that come with the package."""
  return Path(str(resources.files("anchor_jax"))) / "weights" / "studio"


def initial_weights(config: RunConfig) -> tuple[Networks, PyTree]:
  """Networks and weights a run starts from, by config.init; sizes found there replace config.model's.

  What config.init doesn't hold is made anew. Raises UserError where it holds nothing for this part.
  """
  found, weights = {}, {}
  if config.init:
    folder = shipped() if config.init == "studio" else Path(config.init)
    found, weights = _read_workdir(folder, config.part) if _is_workdir(folder) else read_models(folder, config.part)
    for name in found.keys() & weights.keys():  # a run may choose remat, temporal layers, ...
      model = with_own_fields(Model(found[name], weights[name]), getattr(config.model, name))
      found[name], weights[name] = model.config, model.params
  networks = Networks(dataclasses.replace(config.model, **found), config.dtype)
  missing = {"unet", "controlnet", "vae", "image_encoder", "null_context"} - weights.keys()
  if missing:
    # XLA's optimiser would take a minute over a program that runs once.
    quick = {"xla_backend_optimization_level": 0}
    made = jax.jit(networks.init, compiler_options=quick)(jax.random.key(config.seed))
    weights |= {name: made[name] for name in missing}
  return networks, with_adapters(weights, config)


def kept_weights(folder: Path) -> PyTree:
  """The networks that a part's run leaves as they are and has written; none before its first start.

  A run goes on from what it began with, whatever has become of config.init since.
  """
  going_on = any(path.name.isdigit() for path in (folder / "checkpoints").glob("*"))
  return (
    read_models(folder / "base", folder.name)[1] if going_on and any((folder / "base").glob("*/config.json")) else {}
  )


def with_adapters(weights: PyTree, config: RunConfig) -> PyTree:
  """The weights, with new adapters beside them where a run trains such; a pure function of config.seed."""
  if not config.lora.rank:
    return weights
  return {**weights, "lora": init_lora(jax.random.fold_in(jax.random.key(config.seed), 1), weights, config.lora)}


def read_models(folder: Path, part: str) -> tuple[dict, PyTree]:
  """(sizes, weights) of all networks for `part` in a folder of diffusers models, each by its name in Networks.

  Raises:
    UserError: there is no such folder, no model in it, or one that can't be read.
  """
  if not folder.is_dir():
    raise UserError(f"no folder {folder}: --config.init takes studio, a folder of diffusers models, or a workdir")
  found, weights = {}, {}
  for name, kind in _KINDS.items():
    place = _place(folder, part, name)
    if place is not None:
      read = load_model(place, kind, np.float32)
      found[name], weights[name] = read.config, read.params
  if not found:
    raise UserError(f"{folder} holds no models (no unet/, vae/, ... with a config.json)")
  scheduler = _place(folder, part, "scheduler")
  if scheduler is not None:
    found["schedule"] = load_schedule(scheduler)
  for place in (folder / part / "null_context.safetensors", folder / "null_context.safetensors"):
    if place.exists():
      weights["null_context"] = load_file(place)["null_context"].astype(np.float32)
      break
  return found, weights


def parts_in(path: str | Path) -> tuple[str, ...]:
  """Which of "vae", "body" and "head" `read_part` can read at `path`.

  Args:
    path: a workdir, a folder of adapters, a folder of diffusers models, or "studio" for the shipped weights.

  Raises:
    UserError: no such folder.
  """
  folder = _folder(path)
  if _is_workdir(folder):
    return tuple(part for part in PARTS if _is_trained(folder / part) and (folder / part / "config.json").exists())
  return tuple(part for part in PARTS if not _lacking(folder, part))


def read_part(path: str | Path, part: str, choice: CheckpointChoice = NEWEST) -> StoredPart:
  """Reads one part of a person.

  Args:
    path: as for `parts_in`.
    part: "vae", "body" or "head".
    choice: which of a workdir's checkpoints, and what adapters are merged into.

  Raises:
    UserError: it isn't there, or doesn't fit together.
  """
  folder = _folder(path)
  if not _is_workdir(folder) and any(_place(folder, place, name) for place in PARTS for name in _KINDS):
    return _read_diffusers(folder, part, choice)
  config = read_settings(folder / part)
  if (folder / part / lora.FILE).exists():
    if choice.step != "newest" or not choice.averaged:
      raise UserError(f"{folder} holds adapters of one step alone: leave --checkpoint-step and --weights out")
    networks, weights, step = _read_adapted(folder / part / lora.FILE, config, choice.base)
  else:
    if choice.base:
      raise UserError(f"--base={choice.base} is for adapters alone, and {folder} is a whole person: leave it out")
    trained, step = read_weights(folder / part, choice.averaged, choice.step)
    frozen = {} if part == "vae" else read_models(folder / part / "base", part)[1]
    networks = Networks(config.model, config.dtype)
    weights = jax.tree.map(np.asarray, merge_weights(frozen, trained, config.lora))
  return StoredPart(config, networks, weights, step, read_appearance(folder / part))


def _folder(path: str | Path) -> Path:
  """The folder that a user names: "studio" is the shipped one, unless there is a folder of that name."""
  folder = Path(path)
  if str(path) == "studio" and not folder.is_dir():
    return shipped()
  if not folder.is_dir():
    raise UserError(f"no folder {folder}: give the --workdir of a training run, adapters, or a folder of models")
  return folder


def _lacking(folder: Path, part: str) -> list[str]:
  """What a folder of diffusers models lacks to be read as `part`."""
  null = any((place / "null_context.safetensors").exists() for place in (folder / part, folder))
  has = {name: _place(folder, part, name) is not None for name in _KINDS} | {"null_context": null}
  if part == "head":  # a UNet that stands for both parts is the body's: the head's has more input channels
    has["unet"] = _place(folder, part, "unet") == folder / "head" / "unet"
  return [name for name in (("vae",) if part == "vae" else has) if not has[name]]


def _read_diffusers(folder: Path, part: str, choice: CheckpointChoice) -> StoredPart:
  if choice.step != "newest" or choice.base:
    raise UserError(f"{folder} holds models without checkpoints: leave --checkpoint-step and --base out")
  if lacking := _lacking(folder, part):
    raise UserError(
      f"{folder} holds no {part}, it lacks {', '.join(lacking)}: anchor_jax.convert from-diffusers adds them"
    )
  sizes, weights = read_models(folder, part)
  config = RunConfig(part=part, model=dataclasses.replace(ModelConfig(), **sizes))
  return StoredPart(config, Networks(config.model, config.dtype), weights, 0, None)


def write_adapters(
  workdir: Path, part: str, target: Path, which: CheckpointChoice = NEWEST, dtype: str = "float32"
) -> None:
  """Writes what a run with config.lora learned, without the networks it changes, to TARGET/PART.

  Raises:
    UserError: the part was not trained with adapters.
  """
  config = read_settings(workdir / part)
  if not config.lora.rank:
    raise UserError(f"{workdir / part} was trained as a whole: only a run with --config.lora.rank=N has adapters")
  trained, step = read_weights(workdir / part, which.averaged, which.step)
  frozen = read_models(workdir / part / "base", part)[1]
  scaled = jax.tree_util.tree_map_with_path(
    lambda path, leaf: leaf * np.float32(config.lora.scale) if path[-1].key == "up" else leaf, trained["lora"]
  )
  mark = lora.fingerprint(frozen)
  lora.save_adapters(target / part / lora.FILE, lora.Adapters(scaled, trained.get("null_context"), mark, step), dtype)
  write_settings(target / part, config)
  shutil.copyfile(workdir / part / APPEARANCE, target / part / APPEARANCE)


def _read_adapted(file: Path, config: RunConfig, base: str) -> tuple[Networks, PyTree, int]:
  adapters = lora.load_adapters(file)
  base = base or config.init
  try:
    networks, weights = initial_weights(dataclasses.replace(config, init=base, lora=LoRAConfig()))
  except UserError as error:
    raise UserError(f"{file} changes weights that are not to be had: say with --base=DIR where ({error})") from error
  carried = {} if adapters.null_context is None else {"null_context": adapters.null_context}
  weights |= carried
  if lora.fingerprint({name: weights[name] for name in weights if name not in carried}) != adapters.base:
    raise UserError(
      f"{file} changes other weights than those in {base!r}: say with --base=DIR what it was trained from"
    )
  merged = merge_weights(weights, {"lora": adapters.tree}, LoRAConfig())
  return networks, jax.tree.map(np.asarray, merged), adapters.step


def _is_workdir(folder: Path) -> bool:
  return any(_is_trained(folder / part) for part in PARTS)


def _is_trained(folder: Path) -> bool:
  """Whether a part's folder holds checkpoints, or adapters."""
  return (folder / "checkpoints").is_dir() or (folder / lora.FILE).exists()


def _read_workdir(folder: Path, part: str) -> tuple[dict, PyTree]:
  """What `part` can start from in a workdir: itself, else the frozen networks that other parts trained before it."""
  if _is_trained(folder / part):
    read = read_part(folder, part)
    return {name: getattr(read.config.model, name) for name in (*_KINDS, "schedule")}, read.weights
  found, weights = {}, {}
  for other, names in (("vae", ("vae",)), ("body", ("vae", "image_encoder"))):
    if _is_trained(folder / other):
      read = read_part(folder, other)
      found |= {name: getattr(read.config.model, name) for name in names}
      weights |= {name: read.weights[name] for name in names}
  return found, weights


def write_folder(folder: Path, networks: Networks, weights: PyTree, names: tuple[str, ...], dtype: str) -> None:
  """Writes the named networks below `folder` as diffusers folders, and the noise schedule."""
  folder.mkdir(parents=True, exist_ok=True)
  for name in names:
    if name == "null_context":
      with new_file(folder / "null_context.safetensors") as path:
        save_file({"null_context": np.asarray(weights[name], dtype)}, path)
    else:
      save_model(folder / name, getattr(networks.model, name), weights[name], dtype)
  save_schedule(folder / "scheduler", networks.model.schedule)


def trained_keys(config: RunConfig) -> tuple[str, ...]:
  """Which networks a run trains; the others are frozen."""
  if config.part == "vae":
    return ("vae",)
  networks = ("lora",) if config.lora.rank else ("unet", "controlnet")
  # Without dropout the null branch gets no gradient, and weight decay alone would wear it away.
  return networks + ("null_context",) * (config.condition_dropout > 0) + ("image_encoder",) * config.train_image_encoder


def frozen_names(config: RunConfig) -> tuple[str, ...]:
  """The networks that a run needs and doesn't train."""
  needed = ("vae",) if config.part == "vae" else ("unet", "controlnet", "null_context", "vae", "image_encoder")
  return tuple(name for name in needed if name not in trained_keys(config))


def _place(folder: Path, part: str, name: str) -> Path | None:
  for place in (folder / part / name, folder / name):
    if (place / "config.json").exists() or (place / "scheduler_config.json").exists():
      return place
  return None
