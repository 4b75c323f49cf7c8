"""The device mesh and all sharding over it; the only file that names mesh axes.

  data    data parallelism: examples of a batch; in `generate`, windows of a clip
  fsdp    examples as well, and one shard of every parameter, optimizer state and average (ZeRO-3)
  tensor  channels inside attention, feed-forward and residual blocks (Shoeybi et al. 2019)
  frames  frames of a window

A parameter is sharded over tensor by its name (`_TENSOR_RULES`), then over fsdp along the largest remaining axis that
the fsdp size divides. Parameters of fewer than `_SMALLEST_SHARDED` elements are replicated.
"""

import collections
import contextlib
import contextvars
import functools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Array, PyTree

DATA, FSDP, TENSOR, FRAMES = AXES = ("data", "fsdp", "tensor", "frames")
# Rules: (path suffix, axis to shard over tensor, whether it stays sharded during the matmul). In each pair of layers
# the first computes a shard of the channels, and the second sums over them. net_0 is a gated unit whose kernel holds
# values and gates side by side: a contiguous shard has a channel's value but not its gate, so its kernel is stored
# sharded (along its input axis) and all-gathered for the matmul.
_TENSOR_RULES = (
  (re.compile(r"net_0/proj/kernel$"), -2, False),
  (re.compile(r"(to_q|to_k|to_v|q_proj|k_proj|v_proj|conv1|linear_1|fc1)/(kernel|bias)$"), -1, True),
  (re.compile(r"(to_out_0|out_proj|net_2|conv2|linear_2|fc2)/kernel$"), -2, True),
)
_SMALLEST_SHARDED = 2**14  # elements; below it a collective costs more than the memory it saves


# Meshes


def make_mesh(sizes: Sequence[int], devices: Sequence[Any] | None = None) -> Mesh:
  """A mesh over `devices` (default: all of JAX's) with these sizes of `AXES`; -1 takes the remaining devices.

  Raises:
    UserError: the sizes are not valid, or their product is not the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  sizes = list(sizes)
  if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
    raise UserError(f"config.mesh {dict(zip(AXES, sizes, strict=True))}: sizes are 1 or more, and -1 at most once")
  known = math.prod(size for size in sizes if size != -1)
  if len(devices) % known or (-1 not in sizes and known != len(devices)):
    raise UserError(f"config.mesh {dict(zip(AXES, sizes, strict=True))} doesn't fit {len(devices)} devices")
  sizes = [len(devices) // known if size == -1 else size for size in sizes]
  return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def check_processes(devices: Sequence[Any]) -> None:
  """Raises UserError unless all processes have the same number of devices, which equal shards of a batch need."""
  counts = collections.Counter(device.process_index for device in devices)
  most, fewest = max(counts.values(), default=0), min(counts.values(), default=0)
  if most != fewest:
    process = {count: next(index for index in sorted(counts) if counts[index] == count) for count in (most, fewest)}
    raise UserError(
      f"process {process[most]} has {most} devices and process {process[fewest]} has {fewest}: give every process the"
      " same number (launch/README.md)"
    )


def sampling_mesh(windows: int, frames: int) -> Mesh:
  """A mesh for `generate` over the first `windows * frames` devices.

  Args:
    windows: size of the data axis, which shards the windows of a group.
    frames: size of the frames axis, which shards the frames of each window.

  Raises:
    UserError: a size is below 1, or there are fewer devices.
  """
  if windows < 1 or frames < 1 or windows * frames > jax.device_count():
    raise UserError(
      f"a mesh of {windows} x {frames} doesn't fit {jax.device_count()} devices: use sizes of at least 1 whose product"
      " is at most the number of devices"
    )
  return make_mesh((windows, 1, 1, frames), jax.devices()[: windows * frames])


def own_devices(mesh: Mesh) -> Mesh:
  """A mesh over the devices of this process only, all on the data axis: for work that is split between processes."""
  return make_mesh(
    (-1, 1, 1, 1), [device for device in mesh.devices.flat if device.process_index == jax.process_index()]
  )


def use_mesh(mesh: Mesh | None) -> contextlib.AbstractContextManager:
  """A context in which `mesh` is the current mesh; for None, a context that does nothing."""
  return contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh)


def platform() -> str:
  """The platform of the current mesh's devices, "cpu", "gpu" or "tpu"; without a mesh, that of the default backend."""
  device = jax.sharding.get_abstract_mesh().abstract_device
  found = jax.default_backend() if device is None else device.platform
  return "gpu" if found in ("cuda", "rocm") else found


_exporting: contextvars.ContextVar[bool] = contextvars.ContextVar("exporting", default=False)


@contextlib.contextmanager
def export_mode() -> Iterator[None]:
  """A context for exporting programs whose platform is known only when they run, see `by_platform`."""
  token = _exporting.set(True)
  try:
    yield
  finally:
    _exporting.reset(token)


