"""From a surface map to its inverse: where in the picture each texel is seen, and how well.

Each pixel stands for a square of the surface, as large as the coordinates change from pixel to pixel: a finger of four
pixels fills its 64 texels too.
"""

import functools
from collections.abc import Iterator

import cv2
import numpy as np

from anchor_jax.core.shapes import Bool, Float, Int, NdArray, UInt8
from anchor_jax.texture.texels import CHART_TEXELS, TEXELS, inner_pixels, nearest, positions

# Neighbouring pixels whose coordinates differ by more than this many texels lie on different sides of an occlusion.
_LARGEST_STEP = 24.0
_FINEST = 32  # samples across a pixel
_MOST_FILLED = 24  # texels; see `_fill`
_EDGE = 0.3  # what a view counts where its colour may be mixed with another surface's
_GUESSED_STEP = 8.0  # texels a pixel where no neighbour tells how fast coordinates change
_GUESSED = 0.01  # weight of pixels of which part is guessed


def inverse_table(
  surface: UInt8[NdArray, "H W 3"], wraps: Bool[NdArray, " charts"]
) -> Float[NdArray, "charts texels texels 3"]:
  """For each texel x and y where the picture shows it, and how well: the number of pixels that it spends on the texel.

  x and y are in pixels, the centre of the first pixel is (0, 0). Pixels beside another chart count less. 0 pixels
  where the texel is not seen. The last few tables are kept, since the blocks of a film share most of their key frames;
  do not write to the result.
  """
  return _inverse_table(surface.tobytes(), surface.shape, tuple(map(bool, wraps)))


@functools.lru_cache(maxsize=16)
def _inverse_table(data: bytes, shape: tuple[int, ...], periodic: tuple[bool, ...]) -> NdArray:
  surface, wraps = np.frombuffer(data, np.uint8).reshape(shape), np.array(periodic)
  places = len(wraps) * CHART_TEXELS
  sums = np.zeros((4, places), np.float64)  # weight, x, y, pixels
  for place, x, y, weight, view in _samples(surface, wraps):
    for number, values in enumerate((weight, weight * x, weight * y, view)):
      sums[number] += np.bincount(place, values, places)
  seen = sums[0] > 0
  sums[1:3, seen] /= sums[0, seen]
  table = np.moveaxis(sums[1:].astype(np.float32).reshape(3, len(wraps), TEXELS, TEXELS), 0, -1)
  charts, pixels = np.unique(surface[..., 0], return_counts=True)
  for chart, count in zip(charts, pixels):
    if 0 < chart < len(wraps):
      _fill(table[chart], bool(wraps[chart]), int(count))
  table.flags.writeable = False
  return table


def _samples(surface: NdArray, wraps: NdArray) -> Iterator[tuple[NdArray, NdArray, NdArray, NdArray, NdArray]]:
  """Yields texel, x, y, weight and view of many points of each pixel's square, by how finely they lie."""
  chart = surface[..., 0].astype(np.int64)
  here = (chart > 0) & (chart < len(wraps))
  step, known = _steps(surface, np.where(here, chart, 0), wraps)
  both = known[0] & known[1]
  for axis, other in ((0, 1), (1, 0)):  # a step that is not known: at right angles to the other
    alone = _GUESSED_STEP * np.eye(2)[axis][:, None, None]
    across = np.where(known[other], np.stack([-step[other, 1], step[other, 0]]), alone)
    step[axis] = np.where(known[axis], step[axis], across)
  extent = np.abs(step).sum(axis=0).max(axis=0)
  pieces = np.clip(2 ** np.ceil(np.log2(np.maximum(1.5 * extent, 2))), 2, _FINEST).astype(int)
  inner = inner_pixels(surface)
  for count in np.unique(pieces[here]):
    y, x = np.nonzero(here & (pieces == count))
    inside = (np.arange(count, dtype=np.float32) + np.float32(0.5)) / np.float32(count) - np.float32(0.5)
    down, across = (grid.ravel()[:, None] for grid in np.meshgrid(inside, inside, indexing="ij"))
    column, row = (
      positions(surface[y, x, 1 + i]) + across * step[0, i, y, x] + down * step[1, i, y, x] for i in (0, 1)
    )
    inside_chart = (
      (row > -0.5) & (row < TEXELS - 0.5) & (wraps[chart[y, x]] | ((column > -0.5) & (column < TEXELS - 0.5)))
    )
    index = nearest(np.broadcast_to(chart[y, x], column.shape), column, row, wraps)
    weight = np.where(both[y, x], 1.0, _GUESSED) / count**2 * inside_chart
    view = np.where(inner[y, x], 1.0, _EDGE) / count**2 * inside_chart
    yield index.ravel(), (x + across).ravel(), (y + down).ravel(), weight.ravel(), view.ravel()


def _steps(
  surface: UInt8[NdArray, "H W 3"], chart: Int[NdArray, "H W"], wraps: Bool[NdArray, " charts"]
) -> tuple[Float[NdArray, "2 2 H W"], Bool[NdArray, "2 H W"]]:
  """Change of column and row, in texels, from pixel to pixel along x and along y; and where neighbours tell it."""
  place = np.stack([positions(surface[..., 1]), positions(surface[..., 2])])
  periodic = wraps[chart]
  steps, known = [], []
  for axis in (2, 1):
    total, count = np.zeros_like(place), np.zeros(chart.shape, np.float32)
    for sign in (1, -1):
      change = (np.roll(place, -sign, axis) - place) * sign
      change[0] = np.where(periodic, (change[0] + TEXELS / 2) % TEXELS - TEXELS / 2, change[0])
      beside = (np.roll(chart, -sign, axis - 1) == chart) & (np.abs(change).max(axis=0) <= _LARGEST_STEP)
      edge = [slice(None), slice(None)]
      edge[axis - 1] = slice(-1, None) if sign > 0 else slice(0, 1)
      beside[tuple(edge)] = False  # np.roll comes back on the other side of the picture
      total += change * beside
      count += beside
    steps.append(total / np.maximum(count, 1))
    known.append(count > 0)
  return np.stack(steps), np.stack(known)


def _fill(table: Float[NdArray, "texels texels 3"], wraps: bool, pixels: int) -> None:
  """Fills one chart, in place, up to a pixel around what is seen, with the mean of the neighbours.

  A lip one pixel high is seen as a line of its chart; what lies beside the line is that pixel too. The view of texels
  that were filled is a quarter of their neighbours' once, however far away they are.

  Args:
    table: of the chart.
    wraps: whether it is periodic in u.
    pixels: that show the chart.
  """
  own = table[..., 2] > 0
  reach = int(np.ceil(np.sqrt(own.sum() / max(pixels, 1))))  # texels a pixel
  for _ in range(min(reach, _MOST_FILLED)):
    known = table[..., 2] > 0
    if known.all():
      return
    values = np.concatenate([table * known[..., None], known[..., None]], axis=-1)
    padded = np.pad(values, ((0, 0), (1, 1), (0, 0)), mode="wrap" if wraps else "constant")
    total = cv2.boxFilter(
      padded.astype(np.float32), cv2.CV_32F, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT
    )[:, 1:-1]
    new = ~known & (total[..., 3] > 0)
    mean = total[new][:, :3] / total[new][:, 3:]
    table[new] = mean
  table[..., 2] *= np.where(own, np.float32(1), np.float32(0.25))
