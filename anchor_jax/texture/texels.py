"""Where pixels of surface maps lie on the texture: texels and bilinear weights.

Each chart has a square texture of TEXELS x TEXELS; a chart that wraps is periodic in u. Textures of all charts
together are numbered chart * TEXELS^2 + row * TEXELS + column, rows along v.
"""

from collections.abc import Sequence

import numpy as np

from anchor_jax.core.shapes import Bool, Float, Int, NdArray, UInt8

TEXELS = 64
CHART_TEXELS = TEXELS * TEXELS
LEVELS = 256  # values of u and v in a surface map
_PER_TEXEL = LEVELS // TEXELS


def positions(values: UInt8[NdArray, "*N"] | Float[NdArray, "*N"]) -> Float[NdArray, "*N"]:
  """Position of u or v values of a surface map in texels; a texel's centre is a whole number, -0.5 the chart's edge."""
  return (np.asarray(values, np.float32) + np.float32(0.5)) / np.float32(_PER_TEXEL) - np.float32(0.5)


def corners(
  chart: Int[NdArray, "*N"],
  column: Float[NdArray, "*N"],
  row: Float[NdArray, "*N"],
  wraps: Bool[NdArray, " charts"],
) -> tuple[Int[NdArray, "4 *N"], Float[NdArray, "4 *N"]]:
  """The four texels around positions, and their bilinear weights, which sum to 1.

  Args:
    chart: numbers of charts.
    column, row: positions in texels along u and v, see `positions`.
    wraps: for each chart, whether it is periodic in u; other charts repeat their edge texels.
  """
  left, top = np.floor(column), np.floor(row)
  right_share, bottom_share = column - left, row - top
  periodic = wraps[chart]
  first = chart * CHART_TEXELS

  def across(values: NdArray) -> NdArray:
    values = values.astype(np.int64)
    return np.where(periodic, values % TEXELS, np.clip(values, 0, TEXELS - 1))

  def down(values: NdArray) -> NdArray:
    return first + np.clip(values.astype(np.int64), 0, TEXELS - 1) * TEXELS

  columns, rows = (across(left), across(left + 1)), (down(top), down(top + 1))
  column_shares, row_shares = (1 - right_share, right_share), (1 - bottom_share, bottom_share)
  index = np.stack([rows[i] + columns[j] for i in (0, 1) for j in (0, 1)])
  weight = np.stack([row_shares[i] * column_shares[j] for i in (0, 1) for j in (0, 1)])
  return index, weight.astype(np.float32)


def nearest(
  chart: Int[NdArray, "*N"],
  column: Float[NdArray, "*N"],
  row: Float[NdArray, "*N"],
  wraps: Bool[NdArray, " charts"],
) -> Int[NdArray, "*N"]:
  """The texel in which positions lie; arguments as `corners` has them."""
  columns, rows = (np.rint(values).astype(np.int64) for values in (column, row))
  columns = np.where(wraps[chart], columns % TEXELS, np.clip(columns, 0, TEXELS - 1))
  return chart * CHART_TEXELS + np.clip(rows, 0, TEXELS - 1) * TEXELS + columns


def inner_pixels(surface: UInt8[NdArray, "H W 3"]) -> Bool[NdArray, "H W"]:
  """Whether a pixel and its eight neighbours lie on one chart: its colour is not mixed with another surface's."""
  chart = np.pad(surface[..., 0], 1, mode="edge")
  height, width = surface.shape[:2]
  inner = surface[..., 0] > 0
  for dy in (0, 1, 2):
    for dx in (0, 1, 2):
      inner &= chart[dy : dy + height, dx : dx + width] == surface[..., 0]
  return inner


def checked_wraps(wraps: Sequence[bool] | Bool[NdArray, " charts"]) -> Bool[NdArray, " charts"]:
  """The flags as an array.

  Raises:
    ValueError: none, or more than a surface map can number.
  """
  flags = np.asarray(wraps, bool)
  if not 1 <= len(flags) <= LEVELS:
    raise ValueError(f"{len(flags)} charts: a surface map numbers 1 to {LEVELS}")
  return flags
