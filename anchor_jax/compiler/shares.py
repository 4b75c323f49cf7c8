"""What each device holds of a run's parameters, where the mesh's sizes do not divide them."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import numpy as np

from anchor_jax.core import sharding
from anchor_jax.core.shapes import PyTree

_UNEVEN = 1.5  # times an even share, from which on a mesh is said to divide badly


@dataclasses.dataclass(frozen=True)
class Shares:
  """What one device holds of a tree of parameters.

  Attributes:
    held: bytes on each device.
    times: `held` over an even share, one of fsdp x tensor.
    better: (data, fsdp) of the same devices with which each holds least, or the present ones.
    better_held: bytes on each device with these.
  """

  held: float
  times: float
  better: tuple[int, int]
  better_held: float

  def warning(self) -> str:
    """One line where sizes that the mesh does not divide leave whole copies on each device; else ""."""
    if self.times < _UNEVEN:
      return ""
    data, fsdp = self.better
    text = (
      f"config.mesh: fsdp divides few of the networks' sizes, so that each device holds {self.held / 1e9:.1f} GB,"
      f" {self.times:.1f} times an even share"
    )
    if self.better_held >= 0.9 * self.held:
      return text
    return f"{text}; with mesh.data={data} and mesh.fsdp={fsdp} it holds {self.better_held / 1e9:.1f} GB"


def shares(tree: PyTree, mesh: Any) -> Shares:
  """What each device of a mesh holds of a tree of parameters (arrays or their shapes), and what it might.

  A parameter is sharded over fsdp along one axis, which must be a multiple of it: uneven shards are not stored.
  """
  names = lambda path: tuple(str(getattr(key, "key", key)) for key in path)
  leaves = [
    (names(path), np.shape(leaf), math.prod(np.shape(leaf)) * np.dtype(leaf.dtype).itemsize)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  ]

  def held(data: int, fsdp: int) -> float:
    sizes = _Sizes({**mesh.shape, sharding.DATA: data, sharding.FSDP: fsdp})
    total = 0.0
    for path, shape, count in leaves:
      spec = sharding.stored_spec(path, shape, sizes)
      total += count / math.prod(sizes.shape[axis] for axis in spec if axis is not None)
    return total

  devices = mesh.shape[sharding.DATA] * mesh.shape[sharding.FSDP]
  now = held(mesh.shape[sharding.DATA], mesh.shape[sharding.FSDP])
  choices = {
    (devices // fsdp, fsdp): held(devices // fsdp, fsdp) for fsdp in range(1, devices + 1) if devices % fsdp == 0
  }
  better = min(choices, key=lambda choice: choices[choice])
  total = sum(count for *_, count in leaves)
  return Shares(now, now / (total / (mesh.shape[sharding.FSDP] * mesh.shape[sharding.TENSOR])), better, choices[better])


class _Sizes(NamedTuple):
  """The sizes of a mesh's axes, as a mesh has them."""

  shape: dict[str, int]
