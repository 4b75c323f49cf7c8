"""Reads and writes one model's folder as diffusers and transformers do: config.json beside the weights.

Reading is strict: an error names every missing, unexpected and mis-shaped key, and nothing is loaded. Nothing is
unpickled.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from anchor_jax.config.networks import CLIPTextConfig, CLIPVisionConfig, Config, ScheduleConfig
from anchor_jax.core.errors import UserError, suggestion
from anchor_jax.core.shapes import PyTree
from anchor_jax.files import inputs
from anchor_jax.files.outputs import new_file
from anchor_jax.formats import names
from anchor_jax.formats.registry import parameter_shapes, parse_network_config
from anchor_jax.formats.roles import WEIGHT_TYPES
from anchor_jax.formats.tensors import Tensor, read_tensors, write_safetensors
from anchor_jax.models.temporal import initial_temporal_parameter, is_temporal

DTYPES: dict[str, Any] = dict(zip(WEIGHT_TYPES, (np.float32, np.float16, ml_dtypes.bfloat16), strict=True))
# Buffers, and heads on top of the towers' last hidden state: in the files, but not in the networks.
_LEFT_OUT = ("position_ids", "visual_projection.weight", "text_projection.weight", "logit_scale")
# The autoencoder's attention in files written before diffusers 0.18.
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_TOWER_MODULES = ("embeddings", "encoder", "pre_layrnorm", "post_layernorm", "final_layer_norm")


@dataclasses.dataclass(frozen=True)
class Model:
  """One network read from a folder.

  Attributes:
    config: its architecture.
    params: its parameters, nested; numpy arrays.
  """

  config: Config
  params: dict[str, Any]


def read_json_object(path: Path) -> dict[str, Any]:
  """Returns the JSON object in a file.

  Raises:
    UserError: there is no such file, or it is damaged.
  """
  if not os.path.lexists(path):
    raise UserError(f"{path} does not exist; give a folder that diffusers or transformers wrote")
  fields = inputs.read_json(path, remedy="fetch it again", nan=True)
  if not isinstance(fields, dict):
    raise UserError(f"{path} holds no JSON object; fetch it again")
  return fields


def write_json(path: Path, fields: Mapping[str, Any]) -> None:
  """Writes a JSON object as diffusers and transformers do; the file is renamed to `path` once it is complete."""
  with new_file(path) as partial:
    partial.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")


def load_schedule(folder: str | Path) -> ScheduleConfig:
  """Returns the noise schedule in a `scheduler` folder (DDIM's or PNDM's)."""
  return ScheduleConfig.from_json(read_json_object(Path(folder) / "scheduler_config.json"))


def save_schedule(folder: str | Path, schedule: ScheduleConfig) -> None:
  """Writes a `scheduler` folder."""
  write_json(Path(folder) / "scheduler_config.json", schedule.to_json())


def load_network_config(folder: str | Path, kind: type[Config] | None = None) -> Config:
  """Returns the architecture in a model's folder.

  Raises:
    UserError: no such folder, a class other than `kind`, or an unsupported architecture.
  """
  folder = Path(folder)
  config = parse_network_config(read_json_object(folder / "config.json"), folder.name)
  if kind is not None and not isinstance(config, kind):
    raise UserError(f"{folder} holds a {config.class_name}, not a {kind.class_name}; give the right folder")
  return config


def load_model(
  folder: str | Path, kind: type[Config] | None = None, dtype: Any = None, run_as: Config | None = None
) -> Model:
  """Returns the model in a folder.

  Args:
    folder: holds config.json and the weights.
    kind: the required configuration class.
    dtype: type to cast parameters to; None leaves them as stored.
    run_as: a configuration whose own fields replace the model's, see `with_own_fields`.

  Raises:
    UserError: no such folder, another class, or weights that are damaged or do not fit config.json.
  """
  config = load_network_config(folder, kind)
  params = {}
  for path, tensor in load_tensors(folder, config).items():
    params[path] = tensor.read() if dtype is None else tensor.astype(dtype).read()
  model = Model(config, unflatten_dict(params))
  return model if run_as is None else with_own_fields(model, run_as)


def with_own_fields(model: Model, run_as: Config) -> Model:
  """Returns the model with `run_as`'s values of fields that diffusers lacks, and with untrained temporal layers if new.

  Raises:
    UserError: the temporal layers of `run_as` have another size than the model's.
  """
  config = model.config.with_own_fields(run_as)
  params: dict[names.Path, Any] = {**flatten_dict(model.params)}
  for path, shape in parameter_shapes(config).items():
    if path not in params and is_temporal(path):
      params[path] = initial_temporal_parameter(path, shape)
  return Model(config, unflatten_dict(params))


def load_tensors(folder: str | Path, config: Config) -> dict[names.Path, Tensor]:
  """Returns {path: parameter} of a model with Flax's names and axes, not read yet; exactly those of its config.json.

  Raises:
    UserError: one line with every missing, unexpected and mis-shaped key.
  """
  folder = Path(folder)
  named = _torch_named(read_tensors(folder), config)
  return fit_tensors(named, config, f"the weights in {folder} do not fit its config.json", f"{folder / 'config.json'}")


def fit_tensors(
  named: Mapping[str, tuple[str, Tensor]], config: Config, misfit: str, described: str
) -> dict[names.Path, Tensor]:
  """Returns {path: parameter} with Flax's names and axes, not read yet; exactly those of an architecture.

  Args:
    named: {torch's name: (name in the file, tensor with torch's axes)}; the other tower of a CLIP model is ignored.
    config: the architecture.
    misfit: start of the message when parameters and architecture don't fit.
    described: source of the architecture, for messages.

  Raises:
    UserError: one line with every missing, unexpected and mis-shaped key.
  """
  try:
    shapes = parameter_shapes(config)
  except (TypeError, ValueError, ArithmeticError, IndexError) as error:  # impossible sizes
    reason = " ".join(str(error).split())[:200]
    raise UserError(f"{described} describes no {config.class_name} that can be built ({reason})") from None
  expected = {names.torch_name(path): (path, shape) for path, shape in shapes.items()}
  params: dict[names.Path, Tensor] = {}
  unexpected, wrong = [], []
  for name, (key, tensor) in named.items():
    if name not in expected:
      if not name.endswith(_LEFT_OUT) and not _of_other_tower(name, config):
        unexpected.append(key)
      continue
    path, shape = expected[name]
    torch_shape = names.torch_shape(path, shape)
    if tensor.shape == (*torch_shape, 1, 1):  # the oldest autoencoders have dense layers as 1x1 convolutions
      tensor = tensor.then(torch_shape, lambda array: array[..., 0, 0])
    params[path] = tensor.then(shape, lambda array, path=path: names.from_torch(path, array))
    if tensor.shape != torch_shape:
      wrong.append(f"{key} is {list(tensor.shape)} and not {list(torch_shape)}")
  missing = [name for name, (path, _) in expected.items() if path not in params]
  complaints = [
    f"{title}: {', '.join(sorted(keys))}"
    for title, keys in (("missing", missing), ("unexpected", unexpected), ("mis-shaped", wrong))
    if keys
  ]
  if complaints:
    raise UserError(f"{misfit}; {'; '.join(complaints)}")
  return {path: params[path] for _, (path, _) in expected.items()}


def _torch_named(tensors: Mapping[str, Tensor], config: Config) -> dict[str, tuple[str, Tensor]]:
  """Returns {torch name: (name in the file, tensor with torch's axes)}."""
  tower = {CLIPVisionConfig: "vision_model", CLIPTextConfig: "text_model"}.get(type(config), "")
  named = {}
  for key, tensor in tensors.items():
    name = key
    parts = name.split(".")
    if "attentions" in parts and parts[-2] in _OLD_ATTENTION:
      name = ".".join((*parts[:-2], _OLD_ATTENTION[parts[-2]], parts[-1]))
    if tower and parts[0] in _TOWER_MODULES:  # transformers drops the prefix since 5.0
      name = f"{tower}.{name}"
    named[name] = (key, tensor)
  return named


def _of_other_tower(name: str, config: Config) -> bool:
  """Whether a key belongs to the other tower, in a file with both of CLIP's."""
  if isinstance(config, CLIPVisionConfig):
    return name.startswith("text_model.")
  return isinstance(config, CLIPTextConfig) and name.startswith("vision_model.")


def save_model(folder: str | Path, config: Config, params: PyTree, dtype: str | None = None) -> None:
  """Writes a model as diffusers or transformers would: config.json and one safetensors file.

  Args:
    folder: created if missing.
    config: its architecture.
    params: its parameters, nested.
    dtype: "float32", "float16" or "bfloat16"; None leaves each parameter's type.

  Raises:
    UserError: the folder cannot be written, a value does not fit the type, or the parameters do not fit `config`.
  """
  save_tensors(folder, config, {path: Tensor.of(leaf) for path, leaf in flatten_dict(params).items()}, dtype)


def save_tensors(
  folder: str | Path, config: Config, tensors: Mapping[names.Path, Tensor], dtype: str | None = None
) -> None:
  """Writes a model as `save_model` does, from tensors that are read one at a time."""
  if dtype is not None and dtype not in DTYPES:
    raise UserError(f"weights are written as {', '.join(DTYPES)}, not {dtype!r}.{suggestion(dtype, DTYPES)}")
  expected = parameter_shapes(config)
  wrong = sorted(
    "/".join(path)
    for path in expected.keys() | tensors.keys()
    if path not in tensors or expected.get(path) != tensors[path].shape
  )
  if wrong:
    raise UserError(f"these parameters do not fit the {config.class_name} they should be: {', '.join(wrong)}")
  stored = {}
  for path, tensor in tensors.items():
    torch_tensor = tensor.then(names.torch_shape(path, tensor.shape), lambda a, path=path: names.to_torch(path, a))
    stored[names.torch_name(path)] = torch_tensor if dtype is None else torch_tensor.astype(DTYPES[dtype])
  of_clip = isinstance(config, (CLIPVisionConfig, CLIPTextConfig))
  stem = "model" if of_clip else "diffusion_pytorch_model"
  folder = Path(folder)
  write_safetensors(folder / f"{stem}.safetensors", stored, {"format": "pt"})
  write_json(folder / "config.json", config.to_json())
