"""From a surface map to its inverse: where in the picture each texel is seen, and how well.

Between four neighbouring pixels of one chart the coordinates are interpolated, as finely as the texture needs: a
finger of four pixels fills its 64 texels too.
"""

import numpy as np

from anchor_jax.appearance.texels import CHART_TEXELS, TEXELS, corners, positions
from anchor_jax.shapes import Bool, Float, Int, NdArray, UInt8

# Neighbouring pixels whose coordinates differ by more than this many texels lie on different sides of an occlusion.
_LARGEST_STEP = 24.0
_FINEST = 32
_FILL = 2  # texels that a hole may be away from its nearest neighbour


def inverse_table(
  surface: UInt8[NdArray, "H W 3"], wraps: Bool[NdArray, " charts"]
) -> Float[NdArray, "charts texels texels 3"]:
  """For each texel x and y, where the picture shows it, and how many pixels the picture spends on it.

  x and y are in pixels, the centre of the first pixel is (0, 0); 0 pixels where the texel is not seen.
  """
  places = len(wraps) * CHART_TEXELS
  sums = np.zeros((3, places), np.float64)  # x, y, area in pixels
  for place, x, y, area in _samples(surface, wraps):
    sums[2] += np.bincount(place, area, places)
    sums[0] += np.bincount(place, area * x, places)
    sums[1] += np.bincount(place, area * y, places)
  seen = sums[2] > 0
  sums[:2, seen] /= sums[2, seen]
  table = np.moveaxis(sums.astype(np.float32).reshape(3, len(wraps), TEXELS, TEXELS), 0, -1)
  charts = np.unique(surface[..., 0])
  for chart in charts[(charts > 0) & (charts < len(wraps))]:
    _fill(table[chart], bool(wraps[chart]))
  return table


def _samples(surface: NdArray, wraps: NdArray):
  """Yields texel, x, y and area of many points between the pixels, by how finely they lie."""
  chart = surface[..., 0].astype(np.int64)
  column, row = positions(surface[..., 1]), positions(surface[..., 2])
  corner = lambda plane: np.stack([plane[:-1, :-1], plane[:-1, 1:], plane[1:, :-1], plane[1:, 1:]])
  charts, columns, rows = corner(chart), corner(column), corner(row)
  periodic = wraps[np.minimum(charts[0], len(wraps) - 1)]
  step = columns - columns[0]
  columns = np.where(periodic, columns[0] + (step + TEXELS / 2) % TEXELS - TEXELS / 2, columns)
  extent = np.maximum(np.ptp(columns, axis=0), np.ptp(rows, axis=0))
  one_chart = (charts == charts[0]).all(axis=0) & (charts[0] > 0) & (charts[0] < len(wraps))
  whole = one_chart & (extent <= _LARGEST_STEP)
  pieces = np.clip(2 ** np.ceil(np.log2(np.maximum(2 * extent, 2))), 2, _FINEST).astype(int)
  for count in np.unique(pieces[whole]):
    y, x = np.nonzero(whole & (pieces == count))
    inside = (np.arange(count) + 0.5) / count
    down, across = (grid.ravel()[:, None] for grid in np.meshgrid(inside, inside, indexing="ij"))
    shares = np.stack([(1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across])
    mix = lambda plane, shares=shares, y=y, x=x: (shares * plane[:, y, x][:, None]).sum(axis=0)
    index = _nearest(np.broadcast_to(charts[0, y, x], (count**2, len(y))), mix(columns), mix(rows), wraps)
    area = np.full(index.size, 1.0 / count**2)
    yield index.ravel(), (x + across).ravel(), (y + down).ravel(), area
  # Pixels in no such square: the outline, and features one pixel wide.
  alone = (chart > 0) & (chart < len(wraps))
  for dy in (0, 1):
    for dx in (0, 1):
      alone[dy : whole.shape[0] + dy, dx : whole.shape[1] + dx] &= ~whole
  y, x = np.nonzero(alone)
  yield _nearest(chart[y, x], column[y, x], row[y, x], wraps), x, y, np.full(len(y), 0.25)


def _nearest(chart: NdArray, column: NdArray, row: NdArray, wraps: NdArray) -> Int[NdArray, "*N"]:
  return corners(chart, np.round(column), np.round(row), wraps)[0][0]


def _fill(table: Float[NdArray, "texels texels 3"], wraps: bool) -> None:
  """Fills holes of one chart, in place, with the mean of their seen neighbours; the area is a quarter of theirs."""
  for _ in range(_FILL):
    known = table[..., 2] > 0
    if known.all():
      return
    values = np.concatenate([table * known[..., None], known[..., None]], axis=-1)
    padded = np.pad(values, ((0, 0), (1, 1), (0, 0)), mode="wrap" if wraps else "constant")
    padded = np.pad(padded, ((1, 1), (0, 0), (0, 0)))
    total = np.zeros_like(values)
    for dy in (0, 1, 2):
      for dx in (0, 1, 2):
        total += padded[dy : dy + TEXELS, dx : dx + TEXELS]
    new = ~known & (total[..., 3] > 0)
    mean = total[new][:, :3] / total[new][:, 3:]
    mean[:, 2] *= 0.25
    table[new] = mean
