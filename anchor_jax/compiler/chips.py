"""Peak rates and memory of accelerators by their JAX device kind, to compute utilization and whether a run fits.

Rates are dense bfloat16, memory is HBM, both from the manufacturers (Google Cloud's TPU pages, NVIDIA's data sheets
for the SXM cards). A TPU's clock is its peak rate over the operations of its matrix units per cycle. The compiler's
cycles agree for v5e and v6e, where they put convolutions of 512 channels at 98 and 93 % of the peak; the other clocks
are unconfirmed.
"""

import dataclasses
from typing import Any

from anchor_jax.config.run import RunConfig


@dataclasses.dataclass(frozen=True)
class Chip:
  """One accelerator.

  Attributes:
    flops: peak bfloat16 operations per second.
    memory: HBM in bytes.
    clock: cycles per second; 0 if unknown, as for the remaining fields.
    bandwidth: of HBM, bytes per second.
    link: bytes per second that a chip sends along one axis of the torus, both directions together.
  """

  flops: float
  memory: int
  clock: float = 0.0
  bandwidth: float = 0.0
  link: float = 0.0

  @property
  def vector(self) -> float:
    """Float32 operations per second of the vector unit: 8 x 128 lanes, taken as 4 operations a cycle."""
    return 4 * 8 * 128 * self.clock


_GB = 10**9
_CHIPS = {
  "TPU v4": Chip(275e12, 32 * _GB),
  "TPU v5 lite": Chip(197e12, 16 * _GB, 1.5e9, 819e9, 100e9),
  "TPU v5e": Chip(197e12, 16 * _GB, 1.5e9, 819e9, 100e9),
  "TPU v5p": Chip(459e12, 95 * _GB, 1.75e9, 2765e9, 200e9),
  "TPU v5": Chip(459e12, 95 * _GB, 1.75e9, 2765e9, 200e9),
  "TPU v6 lite": Chip(918e12, 32 * _GB, 1.75e9, 1640e9, 224e9),
  "TPU v6e": Chip(918e12, 32 * _GB, 1.75e9, 1640e9, 224e9),
  "A100": Chip(312e12, 80 * _GB),
  "H100": Chip(989e12, 80 * _GB),
  "H200": Chip(989e12, 141 * _GB),
}


def chip_of(device: Any) -> Chip | None:
  """The chip of a JAX device; None if it is not in the table (a CPU, for example)."""
  kind = device.device_kind
  return next((chip for name, chip in _CHIPS.items() if name in kind), None)


def step_flops(compiled: Any, config: RunConfig) -> float:
  """Floating-point operations of a compiled step on one device; 0 if its compiler does not count them."""
  cost = compiled.cost_analysis() or {}
  # The compiler counts the body of a loop once.
  return max(0.0, float(cost.get("flops", 0))) * config.optimizer.accumulate
