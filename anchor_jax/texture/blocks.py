"""Blocks of a film: training frames see a texture without their own block, so that the answer cannot be copied."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from anchor_jax.core.shapes import Bool, Int, NdArray

MAX_BLOCKS, MIN_BLOCKS = 16, 5
MIN_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class Blocks:
  """A film divided into consecutive blocks.

  The frames of a block see neither that block nor its neighbors in the same video. So at least one full block separates
  a frame from the nearest frame that it sees.

  Attributes:
    of_frame: block number of each frame; non-decreasing.
    video: number of each block's (first) video.
  """

  of_frame: Int[NdArray, " T"]
  video: Int[NdArray, " blocks"]

  @property
  def count(self) -> int:
    """Number of blocks."""
    return len(self.video)

  def seen_by(self, block: int | None) -> Bool[NdArray, " blocks"]:
    """Mask of the blocks that the frames of `block` may see; all of them for None, a motion from another film."""
    seen = np.ones(self.count, bool)
    if block is not None:
      for other in (block - 1, block, block + 1):
        if 0 <= other < self.count and self.video[other] == self.video[block]:
          seen[other] = False
    return seen


def plan_blocks(videos: Sequence[int] | Int[NdArray, " T"], fps: float) -> Blocks:
  """Divides a film into at most 16 blocks of at least a second each.

  No block spans two videos, except with more than 16 videos: then each block is several complete videos. A single
  short video gets 5 blocks, whatever its length.

  Args:
    videos: video number of each frame; non-decreasing.
    fps: frames per second.
  """
  numbers, lengths = np.unique(np.asarray(videos), return_counts=True)
  if not len(numbers):
    raise ValueError("a film without frames has no blocks")
  if len(numbers) > MAX_BLOCKS:
    group = np.arange(len(numbers)) * MAX_BLOCKS // len(numbers)
    of_frame = np.repeat(group, lengths)
    return Blocks(of_frame, numbers[np.unique(group, return_index=True)[1]].astype(np.int64))
  length = max(MIN_SECONDS * fps, lengths.sum() / (MAX_BLOCKS - len(numbers) + 1))
  counts = np.maximum(1, np.floor(lengths / length)).astype(int)
  if len(numbers) == 1:
    counts = np.minimum(np.maximum(counts, MIN_BLOCKS), lengths)
  of_frame, first = [], 0
  for frames, count in zip(lengths, counts, strict=True):
    of_frame.append(first + np.arange(frames) * count // frames)
    first += count
  return Blocks(np.concatenate(of_frame), np.repeat(numbers, counts).astype(np.int64))
