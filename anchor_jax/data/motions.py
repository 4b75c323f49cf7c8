"""The motion in a prepared folder."""

import os
from collections.abc import Iterable, Iterator

import numpy as np

from anchor_jax.data.records import PreparedSource, open_prepared
from anchor_jax.motion.face import fill_missing
from anchor_jax.motion.motion import Motion, MotionFrame
from anchor_jax.shapes import NdArray


def read_motion(folder: str | os.PathLike, frames: int | None = None) -> Motion:
  """The motion of the first video of a prepared folder, or of its first `frames` frames.

  Raises:
    UserError: no such folder, damaged, or no frame has a face.
  """
  source = open_prepared(folder)
  filmed = int(np.sum(source.videos == source.videos[0]))
  count = filmed if frames is None else min(filmed, frames)
  landmarks = fill_missing(np.stack([source.read(i, ("landmarks",))["landmarks"] for i in range(filmed)]))
  return Motion(float(source.fps), source.size, count, lambda first: _read(source, landmarks, range(first, count)))


def _read(source: PreparedSource, landmarks: NdArray, numbers: Iterable[int]) -> Iterator[MotionFrame]:
  for i in numbers:
    record = source.read(i, ("pose", "face_mask"))
    yield MotionFrame(record["pose"], record["face_mask"], landmarks[i])