def by_platform(on_cpu: Callable[..., Array], elsewhere: Callable[..., Array], *operands: PyTree) -> Array:
  """on_cpu(*operands) on CPUs, elsewhere(*operands) on other platforms; an exported program chooses when it runs.

  Both must compute the same, and neither may use a kernel of a single platform.
  """
  if _exporting.get():
    return jax.lax.platform_dependent(*operands, cpu=on_cpu, default=elsewhere)
  return (on_cpu if platform() == "cpu" else elsewhere)(*operands)


def exporting() -> bool:
  """Whether a program is being exported (`export_mode`)."""
  return _exporting.get()


# Batches


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Shards the leading axis over data and fsdp, and replicates over tensor and frames."""
  return NamedSharding(mesh, PartitionSpec((DATA, FSDP)))


def replicated(mesh: Mesh) -> NamedSharding:
  """Replicates over the mesh."""
  return NamedSharding(mesh, PartitionSpec())


def batch_divisor(mesh: Mesh) -> int:
  """The number of shards of a batch; its size must be a multiple."""
  return mesh.shape[DATA] * mesh.shape[FSDP]


def check_batch(mesh: Mesh, batch_size: int) -> None:
  """Raises UserError unless `batch_size` is a multiple of `batch_divisor`."""
  if batch_size % batch_divisor(mesh):
    raise UserError(
      f"config.data.batch_size {batch_size} must be a multiple of {batch_divisor(mesh)}, the devices on the data and"
      " fsdp axes"
    )


def process_shard(mesh: Mesh) -> tuple[int, int]:
  """(index, count): which of `count` equal shards of a batch this process reads.

  Processes that differ only in their position on tensor or frames read the same shard.

  Raises:
    UserError: the shards of two processes overlap without being equal.
  """
  rows: dict[int, set[int]] = {}
  for device, index in batch_sharding(mesh).devices_indices_map((batch_divisor(mesh),)).items():
    rows.setdefault(device.process_index, set()).add(index[0].start or 0)
  shards = sorted({tuple(sorted(own)) for own in rows.values()})
  if [row for shard in shards for row in shard] != list(range(batch_divisor(mesh))):
    raise UserError(
      f"config.mesh {dict(mesh.shape)}: the processes' shards of a batch overlap; make tensor and frames multiples or"
      " divisors of the number of devices of a process"
    )
  return shards.index(tuple(sorted(rows[jax.process_index()]))), len(shards)


def shard_batch(batch: PyTree, mesh: Mesh) -> PyTree:
  """Global sharded arrays from this process's shard of a batch (numpy arrays, leading axis examples)."""
  sharding = batch_sharding(mesh)
  return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), batch)


def shard_examples(tree: PyTree) -> PyTree:
  """Inside jit, arrays [B ...] with the leading axis sharded over data and fsdp, if the current mesh has them."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.shape.get(DATA, 1) * mesh.shape.get(FSDP, 1) == 1:
    return tree
  return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, PartitionSpec((DATA, FSDP))), tree)


# Parameters


def parameter_shardings(tree: PyTree, mesh: Mesh) -> PyTree:
  """The sharding of each leaf of a tree of parameters, optimizer state or averages, by path and shape."""
  names = lambda path: tuple(str(getattr(key, "key", key)) for key in path)
  one = lambda path, leaf: NamedSharding(mesh, _parameter_specs(names(path), np.shape(leaf), mesh)[0])
  return jax.tree_util.tree_map_with_path(one, tree)


def stored_spec(path: tuple[str, ...], shape: tuple[int, ...], mesh: Any) -> PartitionSpec:
  """How a parameter of this path and shape is sharded at rest; of `mesh`, only the axis sizes are used."""
  return _parameter_specs(path, shape, mesh)[0]


def all_gather_kernel(kernel: Array, path: tuple[str, ...]) -> Array:
  """The kernel all-gathered over fsdp for a matmul; its gradient is summed and sharded as the kernel is stored.

  Every layer with a kernel calls it: this is ZeRO-3 (Rajbhandari et al. 2020) made explicit. Otherwise XLA may reshard
  activations instead, which sends more data the more devices there are. Cast to the compute type before the call, so
  that the collective sends the smaller type.

  Args:
    kernel: the parameter, as stored.
    path: its path in the tree of parameters, which selects the tensor rule.

  Returns:
    The kernel, still sharded over tensor if its rule says so. If the current mesh has neither fsdp nor tensor, `kernel`
    itself.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.shape.get(FSDP, 1) == mesh.shape.get(TENSOR, 1) == 1:
    return kernel
  stored, used = _parameter_specs(path, kernel.shape, mesh)
  return _reshard(kernel, used, stored)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _reshard(x: Array, used: PartitionSpec, stored: PartitionSpec) -> Array:
  return jax.lax.with_sharding_constraint(x, used)


def _reshard_forward(x: Array, used: PartitionSpec, stored: PartitionSpec) -> tuple[Array, None]:
  return _reshard(x, used, stored), None


