"""How much of a run's parameters each device holds, and whether another mesh would divide them better."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import numpy as np

from anchor_jax.core import sharding
from anchor_jax.core.shapes import PyTree

_UNEVEN = 1.5  # times an even share; from here on the mesh is reported


@dataclasses.dataclass(frozen=True)
class Shares:
  """The bytes that one device holds of a tree of parameters.

  Attributes:
    held: bytes on each device.
    times: `held` over an even share, 1 / (fsdp * tensor) of the total.
    better: the (data, fsdp) for the same number of devices that minimizes the bytes; may be the present sizes.
    better_held: bytes on each device with these sizes.
  """

  held: float
  times: float
  better: tuple[int, int]
  better_held: float

  def warning(self) -> str:
    """One line if the mesh does not divide many sizes, so that devices hold full copies; otherwise ""."""
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
  """How much each device of a mesh holds of a tree of parameters (arrays or shapes), now and with better sizes.

  A parameter is sharded over fsdp along one axis whose size is a multiple of fsdp: there are no uneven shards.
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
  """Stands in for a mesh where only the sizes of its axes are needed."""

  shape: dict[str, int]
