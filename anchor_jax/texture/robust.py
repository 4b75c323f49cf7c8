"""Robust colors of texels or pixels over a film, from one set of sums per block.

The color is the geometric median of the blocks' means. An outlier in less than half of the blocks, such as a hand that
rests on the chest, hardly moves it. One pass over the film is enough, memory does not grow with its length, and a
block that is left out has no influence at all.
"""

import dataclasses

import numpy as np

from anchor_jax.core.shapes import Bool, Float, Int, NdArray, UInt8

_SOFTENING = 4.0  # gray levels; blocks closer to the median than this weigh the same
_ITERATIONS = 6  # of Weiszfeld's algorithm


@dataclasses.dataclass(frozen=True)
class Colors:
  """Robust colors of P places.

  Attributes:
    color: 0 to 255; 0 where nothing was seen.
    weight: total weight of the samples.
    spread: root mean square distance of the samples from `color` per channel, gray levels.
  """

  color: Float[NdArray, "P 3"]
  weight: Float[NdArray, " P"]
  spread: Float[NdArray, " P"]


class BlockSums:
  """Weighted sums of colors by block and place, 20 bytes for each."""

  def __init__(self, blocks: int, places: int):
    self._weight = np.zeros((blocks, places), np.float32)
    self._color = np.zeros((blocks, 3, places), np.float32)
    self._square = np.zeros((blocks, places), np.float32)

  def add(
    self,
    block: int,
    place: Int[NdArray, " M"],
    color: Float[NdArray, "M 3"] | UInt8[NdArray, "M 3"],
    weight: Float[NdArray, " M"],
  ) -> None:
    """Adds samples; a place may occur more than once."""
    color = color.astype(np.float32)
    count = lambda values: np.bincount(place, values, self._weight.shape[1]).astype(np.float32)
    self._weight[block] += count(weight)
    for channel in range(3):
      self._color[block, channel] += count(weight * color[:, channel])
    self._square[block] += count(weight * np.square(color).sum(axis=1))

  def colors(self, blocks: Bool[NdArray, " blocks"], threshold: float = 0.0) -> Colors:
    """Robust colors over some of the blocks.

    Args:
      blocks: mask of the blocks that count.
      threshold: places with no more weight than this count as not seen.
    """
    used = np.flatnonzero(blocks)
    weight = self._weight[used].sum(axis=0) if len(used) else np.zeros(self._weight.shape[1], np.float32)
    seen = np.flatnonzero(weight > threshold)
    color, spread = np.zeros((len(weight), 3), np.float32), np.zeros(len(weight), np.float32)
    if len(seen):
      share = self._weight[np.ix_(used, seen)]
      total = self._color[used][:, :, seen]
      square = self._square[np.ix_(used, seen)].sum(axis=0)
      means = total / np.maximum(share, np.float32(1e-9))[:, None]
      center = _geometric_median(means, share)
      color[seen] = center.T
      # Mean of |x - center|^2, from the sums.
      distance = square - 2 * (center * total.sum(axis=0)).sum(axis=0)
      distance = distance / weight[seen] + np.square(center).sum(axis=0)
      spread[seen] = np.sqrt(np.maximum(distance, 0) / 3)
    return Colors(color, np.where(weight > threshold, weight, 0).astype(np.float32), spread)


def _geometric_median(points: Float[NdArray, "K 3 P"], weight: Float[NdArray, "K P"]) -> Float[NdArray, "3 P"]:
  """Weighted geometric medians of K colors at each of P places, by Weiszfeld's iteration from their mean."""
  share = weight
  for _ in range(_ITERATIONS + 1):
    center = (share[:, None] * points).sum(axis=0) / share.sum(axis=0)
    distance = np.sqrt(np.square(points - center).sum(axis=1) + np.float32(_SOFTENING**2))
    share = weight / distance
  return center
