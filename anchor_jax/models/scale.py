"""Frames larger than the networks see them: made smaller for the networks, and decoded pictures made larger again.

`RefinerConfig.scale` says by how much. Diffusion at twice the side costs four times as much (its all-frame attention
sixteen times); the key frames of the film show the details at full size anyway, and the refiner paints from them.
"""

import jax
import jax.numpy as jnp

from anchor_jax.core.shapes import Array, Float


def shrink(pixels: Float[Array, "*B H W C"], scale: int) -> Float[Array, "*B h w C"]:
  """Means over squares of scale x scale pixels; the sides of the pictures are multiples of `scale`."""
  return pixels if scale == 1 else _squares(pixels, scale).mean(axis=(-4, -2))


def shrink_looked_up(channels: Float[Array, "*B H W C"], scale: int) -> Float[Array, "*B h w C"]:
  """As `shrink`, but colours count by their coverage, so that unknown pixels (black) do not darken their neighbours.

  Args:
    channels: groups of RGB and coverage, in [0, 1]; see texture/look_up.py.
    scale: side of the squares, pixels.
  """
  if scale == 1:
    return channels
  groups = channels.reshape(*channels.shape[:-1], -1, 4)
  known = groups[..., 3:]
  weighted = jnp.concatenate([groups[..., :3] * known, known], axis=-1).reshape(channels.shape)
  means = shrink(weighted, scale)
  means = means.reshape(*means.shape[:-1], -1, 4)
  coverage = means[..., 3:]
  colour = jnp.where(coverage > 0, means[..., :3] / jnp.where(coverage > 0, coverage, 1), 0)
  made = jnp.concatenate([colour, coverage], axis=-1)
  return made.reshape(*made.shape[:-2], channels.shape[-1])


def enlarge(pictures: Float[Array, "B h w C"], scale: int) -> Float[Array, "B H W C"]:
  """Pictures of `scale` times the side, bilinear."""
  if scale == 1:
    return pictures
  count, height, width, channels = pictures.shape
  return jax.image.resize(pictures, (count, height * scale, width * scale, channels), "linear")


def _squares(pixels: Float[Array, "*B H W C"], side: int) -> Float[Array, "*B h s w s C"]:
  *leading, height, width, channels = pixels.shape
  return pixels.reshape(*leading, height // side, side, width // side, side, channels)
