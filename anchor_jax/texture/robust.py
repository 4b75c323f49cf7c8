"""Robust colours of many places (texels, pixels) over a film, from sums that are kept for each block of it.

The colour of a place is the geometric median of its blocks' mean colours (a median of means): an error that fills
less than half of the blocks, such as a hand that rests on the chest, hardly moves it. Memory does not grow with the
film, one pass is enough, and leaving blocks out leaves no trace of them.
"""

import dataclasses

import numpy as np

from anchor_jax.core.shapes import Bool, Float, Int, NdArray, UInt8

_SOFTENING = 4.0  # grey levels; blocks closer to the median than this count as agreeing
_ITERATIONS = 6  # of Weiszfeld's algorithm


@dataclasses.dataclass(frozen=True)
class Colours:
  """Robust colours of P places.

  Attributes:
    colour: 0 to 255; 0 where nothing was seen.
    weight: sum of the weights of the samples behind it.
    spread: root mean square distance of the samples from `colour`, a channel; grey levels.
  """

  colour: Float[NdArray, "P 3"]
  weight: Float[NdArray, " P"]
  spread: Float[NdArray, " P"]


class BlockSums:
  """Weighted sums of colours by block and place.

  Memory is 20 bytes for each block and place.
  """

  def __init__(self, blocks: int, places: int):
    self._weight = np.zeros((blocks, places), np.float32)
    self._colour = np.zeros((blocks, 3, places), np.float32)
    self._square = np.zeros((blocks, places), np.float32)

  def add(
    self,
    block: int,
    place: Int[NdArray, " M"],
    colour: Float[NdArray, "M 3"] | UInt8[NdArray, "M 3"],
    weight: Float[NdArray, " M"],
  ) -> None:
    """Adds samples; a place may come up many times."""
    colour = colour.astype(np.float32)
    count = lambda values: np.bincount(place, values, self._weight.shape[1]).astype(np.float32)
    self._weight[block] += count(weight)
    for channel in range(3):
      self._colour[block, channel] += count(weight * colour[:, channel])
    self._square[block] += count(weight * np.square(colour).sum(axis=1))

  def colours(self, blocks: Bool[NdArray, " blocks"], least: float = 0.0) -> Colours:
    """Robust colours over some of the blocks.

    Args:
      blocks: which ones count.
      least: places with no more weight than this count as not seen.
    """
    kept = np.flatnonzero(blocks)
    weight = self._weight[kept].sum(axis=0) if len(kept) else np.zeros(self._weight.shape[1], np.float32)
    seen = np.flatnonzero(weight > least)
    colour, spread = np.zeros((len(weight), 3), np.float32), np.zeros(len(weight), np.float32)
    if len(seen):
      share = self._weight[np.ix_(kept, seen)]
      total = self._colour[kept][:, :, seen]
      square = self._square[np.ix_(kept, seen)].sum(axis=0)
      means = total / np.maximum(share, np.float32(1e-9))[:, None]
      centre = _geometric_median(means, share)
      colour[seen] = centre.T
      # Mean of |x - centre|^2, from the sums.
      distance = square - 2 * (centre * total.sum(axis=0)).sum(axis=0)
      distance = distance / weight[seen] + np.square(centre).sum(axis=0)
      spread[seen] = np.sqrt(np.maximum(distance, 0) / 3)
    return Colours(colour, np.where(weight > least, weight, 0).astype(np.float32), spread)


def _geometric_median(points: Float[NdArray, "K 3 P"], weight: Float[NdArray, "K P"]) -> Float[NdArray, "3 P"]:
  """Weighted geometric median of K colours for each of P places, by Weiszfeld's iteration from their mean."""
  share = weight
  for _ in range(_ITERATIONS + 1):
    centre = (share[:, None] * points).sum(axis=0) / share.sum(axis=0)
    distance = np.sqrt(np.square(points - centre).sum(axis=1) + np.float32(_SOFTENING**2))
    share = weight / distance
  return centre
