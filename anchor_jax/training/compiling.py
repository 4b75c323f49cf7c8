"""The compiled training step: in the background of a run, ahead of time for a pod, and checked against memory.

A run compiles its step while its records are read and encoded: both keep one core busy and leave Python to others.
Compiling for a TPU pod needs the pod's compiler, but no pod: it reports whether a step fits and what chips exchange.
Settings that cannot fit are refused in one line, as early as possible.
"""

import contextlib
import dataclasses
import logging
import math
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from anchor_jax.compiler.chips import chip_of
from anchor_jax.compiler.estimate import Estimate, estimate
from anchor_jax.compiler.hlo import collective_bytes
from anchor_jax.compiler.shares import shares
from anchor_jax.config.fit import check_model
from anchor_jax.config.run import RunConfig
from anchor_jax.core import sharding
from anchor_jax.core.cli import COMPILING
from anchor_jax.core.errors import UserError
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.core.shapes import PyTree
from anchor_jax.models.networks import Networks
from anchor_jax.store.weights import frozen_names, trained_keys, with_adapters, with_pose_channels
from anchor_jax.training.batches import batch_shapes
from anchor_jax.training.perceptual import LPIPS, perceptual_weights
from anchor_jax.training.step import jit_step, make_run_step, make_state, training_mesh

log = logging.getLogger(__name__)

_BATCHES_ON_HOST = 3  # one in use, two read ahead


def start_compiling(
  config: RunConfig, networks: Networks, weights: PyTree, size: int | FrameSize, mesh: Mesh
) -> Future:
  """A future of (compiled step, compile seconds), computed in a thread that starts now.

  Python crashes if it exits while a thread is inside the compiler. After an error, the process therefore lives until
  the thread has finished, unless `cli.run` ends it.

  Args:
    config, networks, size, mesh: see `step_shapes`.
    weights: arrays or their shapes; no reference to them stays.
  """
  shapes = jax.eval_shape(lambda tree: tree, weights)

  def compile_step() -> tuple[Any, float]:
    started = time.monotonic()
    step, arguments = step_shapes(config, networks, shapes, size, mesh)
    with sharding.use_mesh(mesh):  # the current mesh is per thread
      return step.lower(*arguments).compile(), time.monotonic() - started

  thread = ThreadPoolExecutor(1, COMPILING)
  future = thread.submit(compile_step)
  thread.shutdown(wait=False)
  return future


def step_shapes(
  config: RunConfig, networks: Networks, weights: PyTree, size: int | FrameSize, mesh: Mesh
) -> tuple[Any, tuple]:
  """The jitted step of a run, and the shapes and shardings of its arguments.

  Args:
    config: settings of the run, with the networks' sizes.
    networks: of the run.
    weights: of all networks and of the perceptual loss, arrays or their shapes.
    size: of the prepared frames.
    mesh: of the run.
  """
  optimizer, step = make_run_step(config, networks)
  trained = {name: weights[name] for name in trained_keys(config)}
  frozen = {name: weights[name] for name in (*frozen_names(config), *(LPIPS,) * bool(config.lpips))}
  state = jax.eval_shape(lambda trained: make_state(trained, optimizer, config), trained)
  if jax.process_index() == 0 and (warning := shares(state, mesh).warning()):
    log.warning("%s", warning)
  state, frozen = (_sharded(tree, sharding.parameter_shardings(tree, mesh)) for tree in (state, frozen))
  batch = batch_shapes(config, size, sharding.batch_sharding(mesh))
  key = jax.eval_shape(lambda: jax.random.key(0))
  return jit_step(step, state), (state, frozen, batch, key)


def _sharded(tree: PyTree, shardings: PyTree) -> PyTree:
  return jax.tree.map(lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree, shardings)


class DoesNotFit(UserError):
  """The compiler found no program that fits into a chip's memory."""


