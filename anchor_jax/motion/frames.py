"""A motion: the pose renders, face masks, landmarks and surface maps that a generated video follows."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from anchor_jax.core.frame_size import FrameSize
from anchor_jax.core.shapes import Bool, Float, NdArray, UInt8
from anchor_jax.video.timing import pick

CAMERAS = ("still", "film")  # how a motion is seen: by a steady camera, or by one that moves as its film's


class MotionFrame(NamedTuple):
  """One frame of a motion.

  Attributes:
    pose: pose render.
    face_mask: 255 where the face is repainted, from the pose render.
    landmarks: five face landmarks in pixels, none missing.
    surface: the surface map (body/charts.py); None if unknown.
    camera: the camera that shows the room (texture/background/camera_path.py), if the motion's camera moves.
  """

  pose: UInt8[NdArray, "H W 3"]
  face_mask: UInt8[NdArray, "H W 1"]
  landmarks: Float[NdArray, "5 2"]
  surface: UInt8[NdArray, "H W 3"] | None = None
  camera: Float[NdArray, "4"] | None = None


@dataclasses.dataclass(frozen=True)
class Motion:
  """A motion with lazy frames, so that its length costs no memory.

  Attributes:
    fps: frames per second.
    size: width and height of its pictures in pixels; an integer is the side of squares.
    length: number of frames; None if unknown in advance.
    frames: function from a frame number to an iterator over the frames from that number on.
    absent: for each frame whether nobody is seen in it; None if the person is in all of them, or it is unknown.
    late: finds `absent` of the first frames, where poses are found as the frames are taken; None for all other motions.
    moving: whether the camera moves; then each frame has its own.
    stretches: begins and ends, in seconds, of what it shows of its film's time; None for all, from the beginning.
  """

  fps: float
  size: FrameSize
  length: int | None
  frames: Callable[[int], Iterator[MotionFrame]]
  absent: Bool[NdArray, " T"] | None = None
  moving: bool = False
  stretches: tuple[tuple[float, float], ...] | None = None
  late: Callable[[int], Bool[NdArray, " T"]] | None = None

  def __post_init__(self):
    object.__setattr__(self, "size", FrameSize.of(self.size))

  def known(self) -> "Motion":
    """Returns the motion with `absent`; of a long film it finds all poses for that."""
    if self.late is None or self.length is None:
      return self
    return dataclasses.replace(self, absent=self.late(self.length), late=None)

  def first(self, count: int | None) -> "Motion":
    """Returns the motion's first `count` frames, or all if it has fewer or `count` is None."""
    if count is None or (self.length is not None and self.length <= count):
      return self
    frames = lambda first: itertools.islice(self.frames(first), max(0, count - first))
    absent = None if self.absent is None else self.absent[:count]
    stretches = None if self.stretches is None else _beginning(self.stretches, count / self.fps)
    return dataclasses.replace(self, length=count, frames=frames, absent=absent, stretches=stretches)

  def at_fps(self, fps: float | int | None) -> "Motion":
    """Returns the motion at `fps` frames per second (None: unchanged); each frame is the nearest one in time."""
    if fps is None or fps == self.fps:
      return self
    ratio = self.fps / fps
    length = None if self.length is None else max(1, round(self.length / ratio))
    last = math.inf if self.length is None else self.length - 1
    nearest = lambda number: min(round(number * ratio), last)

    def frames(first: int) -> Iterator[MotionFrame]:
      current = int(nearest(first))
      source = enumerate(self.frames(current), start=current)
      current, frame = next(source, (math.inf, None))
      for number in itertools.count(first) if length is None else range(first, length):
        while current < nearest(number):
          current, frame = next(source, (math.inf, None))
        if frame is None:
          return
        yield frame

    absent = None
    if self.absent is not None and length is not None:
      absent = self.absent[[int(nearest(number)) for number in range(length)]]
    late = None
    if self.late is not None:
      find, numbers = self.late, lambda count: [int(nearest(number)) for number in range(count)]
      late = lambda count: find(numbers(count)[-1] + 1)[numbers(count)]
    return dataclasses.replace(self, fps=float(fps), length=length, frames=frames, absent=absent, late=late)

  def without_absent(self) -> "Motion":
    """Returns the motion without the frames in which nobody is seen; its `stretches` are the times of the others.

    A motion can't be cut twice. Of a long film, all poses are found now.
    """
    if self.late is not None:
      return self.known().without_absent()
    if self.absent is None or not self.absent.any():
      return self
    kept = np.flatnonzero(~self.absent).tolist()

    def frames(first: int) -> Iterator[MotionFrame]:
      rest = kept[first:]
      return pick(self.frames(rest[0]), rest, rest[0]) if rest else iter(())

    shown = tuple((first / self.fps, end / self.fps) for first, end in _stretches(~self.absent))
    return dataclasses.replace(self, length=len(kept), frames=frames, absent=None, stretches=shown)

  def absent_stretches(self) -> list[tuple[int, int]]:
    """Returns the first and the last frame of each stretch in which nobody is seen."""
    if self.absent is None:
      return []
    return [(first, end - 1) for first, end in _stretches(self.absent)]


def _stretches(of: Bool[NdArray, " T"]) -> list[tuple[int, int]]:
  """First and last (exclusive) frame of each stretch of true frames."""
  edges = np.flatnonzero(np.diff(np.concatenate([[False], of, [False]]).astype(np.int8)))
  return [(first, end) for first, end in edges.reshape(-1, 2).tolist()]


def _beginning(stretches: tuple[tuple[float, float], ...], seconds: float) -> tuple[tuple[float, float], ...]:
  """The first `seconds` of stretches."""
  kept = []
  for begin, end in stretches:
    if seconds <= 0:
      break
    kept.append((begin, min(end, begin + seconds)))
    seconds -= end - begin
  return tuple(kept)


def live_motion(fps: float, size: int | FrameSize, frames: Iterator[MotionFrame], length: int | None = None) -> Motion:
  """Returns a motion of frames that may still be recorded; it can be iterated once."""
  return Motion(fps, FrameSize.of(size), length, lambda first: itertools.islice(frames, first, None))
