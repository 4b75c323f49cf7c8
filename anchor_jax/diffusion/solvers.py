"""Deterministic solvers as tables: every step is a weighted sum of three arrays, so a solver is a few numbers per step.

    x0     = the clean latent that the network's prediction implies
    x_next = from_sample[i] x + from_clean[i] x0 + from_previous[i] (x0 of the previous step)

DDIM (Song et al. 2021, eq. 12, eta = 0) and DPM-Solver++ 2M (Lu et al. 2022, algorithm 2) have this form. The previous
x0 is stored for each frame along with its latent.

To add a solver, write a subclass of `SolverBase`, decorate it with `register`, and add its name to `SOLVERS` in
config/run.py, which checks settings before JAX is loaded.
"""

import abc
import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.config.networks import ScheduleConfig
from anchor_jax.core.errors import UserError, suggestion
from anchor_jax.core.shapes import Array, Float, Int, NdArray
from anchor_jax.diffusion.schedule import Schedule, make_schedule, sampling_timesteps

SOLVERS: dict[str, "SolverBase"] = {}  # by the name for `SampleConfig.solver`; filled by `register`


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SolverTables:
  """The coefficients of a solver at each of S sampling steps, noisiest first. A pytree.

  Attributes:
    timesteps: training timesteps passed to the network, int32 [S].
    alpha, sigma: signal and noise scale of the latent before each step, float32 [S].
    from_sample, from_clean, from_previous: weights of the sum above, float32 [S].
    prediction_type: what the network predicts: "epsilon", "v_prediction" or "sample".
  """

  timesteps: Int[Array, "S"]
  alpha: Float[Array, "S"]
  sigma: Float[Array, "S"]
  from_sample: Float[Array, "S"]
  from_clean: Float[Array, "S"]
  from_previous: Float[Array, "S"]
  prediction_type: str = dataclasses.field(metadata={"static": True})

  def __len__(self) -> int:
    return self.timesteps.shape[0]


class SolverBase(abc.ABC):
  """Computes the tables of one solver. A subclass chooses timesteps and weights; see `register`."""

  def timesteps(self, config: ScheduleConfig, steps: int) -> Int[NdArray, "S"]:
    """The training timesteps to visit, noisiest first."""
    return sampling_timesteps(config, steps)

  @abc.abstractmethod
  def next_signal_power(
    self, schedule: Schedule, timesteps: Int[NdArray, "S"], power: Float[NdArray, "S"]
  ) -> Float[NdArray, "S"]:
    """The signal power (alpha squared) after each step; `power` is the power before it."""

  def weights(
    self,
    alpha: Float[NdArray, "S"],
    sigma: Float[NdArray, "S"],
    next_alpha: Float[NdArray, "S"],
    next_sigma: Float[NdArray, "S"],
  ) -> tuple[Float[NdArray, "S"], Float[NdArray, "S"], Float[NdArray, "S"]]:
    """(from_sample, from_clean, from_previous) in float64; by default the first-order step, which is DDIM's."""
    from_sample = next_sigma / sigma
    return from_sample, next_alpha - from_sample * alpha, np.zeros(len(alpha))

  def tables(self, config: ScheduleConfig, steps: int) -> SolverTables:
    """The tables for `steps` sampling steps.

    Raises:
      UserError: `steps` is not between 1 and the number of training timesteps, or the schedule is unknown.
    """
    schedule, timesteps = make_schedule(config), self.timesteps(config, steps)
    power = schedule.alphas_cumprod[timesteps]
    next_power = self.next_signal_power(schedule, timesteps, power)
    alpha, sigma = np.sqrt(power), np.sqrt(1 - power)
    weights = self.weights(alpha, sigma, np.sqrt(next_power), np.sqrt(1 - next_power))
    table = lambda values: jnp.asarray(values, jnp.float32)
    from_sample, from_clean, from_previous = map(table, weights)
    return SolverTables(
      jnp.asarray(timesteps), table(alpha), table(sigma), from_sample, from_clean, from_previous,
      schedule.prediction_type,
    )  # fmt: skip


