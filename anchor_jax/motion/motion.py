"""What drives a video: the pose side of a prepared folder, read as it is needed."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from anchor_jax.shapes import Float, NdArray, UInt8


class MotionFrame(NamedTuple):
  """One frame of a motion.

  Attributes:
    pose: pose render.
    face_mask: 255 where the face is to be repainted, from the pose side.
    landmarks: five points of the face in pixels, none missing.
  """

  pose: UInt8[NdArray, "H W 3"]
  face_mask: UInt8[NdArray, "H W 1"]
  landmarks: Float[NdArray, "5 2"]


@dataclasses.dataclass(frozen=True)
class Motion:
  """A motion whose frames come one by one, so that its length costs no memory.

  Attributes:
    fps: frames per second.
    size: height and width of its pictures, in pixels.
    length: number of frames; None where nobody knows yet.
    frames: frames from a number on.
  """

  fps: float
  size: int
  length: int | None
  frames: Callable[[int], Iterator[MotionFrame]]


def live_motion(fps: float, size: int, frames: Iterator[MotionFrame], length: int | None = None) -> Motion:
  """A motion from an iterator that may still be filming; it can be gone through once."""
  return Motion(fps, size, length, lambda first: itertools.islice(frames, first, None))


def resample_motion(motion: Motion, fps: float) -> Motion:
  """The motion at another frame rate: each frame is the nearest in time of those there are."""
  ratio = motion.fps / fps
  length = None if motion.length is None else max(1, round(motion.length / ratio))

  last = math.inf if motion.length is None else motion.length - 1
  wanted = lambda number: min(round(number * ratio), last)

  def frames(first: int) -> Iterator[MotionFrame]:
    here = int(wanted(first))
    source = enumerate(motion.frames(here), start=here)
    here, frame = next(source, (math.inf, None))
    for number in itertools.count(first) if length is None else range(first, length):
      while here < wanted(number):
        here, frame = next(source, (math.inf, None))
      if frame is None:
        return
      yield frame

  return Motion(float(fps), motion.size, length, frames)