def _reshard_backward(used: PartitionSpec, stored: PartitionSpec, _, gradient: Array) -> tuple[Array]:
  # A sum over all examples, of which one shard remains: XLA can merge the two into a reduce-scatter.
  summed = jax.lax.with_sharding_constraint(gradient, used)
  return (jax.lax.with_sharding_constraint(summed, stored),)


_reshard.defvjp(_reshard_forward, _reshard_backward)


def _parameter_specs(path: tuple[str, ...], shape: tuple[int, ...], mesh: Any) -> tuple[PartitionSpec, PartitionSpec]:
  """(stored, used): how a parameter is sharded at rest, and during the matmul."""
  stored: list[str | None] = [None] * len(shape)
  used = list(stored)
  if math.prod(shape) < _SMALLEST_SHARDED:
    return PartitionSpec(), PartitionSpec()
  name = "/".join(path)
  for pattern, axis, stays in _TENSOR_RULES:
    if pattern.search(name) and len(shape) >= -axis and shape[axis] % mesh.shape[TENSOR] == 0 < mesh.shape[TENSOR] - 1:
      stored[axis] = TENSOR
      used[axis] = TENSOR if stays else None
  shards = mesh.shape[FSDP]
  divisible = [axis for axis, size in enumerate(shape) if size % shards == 0 and stored[axis] is None]
  if shards > 1 and divisible:
    stored[max(divisible, key=lambda axis: shape[axis])] = FSDP
  return PartitionSpec(*stored), PartitionSpec(*used)


# Activations and windows


def shard_map_attention(kernel: Callable[..., Array], q: Array, k: Array, v: Array, key_count: Array | None) -> Array:
  """kernel(q, k, v, key_count), run by each device of the current mesh on its shard.

  For fused kernels, which XLA cannot partition. The batch axis is sharded over data and fsdp, the queries' sequence
  over frames; every device has the full sequences of keys and values. Over a mesh axis whose size does not divide them,
  operands are replicated. Axes that are manual in an enclosing shard_map stay manual.

  Args:
    kernel: an attention function of these arguments.
    q, k, v: [B N heads D], with M keys instead of N queries for k and v.
    key_count: int [B], or None.

  Returns:
    [B N heads D], sharded as q is.
  """
  free, batch, sequence = _attention_axes(q)
  if not free:
    return kernel(q, k, v, key_count)
  queries, all_keys = PartitionSpec(batch or None, sequence), PartitionSpec(batch or None)
  specs = (queries, all_keys, all_keys, None if key_count is None else all_keys)
  run = jax.shard_map(kernel, in_specs=specs, out_specs=queries, axis_names=free, check_vma=False)
  return run(q, k, v, key_count)


def attention_shards(q: Array) -> int:
  """Into how many shards the current mesh splits queries [B N heads D], by examples and by frames."""
  _, batch, sequence = _attention_axes(q)
  sizes = jax.sharding.get_abstract_mesh().shape
  return math.prod(sizes[axis] for axis in (*batch, *([sequence] if sequence else [])))


def _attention_axes(q: Array) -> tuple[set[str], tuple[str, ...], str | None]:
  """(mesh axes that are not manual yet, axes that shard the batch of q, the axis that shards its sequence)."""
  mesh = jax.sharding.get_abstract_mesh()
  free = {axis: mesh.shape[axis] for axis in AXES if axis in mesh.axis_names and axis not in mesh.manual_axes}
  batch: list[str] = []
  for axis in (DATA, FSDP):
    shards = math.prod(free[a] for a in batch) * free.get(axis, 1)
    if free.get(axis, 1) > 1 and q.shape[0] % shards == 0:
      batch.append(axis)
  return set(free), tuple(batch), FRAMES if free.get(FRAMES, 1) > 1 and q.shape[1] % free[FRAMES] == 0 else None


def shard_map_windows(function: Callable[..., Array], mesh: Mesh) -> Callable[..., Array]:
  """`function` under shard_map over the data axis, for diffusion/distributed.py; XLA partitions over the frames axis.

  Args:
    function: (latents, step, contexts, frame_inputs, total, mask, weights) -> total. Latents and frame inputs are
      sharded along axis 1 (frames of a block), total along axis 2, mask and weights along axis 0 (windows).
    mesh: from `sampling_mesh`.
  """
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


def from_next_device(x: Array) -> Array:
  """Inside shard_map: `x` of the next device along the data axis; on the last device, `x` of the first."""
  count = jax.lax.axis_size(DATA)
  return jax.lax.ppermute(x, DATA, [(i, (i - 1) % count) for i in range(count)])


def from_previous_device(x: Array) -> Array:
  """Inside shard_map: `x` of the previous device along the data axis; on the first device, `x` of the last."""
  count = jax.lax.axis_size(DATA)
  return jax.lax.ppermute(x, DATA, [(i, (i + 1) % count) for i in range(count)])


def shard_frames(x: Array) -> Array:
  """`x` [B T ...] with its frames sharded over the frames axis."""
  return jax.lax.with_sharding_constraint(x, PartitionSpec(None, FRAMES))
