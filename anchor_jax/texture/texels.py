"""From surface maps to texels of the atlas, on the host; bilinear.py has the device's half.

The atlas has TEXELS x TEXELS texels per chart; a chart that wraps is periodic in u. Texels are numbered
chart * TEXELS^2 + row * TEXELS + column, with rows along v.
"""

from collections.abc import Sequence

import numpy as np

from anchor_jax.core.shapes import Bool, Float, Int, NdArray, UInt8

TEXELS = 64
CHART_TEXELS = TEXELS * TEXELS
LEVELS = 256  # values of u and v in a surface map
_PER_TEXEL = LEVELS // TEXELS


def positions(values: UInt8[NdArray, "*N"] | Float[NdArray, "*N"]) -> Float[NdArray, "*N"]:
  """Positions in texels of u or v values of a surface map: centers are integers, the chart's edge is at -0.5."""
  return (np.asarray(values, np.float32) + np.float32(0.5)) / np.float32(_PER_TEXEL) - np.float32(0.5)


def nearest(
  chart: Int[NdArray, "*N"],
  column: Float[NdArray, "*N"],
  row: Float[NdArray, "*N"],
  wraps: Bool[NdArray, " charts"],
) -> Int[NdArray, "*N"]:
  """Numbers of the texels that contain positions.

  Args:
    chart: chart numbers.
    column, row: positions in texels along u and v, from `positions`.
    wraps: for each chart, whether it is periodic in u; positions outside of other charts go to their edge texels.
  """
  columns, rows = (np.rint(values).astype(np.int64) for values in (column, row))
  columns = np.where(wraps[chart], columns % TEXELS, np.clip(columns, 0, TEXELS - 1))
  return chart * CHART_TEXELS + np.clip(rows, 0, TEXELS - 1) * TEXELS + columns


def inner_pixels(surface: UInt8[NdArray, "H W 3"]) -> Bool[NdArray, "H W"]:
  """Mask of the pixels whose eight neighbors lie on the same chart, so that their colors are not mixed with others'."""
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
    ValueError: there are none, or more than a surface map can number.
  """
  flags = np.asarray(wraps, bool)
  if not 1 <= len(flags) <= LEVELS:
    raise ValueError(f"{len(flags)} charts: a surface map numbers 1 to {LEVELS}")
  return flags
