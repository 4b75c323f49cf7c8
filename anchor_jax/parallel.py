"""The mesh, and who holds what: the only file that names mesh axes.

  data    examples of a batch (each device its own)
  fsdp    examples too, and a share of every parameter, optimiser state and average (ZeRO-3)
  frames  frames of a window

Parameters are sharded by shape: the largest axis that the fsdp axis divides. Small ones are replicated.
"""

import contextlib
import math
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from anchor_jax.config import MeshConfig
from anchor_jax.errors import UserError
from anchor_jax.shapes import Array, PyTree

DATA, FSDP, FRAMES = AXES = ("data", "fsdp", "frames")
_SMALLEST_SHARDED = 2**14  # below this many elements a collective costs more than the memory it saves


def join_processes(coordinator: str | None = None, count: int | None = None, index: int | None = None) -> None:
  """Joins the other processes of this run, before anything else asks JAX for devices.

  On TPU slices, in GKE and under Slurm JAX finds them by itself; elsewhere all three arguments say where they are:

  Args:
    coordinator: HOST:PORT of process 0.
    count: of processes.
    index: of this one.
  """
  given = [coordinator is not None, count is not None, index is not None]
  if any(given) and not all(given):
    raise UserError("--coordinator, --processes and --process go together: give all three or none")
  if all(given):
    jax.distributed.initialize(coordinator, count, index)
  elif _several_processes():
    jax.distributed.initialize()


def _several_processes() -> bool:
  hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
  tasks = os.environ.get("SLURM_NTASKS", "1")
  return len(hosts) > 1 or "MEGASCALE_COORDINATOR_ADDRESS" in os.environ or (tasks.isdigit() and int(tasks) > 1)


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
  """A mesh of all devices, its axes sized by the config."""
  devices = jax.devices() if devices is None else devices
  sizes = [config.data, config.fsdp, config.frames]
  if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
    raise UserError(f"config.mesh {dict(zip(AXES, sizes, strict=True))}: sizes are 1 or more, and -1 at most once")
  known = math.prod(size for size in sizes if size != -1)
  if len(devices) % known or (-1 not in sizes and known != len(devices)):
    raise UserError(f"config.mesh {dict(zip(AXES, sizes, strict=True))} doesn't fit {len(devices)} devices")
  sizes = [len(devices) // known if size == -1 else size for size in sizes]
  return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """The leading axis over data and fsdp."""
  return NamedSharding(mesh, PartitionSpec((DATA, FSDP)))


def replicated(mesh: Mesh) -> NamedSharding:
  """The same on every device."""
  return NamedSharding(mesh, PartitionSpec())


def batch_divisor(mesh: Mesh) -> int:
  """A batch's size must be a multiple of this."""
  return mesh.shape[DATA] * mesh.shape[FSDP]


def parameter_shardings(tree: PyTree, mesh: Mesh) -> PyTree:
  """A sharding for every leaf of parameters (or optimiser state, or averages), from its shape alone."""

  def one(leaf) -> NamedSharding:
    shape, parts = np.shape(leaf), mesh.shape[FSDP]
    fit = [axis for axis, size in enumerate(shape) if size % parts == 0]
    if parts == 1 or math.prod(shape) < _SMALLEST_SHARDED or not fit:
      return replicated(mesh)
    spec: list[str | None] = [None] * len(shape)
    spec[max(fit, key=lambda axis: shape[axis])] = FSDP
    return NamedSharding(mesh, PartitionSpec(*spec))

  return jax.tree.map(one, tree)


def shard_batch(batch: PyTree, mesh: Mesh) -> PyTree:
  """Global arrays from this process's share of a batch (numpy, leading axis examples)."""
  sharding = batch_sharding(mesh)
  return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), batch)


def use_mesh(mesh: Mesh) -> contextlib.AbstractContextManager:
  """Makes the mesh the current one."""
  return jax.set_mesh(mesh)


def sampling_mesh(windows: int, frames: int) -> Mesh:
  """A mesh for `generate`: windows of a group over one axis, frames of a window over another."""
  if windows < 1 or frames < 1 or windows * frames > jax.device_count():
    raise UserError(f"{windows} x {frames} devices are not to be had: there are {jax.device_count()}")
  return make_mesh(MeshConfig(windows, 1, frames), jax.devices()[: windows * frames])


def windows_at_once(mesh: Mesh | None) -> int:
  """Over how many devices a sampling mesh spreads windows."""
  return 1 if mesh is None else mesh.shape[DATA]


def per_window_device(function, mesh: Mesh):
  """`diffusion.spread`'s inner function on every device of the data axis; the frames axis is left to the compiler."""
  blocks, windows, same = PartitionSpec(None, DATA), PartitionSpec(DATA), PartitionSpec()
  sums = PartitionSpec(None, None, DATA)
  return jax.shard_map(
    function,
    mesh=mesh,
    in_specs=(blocks, same, same, blocks, sums, windows, windows),
    out_specs=sums,
    axis_names={DATA},
    check_vma=False,
  )


def from_right(x: Array) -> Array:
  """Each device of the data axis gets its right neighbour's x; the last gets the first's."""
  count = jax.lax.axis_size(DATA)
  return jax.lax.ppermute(x, DATA, [(i, (i - 1) % count) for i in range(count)])


def from_left(x: Array) -> Array:
  """Each device of the data axis gets its left neighbour's x; the first gets the last's."""
  count = jax.lax.axis_size(DATA)
  return jax.lax.ppermute(x, DATA, [(i, (i + 1) % count) for i in range(count)])


def over_frames(x: Array) -> Array:
  """Cuts the second axis, frames of windows, over the frames axis."""
  return jax.lax.with_sharding_constraint(x, PartitionSpec(None, FRAMES))


def use_sampling_mesh(mesh: Mesh | None) -> contextlib.AbstractContextManager:
  """Makes a sampling mesh the current one; without a mesh, nothing."""
  return contextlib.nullcontext() if mesh is None else use_mesh(mesh)
