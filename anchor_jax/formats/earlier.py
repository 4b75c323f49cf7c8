"""Which files of a folder of models earlier versions wrote; they left no list of them.

Published models have files of the same names, and must stay. But their config.json names the library that wrote it, and
has fields that are not kept here: one that was written here is known by its content, and the weights by being older.
"""

import json
from pathlib import Path
from typing import Any

from anchor_jax.config.networks import CLIPTextConfig, CLIPVisionConfig
from anchor_jax.config.stored import read_settings
from anchor_jax.core.errors import UserError
from anchor_jax.files.manifest import not_newer
from anchor_jax.formats.adapters import FILE as ADAPTERS
from anchor_jax.formats.diffusers import load_network_config, load_schedule, read_json
from anchor_jax.formats.roles import PARTS, ROLES, Kind, all_places
from anchor_jax.formats.tensors import read_metadata

_SCHEDULE = Kind.SCHEDULE.value
_NULL = "null_context.safetensors"
# As the versions that left no lists called them, beside a part's config.json.
_STEP, _PICTURES = "step.json", ("appearance.png", "appearance.safetensors")


def earlier_models(folder: Path) -> set[str]:
  """Returns the names of the files below a folder of models that earlier versions are known to have written."""
  found: dict[str, set[str]] = {"": _network(folder)}
  for place in all_places():
    kind = ROLES[place.role].kind
    if kind is not Kind.ARRAY:
      found[str(place)] = _network(place.path(folder)) if kind is Kind.NETWORK else _schedule(place.path(folder))
  for part in PARTS:
    found[part] = _person(folder / part)
  names = {f"{below}/{name}" if below else name for below, files in found.items() for name in files}
  if found["vae"]:  # the null context comes with a pipeline, whose autoencoder is at the top
    names |= {_NULL, *(f"{part}/{_NULL}" for part in PARTS)}
  return names


def _network(folder: Path) -> set[str]:
  """The files of a network."""
  try:
    config = load_network_config(folder)
    if not _is_ours(folder / "config.json", config.to_json()):
      return set()
  except UserError:
    return set()
  stem = "model" if isinstance(config, (CLIPVisionConfig, CLIPTextConfig)) else "diffusion_pytorch_model"
  return not_newer(folder, ("config.json", f"{stem}.safetensors"), "config.json")


def _schedule(folder: Path) -> set[str]:
  try:
    return {_SCHEDULE} if _is_ours(folder / _SCHEDULE, load_schedule(folder).to_json()) else set()
  except UserError:
    return set()


def _person(folder: Path) -> set[str]:
  """The files of a part beside its networks: of a saved person, or of adapters."""
  try:
    if (folder / ADAPTERS).is_file():
      base = {ADAPTERS} if read_metadata(folder / ADAPTERS).keys() >= {"base", "step"} else set()
    else:
      base = {_STEP} if read_json(folder / _STEP).keys() == {"step"} else set()
    read_settings(folder)
  except UserError:
    return set()
  return base and {*base, "config.json", *_PICTURES}


def _is_ours(file: Path, fields: dict[str, Any]) -> bool:
  """Whether a file's text is what was written here for settings of which `fields` are today's."""
  held = read_json(file)  # a version that knew fewer fields wrote fewer
  return held.keys() <= fields.keys() and file.read_text() == json.dumps(held, indent=2, sort_keys=True) + "\n"
