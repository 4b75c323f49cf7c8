"""The training loss; noise and timesteps are arguments."""

import jax.numpy as jnp

from anchor_jax.core.shapes import Array, Float, Int, PyTree
from anchor_jax.diffusion.predict import Denoise
from anchor_jax.diffusion.schedule import Schedule, add_noise, clean_estimate, signal_and_noise, training_target


def denoising_loss(
  denoise: Denoise,
  schedule: Schedule,
  clean: Float[Array, "B T H W C"],
  noise: Float[Array, "B T H W C"],
  timesteps: Int[Array, "B"],
  context: Float[Array, "B N D"],
  frame_inputs: PyTree,
  snr_gamma: float = 0.0,
  weights: Float[Array, "B T H W"] | None = None,
) -> tuple[Float[Array, "B"], Float[Array, "B T H W C"]]:
  """(mean squared error of the prediction for each clip, clean latents that the prediction implies), float32.

  The error is DDPM's, eq. 14. With `snr_gamma` above 0 it is weighted by min-SNR (Hang et al. 2023): the error of the
  clean latent, times min(SNR, snr_gamma). `weights` are the weights of the cells in the mean; None: equal weights.
  """
  noisy = add_noise(schedule, clean, noise, timesteps)
  mask = jnp.ones(clean.shape[:2], bool)
  prediction = denoise(noisy, timesteps, context, frame_inputs, mask)
  error = prediction.astype(jnp.float32) - training_target(schedule, clean, noise, timesteps)
  if weights is not None:
    error = error * jnp.sqrt(weights / jnp.mean(weights, axis=(1, 2, 3), keepdims=True))[..., None]
  losses = jnp.mean(jnp.square(error), axis=tuple(range(1, error.ndim)))
  if snr_gamma > 0:
    losses = losses * snr_weight(schedule, timesteps, snr_gamma)
  return losses, clean_estimate(schedule, noisy, prediction.astype(jnp.float32), timesteps)


def snr_weight(schedule: Schedule, timesteps: Int[Array, "B"], gamma: float) -> Float[Array, "B"]:
  """The min-SNR weight of the squared error of the prediction; finite at both ends of the schedule."""
  alpha, sigma = signal_and_noise(schedule, timesteps, 1)
  signal, noise = jnp.square(alpha), jnp.square(sigma)
  bounded = jnp.minimum(signal, gamma * noise)  # min(SNR, gamma) times the noise power
  if schedule.prediction_type == "epsilon":  # |eps error|^2 = SNR |x0 error|^2
    return bounded / jnp.maximum(signal, 1e-12)
  if schedule.prediction_type == "v_prediction":  # |v error|^2 = (SNR + 1) |x0 error|^2
    return bounded  # over the noise power and over SNR + 1 = 1 / noise power, which cancel
  return bounded / jnp.maximum(noise, 1e-12)
