"""The mesh, and who holds what: the only file that names mesh axes.

  data    examples of a batch, or windows of a clip (each device its own)
  fsdp    examples too, and a share of every parameter, optimiser state and average (ZeRO-3)
  tensor  channels inside attention, feed-forward and residual blocks (Shoeybi et al. 2019)
  frames  frames of a window

Parameters are sharded by name over tensor (`_TENSOR_RULES`), then by shape over fsdp: the largest axis left that it
divides. Small ones are replicated.
"""

import contextlib
import functools
import math
import os
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from anchor_jax.config import MeshConfig
from anchor_jax.errors import UserError
from anchor_jax.shapes import Array, PyTree

DATA, FSDP, TENSOR, FRAMES = AXES = ("data", "fsdp", "tensor", "frames")
# End of a parameter's path -> the axis, counted from the end, that is cut over tensor, and whether the layer works with
# its cut: the first layer of a pair gives each device some channels, the second sums over them. The gated unit has its
# two halves' channels side by side, so that no cut gives a device the same of both: it is kept cut and used whole.
_TENSOR_RULES = (
  (re.compile(r"net_0/proj/kernel$"), -2, False),
  (re.compile(r"(to_q|to_k|to_v|q_proj|k_proj|v_proj|conv1|linear_1|fc1)/(kernel|bias)$"), -1, True),
  (re.compile(r"(to_out_0|out_proj|net_2|conv2|linear_2|fc2)/kernel$"), -2, True),
)
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


def keep_compiled_programs() -> None:
  """Keeps compiled programs on disk, so that a second start is fast; a folder that the user has set stays."""
  if jax.config.jax_compilation_cache_dir is None:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    jax.config.update("jax_compilation_cache_dir", os.path.join(home, "anchor_jax", "programs"))


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
  """A mesh of all devices, its axes sized by the config."""
  devices = jax.devices() if devices is None else devices
  sizes = [config.data, config.fsdp, config.tensor, config.frames]
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


def check_batch(mesh: Mesh, batch_size: int) -> None:
  """Raises UserError unless the devices can share a batch evenly."""
  if batch_size % batch_divisor(mesh):
    raise UserError(
      f"config.data.batch_size {batch_size} must be a multiple of {batch_divisor(mesh)}, the devices on the data and"
      " fsdp axes"
    )


def batch_share(mesh: Mesh) -> tuple[int, int]:
  """(which, of how many) equal shares of a batch this process reads; those beside it on tensor or frames read the same.

  Raises:
    UserError: the mesh gives processes shares that overlap.
  """
  rows: dict[int, set[int]] = {}
  for device, index in batch_sharding(mesh).devices_indices_map((batch_divisor(mesh),)).items():
    rows.setdefault(device.process_index, set()).add(index[0].start or 0)
  shares = sorted({tuple(sorted(own)) for own in rows.values()})
  if [row for share in shares for row in share] != list(range(batch_divisor(mesh))):
    raise UserError(
      f"config.mesh {dict(mesh.shape)} gives the processes shares of a batch that overlap: let tensor and frames be"
      " multiples or divisors of a process's devices"
    )
  return shares.index(tuple(sorted(rows[jax.process_index()]))), len(shares)


def parameter_shardings(tree: PyTree, mesh: Mesh) -> PyTree:
  """A sharding for every leaf of parameters (or optimiser state, or averages), from its name and shape."""
  names = lambda path: tuple(str(getattr(key, "key", key)) for key in path)
  one = lambda path, leaf: NamedSharding(mesh, _parameter_specs(names(path), np.shape(leaf), mesh)[0])
  return jax.tree_util.tree_map_with_path(one, tree)


