"""Solvers as tables: each deterministic step is a weighted sum, so a solver is a few numbers a step.

    x0     = the clean latent that the prediction implies
    x_next = from_sample[i] x + from_clean[i] x0 + from_previous[i] x0_of_the_step_before

DDIM (Song et al. 2021, eq. 12, eta = 0) and DPM-Solver++ 2M (Lu et al. 2022, algorithm 2) both have this form. The
only memory is the clean latent of the step before, which belongs to a frame and travels with it.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.architecture import ScheduleConfig
from anchor_jax.diffusion.schedule import make_schedule, sampling_timesteps
from anchor_jax.errors import UserError, suggestion
from anchor_jax.shapes import Array, Float, Int

SOLVERS = ("ddim", "dpm++2m")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Solver:
  """Tables over the sampling steps, noisiest first.

  Attributes:
    timesteps: what the network is told, int32 [S].
    alpha, sigma: signal and noise scale of the latent before each step, float32 [S].
    from_sample, from_clean, from_previous: weights of the step, float32 [S].
    prediction_type: what the network predicts.
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


def make_solver(name: str, config: ScheduleConfig, steps: int) -> Solver:
  """The tables of solver `name` ("ddim" or "dpm++2m") for `steps` sampling steps."""
  if name not in SOLVERS:
    raise UserError(f'unknown solver "{name}": use one of {", ".join(SOLVERS)}.{suggestion(name, SOLVERS)}')
  schedule = make_schedule(config)
  timesteps = sampling_timesteps(config, steps, spare=int(name == "dpm++2m"))  # as each is laid out in diffusers
  power = schedule.alphas_cumprod[timesteps]
  if name == "ddim":
    # Stable Diffusion's DDIM steps down by a fixed stride, whatever timestep it visits next.
    before = timesteps - config.num_train_timesteps // steps
    next_power = np.where(before >= 0, schedule.alphas_cumprod[np.maximum(before, 0)], schedule.final_alpha_cumprod)
  else:
    next_power = np.append(power[1:], schedule.final_alpha_cumprod)
  alpha, sigma = np.sqrt(power), np.sqrt(1 - power)
  next_alpha, next_sigma = np.sqrt(next_power), np.sqrt(1 - next_power)

  from_sample = next_sigma / sigma
  from_clean = next_alpha - from_sample * alpha
  from_previous = np.zeros(steps)
  if name == "dpm++2m":
    with np.errstate(divide="ignore"):
      log_snr, next_log_snr = np.log(alpha / sigma), np.log(next_alpha / next_sigma)
    for i in range(1, steps):
      last_of_few = i == steps - 1 and steps < 15  # the paper's advice: end few-step runs with a first-order step
      if last_of_few or not np.isfinite(next_log_snr[i]) or not np.isfinite(log_snr[i - 1]):
        continue
      slope = (next_log_snr[i] - log_snr[i]) / (2 * (log_snr[i] - log_snr[i - 1]))
      from_previous[i] = -slope * from_clean[i]
      from_clean[i] *= 1 + slope

  table = lambda values: jnp.asarray(values, jnp.float32)
  return Solver(
    jnp.asarray(timesteps), table(alpha), table(sigma), table(from_sample), table(from_clean), table(from_previous),
    schedule.prediction_type,
  )  # fmt: skip


def clean_from_prediction(
  solver: Solver, step: Int[Array, ""] | Int[Array, "B"], sample: Float[Array, "..."], prediction: Float[Array, "..."]
) -> Float[Array, "..."]:
  """The clean latent x0 that a prediction at sampling step `step` implies.

  `step` is one number, or one per leading index of `sample` (windows at their own noise levels).
  """
  alpha, sigma = (_along_batch(table[step], sample.ndim) for table in (solver.alpha, solver.sigma))
  if solver.prediction_type == "epsilon":
    return (sample - sigma * prediction) / alpha
  if solver.prediction_type == "v_prediction":
    return alpha * sample - sigma * prediction
  return prediction


def advance(
  solver: Solver,
  step: Int[Array, ""] | Int[Array, "B"],
  sample: Float[Array, "..."],
  prediction: Float[Array, "..."],
  previous_clean: Float[Array, "..."],
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
  """One sampling step: (the less noisy sample, the clean latent to hand to the next step as `previous_clean`).

  At step 0 the weight of `previous_clean` is zero, so zeros will do.
  """
  clean = clean_from_prediction(solver, step, sample, prediction)
  weights = (solver.from_sample, solver.from_clean, solver.from_previous)
  from_sample, from_clean, from_previous = (_along_batch(table[step], sample.ndim) for table in weights)
  return from_sample * sample + from_clean * clean + from_previous * previous_clean, clean


def _along_batch(values: Array, rank: int) -> Array:
  return values if values.ndim == 0 else values.reshape(values.shape + (1,) * (rank - 1))
