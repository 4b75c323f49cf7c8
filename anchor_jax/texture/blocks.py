"""Blocks of a film, and what a frame must not see of it when a model trains on that frame."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from anchor_jax.core.shapes import Bool, Int, NdArray

MOST, FEWEST = 16, 5
SHORTEST_S = 1.0


@dataclasses.dataclass(frozen=True)
class Blocks:
  """A film divided into consecutive blocks.

  The frames of a block never see that block nor its neighbours in the same video, so at least one whole block lies
  between a frame and the nearest frame that it sees.

  Attributes:
    of_frame: for each frame, the number of its block; does not decrease.
    video: for each block, the number of its (first) video.
  """

  of_frame: Int[NdArray, " T"]
  video: Int[NdArray, " blocks"]

  @property
  def count(self) -> int:
    """Number of blocks."""
    return len(self.video)

  def seen_by(self, block: int | None) -> Bool[NdArray, " blocks"]:
    """Which blocks the frames of `block` may see; all of them for None (a motion that is not of this film)."""
    seen = np.ones(self.count, bool)
    if block is not None:
      for other in (block - 1, block, block + 1):
        if 0 <= other < self.count and self.video[other] == self.video[block]:
          seen[other] = False
    return seen


def plan_blocks(videos: Sequence[int] | Int[NdArray, " T"], fps: float) -> Blocks:
  """Divides a film into at most 16 blocks of a second or more, and none that spans two videos if that can be.

  A film of one short video gets 5 blocks, however short. With more than 16 videos, a block is several whole videos.

  Args:
    videos: for each frame, the number of its video; does not decrease.
    fps: frames per second.
  """
  numbers, lengths = np.unique(np.asarray(videos), return_counts=True)
  if not len(numbers):
    raise ValueError("a film without frames has no blocks")
  if len(numbers) > MOST:
    group = np.arange(len(numbers)) * MOST // len(numbers)
    of_frame = np.repeat(group, lengths)
    return Blocks(of_frame, numbers[np.unique(group, return_index=True)[1]].astype(np.int64))
  length = max(SHORTEST_S * fps, lengths.sum() / (MOST - len(numbers) + 1))
  counts = np.maximum(1, np.floor(lengths / length)).astype(int)
  if len(numbers) == 1:
    counts = np.minimum(np.maximum(counts, FEWEST), lengths)
  of_frame, first = [], 0
  for frames, count in zip(lengths, counts, strict=True):
    of_frame.append(first + np.arange(frames) * count // frames)
    first += count
  return Blocks(np.concatenate(of_frame), np.repeat(numbers, counts).astype(np.int64))
