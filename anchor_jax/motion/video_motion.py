"""The motion of a video, straight from its sidecar or the landmark model: nothing is written to disk."""

import math
import os
from collections.abc import Iterator

import numpy as np

from anchor_jax.motion.clips import CheckedVideo, check_video, find_poses, square_of
from anchor_jax.motion.face import fill_missing
from anchor_jax.motion.motion import Motion, MotionFrame
from anchor_jax.motion.ticks import pick, tick_frames

_MARGIN = 1.0  # seconds tracked beyond the last frame wanted, since gaps and smoothing look ahead


def read_video_motion(
  path: str | os.PathLike, *, size: int, frames: int | None = None, fps: float | int | None = None
) -> Motion:
  """Returns the motion of a video, the same as that of a folder prepared from it alone at the same size.

  With a sidecar, `Motion.frames` decodes the sidecar's streams from the last key frame on, and no further than its
  frames are taken. The landmark model runs now, over the frames that are needed for `frames`, and one second more.

  Args:
    path: the video.
    size: height and width of the pose renders, in pixels.
    frames: only the first so many frames (at `fps`); default all.
    fps: frame rate of the motion; default the video's.

  Raises:
    UserError: see `check_video` and `find_poses`; or no face in any frame.
  """
  video = check_video(path, fps=fps)
  native, ticks = video.info.fps, tick_frames(video.info)
  needed = None if frames is None else math.ceil((frames * native / (fps or native)) + _MARGIN * native)
  if ticks is not None and needed is not None:
    ticks = ticks[:needed]
    needed = ticks[-1] + 1
  return _motion_of(video, size, needed, ticks).at_fps(fps).first(frames)


def _motion_of(video: CheckedVideo, size: int, needed: int | None, ticks: list[int] | None) -> Motion:
  found = find_poses(video, frames=needed, progress=True)
  square = square_of([found], video.info, size)
  landmarks = fill_missing(square.points(found.landmarks))

  def frames(first: int) -> Iterator[MotionFrame]:
    for number, item in enumerate(found.poses(square, first), start=first):
      yield MotionFrame(np.ascontiguousarray(item.pose), item.face_mask[..., None], landmarks[number], item.surface)

  if ticks is None:
    return Motion(video.info.fps, size, len(landmarks), frames)

  def at_ticks(first: int) -> Iterator[MotionFrame]:
    wanted = ticks[first:]
    return pick(frames(wanted[0]), wanted, wanted[0]) if wanted else iter(())

  return Motion(video.info.fps, size, len(ticks), at_ticks)
