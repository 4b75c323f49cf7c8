"""The reader and the writer of folders of models; see roles.py for the layout."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from anchor_jax.config.networks import Config, ScheduleConfig
from anchor_jax.config.run import ModelConfig
from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import PyTree
from anchor_jax.files.manifest import Kind as Written
from anchor_jax.files.outputs import check_folder
from anchor_jax.formats import names
from anchor_jax.formats.diffusers import (
  DTYPES,
  load_network_config,
  load_schedule,
  load_tensors,
  save_schedule,
  save_tensors,
)
from anchor_jax.formats.earlier import earlier_models
from anchor_jax.formats.roles import NETWORKS, PARTS, ROLES, SHARED, Kind, Place, all_places, places_of
from anchor_jax.formats.tensors import Tensor, read_safetensors, write_safetensors

MODELS = Written("models", earlier_models)  # what the writers of such folders replace
_ARRAY = ("null_context",)  # path of the one tensor of an array


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
  """What a folder of models holds.

  Attributes:
    models: every model by its place; null contexts and noise schedules are among them.
    ignored: names of subfolders that are of no use here (a tokenizer, ...).
  """

  models: dict[Place, StoredModel] = dataclasses.field(default_factory=dict)
  ignored: tuple[str, ...] = ()

  def find(self, part: str, role: str) -> StoredModel | None:
    """Returns the model that `part` uses: its own, else the shared one, else None."""
    return next((self.models[place] for place in places_of(part, role) if place in self.models), None)

  @classmethod
  def of_parts(cls, parts: Mapping[str, Mapping[str, StoredModel]]) -> "ModelFolder":
    """Returns the folder of a person, from {part: {role: model}}; models that are equal in all parts are shared."""
    folder = cls()
    for role, row in ROLES.items():
      holders = {part: models[role] for part, models in parts.items() if role in models}
      if holders and not row.per_part:
        first, *others = holders.values()
        holders = {SHARED: first} if all(first.equals(other) for other in others) else holders
      folder.models |= {Place(part, role): model for part, model in holders.items()}
    return folder


def stored_models(model: ModelConfig, weights: PyTree) -> dict[str, StoredModel]:
  """Returns {role: model} of a part's networks in memory and its noise schedule."""
  stored = {"scheduler": StoredModel(model.schedule)}
  for role, tree in weights.items():
    flat = names.flatten(tree) if isinstance(tree, Mapping) else {_ARRAY: tree}
    config = getattr(model, ROLES[role].setting) if ROLES[role].setting else None
    stored[role] = StoredModel(config, {path: Tensor.of(leaf) for path, leaf in flat.items()})
  return stored


def open_folder(folder: Path) -> ModelFolder:
  """Opens every model in a folder; no weights are read yet.

  Raises:
    UserError: no such folder, no model there, or models that do not fit their config.json; all of them in one line.
  """
  if not folder.is_dir():
    raise UserError(f"no folder {folder}; give a folder that diffusers or transformers wrote")
  # A network's folder without a config.json is a mistake, and is named.
  places = [place for place in all_places() if place.exists(folder) or place.path(folder).is_dir()]
  opened = ModelFolder(_open(folder, places))
  if not any(place.role in NETWORKS for place in opened.models):
    raise UserError(f"{folder} holds no model: neither config.json nor a subfolder {', '.join(NETWORKS)}")
  used = {str(place) for place in places} | {"body", "head"}
  subfolders = (path.relative_to(folder).as_posix() for part in ("", *PARTS) for path in (folder / part).glob("*/"))
  opened.ignored = tuple(sorted(name for name in subfolders if name not in used))
  return opened


def read_models(folder: Path, part: str) -> tuple[dict[str, Any], PyTree]:
  """Reads all networks that `part` uses in a folder of models.

  Returns:
    (sizes, weights): configurations by their field in ModelConfig, and float32 numpy parameters by network.

  Raises:
    UserError: no such folder, no model in it, or one that can't be read.
  """
  if not folder.is_dir():
    raise UserError(f"no folder {folder}: --config.init takes studio, a folder of diffusers models, or a workdir")
  wanted = (role for role, row in ROLES.items() if row.setting or row.kind is Kind.ARRAY)
  places = [place for role in wanted if (place := find_place(folder, part, role))]
  if not any(place.role in NETWORKS for place in places):
    raise UserError(f"{folder} holds no models (no unet/, vae/, ... with a config.json)")
  sizes, weights = {}, {}
  for place, model in _open(folder, places).items():
    role = ROLES[place.role]
    arrays = {path: tensor.astype(np.float32).read() for path, tensor in model.tensors.items()}
    if role.setting:
      sizes[role.setting] = model.config
    if role.kind is not Kind.SCHEDULE:
      weights[place.role] = arrays[_ARRAY] if role.kind is Kind.ARRAY else names.unflatten(arrays)
  return sizes, weights


def find_place(folder: Path, part: str, role: str) -> Place | None:
  """Returns the place of the model that `part` uses in a folder; None where there is none."""
  return next((place for place in places_of(part, role) if place.exists(folder)), None)


def write_models(folder: Path, models: ModelFolder, dtype: str | None = None) -> None:
  """Writes all models below `folder`; parameters keep their types unless `dtype` names one (see diffusers.DTYPES)."""
  for place, model in models.models.items():
    path, kind = place.path(folder), ROLES[place.role].kind
    if kind is Kind.ARRAY:
      tensor = model.tensors[_ARRAY]
      write_safetensors(path, {_ARRAY[0]: tensor if dtype is None else tensor.astype(DTYPES[dtype])})
    elif kind is Kind.SCHEDULE:
      assert isinstance(model.config, ScheduleConfig)
      save_schedule(path, model.config)
    else:
      assert model.config is not None
      save_tensors(path, model.config, model.tensors, dtype)


def check_target(target: Path) -> None:
  """Raises UserError where replacing the folder `target` by models would lose anything but models that we wrote."""
  trained = [path.parent.name for path in target.glob("*/checkpoints")]
  if trained:
    raise UserError(f"{target} is a workdir with a trained {trained[0]}; choose a new folder")
  check_folder(target, MODELS)


def _open(folder: Path, places: Iterable[Place]) -> dict[Place, StoredModel]:
  opened, complaints = {}, []
  for place in places:
    path, role = place.path(folder), ROLES[place.role]
    try:
      if role.kind is Kind.ARRAY:
        opened[place] = StoredModel(None, _open_array(path))
      elif role.kind is Kind.SCHEDULE:
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
