"""Reads and writes folders of models; roles.py has the layout."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from anchor_jax.config.networks import CLIPTextConfig, CLIPVisionConfig, Config, ScheduleConfig
from anchor_jax.config.run import ModelConfig
from anchor_jax.config.stored import read_settings
from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import PyTree
from anchor_jax.files.manifest import FolderKind, not_newer
from anchor_jax.files.outputs import check_folder
from anchor_jax.formats import names
from anchor_jax.formats.diffusers import (
  DTYPES,
  load_network_config,
  load_schedule,
  load_tensors,
  read_json_object,
  save_schedule,
  save_tensors,
)
from anchor_jax.formats.roles import (
  LORA_FILE,
  NETWORK_ROLES,
  PERSON_PARTS,
  ROLES,
  SHARED,
  ModelPlace,
  Storage,
  all_places,
  places_of,
)
from anchor_jax.formats.tensors import Tensor, read_metadata, read_safetensors, write_safetensors

_ARRAY = ("null_context",)  # path of the one tensor of an array
_SCHEDULE = Storage.SCHEDULE.value
_NULL = "null_context.safetensors"
_STEP, _PICTURES = "step.json", ("appearance.png", "appearance.safetensors")  # beside a part's config.json


@dataclasses.dataclass(frozen=True)
class StoredModel:
  """One model of a folder.

  Attributes:
    config: sizes of a network, or a noise schedule; None for an array.
    tensors: parameters by path, not read yet; none for a schedule.
  """

  config: Config | None
  tensors: Mapping[names.Path, Tensor] = dataclasses.field(default_factory=dict)

  def equals(self, other: "StoredModel") -> bool:
    """Whether both compute the same: equal configurations and tensors, bit for bit."""
    if self.config != other.config or self.tensors.keys() != other.tensors.keys():
      return False
    same = lambda a, b: a.shape == b.shape and a.dtype == b.dtype and np.array_equal(a.read(), b.read(), equal_nan=True)
    return all(same(tensor, other.tensors[path]) for path, tensor in self.tensors.items())


@dataclasses.dataclass
class ModelFolder:
  """The models of a folder.

  Attributes:
    models: by place; these include null contexts and noise schedules.
    ignored: names of subfolders that are not used (a tokenizer, ...).
  """

  models: dict[ModelPlace, StoredModel] = dataclasses.field(default_factory=dict)
  ignored: tuple[str, ...] = ()

  def find(self, part: str, role: str) -> StoredModel | None:
    """Returns the model that `part` uses, its own or the shared one; None without either."""
    return next((self.models[place] for place in places_of(part, role) if place in self.models), None)

  @classmethod
  def of_parts(cls, parts: Mapping[str, Mapping[str, StoredModel]]) -> "ModelFolder":
    """Returns the folder of a person from {part: {role: model}}; models equal in all parts are shared."""
    folder = cls()
    for role, row in ROLES.items():
      holders = {part: models[role] for part, models in parts.items() if role in models}
      if holders and not row.per_part:
        first, *rest = holders.values()
        holders = {SHARED: first} if all(first.equals(model) for model in rest) else holders
      folder.models |= {ModelPlace(part, role): model for part, model in holders.items()}
    return folder


def stored_models(model: ModelConfig, weights: PyTree) -> dict[str, StoredModel]:
  """Returns {role: model} of a part's networks and noise schedule."""
  stored = {"scheduler": StoredModel(model.schedule)}
  for role, tree in weights.items():
    flat = flatten_dict(tree) if isinstance(tree, Mapping) else {_ARRAY: tree}
    config = getattr(model, ROLES[role].setting) if ROLES[role].setting else None
    stored[role] = StoredModel(config, {path: Tensor.of(leaf) for path, leaf in flat.items()})
  return stored


def open_folder(folder: Path) -> ModelFolder:
  """Returns every model in a folder; weights are read later.

  Raises:
    UserError: no such folder, no model in it, or models that do not fit their config.json, all listed in one line.
  """
  if not folder.is_dir():
    raise UserError(f"no folder {folder}; give a folder that diffusers or transformers wrote")
  # A network's folder without a config.json is reported as a mistake.
  places = [place for place in all_places() if place.exists(folder) or place.path(folder).is_dir()]
  opened = ModelFolder(_open(folder, places))
  if not any(place.role in NETWORK_ROLES for place in opened.models):
    raise UserError(f"{folder} holds no model: neither config.json nor a subfolder {', '.join(NETWORK_ROLES)}")
  used = {str(place) for place in places} | {"body", "head"}
  subfolders = (
    path.relative_to(folder).as_posix() for part in ("", *PERSON_PARTS) for path in (folder / part).glob("*/")
  )
  opened.ignored = tuple(sorted(name for name in subfolders if name not in used))
  return opened


def read_models(folder: Path, part: str) -> tuple[dict[str, Any], PyTree]:
  """Returns the networks that `part` uses in a folder of models, and their sizes.

  Returns:
    (sizes, weights): configurations by their field in ModelConfig, and float32 numpy parameters by network.

  Raises:
    UserError: no such folder, no model in it, or one that can't be read.
  """
  if not folder.is_dir():
    raise UserError(f"no folder {folder}: --config.init takes studio, a folder of diffusers models, or a workdir")
  roles = (name for name, role in ROLES.items() if role.setting or role.storage is Storage.ARRAY)
  places = [place for role in roles if (place := find_place(folder, part, role))]
  if not any(place.role in NETWORK_ROLES for place in places):
    raise UserError(f"{folder} holds no models (no unet/, vae/, ... with a config.json)")
  sizes, weights = {}, {}
  for place, model in _open(folder, places).items():
    role = ROLES[place.role]
    arrays = {path: tensor.astype(np.float32).read() for path, tensor in model.tensors.items()}
    if role.setting:
      sizes[role.setting] = model.config
    if role.storage is not Storage.SCHEDULE:
      weights[place.role] = arrays[_ARRAY] if role.storage is Storage.ARRAY else unflatten_dict(arrays)
  return sizes, weights


