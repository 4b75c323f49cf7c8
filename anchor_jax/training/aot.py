"""Compiles a training step for a TPU pod without having one: whether it fits, and what its chips exchange."""

import dataclasses
import os
import re
import time
from typing import Any

import jax

from anchor_jax.compiler.chips import chip_of
from anchor_jax.compiler.estimate import Estimate, estimate
from anchor_jax.compiler.hlo import collective_bytes
from anchor_jax.config.fit import check_model
from anchor_jax.config.run import RunConfig
from anchor_jax.core import sharding
from anchor_jax.core.errors import UserError
from anchor_jax.models.networks import Networks
from anchor_jax.store.weights import with_adapters, with_pose_channels
from anchor_jax.training.compiling import step_shapes
from anchor_jax.training.step import training_mesh


class DoesNotFit(UserError):
  """The compiler found no program that fits into the memory of a chip."""


@dataclasses.dataclass(frozen=True)
class Answer:
  """Costs of a compiled step, per chip.

  Attributes:
    devices, kind: number of chips, and the name of their kind.
    arguments, temporaries: bytes of memory.
    memory: bytes of memory that a chip has.
    flops: floating-point operations of a step, with the body of a loop counted once; 0 if the compiler does not say.
    collectives: bytes that a chip sends for each kind of collective in the program, the body of a loop counted once.
    seconds: compile time.
    batch: images of a step, over all chips.
    peak: operations per second of a chip; 0 if not known.
    estimate: of a step's time; None for chips whose clock is not known.
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
    """Whether a chip has as much memory as a step needs."""
    return self.total <= self.memory

  def table(self) -> str:
    """The costs as lines of text."""
    gb = lambda count: f"{count / 1e9:8.2f} GB"
    rows = [
      ("chips", f"{self.devices} x {self.kind}"),
      ("arguments (weights, optimiser, batch)", gb(self.arguments)),
      ("temporaries", gb(self.temporaries)),
      ("total", f"{gb(self.total)} of {self.memory / 1e9:.0f} GB: {'fits' if self.fits else 'DOES NOT FIT'}"),
      ("operations", f"{self.flops / 1e12:8.2f} TFLOP"),
      *((name, gb(count)) for name, count in self.collectives.items()),
      ("compile time", f"{self.seconds:8.0f} s"),
    ]
    text = "\n".join(f"{name:40s}{value}" for name, value in rows)
    if self.estimate is None:
      return text
    rate = f"{'images a second, all chips':40s}{self.batch / self.estimate.seconds:8.1f}"
    share = 100 * self.flops / self.peak / self.estimate.seconds
    share = f"{'these operations, share of the peak':40s}{share:8.1f} %  (those of attention's kernels are not counted)"
    return f"{text}\n{rate}\n{share}\n{self.estimate.table()}"


def print_fit(topology: str, config: RunConfig) -> bool:
  """Compiles the step of a run for a topology, prints what it needs, and returns whether it fits."""
  try:
    answer = compile_for(topology, config)
  except DoesNotFit as reason:
    print(reason)
    return False
  print(answer.table())
  return answer.fits


def compile_for(topology: str, config: RunConfig) -> Answer:
  """Compiles the real step of a run for a TPU topology such as "v5e:4x4"; needs the TPU compiler, but no TPU.

  The sizes of the networks are those of config.model, and of the frames config.data.size: no file is read.

  Raises:
    DoesNotFit: the compiler found no program that fits.
    UserError: there is no such topology or no TPU compiler, or config.mesh does not fit the topology.
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
  return Answer(
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
  """The memory needed and available by a compiler's error message, as ": it needs ..."; empty if it does not say."""
  found = re.search(r"(?:Used|temporaries \()\s*([\d.]+)([KMGT]).*?(?:of|HBM \()\s*([\d.]+)([KMGT])", message)
  return f": it needs {found[1]} {found[2]}iB of {found[3]} {found[4]}iB" if found else ""


def topology_devices(topology: str) -> list[Any]:
  """Descriptions of the devices of a TPU topology, for compiling alone. Raises UserError without a TPU compiler."""
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
  os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-16")
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
  from jax.experimental import topologies

  try:
    return list(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)
  except Exception as error:  # noqa: BLE001 - the plugin raises many types for a missing library or a wrong name
    message = " ".join(str(error).split())[:200]
    raise UserError(
      f"no compiler for {topology} ({message}): name a topology such as v5e:4x4, and install the tpu extra"
    ) from None


def run_shapes(config: RunConfig, mesh: Any) -> tuple[Any, tuple]:
  """`step_shapes` of a run on a mesh, without any file: frames are of config.data.size pixels."""
  networks = Networks(with_pose_channels(config), config.dtype)
  check_model(networks.model, config.part)
  weights = jax.eval_shape(lambda key: with_adapters(networks.init(key), config), jax.random.key(0))
  return step_shapes(config, networks, weights, config.data.size, mesh)