@dataclasses.dataclass(frozen=True)
class StepCost:
  """Costs of a compiled step, per chip.

  Attributes:
    devices, kind: number of chips, and the name of their kind.
    arguments, temporaries: bytes of memory.
    memory: bytes of memory of a chip.
    flops: floating-point operations of a step, loop bodies counted once; 0 if the compiler does not report them.
    collectives: bytes that a chip sends, by kind of collective, loop bodies counted once.
    seconds: compile time.
    batch: images per step, over all chips.
    peak: operations per second of a chip; 0 if unknown.
    estimate: estimated time of a step; None for chips of unknown clock rate.
  """

  devices: int
  kind: str
  arguments: int
  temporaries: int
  memory: int
  flops: float
  collectives: dict[str, int]
  seconds: float
  batch: int = 0
  peak: float = 0.0
  estimate: Estimate | None = None

  @property
  def total(self) -> int:
    """Bytes of memory that a step needs."""
    return self.arguments + self.temporaries

  @property
  def fits(self) -> bool:
    """Whether a step fits into a chip's memory."""
    return self.total <= self.memory

  def table(self) -> str:
    """The costs as lines of text."""
    gb = lambda count: f"{count / 1e9:8.2f} GB"
    rows = [
      ("chips", f"{self.devices} x {self.kind}"),
      ("arguments (weights, optimizer, batch)", gb(self.arguments)),
      ("temporaries", gb(self.temporaries)),
      ("total", f"{gb(self.total)} of {self.memory / 1e9:.0f} GB: {'fits' if self.fits else 'DOES NOT FIT'}"),
      ("operations", f"{self.flops / 1e12:8.2f} TFLOP"),
      *((name, gb(count)) for name, count in self.collectives.items()),
      ("compile time", f"{self.seconds:8.0f} s"),
    ]
    text = "\n".join(f"{name:40s}{value}" for name, value in rows)
    if self.estimate is None:
      return text
    rate = f"{'images per second, all chips':40s}{self.batch / self.estimate.seconds:8.1f}"
    share = 100 * self.flops / self.peak / self.estimate.seconds
    share = f"{'these operations, share of the peak':40s}{share:8.1f} %  (without those of attention's kernels)"
    return f"{text}\n{rate}\n{share}\n{self.estimate.table()}"


def print_fit(topology: str, config: RunConfig) -> bool:
  """Compiles the step of a run for a TPU topology, prints its costs, and returns whether it fits."""
  try:
    cost = compile_for(topology, config)
  except DoesNotFit as reason:
    print(reason)
    return False
  print(cost.table())
  return cost.fits


def compile_for(topology: str, config: RunConfig) -> StepCost:
  """The costs of a run's step on a TPU topology such as "v5e:4x4"; needs the TPU compiler, but no TPU.

  Reads no file: the networks' sizes are those of config.model, the frames' size is config.data.size.

  Raises:
    DoesNotFit: the compiler found no program that fits.
    UserError: unknown topology, no TPU compiler, or config.mesh does not fit the topology.
  """
  devices = topology_devices(topology)
  mesh = training_mesh(config, devices)
  started = time.monotonic()
  step, arguments = run_shapes(config, mesh)
  with sharding.use_mesh(mesh):
    try:
      compiled = step.lower(*arguments).compile()
    except jax.errors.JaxRuntimeError as error:
      if "RESOURCE_EXHAUSTED" not in str(error):
        raise
      raise DoesNotFit(
        f"the step DOES NOT FIT {topology}{shortage(str(error))}: lower config.data.batch_size, or raise"
        " config.mesh.fsdp"
      ) from None
  memory, cost, text = compiled.memory_analysis(), compiled.cost_analysis() or {}, compiled.as_text()
  chip = chip_of(devices[0])
  return StepCost(
    len(devices),
    devices[0].device_kind,
    memory.argument_size_in_bytes,
    memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes,
    chip.memory if chip else 0,
    float(cost.get("flops", 0)),
    collective_bytes(text),
    time.monotonic() - started,
    config.data.batch_size,
    chip.flops if chip else 0.0,
    estimate(text, chip, config.optimizer.accumulate) if chip and chip.clock else None,
  )