def gathered(kernel: Array, path: tuple[str, ...]) -> Array:
  """A parameter as its layer multiplies by it: whole but for the tensor axis, its gradient cut up as itself is.

  Said at every layer, this is ZeRO-3 (Rajbhandari et al. 2020): weights travel, activations stay where their examples
  are. Left to itself the compiler moves activations of the small levels too, more of them on more devices. Cast before:
  what travels has the compute type. On a mesh without fsdp and tensor it is the kernel as it came.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.shape.get(FSDP, 1) == mesh.shape.get(TENSOR, 1) == 1:
    return kernel
  stored, used = _parameter_specs(path, kernel.shape, mesh)
  return _gather(kernel, used, stored)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gather(x: Array, used: PartitionSpec, stored: PartitionSpec) -> Array:
  return jax.lax.with_sharding_constraint(x, used)


def _gather_forward(x: Array, used: PartitionSpec, stored: PartitionSpec) -> tuple[Array, None]:
  return _gather(x, used, stored), None


def _gather_backward(used: PartitionSpec, stored: PartitionSpec, _, gradient: Array) -> tuple[Array]:
  # First the sum over all examples, then the cut: together a reduce-scatter.
  summed = jax.lax.with_sharding_constraint(gradient, used)
  return (jax.lax.with_sharding_constraint(summed, stored),)


_gather.defvjp(_gather_forward, _gather_backward)


def _parameter_specs(path: tuple[str, ...], shape: tuple[int, ...], mesh: Any) -> tuple[PartitionSpec, PartitionSpec]:
  """How a parameter is cut where it is kept, and where its layer works with it."""
  stored: list[str | None] = [None] * len(shape)
  used = list(stored)
  if math.prod(shape) < _SMALLEST_SHARDED:
    return PartitionSpec(), PartitionSpec()
  name = "/".join(path)
  for pattern, axis, stays in _TENSOR_RULES:
    if pattern.search(name) and len(shape) >= -axis and shape[axis] % mesh.shape[TENSOR] == 0 < mesh.shape[TENSOR] - 1:
      stored[axis] = TENSOR
      used[axis] = TENSOR if stays else None
  parts = mesh.shape[FSDP]
  fit = [axis for axis, size in enumerate(shape) if size % parts == 0 and stored[axis] is None]
  if parts > 1 and fit:
    stored[max(fit, key=lambda axis: shape[axis])] = FSDP
  return PartitionSpec(*stored), PartitionSpec(*used)


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
  return make_mesh(MeshConfig(windows, frames=frames), jax.devices()[: windows * frames])


def windows_at_once(mesh: Mesh | None) -> int:
  """Over how many devices a sampling mesh spreads windows."""
  return 1 if mesh is None else mesh.shape[DATA]


def platform() -> str:
  """What the current mesh's devices are, cpu, gpu or tpu; without a mesh, what JAX computes on."""
  device = jax.sharding.get_abstract_mesh().abstract_device
  found = jax.default_backend() if device is None else device.platform
  return "gpu" if found in ("cuda", "rocm") else found


def over_batch(kernel, q: Array, k: Array, v: Array, key_count: Array | None) -> Array:
  """Runs an attention kernel, which the compiler can't cut up by itself, on each device's share of a current mesh.

  The batch is cut over data and fsdp; the queries' sequence over frames, each device with all keys and values.
  Axes that don't divide do the same work; those that an enclosing shard_map has taken already are left alone.
  """
  mesh = jax.sharding.get_abstract_mesh()
  free = {axis: mesh.shape[axis] for axis in AXES if axis in mesh.axis_names and axis not in mesh.manual_axes}
  over = []
  for axis in (DATA, FSDP):
    parts = math.prod(free[a] for a in over) * free.get(axis, 1)
    if free.get(axis, 1) > 1 and q.shape[0] % parts == 0:
      over.append(axis)
  if not free:
    return kernel(q, k, v, key_count)
  sequence = FRAMES if free.get(FRAMES, 1) > 1 and q.shape[1] % free[FRAMES] == 0 else None
  batch = tuple(over) or None
  queries, all_keys = PartitionSpec(batch, sequence), PartitionSpec(batch)
  specs = (queries, all_keys, all_keys, None if key_count is None else all_keys)
  run = jax.shard_map(kernel, in_specs=specs, out_specs=queries, axis_names=set(free), check_vma=False)
  return run(q, k, v, key_count)


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
