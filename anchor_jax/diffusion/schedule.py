"""Noise schedules: the scale of signal and noise in a latent at each training timestep.

Source: Ho et al. 2020 (DDPM), eq. 4; Lin et al. 2024, "Common diffusion noise schedules are flawed", for the
zero-terminal-SNR rescaling and the timestep spacings.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from anchor_jax.config.networks import ScheduleConfig
from anchor_jax.core.errors import UserError, suggestion
from anchor_jax.core.shapes import Array, Float, Int, NdArray


@dataclasses.dataclass(frozen=True)
class Schedule:
  """Tables over the training timesteps, on the host in float64.

  Attributes:
    alphas_cumprod: signal power, the product of (1 - beta) up to each timestep, float64 [num_train_timesteps].
    final_alpha_cumprod: signal power after the last sampling step.
    prediction_type: what the network predicts: "epsilon", "v_prediction" or "sample".
  """

  alphas_cumprod: NdArray
  final_alpha_cumprod: float
  prediction_type: str

  def __len__(self) -> int:
    return len(self.alphas_cumprod)


def make_schedule(config: ScheduleConfig) -> Schedule:
  """The tables of a schedule. Raises UserError if beta_schedule or prediction_type is unknown."""
  count = config.num_train_timesteps
  if config.beta_schedule == "scaled_linear":
    betas = np.linspace(config.beta_start**0.5, config.beta_end**0.5, count, dtype=np.float64) ** 2
  elif config.beta_schedule == "linear":
    betas = np.linspace(config.beta_start, config.beta_end, count, dtype=np.float64)
  elif config.beta_schedule == "squaredcos_cap_v2":  # Nichol & Dhariwal 2021, eq. 17
    bar = np.cos((np.arange(count + 1) / count + 0.008) / 1.008 * np.pi / 2) ** 2
    betas = np.minimum(1 - bar[1:] / bar[:-1], 0.999)
  else:
    hint = suggestion(config.beta_schedule, ("scaled_linear", "linear", "squaredcos_cap_v2"))
    raise UserError(f'unknown beta_schedule "{config.beta_schedule}".{hint}')
  if config.prediction_type not in ("epsilon", "v_prediction", "sample"):
    raise UserError(f'unknown prediction_type "{config.prediction_type}": use epsilon, v_prediction or sample')
  alphas_cumprod = np.cumprod(1 - betas)
  if config.rescale_betas_zero_snr:
    root = np.sqrt(alphas_cumprod)
    alphas_cumprod = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
  final = 1.0 if config.set_alpha_to_one else float(alphas_cumprod[0])
  return Schedule(alphas_cumprod, final, config.prediction_type)


def sampling_timesteps(config: ScheduleConfig, steps: int, spare: int = 0) -> Int[NdArray, "S"]:
  """The `steps` training timesteps that a sampler visits, noisiest first; int32, from 0 to num_train_timesteps - 1.

  Args:
    config: the schedule; its spacing "leading" is Stable Diffusion's and starts below the noisiest timestep,
      "trailing" and "linspace" start at it.
    steps: sampling steps.
    spare: extra points that "leading" and "linspace" lay out; the cleanest points are dropped again.

  Raises:
    UserError: `steps` is out of range, or the spacing is unknown.
  """
  count = config.num_train_timesteps
  if not 1 <= steps <= count:
    raise UserError(f"sampling steps must be between 1 and {count}, not {steps}")
  if config.timestep_spacing == "leading":
    timesteps = np.arange(steps + spare)[::-1] * (count // (steps + spare)) + config.steps_offset
  elif config.timestep_spacing == "trailing":
    timesteps = np.round(np.arange(count, 0, -count / steps)) - 1
  elif config.timestep_spacing == "linspace":
    timesteps = np.round(np.linspace(0, count - 1, steps + spare))[::-1]
  else:
    hint = suggestion(config.timestep_spacing, ("leading", "trailing", "linspace"))
    raise UserError(f'unknown timestep_spacing "{config.timestep_spacing}".{hint}')
  return np.clip(timesteps[:steps], 0, count - 1).astype(np.int32)


def signal_and_noise(schedule: Schedule, timesteps: Int[Array, "B"], rank: int):
  """(alpha, sigma) at timesteps, float32, shaped [B, 1, ...] to broadcast against arrays of `rank` axes."""
  alphas_cumprod = jnp.asarray(schedule.alphas_cumprod, jnp.float32)[timesteps]
  alphas_cumprod = alphas_cumprod.reshape(alphas_cumprod.shape + (1,) * (rank - 1))
  return jnp.sqrt(alphas_cumprod), jnp.sqrt(1 - alphas_cumprod)


def add_noise(
  schedule: Schedule, clean: Float[Array, "B ..."], noise: Float[Array, "B ..."], timesteps: Int[Array, "B"]
) -> Float[Array, "B ..."]:
  """The forward process: alpha x + sigma noise (DDPM eq. 4)."""
  alpha, sigma = signal_and_noise(schedule, timesteps, clean.ndim)
  return alpha * clean + sigma * noise


def training_target(
  schedule: Schedule, clean: Float[Array, "B ..."], noise: Float[Array, "B ..."], timesteps: Int[Array, "B"]
) -> Float[Array, "B ..."]:
  """The network's target: the noise, the velocity (Salimans & Ho 2022, appendix D) or the clean latent."""
  if schedule.prediction_type == "epsilon":
    return noise
  if schedule.prediction_type == "sample":
    return clean
  alpha, sigma = signal_and_noise(schedule, timesteps, clean.ndim)
  return alpha * noise - sigma * clean


def clean_estimate(
  schedule: Schedule, noisy: Float[Array, "B ..."], prediction: Float[Array, "B ..."], timesteps: Int[Array, "B"]
) -> Float[Array, "B ..."]:
  """The clean latent that a prediction implies; ill-conditioned for predicted noise where there is no signal."""
  if schedule.prediction_type == "sample":
    return prediction
  alpha, sigma = signal_and_noise(schedule, timesteps, noisy.ndim)
  if schedule.prediction_type == "epsilon":
    return (noisy - sigma * prediction) / jnp.maximum(alpha, 1e-3)
  return alpha * noisy - sigma * prediction
