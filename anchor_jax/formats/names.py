"""Converts parameter names and axes between torch and Flax.

A Flax path is torch's dotted name with `.3` written `_3`; a module's `weight` is `kernel` (convolutions and dense
layers, axes permuted), `scale` (norms) or `embedding`. Nothing else differs, so no table of names is needed.
"""

import re

import numpy as np

from anchor_jax.core.shapes import NdArray

Path = tuple[str, ...]

_LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
_TORCH_UNDERSCORE = ("linear_1", "linear_2")  # the time embedding's layers have these names in torch too


def torch_name(path: Path) -> str:
  """Returns torch's name of a path: `("down_blocks_0", "conv1", "kernel")` -> `"down_blocks.0.conv1.weight"`."""
  modules = [m if m in _TORCH_UNDERSCORE else re.sub(r"_(\d+)$", r".\1", m) for m in path[:-1]]
  return ".".join((*modules, _LEAVES.get(path[-1], path[-1])))


def torch_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, ...]:
  """Returns the shape in which torch stores the parameter at `path`, whose Flax shape is `shape`."""
  if path[-1] != "kernel":
    return tuple(shape)
  return (shape[1], shape[0]) if len(shape) == 2 else (shape[3], shape[2], shape[0], shape[1])


def to_torch(path: Path, value: NdArray) -> NdArray:
  """Returns a parameter with torch's axes: HWIO -> OIHW, in-out -> out-in; only kernels change."""
  if path[-1] != "kernel":
    return value
  return np.ascontiguousarray(value.T if value.ndim == 2 else value.transpose(3, 2, 0, 1))


def from_torch(path: Path, value: NdArray) -> NdArray:
  """Returns a parameter with Flax's axes; the inverse of `to_torch`."""
  if path[-1] != "kernel":
    return value
  return np.ascontiguousarray(value.T if value.ndim == 2 else value.transpose(2, 3, 1, 0))
