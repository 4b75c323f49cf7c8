"""Pictures on their way into and out of the networks: ranges, bytes and sizes.

This is the only place where floats become uint8, which has no NaN.

`RefinerConfig.scale` is the ratio of the frames' sides to those of the pictures in the networks. Diffusion at twice the
side costs four times as much (its all-frame attention sixteen times), while the key frames of the film show the details
at full size anyway, and the refiner paints from them.
"""

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Array, Bool, Float, NdArray, UInt8


def to_signed(images: UInt8[Array, "..."]) -> Float[Array, "..."]:
  """uint8 images as float32 in [-1, 1], the autoencoder's range."""
  return images.astype(jnp.float32) / 127.5 - 1


def to_bytes(
  pictures: Float[Array, "B H W 3"], latents: Float[Array, "B h w C"] | None = None
) -> tuple[UInt8[Array, "B H W 3"], Bool[Array, "B"]]:
  """(bytes of pictures in [0, 1], which pictures are finite); values that are not finite become black.

  Args:
    pictures: output of the networks.
    latents: what they were decoded from; checked too, because clipping of pictures hides infinities.
  """
  finite = jnp.isfinite(pictures).all(axis=(1, 2, 3))
  if latents is not None:
    finite &= jnp.isfinite(latents).all(axis=(1, 2, 3))
  return jnp.round(pictures * 255).astype(jnp.uint8), finite


def require_finite(finite: Bool[NdArray, "B"], name: str, first: int = 0) -> None:
  """Raises UserError unless all pictures are finite.

  Args:
    finite: which pictures are, from `to_bytes`.
    name: the word for a picture in the message, such as "frame".
    first: number of the first picture.
  """
  if not finite.all():
    number = first + int(np.argmin(finite))
    raise UserError(
      f"{name} {number} has values that are not finite: the weights are damaged, or the guidance scale, the"
      " conditioning scale or the learning rate of training is too large"
    )


def shrink(pixels: Float[Array, "*B H W C"], scale: int) -> Float[Array, "*B h w C"]:
  """Means over squares of scale x scale pixels; height and width are multiples of `scale`."""
  return pixels if scale == 1 else _squares(pixels, scale).mean(axis=(-4, -2))


def shrink_looked_up(channels: Float[Array, "*B H W C"], scale: int) -> Float[Array, "*B h w C"]:
  """`shrink` with colors weighted by their coverage, so that unknown pixels (black) do not darken their neighbors.

  Args:
    channels: groups of RGB and coverage, in [0, 1]; see texture/look_up/plain.py.
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
  color = jnp.where(coverage > 0, means[..., :3] / jnp.where(coverage > 0, coverage, 1), 0)
  shrunk = jnp.concatenate([color, coverage], axis=-1)
  return shrunk.reshape(*shrunk.shape[:-2], channels.shape[-1])


def enlarge(pictures: Float[Array, "B h w C"], scale: int) -> Float[Array, "B H W C"]:
  """Pictures enlarged `scale` times, bilinear."""
  if scale == 1:
    return pictures
  return _enlarged_along(_enlarged_along(pictures, 1, scale), 2, scale)


def _enlarged_along(pictures: Float[Array, "B h w C"], axis: int, scale: int) -> Float[Array, "B H W C"]:
  """Pictures enlarged along one axis. Each of `scale` phases is a weighted sum of two neighbors; edges are repeated.

  `jax.image.resize` multiplies with matrices instead, which takes several times as long on CPUs.
  """
  size = pictures.shape[axis]
  padded = jnp.pad(pictures, [(1, 1) if i == axis else (0, 0) for i in range(pictures.ndim)], mode="edge")
  neighbors = [jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(3)]
  phases = []
  for phase in range(scale):
    place = (phase + 0.5) / scale + 0.5  # 1 is the pixel itself
    first, share = int(place), place % 1
    phases.append((1 - share) * neighbors[first] + share * neighbors[first + 1] if share else neighbors[first])
  shape = [side * scale if i == axis else side for i, side in enumerate(pictures.shape)]
  return jnp.stack(phases, axis=axis + 1).reshape(shape)


def _squares(pixels: Float[Array, "*B H W C"], side: int) -> Float[Array, "*B h s w s C"]:
  *leading, height, width, channels = pixels.shape
  return pixels.reshape(*leading, height // side, side, width // side, side, channels)
