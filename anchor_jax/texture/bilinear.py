"""Bilinear sampling on the device: neighbors and weights of positions, for texels of charts and for pixels of pictures.

A position is `first` + `fraction` / `unit`: the integer position of its upper left neighbor, and the distance from it.
Integer fractions give integer weights, whose sums are exact in any order.
"""

from collections.abc import Iterator

import jax.numpy as jnp

from anchor_jax.core.shapes import Array, Bool, Float, Int, Shaped, UInt8
from anchor_jax.texture.texels import CHART_TEXELS, LEVELS, TEXELS

TEXEL_UNIT = 2 * LEVELS // TEXELS  # u and v, and so bilinear weights, are multiples of this fraction of a texel


def neighbors(
  first: Int[Array, "H W 2"], fraction: Shaped[Array, "H W 2"], unit: int
) -> Iterator[tuple[Int[Array, "H W 2"], Shaped[Array, "H W"]]]:
  """Yields the four neighbors (x, y) of each position with their weights, which sum to `unit` squared.

  The left ones come first, the upper before the lower. Neighbors may lie outside of the picture.
  """
  for across in (0, 1):
    for down in (0, 1):
      step = jnp.array([across, down])
      weight = jnp.where(step == 1, fraction, unit - fraction)
      yield first + step, weight[..., 0] * weight[..., 1]


def sample(
  picture: Shaped[Array, "h w C"],
  first: Int[Array, "H W 2"],
  fraction: Shaped[Array, "H W 2"],
  unit: int,
  outside: float | None = None,
) -> Float[Array, "H W C"]:
  """Weighted sums of a picture's pixels, `unit` squared times the bilinear samples.

  Args:
    picture: any number of channels.
    first, fraction, unit: positions, x before y, as the module describes.
    outside: value of pixels outside of the picture; None repeats its edge.
  """
  height, width = picture.shape[:2]
  flat, total = picture.reshape(-1, picture.shape[-1]), jnp.zeros((*first.shape[:2], picture.shape[-1]))
  for pixel, weight in neighbors(first, fraction, unit):
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
  # In units of 1 / TEXEL_UNIT of a texel; centers of texels are multiples of TEXEL_UNIT.
  position = 2 * surface[..., 1:].astype(jnp.int32) + 1 - TEXEL_UNIT // 2
  indices, weights = [], []
  for texel, weight in neighbors(position // TEXEL_UNIT, position % TEXEL_UNIT, TEXEL_UNIT):
    column = jnp.where(wraps[chart], texel[..., 0] % TEXELS, jnp.clip(texel[..., 0], 0, TEXELS - 1))
    indices.append(jnp.clip(texel[..., 1], 0, TEXELS - 1) * TEXELS + column + chart * CHART_TEXELS)
    weights.append(weight)
  upper_first = (0, 2, 1, 3)
  index = jnp.stack([indices[i] for i in upper_first])
  weight = jnp.stack([weights[i] for i in upper_first])
  return index, jnp.where(surface[..., 0] > 0, weight, 0).astype(jnp.float32)
