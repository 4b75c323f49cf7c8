"""Peak rate and memory of accelerators, by the name that JAX gives them: for utilisation, and whether a run fits.

Rates are dense bfloat16, memory is HBM, both from the manufacturers (Google Cloud's TPU pages, NVIDIA's data sheets
for the SXM cards).
"""

import dataclasses
from typing import Any

from anchor_jax.config import RunConfig


@dataclasses.dataclass(frozen=True)
class Chip:
  """One accelerator.

  Attributes:
    flops: peak bfloat16 operations per second.
    memory: HBM in bytes.
  """

  flops: float
  memory: int


_GB = 10**9
_CHIPS = {
  "TPU v4": Chip(275e12, 32 * _GB),
  "TPU v5 lite": Chip(197e12, 16 * _GB),
  "TPU v5e": Chip(197e12, 16 * _GB),
  "TPU v5p": Chip(459e12, 95 * _GB),
  "TPU v5": Chip(459e12, 95 * _GB),
  "TPU v6 lite": Chip(918e12, 32 * _GB),
  "TPU v6e": Chip(918e12, 32 * _GB),
  "A100": Chip(312e12, 80 * _GB),
  "H100": Chip(989e12, 80 * _GB),
  "H200": Chip(989e12, 141 * _GB),
}


def chip_of(device: Any) -> Chip | None:
  """The chip of a JAX device; None if it is not in the table (such as a CPU)."""
  kind = device.device_kind
  return next((chip for name, chip in _CHIPS.items() if name in kind), None)


def step_flops(compiled: Any, config: RunConfig) -> float:
  """Floating-point operations of a compiled step on one device; 0 if its compiler does not count them."""
  cost = compiled.cost_analysis() or {}
  return (
    max(0.0, float(cost.get("flops", 0))) * config.optimizer.accumulate
  )  # the compiler counts the body of a loop once
