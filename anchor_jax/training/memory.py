"""Memory of a training step: settings that cannot fit are refused in one line, as early as that can be known."""

import contextlib
import math
import os
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from anchor_jax.compiler.chips import chip_of
from anchor_jax.config.run import RunConfig
from anchor_jax.core.errors import UserError
from anchor_jax.training.batches import batch_shapes

_BATCHES = 3  # on the host: one in use, two read ahead


def check_batch_memory(config: RunConfig, size: int, processes: int = 1) -> None:
  """Raises UserError if the pictures of the batches that a process holds need more than the host's memory.

  It counts pixels alone, so that what it refuses is certain not to fit, whatever the networks.

  Args:
    config: settings of the run.
    size: height and width of the prepared frames, in pixels.
    processes: number of processes that share a batch.
  """
  pictures = [leaf for leaf in jax.tree.leaves(batch_shapes(config, size)) if leaf.dtype == jnp.uint8]
  needed = _BATCHES * sum(math.prod(leaf.shape) for leaf in pictures) // processes
  if needed > host_memory():
    raise UserError(
      f"batches of {config.data.batch_size} need {_gigabytes(needed)} of the host's {_gigabytes(host_memory())}: lower"
      " config.data.batch_size (or config.data.clip_frames)"
    )


def check_step_memory(compiled: Any, config: RunConfig, mesh: Mesh) -> None:
  """Raises UserError if a compiled step needs more memory than a device of the mesh has, where both are known."""
  needed, available = step_memory(compiled), device_memory(mesh)
  if needed and available and needed > available:
    raise UserError(f"a step needs {_gigabytes(needed)} of a device's {_gigabytes(available)}: {_advice(config)}")


@contextlib.contextmanager
def out_of_memory_as_user_error(config: RunConfig) -> Iterator[None]:
  """Turns JAX's error about exhausted memory into a UserError of one line."""
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    raise UserError(f"a training step needs more memory than a device has: {_advice(config)}") from error


def step_memory(compiled: Any) -> int:
  """Bytes of arguments, results and temporaries of a compiled program on one device; 0 if its compiler does not say."""
  memory = compiled.memory_analysis()
  if memory is None:
    return 0
  results = memory.output_size_in_bytes - memory.alias_size_in_bytes
  return memory.argument_size_in_bytes + memory.temp_size_in_bytes + results


def device_memory(mesh: Mesh) -> int:
  """Bytes that each device of a mesh has; 0 if unknown. CPU devices share the host's memory."""
  local = [device for device in mesh.devices.flat if device.process_index == jax.process_index()]
  if local[0].platform == "cpu":
    return host_memory() // len(local)
  stats = local[0].memory_stats() or {}
  chip = chip_of(local[0])
  return int(stats.get("bytes_limit", chip.memory if chip else 0))


def host_memory() -> int:
  """Bytes of the machine's memory."""
  return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _advice(config: RunConfig) -> str:
  size, parts = config.data.batch_size, config.optimizer.accumulate
  return (
    f"lower config.data.batch_size, which is {size}, or raise config.optimizer.accumulate, which is {parts}, to split"
    " the batch"
  )


def _gigabytes(count: int) -> str:
  return f"{count / 1e9:.1f} GB"
