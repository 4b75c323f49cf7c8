"""Bilinear sampling on the device: neighbors and weights of positions, for texels of charts and for pixels of pictures.

Positions are split into `first`, the integer position of the upper left neighbor, and `part`, the distance beyond it in
units of 1 / `whole`. With integer parts, weights are integers too, and sums of them are exact in any order.
"""

from collections.abc import Iterator

import jax.numpy as jnp

from anchor_jax.core.shapes import Array, Bool, Float, Int, Shaped, UInt8
from anchor_jax.texture.texels import CHART_TEXELS, LEVELS, TEXELS

TEXEL_PARTS = 2 * LEVELS // TEXELS  # u and v, and so bilinear weights, are multiples of this fraction of a texel


def neighbors(
  first: Int[Array, "H W 2"], part: Shaped[Array, "H W 2"], whole: int
) -> Iterator[tuple[Int[Array, "H W 2"], Shaped[Array, "H W"]]]:
  """Yields the four neighbors (x, y) of each position with their weights, which sum to `whole` squared.

  The left ones come first, the upper before the lower. Neighbors may lie outside of the picture.
  """
  for across in (0, 1):
    for down in (0, 1):
      step = jnp.array([across, down])
      weight = jnp.where(step == 1, part, whole - part)
      yield first + step, weight[..., 0] * weight[..., 1]


def sample(
  picture: Shaped[Array, "h w C"],
  first: Int[Array, "H W 2"],
  part: Shaped[Array, "H W 2"],
  whole: int,
  outside: float | None = None,
) -> Float[Array, "H W C"]:
  """Weighted sums of a picture's pixels, `whole` squared times the bilinear samples.

  Args:
    picture: any number of channels.
    first, part, whole: positions, x before y, as the module describes.
    outside: value of pixels outside of the picture; None repeats its edge.
  """
  height, width = picture.shape[:2]
  flat, total = picture.reshape(-1, picture.shape[-1]), jnp.zeros((*first.shape[:2], picture.shape[-1]))
  for pixel, weight in neighbors(first, part, whole):
    inside = jnp.clip(pixel, 0, jnp.array([width - 1, height - 1]))
    value = flat[inside[..., 1] * width + inside[..., 0]].astype(jnp.float32)
    if outside is not None:
      value = jnp.where((pixel == inside).all(axis=-1, keepdims=True), value, outside)
    total += weight.astype(jnp.float32)[..., None] * value
  return total


def texel_corners(
  wraps: Bool[Array, " charts"], surface: UInt8[Array, "H W 3"]
) -> tuple[Int[Array, "4 H W"], Float[Array, "4 H W"]]:
  """The four texels around each pixel's position, upper ones first, and their weights: integers that sum to 64.

  Weights are 0 where there is no surface.

  Args:
    wraps: for each chart, whether it is periodic in u; other charts repeat their edge texels.
    surface: surface map (chart, u, v).
  """
  chart = jnp.minimum(surface[..., 0].astype(jnp.int32), wraps.shape[0] - 1)
  # In units of 1 / TEXEL_PARTS of a texel; centers of texels are multiples of TEXEL_PARTS.
  position = 2 * surface[..., 1:].astype(jnp.int32) + 1 - TEXEL_PARTS // 2
  indices, weights = [], []
  for texel, weight in neighbors(position // TEXEL_PARTS, position % TEXEL_PARTS, TEXEL_PARTS):
    column = jnp.where(wraps[chart], texel[..., 0] % TEXELS, jnp.clip(texel[..., 0], 0, TEXELS - 1))
    indices.append(jnp.clip(texel[..., 1], 0, TEXELS - 1) * TEXELS + column + chart * CHART_TEXELS)
    weights.append(weight)
  upper_first = (0, 2, 1, 3)
  index = jnp.stack([indices[i] for i in upper_first])
  weight = jnp.stack([weights[i] for i in upper_first])
  return index, jnp.where(surface[..., 0] > 0, weight, 0).astype(jnp.float32)
