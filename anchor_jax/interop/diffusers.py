"""Folders of diffusers and transformers: config.json beside safetensors, one folder a model.

Reading is strict: every missing, unexpected and mis-shaped key is named, and nothing is loaded. Nothing is unpickled.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from anchor_jax.architecture import Config, ScheduleConfig
from anchor_jax.errors import UserError
from anchor_jax.interop import names
from anchor_jax.interop.registry import parameter_shapes, read_config
from anchor_jax.shapes import NdArray

_STEMS = ("diffusion_pytorch_model", "model")  # what diffusers and transformers call their weight files
# Buffers, and heads behind the towers' last hidden state: in the files, in none of our networks.
_LEFT_OUT = ("position_ids", "visual_projection.weight", "text_projection.weight", "logit_scale")


@dataclasses.dataclass(frozen=True)
class Model:
  """One network read from a folder: its configuration and its nested parameters, in the type they were stored in."""

  config: Config
  params: dict[str, Any]


def read_json(path: Path) -> dict[str, Any]:
  """A JSON object.

  Raises:
    UserError: there is none, or it is damaged.
  """
  try:
    fields = json.loads(path.read_text())
  except FileNotFoundError:
    raise UserError(f"{path} does not exist; give a folder that diffusers or transformers wrote") from None
  except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
    raise UserError(f"{path} cannot be read as JSON ({error}); fetch it again") from None
  if not isinstance(fields, dict):
    raise UserError(f"{path} holds no JSON object; fetch it again")
  return fields


def load_schedule(folder: str | Path) -> ScheduleConfig:
  """The noise schedule in a `scheduler` folder (DDIM's or PNDM's)."""
  return ScheduleConfig.from_json(read_json(Path(folder) / "scheduler_config.json"))


def load_model(folder: str | Path, kind: type[Config] | None = None, dtype: Any = None) -> Model:
  """Reads one model's folder.

  Args:
    folder: holds config.json and the weights.
    kind: the configuration class to insist on.
    dtype: to cast parameters to; as stored without it.

  Raises:
    UserError: no such folder, another class, weights that are damaged or do not fit config.json.
  """
  folder = Path(folder)
  config = read_config(read_json(folder / "config.json"), folder.name)
  if kind is not None and not isinstance(config, kind):
    raise UserError(f"{folder} holds a {config.class_name}, not a {kind.class_name}; give the right folder")
  tensors = dict(_tensors(folder))
  return Model(config, names.unflatten(_fit(config, tensors, folder, dtype)))


def _fit(config: Config, tensors: dict[str, NdArray], folder: Path, dtype: Any) -> dict[names.Path, NdArray]:
  """Files' tensors under our paths, or one error that lists all that is wrong."""
  expected = {names.torch_name(path): (path, shape) for path, shape in parameter_shapes(config).items()}
  found: dict[names.Path, NdArray] = {}
  wrong: list[str] = []
  unexpected: list[str] = []
  for name in list(tensors):
    value = tensors.pop(name)  # let go of each as soon as it is turned: a full-size UNet is 3.4 GB
    if name not in expected:
      if not name.endswith(_LEFT_OUT) and not _other_tower(name, expected):
        unexpected.append(name)
      continue
    path, shape = expected[name]
    wanted = names.torch_shape(path, shape)
    if value.shape != wanted:
      wrong.append(f"{name} is {list(value.shape)} and not {list(wanted)}")
      continue
    found[path] = names.from_torch(path, value if dtype is None else value.astype(dtype))
  missing = [name for name, (path, _) in expected.items() if path not in found and not any(
    line.startswith(name + " is ") for line in wrong)]
  complaints = [
    f"{title}: {', '.join(sorted(lines))}"
    for title, lines in (("missing", missing), ("unexpected", unexpected), ("mis-shaped", wrong))
    if lines
  ]
  if complaints:
    raise UserError(f"weights in {folder} do not fit its config.json; {'; '.join(complaints)}")
  return found


def _other_tower(name: str, expected: Mapping[str, Any]) -> bool:
  """Whether a key belongs to the other half of a whole CLIP model."""
  towers = ("text_model.", "vision_model.")
  return name.startswith(towers) and not next(iter(expected)).startswith(name.split(".")[0])


def _tensors(folder: Path) -> Iterator[tuple[str, NdArray]]:
  for file in _weight_files(folder):
    try:
      with safe_open(file, "numpy") as opened:
        for name in opened.keys():
          yield name, opened.get_tensor(name)
    except (SafetensorError, OSError) as error:
      raise UserError(f"{file} is damaged or cut short ({error}); fetch it again") from None


def _weight_files(folder: Path) -> list[Path]:
  for stem in _STEMS:
    for infix in ("", ".fp16"):
      single = folder / f"{stem}{infix}.safetensors"
      if single.exists():
        return [single]
  raise UserError(f"{folder} has no diffusion_pytorch_model.safetensors or model.safetensors")
