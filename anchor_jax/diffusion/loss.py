"""The training loss, with all randomness given as arguments."""

import jax.numpy as jnp

from anchor_jax.diffusion.sampler import Denoise
from anchor_jax.diffusion.schedule import Schedule, add_noise, training_target
from anchor_jax.shapes import Array, Float, Int, PyTree


def denoising_loss(
  denoise: Denoise,
  schedule: Schedule,
  clean: Float[Array, "B T H W C"],
  noise: Float[Array, "B T H W C"],
  timesteps: Int[Array, "B"],
  context: Float[Array, "B N D"],
  condition: PyTree,
) -> Float[Array, "B"]:
  """Mean squared error of the prediction for each clip (DDPM eq. 14); float32."""
  noisy = add_noise(schedule, clean, noise, timesteps)
  mask = jnp.ones(clean.shape[:2], bool)
  prediction = denoise(noisy, timesteps, context, condition, mask)
  error = prediction.astype(jnp.float32) - training_target(schedule, clean, noise, timesteps)
  return jnp.mean(jnp.square(error), axis=tuple(range(1, error.ndim)))