def shortage(message: str) -> str:
  """The needed and available memory in a compiler's error message, as ": it needs ..."; empty without them."""
  match = re.search(r"(?:Used|temporaries \()\s*([\d.]+)([KMGT]).*?(?:of|HBM \()\s*([\d.]+)([KMGT])", message)
  return f": it needs {match[1]} {match[2]}iB of {match[3]} {match[4]}iB" if match else ""


def topology_devices(topology: str) -> list[Any]:
  """Descriptions of a TPU topology's devices, to compile for. Raises UserError without a TPU compiler."""
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
  os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-16")
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
  from jax.experimental import topologies

  try:
    return list(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)
  except Exception as error:  # noqa: BLE001 - the plugin raises various types for a missing library or an unknown name
    message = " ".join(str(error).split())[:200]
    raise UserError(
      f"no compiler for {topology} ({message}): name a topology such as v5e:4x4, and install the tpu extra"
    ) from None


def run_shapes(config: RunConfig, mesh: Any) -> tuple[Any, tuple]:
  """`step_shapes` of a run on a mesh, for frames of the size config.data.size; reads no files but LPIPS's weights."""
  networks = Networks(with_pose_channels(config), config.dtype)
  check_model(networks.model, config.part)
  weights = jax.eval_shape(lambda key: with_adapters(networks.init(key), config), jax.random.key(0))
  size = config.data.frame_size
  return step_shapes(config, networks, weights | perceptual_weights(config, size), size, mesh)


def check_batch_memory(config: RunConfig, size: int | FrameSize, processes: int = 1) -> None:
  """Raises UserError if the pictures of a process's batches alone exceed the host's memory.

  Only pixels count, so that the check never refuses a run that would fit.

  Args:
    config: settings of the run.
    size: of the prepared frames.
    processes: number of processes that share a batch.
  """
  pictures = [leaf for leaf in jax.tree.leaves(batch_shapes(config, size)) if leaf.dtype == jnp.uint8]
  needed = _BATCHES_ON_HOST * sum(math.prod(leaf.shape) for leaf in pictures) // processes
  if needed > host_memory():
    raise UserError(
      f"batches of {config.data.batch_size} need {_gigabytes(needed)} of the host's {_gigabytes(host_memory())}: lower"
      " config.data.batch_size (or config.data.clip_frames)"
    )


def check_step_memory(compiled: Any, config: RunConfig, mesh: Mesh) -> None:
  """Raises UserError if a compiled step needs more memory than a device has; passes if either is unknown."""
  needed, available = step_memory(compiled), device_memory(mesh)
  if needed and available and needed > available:
    raise UserError(f"a step needs {_gigabytes(needed)} of a device's {_gigabytes(available)}: {_advice(config)}")


@contextlib.contextmanager
def out_of_memory_as_user_error(config: RunConfig) -> Iterator[None]:
  """Context in which JAX's out-of-memory errors become UserErrors of one line."""
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    raise UserError(f"a training step needs more memory than a device has: {_advice(config)}") from error


def step_memory(compiled: Any) -> int:
  """Bytes of arguments, results and temporaries of a compiled program on one device; 0 if not reported."""
  memory = compiled.memory_analysis()
  if memory is None:
    return 0
  results = memory.output_size_in_bytes - memory.alias_size_in_bytes
  return memory.argument_size_in_bytes + memory.temp_size_in_bytes + results


def device_memory(mesh: Mesh) -> int:
  """Bytes of memory of each device of a mesh; 0 if unknown. CPU devices share the host's memory."""
  local = [device for device in mesh.devices.flat if device.process_index == jax.process_index()]
  if local[0].platform == "cpu":
    return host_memory() // len(local)
  stats = local[0].memory_stats() or {}
  chip = chip_of(local[0])
  return int(stats.get("bytes_limit", chip.memory if chip else 0))


def host_memory() -> int:
  """Bytes of the host's memory."""
  return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _advice(config: RunConfig) -> str:
  size, parts = config.data.batch_size, config.optimizer.accumulate
  return (
    f"lower config.data.batch_size, which is {size}, or raise config.optimizer.accumulate, which is {parts}, to split"
    " the batch"
  )


def _gigabytes(count: int) -> str:
  return f"{count / 1e9:.1f} GB"
