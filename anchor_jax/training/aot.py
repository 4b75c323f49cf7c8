"""Asks the compiler of a pod that isn't there whether a training step fits, and what travels between its chips."""

import dataclasses
import os
import re
import time
from typing import Any

import jax
import jax.numpy as jnp

from anchor_jax import parallel
from anchor_jax.config import RunConfig
from anchor_jax.errors import UserError
from anchor_jax.models.networks import Networks
from anchor_jax.shapes import PyTree
from anchor_jax.store.weights import frozen_names, trained_keys, with_adapters
from anchor_jax.training.chips import chip_of
from anchor_jax.training.hlo import collective_bytes
from anchor_jax.training.state import make_state
from anchor_jax.training.step import jit_step, step_of


class DoesNotFit(UserError):
  """The compiler gave up because the memory of a chip is too small."""


@dataclasses.dataclass(frozen=True)
class Answer:
  """What the compiler says of one step, per chip.

  Attributes:
    devices, kind: how many chips and of which kind.
    arguments, temporaries: bytes.
    memory: bytes that a chip has.
    flops: operations of a step, where the compiler counts them (loops once).
    collectives: bytes that a chip sends for each kind of collective in the program's text (loops once).
    seconds: of compiling.
  """

  devices: int
  kind: str
  arguments: int
  temporaries: int
  memory: int
  flops: float
  collectives: dict[str, int]
  seconds: float

  @property
  def total(self) -> int:
    """Bytes that a step needs."""
    return self.arguments + self.temporaries

  @property
  def fits(self) -> bool:
    """Whether that is no more than there is."""
    return self.total <= self.memory

  def table(self) -> str:
    """For people."""
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
    return "\n".join(f"{name:40s}{value}" for name, value in rows)


def tell_fit(topology: str, config: RunConfig) -> bool:
  """Prints what the compiler says of a run's step on a topology; whether it fits."""
  try:
    answer = compile_for(topology, config)
  except DoesNotFit as reason:
    print(reason)
    return False
  print(answer.table())
  return answer.fits


def compile_for(topology: str, config: RunConfig) -> Answer:
  """Compiles the real step of a run for a TPU topology such as "v5e:4x4"; needs the TPU compiler, but no TPU.

  Sizes are config.model's: no weights are read. The batch holds what a cached dataset gives.

  Raises:
    DoesNotFit: so little that the compiler found no program.
    UserError: no such topology, or no TPU compiler.
  """
  devices = topology_devices(topology)
  mesh = parallel.make_mesh(config.mesh, devices)
  parallel.check_batch(mesh, config.data.batch_size)
  started = time.monotonic()
  step, arguments = step_shapes(config, mesh)
  with parallel.use_mesh(mesh):
    try:
      compiled = step.lower(*arguments).compile()
    except jax.errors.JaxRuntimeError as error:
      if "RESOURCE_EXHAUSTED" not in str(error):
        raise
      raise DoesNotFit(
        f"the step DOES NOT FIT {topology}{shortage(str(error))}: lower config.data.batch_size, or raise"
        " config.mesh.fsdp"
      ) from None
  memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
  chip = chip_of(devices[0])
  return Answer(
    len(devices),
    devices[0].device_kind,
    memory.argument_size_in_bytes,
    memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes,
    chip.memory if chip else 0,
    float(cost.get("flops", 0)),
    collective_bytes(compiled.as_text()),
    time.monotonic() - started,
  )


def shortage(told: str) -> str:
  """What a compiler that ran out of memory says it needs, for the middle of a sentence; empty if it doesn't say."""
  found = re.search(r"(?:Used|temporaries \()\s*([\d.]+)([KMGT]).*?(?:of|HBM \()\s*([\d.]+)([KMGT])", told)
  return f": it needs {found[1]} {found[2]}iB of {found[3]} {found[4]}iB" if found else ""


def topology_devices(topology: str) -> list[Any]:
  """The devices of a pod that isn't there."""
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
  os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-16")
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
  from jax.experimental import topologies

  try:
    return list(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)
  except Exception as error:  # noqa: BLE001 - whatever the plugin makes of a missing library or a wrong name
    told = " ".join(str(error).split())[:200]
    raise UserError(
      f"no compiler for {topology} ({told}): name a topology such as v5e:4x4, and install the tpu extra"
    ) from None


def step_shapes(config: RunConfig, mesh: Any) -> tuple[Any, tuple]:
  """(the jitted step, its arguments as shapes with shardings) of a run on a mesh."""
  networks = Networks(config.model, config.dtype)
  optimizer, step = step_of(config, networks)
  weights = jax.eval_shape(lambda key: with_adapters(networks.init(key), config), jax.random.key(0))
  trained = {name: weights[name] for name in trained_keys(config)}
  frozen = {name: weights[name] for name in frozen_names(config)}
  state = jax.eval_shape(lambda trained: make_state(trained, optimizer, config), trained)
  state, frozen = (_sharded(tree, parallel.parameter_shardings(tree, mesh)) for tree in (state, frozen))
  batch = batch_shapes(config, parallel.batch_sharding(mesh))
  key = jax.eval_shape(lambda: jax.random.key(0))
  return jit_step(step, state), (state, frozen, batch, key)


def batch_shapes(config: RunConfig, sharding: Any) -> dict[str, jax.ShapeDtypeStruct]:
  """A batch as the loader gives it."""
  model, count = config.model, config.data.batch_size
  side = config.data.crop if config.part == "head" else config.data.size
  small = side // model.vae.stride
  shapes: dict[str, tuple[tuple[int, ...], Any]] = {"pose": ((side, side, 3), jnp.uint8)}
  if not config.data.cache:
    shapes |= {"frame": ((side, side, 3), jnp.uint8), "reference_frame": ((side, side, 3), jnp.uint8)}
    if config.part == "head":
      shapes["keep_mask"] = ((side, side, 1), jnp.uint8)
  else:
    shapes["latent"] = ((small, small, model.unet.out_channels), jnp.float32)
    shapes["reference_context"] = ((model.image_encoder.tokens, model.unet.cross_attention_dim), jnp.float32)
    if config.part == "head":
      shapes["inpaint"] = ((small, small, model.unet.in_channels - model.unet.out_channels), jnp.float32)
  frames = (config.data.clip_frames,) if config.data.clip_frames > 1 else ()
  leading = lambda name: (count,) if name.startswith("reference_") else (count, *frames)
  return {
    name: jax.ShapeDtypeStruct((*leading(name), *shape), dtype, sharding=sharding)
    for name, (shape, dtype) in shapes.items()
  }


def _sharded(tree: PyTree, shardings: PyTree) -> PyTree:
  return jax.tree.map(lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree, shardings)
