"""Converts between torch's parameter names and axes and ours.

Ours are torch's dotted names with `.3` written `_3`; a module's `weight` is `kernel` (convolutions and dense layers,
axes permuted), `scale` (norms) or `embedding`. Nothing else differs, so no table of names is needed.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from anchor_jax.core.shapes import NdArray

Path = tuple[str, ...]

_LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
_OWN_UNDERSCORE = ("linear_1", "linear_2")  # torch's own names for the two time embedding layers


def torch_name(path: Path) -> str:
  """`("down_blocks_0", "conv1", "kernel")` -> `"down_blocks.0.conv1.weight"`."""
  modules = [m if m in _OWN_UNDERSCORE else re.sub(r"_(\d+)$", r".\1", m) for m in path[:-1]]
  return ".".join((*modules, _LEAVES.get(path[-1], path[-1])))


def torch_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, ...]:
  """The shape in which torch stores the parameter at `path`, of our `shape`."""
  if path[-1] != "kernel":
    return tuple(shape)
  return (shape[1], shape[0]) if len(shape) == 2 else (shape[3], shape[2], shape[0], shape[1])


def to_torch(path: Path, value: NdArray) -> NdArray:
  """Permutes a kernel's axes to torch's: HWIO -> OIHW, in-out -> out-in; other parameters are returned as they are."""
  if path[-1] != "kernel":
    return value
  return np.ascontiguousarray(value.T if value.ndim == 2 else value.transpose(3, 2, 0, 1))


def from_torch(path: Path, value: NdArray) -> NdArray:
  """The inverse of `to_torch`."""
  if path[-1] != "kernel":
    return value
  return np.ascontiguousarray(value.T if value.ndim == 2 else value.transpose(2, 3, 1, 0))


def flatten(tree: Mapping[str, Any], prefix: Path = ()) -> dict[Path, Any]:
  """Returns {path: leaf} of a nested dictionary."""
  flat: dict[Path, Any] = {}
  for name, value in tree.items():
    if isinstance(value, Mapping):
      flat |= flatten(value, (*prefix, name))
    else:
      flat[*prefix, name] = value
  return flat


def unflatten(flat: Mapping[Path, Any]) -> dict[str, Any]:
  """The inverse of `flatten`."""
  tree: dict[str, Any] = {}
  for path, value in flat.items():
    node = tree
    for name in path[:-1]:
      node = node.setdefault(name, {})
    node[path[-1]] = value
  return tree
