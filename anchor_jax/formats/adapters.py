"""Adapter files: low-rank changes of networks, under the names by which diffusers and PEFT load them.

`unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight` [rank in] and `...lora_B.weight`
[out rank], with alpha equal to the rank: the scale is multiplied into lora_B. Those of the pose branch begin with
`controlnet.`; null_context [N D] is ours.
"""

import dataclasses
import hashlib
import re
from pathlib import Path

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Float, NdArray, PyTree
from anchor_jax.formats import names
from anchor_jax.formats.diffusers import DTYPES
from anchor_jax.formats.tensors import Tensor, read_metadata, read_safetensors, write_safetensors

FILE = "lora.safetensors"
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"


@dataclasses.dataclass(frozen=True)
class Adapters:
  """What a file of adapters holds.

  Attributes:
    tree: {network: {... layer: {down, up}}}, to be merged with scale 1; see models/lora.py.
    null_context: [N D], where it was trained.
    base_hash: `weights_hash` of the networks that they change.
    step: optimiser steps they were trained for.
  """

  tree: PyTree
  null_context: Float[NdArray, "N D"] | None
  base_hash: str
  step: int


def save_adapters(file: Path, adapters: Adapters, dtype: str = "float32") -> None:
  """Writes adapters to `file`; `dtype` is one of `diffusers.DTYPES`."""
  tensors: dict[str, NdArray] = {}
  flat = {path: np.asarray(value) for path, value in names.flatten(adapters.tree).items()}
  for path, value in flat.items():
    name = names.torch_name((*path[:-1], "kernel")).removesuffix(".weight")
    if path[-1] == "up" and flat[*path[:-1], "down"].ndim == 4:  # in torch a convolution's second factor is 1x1
      value = value[None, None]
    tensors[name + (_DOWN if path[-1] == "down" else _UP)] = names.to_torch(("kernel",), value)
  if adapters.null_context is not None:
    tensors["null_context"] = np.asarray(adapters.null_context)
  ready = {name: Tensor.of(value).astype(DTYPES[dtype]) for name, value in tensors.items()}
  write_safetensors(file, ready, {"format": "pt", "base": adapters.base_hash, "step": str(adapters.step)})


def load_adapters(file: Path) -> Adapters:
  """Reads what `save_adapters` wrote; float32.

  Raises:
    UserError: the file is damaged, or not one that `save_adapters` wrote.
  """
  tensors = {name: tensor.astype(np.float32).read() for name, tensor in read_safetensors(file).items()}
  metadata = read_metadata(file)
  null_context = tensors.pop("null_context", None)
  if null_context is not None and null_context.ndim != 2:
    raise UserError(f"{file} holds a null_context of shape {list(null_context.shape)}, not [N D]: write it again")
  flat: dict[names.Path, NdArray] = {}
  for name, value in tensors.items():
    side = "down" if name.endswith(_DOWN) else "up" if name.endswith(_UP) else None
    layer = tuple(re.sub(r"\.(\d+)", r"_\1", name.removesuffix(_DOWN).removesuffix(_UP)).split("."))
    if side is None or layer[0] not in ("unet", "controlnet") or value.ndim not in (2, 4):
      raise UserError(f"{file} holds {name!r}, which is no adapter: write the file with anchor_jax.convert lora")
    value = names.from_torch(("kernel",), value)
    flat[*layer, side] = value.reshape(value.shape[-2:]) if side == "up" else value
  incomplete = [path for path in flat if (*path[:-1], "up" if path[-1] == "down" else "down") not in flat]
  if incomplete:
    raise UserError(f"{file} holds half of the adapter of {'/'.join(incomplete[0][:-1])}: write it again")
  if not flat or not re.fullmatch("[0-9]{1,18}", metadata.get("step", "")):
    raise UserError(f"{file} holds no adapters that can be read here: write it with anchor_jax.convert lora")
  return Adapters(names.unflatten(flat), null_context, metadata.get("base", ""), int(metadata["step"]))


def weights_hash(weights: PyTree) -> str:
  """SHA-256 of networks' parameters in float32, with their names; another for any other number in them."""
  digest = hashlib.sha256()
  for path, leaf in sorted(names.flatten(weights).items()):
    digest.update("/".join(path).encode())
    digest.update(np.ascontiguousarray(leaf, np.float32).data)
  return digest.hexdigest()