def register(name: str) -> Callable[[type[SolverBase]], type[SolverBase]]:
  """Class decorator that adds a solver to `SOLVERS` under `name`."""

  def add(kind: type[SolverBase]) -> type[SolverBase]:
    SOLVERS[name] = kind()
    return kind

  return add


@register("ddim")
class DDIM(SolverBase):
  """DDIM without noise (Song et al. 2021, eq. 12, eta = 0), with the timesteps of diffusers."""

  def next_signal_power(self, schedule, timesteps, power):
    """The power a fixed stride below each timestep, whichever timestep comes next, as in diffusers."""
    before = timesteps - len(schedule) // len(timesteps)
    return np.where(before >= 0, schedule.alphas_cumprod[np.maximum(before, 0)], schedule.final_alpha_cumprod)


@register("dpm++2m")
class DPMSolverPP2M(SolverBase):
  """Second-order multistep DPM-Solver++ (Lu et al. 2022, algorithm 2), with the timesteps of diffusers."""

  def timesteps(self, config, steps):
    """The timesteps for one more step, without the cleanest."""
    return sampling_timesteps(config, steps, spare=1)

  def next_signal_power(self, schedule, timesteps, power):
    """The power at the next timestep."""
    return np.append(power[1:], schedule.final_alpha_cumprod)

  def weights(self, alpha, sigma, next_alpha, next_sigma):
    """The second-order step; first-order where a log-SNR is infinite, and for the last of fewer than 15 steps."""
    from_sample, from_clean, from_previous = super().weights(alpha, sigma, next_alpha, next_sigma)
    steps = len(alpha)
    with np.errstate(divide="ignore"):
      log_snr, next_log_snr = np.log(alpha / sigma), np.log(next_alpha / next_sigma)
    for i in range(1, steps):
      last_of_few = i == steps - 1 and steps < 15  # the paper's advice for few steps
      if last_of_few or not np.isfinite(next_log_snr[i]) or not np.isfinite(log_snr[i - 1]):
        continue
      slope = (next_log_snr[i] - log_snr[i]) / (2 * (log_snr[i] - log_snr[i - 1]))
      from_previous[i] = -slope * from_clean[i]
      from_clean[i] *= 1 + slope
    return from_sample, from_clean, from_previous


def make_solver(name: str, config: ScheduleConfig, steps: int) -> SolverTables:
  """The tables of the solver registered as `name`, for `steps` sampling steps.

  Raises:
    UserError: no solver has that name, or `steps` is out of range.
  """
  if name not in SOLVERS:
    raise UserError(f'unknown solver "{name}": use one of {", ".join(SOLVERS)}.{suggestion(name, SOLVERS)}')
  return SOLVERS[name].tables(config, steps)


def clean_from_prediction(
  solver: SolverTables,
  step: Int[Array, ""] | Int[Array, "B"],
  sample: Float[Array, "..."],
  prediction: Float[Array, "..."],
) -> Float[Array, "..."]:
  """The clean latent x0 that a prediction at sampling step `step` implies.

  `step` is one number, or one per leading index of `sample` (windows at different noise levels).
  """
  alpha, sigma = (_along_batch(table[step], sample.ndim) for table in (solver.alpha, solver.sigma))
  if solver.prediction_type == "epsilon":
    return (sample - sigma * prediction) / alpha
  if solver.prediction_type == "v_prediction":
    return alpha * sample - sigma * prediction
  return prediction


def advance(
  solver: SolverTables,
  step: Int[Array, ""] | Int[Array, "B"],
  sample: Float[Array, "..."],
  prediction: Float[Array, "..."],
  previous_clean: Float[Array, "..."],
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
  """One sampling step: (the less noisy sample, the clean latent that the next step takes as `previous_clean`).

  At step 0 the weight of `previous_clean` is zero, so zeros will do.
  """
  clean = clean_from_prediction(solver, step, sample, prediction)
  weights = (solver.from_sample, solver.from_clean, solver.from_previous)
  from_sample, from_clean, from_previous = (_along_batch(table[step], sample.ndim) for table in weights)
  return from_sample * sample + from_clean * clean + from_previous * previous_clean, clean


def _along_batch(values: Array, rank: int) -> Array:
  return values if values.ndim == 0 else values.reshape(values.shape + (1,) * (rank - 1))