def find_place(folder: Path, part: str, role: str) -> ModelPlace | None:
  """Returns the place of the model that `part` uses in a folder; None without one."""
  return next((place for place in places_of(part, role) if place.exists(folder)), None)


def write_models(folder: Path, models: ModelFolder, dtype: str | None = None) -> None:
  """Writes all models to `folder`; parameters keep their types unless `dtype` is given (see diffusers.DTYPES)."""
  for place, model in models.models.items():
    path, storage = place.path(folder), ROLES[place.role].storage
    if storage is Storage.ARRAY:
      tensor = model.tensors[_ARRAY]
      write_safetensors(path, {_ARRAY[0]: tensor if dtype is None else tensor.astype(DTYPES[dtype])})
    elif storage is Storage.SCHEDULE:
      assert isinstance(model.config, ScheduleConfig)
      save_schedule(path, model.config)
    else:
      assert model.config is not None
      save_tensors(path, model.config, model.tensors, dtype)


def check_models_target(target: Path) -> None:
  """Raises UserError if replacing the folder `target` would delete anything but models written by this package."""
  trained = [path.parent.name for path in target.glob("*/checkpoints")]
  if trained:
    raise UserError(f"{target} is a workdir with a trained {trained[0]}; choose a new folder")
  check_folder(target, MODELS)


def _open(folder: Path, places: Iterable[ModelPlace]) -> dict[ModelPlace, StoredModel]:
  opened, complaints = {}, []
  for place in places:
    path, role = place.path(folder), ROLES[place.role]
    try:
      if role.storage is Storage.ARRAY:
        opened[place] = StoredModel(None, _open_array(path))
      elif role.storage is Storage.SCHEDULE:
        opened[place] = StoredModel(load_schedule(path))
      else:
        config = load_network_config(path, role.config)
        opened[place] = StoredModel(config, load_tensors(path, config))
    except UserError as error:
      complaints.append(str(error))
  if complaints:
    raise UserError(" | ".join(complaints))
  return opened


def _open_array(file: Path) -> dict[names.Path, Tensor]:
  tensors = read_safetensors(file)
  if list(tensors) != [_ARRAY[0]] or len(tensors[_ARRAY[0]].shape) != 2:
    shown = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in sorted(tensors.items())[:4])
    raise UserError(
      f"{file} holds {shown or 'nothing'}, not the one [N D] array null_context; convert the models again"
    )
  return {_ARRAY: tensors[_ARRAY[0]]}


def _legacy_files(folder: Path) -> set[str]:
  """Returns the names of the files in a folder of models that versions without lists of files wrote.

  Published models have files of the same names, and must not be replaced. But their config.json names the library that
  wrote it and has fields that are not saved here: a config.json written here is recognized by its content, and its
  weights by being older.
  """
  found: dict[str, set[str]] = {"": _legacy_network(folder)}
  for place in all_places():
    storage, path = ROLES[place.role].storage, place.path(folder)
    if storage is not Storage.ARRAY:
      found[str(place)] = _legacy_network(path) if storage is Storage.NETWORK else _legacy_schedule(path)
  for part in PERSON_PARTS:
    found[part] = _legacy_part(folder / part)
  names_ = {f"{below}/{name}" if below else name for below, files in found.items() for name in files}
  if found["vae"]:  # a null context comes with a pipeline, whose autoencoder is at the top
    names_ |= {_NULL, *(f"{part}/{_NULL}" for part in PERSON_PARTS)}
  return names_


def _legacy_network(folder: Path) -> set[str]:
  try:
    config = load_network_config(folder)
    if not _written_here(folder / "config.json", config.to_json()):
      return set()
  except UserError:
    return set()
  stem = "model" if isinstance(config, (CLIPVisionConfig, CLIPTextConfig)) else "diffusion_pytorch_model"
  return not_newer(folder, ("config.json", f"{stem}.safetensors"), "config.json")


def _legacy_schedule(folder: Path) -> set[str]:
  try:
    return {_SCHEDULE} if _written_here(folder / _SCHEDULE, load_schedule(folder).to_json()) else set()
  except UserError:
    return set()


def _legacy_part(folder: Path) -> set[str]:
  """Returns the files of a part beside its networks, or its adapters."""
  try:
    if (folder / LORA_FILE).is_file():
      marker = {LORA_FILE} if read_metadata(folder / LORA_FILE).keys() >= {"base", "step"} else set()
    else:
      marker = {_STEP} if read_json_object(folder / _STEP).keys() == {"step"} else set()
    read_settings(folder)
  except UserError:
    return set()
  return marker and {*marker, "config.json", *_PICTURES}


def _written_here(file: Path, fields: dict[str, Any]) -> bool:
  """Whether a file was written here: its text is as `write_json` formats it, and it has no fields but `fields`."""
  stored = read_json_object(file)  # older versions had fewer fields
  return stored.keys() <= fields.keys() and file.read_text() == json.dumps(stored, indent=2, sort_keys=True) + "\n"


MODELS = FolderKind("models", _legacy_files)  # the folders that `write_models` replaces
