"""The inverse of a surface map: where in the picture each texel is seen, and how well.

Each pixel covers a parallelogram of texels, spanned by the change of u and v to its neighbors. So a finger that is four
pixels wide still fills all of its 64 texels.
"""

import functools
from collections.abc import Iterator

import cv2
import numpy as np

from anchor_jax.core.shapes import Bool, Float, Int, NdArray, UInt8
from anchor_jax.texture.texels import CHART_TEXELS, TEXELS, inner_pixels, nearest, positions

# Neighboring pixels whose positions differ by more texels than this lie on different sides of an occlusion.
_LARGEST_STEP = 24.0
_MAX_SAMPLES = 32  # across a pixel
_MAX_FILLED = 24  # texels; see `_fill`
_EDGE = 0.3  # pixels that a pixel counts for where its color may be mixed with another surface's
_ASSUMED_STEP = 8.0  # texels per pixel where no neighbor lies on the same chart
_ASSUMED_WEIGHT = 0.01  # of pixels for which one direction is assumed


def inverse_table(
  surface: UInt8[NdArray, "H W 3"], wraps: Bool[NdArray, " charts"]
) -> Float[NdArray, "charts texels texels 3"]:
  """For each texel, x and y of its place in the picture, and the number of pixels that show it, 0 if it is not seen.

  x and y are in pixels, with the center of the first pixel at (0, 0). Pixels next to another chart count less. The
  result is read-only: the last few tables are cached, because blocks of a film share most of their key frames.
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
  """Yields texel, x, y, weight and pixel area of points inside of each pixel, grouped by sampling density."""
  chart = surface[..., 0].astype(np.int64)
  body = (chart > 0) & (chart < len(wraps))
  step, known = _steps(surface, np.where(body, chart, 0), wraps)
  both = known[0] & known[1]
  for axis, other in ((0, 1), (1, 0)):  # an unknown step is taken perpendicular to the known one
    alone = _ASSUMED_STEP * np.eye(2)[axis][:, None, None]
    across = np.where(known[other], np.stack([-step[other, 1], step[other, 0]]), alone)
    step[axis] = np.where(known[axis], step[axis], across)
  extent = np.abs(step).sum(axis=0).max(axis=0)
  samples = np.clip(2 ** np.ceil(np.log2(np.maximum(1.5 * extent, 2))), 2, _MAX_SAMPLES).astype(int)
  inner = inner_pixels(surface)
  for count in np.unique(samples[body]):
    y, x = np.nonzero(body & (samples == count))
    inside = (np.arange(count, dtype=np.float32) + np.float32(0.5)) / np.float32(count) - np.float32(0.5)
    down, across = (grid.ravel()[:, None] for grid in np.meshgrid(inside, inside, indexing="ij"))
    column, row = (
      positions(surface[y, x, 1 + i]) + across * step[0, i, y, x] + down * step[1, i, y, x] for i in (0, 1)
    )
    inside_chart = (
      (row > -0.5) & (row < TEXELS - 0.5) & (wraps[chart[y, x]] | ((column > -0.5) & (column < TEXELS - 0.5)))
    )
    index = nearest(np.broadcast_to(chart[y, x], column.shape), column, row, wraps)
    weight = np.where(both[y, x], 1.0, _ASSUMED_WEIGHT) / count**2 * inside_chart
    view = np.where(inner[y, x], 1.0, _EDGE) / count**2 * inside_chart
    yield index.ravel(), (x + across).ravel(), (y + down).ravel(), weight.ravel(), view.ravel()


def _steps(
  surface: UInt8[NdArray, "H W 3"], chart: Int[NdArray, "H W"], wraps: Bool[NdArray, " charts"]
) -> tuple[Float[NdArray, "2 2 H W"], Bool[NdArray, "2 H W"]]:
  """Change of column and row in texels per pixel along x and along y, and where it is known from neighbors."""
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
      beside[tuple(edge)] = False  # np.roll wraps around the picture
      total += change * beside
      count += beside
    steps.append(total / np.maximum(count, 1))
    known.append(count > 0)
  return np.stack(steps), np.stack(known)


def _fill(table: Float[NdArray, "texels texels 3"], wraps: bool, pixels: int) -> None:
  """Grows the seen texels of one chart by up to a pixel, in place, with the mean of their neighbors.

  A lip that is one pixel high is seen as a line of its chart, although the pixel shows the texels next to it too. The
  pixels of filled texels are divided by four, once.

  Args:
    table: of the chart.
    wraps: whether it is periodic in u.
    pixels: number of pixels that show the chart.
  """
  own = table[..., 2] > 0
  reach = int(np.ceil(np.sqrt(own.sum() / max(pixels, 1))))  # texels per pixel
  for _ in range(min(reach, _MAX_FILLED)):
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
