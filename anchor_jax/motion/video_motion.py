"""The motion of a video, straight from its sidecar or the landmark model: nothing is written to disk."""

import dataclasses
import math
import os
from collections.abc import Iterator

import numpy as np

from anchor_jax.motion.clips import CheckedVideo, check_video, find_poses, square_of
from anchor_jax.motion.face import fill_missing
from anchor_jax.motion.measures import BodyMeasures, measure
from anchor_jax.motion.motion import Motion, MotionFrame
from anchor_jax.motion.render import pose_renders
from anchor_jax.motion.retarget import retarget
from anchor_jax.motion.ticks import pick, tick_frames
from anchor_jax.motion.tracks import seen_landmarks

_MARGIN = 1.0  # seconds tracked beyond the last frame wanted, since gaps and smoothing look ahead
_MEASURED = 10.0  # seconds from the beginning, over which the measures of a person are taken who drives another


def read_video_motion(
  path: str | os.PathLike,
  *,
  size: int,
  frames: int | None = None,
  fps: float | int | None = None,
  measures: BodyMeasures | None = None,
  mapped: bool = True,
) -> Motion:
  """Returns the motion of a video, the same as that of a folder prepared from it alone at the same size.

  For solids as wide as that folder's, `measures` must be those in its meta.json.

  With a sidecar, `Motion.frames` decodes the sidecar's streams from the last key frame on, and no further than its
  frames are taken. The landmark model runs now, over the frames that are needed for `frames`, and one second more.

  With `measures` and without a sidecar, the motion is mapped onto that body and its place in the picture, unless the
  person in the video has the same (motion/retarget.py). The driving person's measures are those of the first 10
  seconds, over which the landmark model then runs in any case.

  Args:
    path: the video.
    size: height and width of the pose renders, in pixels.
    frames: only the first so many frames (at `fps`); default all.
    fps: frame rate of the motion; default the video's.
    measures: of the person who is to make the motion, whose solids have her widths; None leaves it as it is, with
      solids of standard widths.
    mapped: whether the motion is mapped onto that body; otherwise she lends it only the widths of her solids.

  Raises:
    UserError: see `check_video` and `find_poses`; or no face in any frame.
  """
  video = check_video(path, fps=fps)
  native, ticks = video.info.fps, tick_frames(video.info)
  needed = None if frames is None else math.ceil((frames * native / (fps or native)) + _MARGIN * native)
  if needed is not None and measures is not None and mapped and video.posed is None:
    needed = max(needed, math.ceil(_MEASURED * native))
  if ticks is not None and needed is not None:
    ticks = ticks[:needed]
    needed = ticks[-1] + 1
  return _motion_of(video, size, needed, ticks, measures, mapped).at_fps(fps).first(frames)


def _motion_of(
  video: CheckedVideo,
  size: int,
  needed: int | None,
  ticks: list[int] | None,
  measures: BodyMeasures | None,
  mapped: bool,
) -> Motion:
  found = find_poses(video, frames=needed, progress=True)
  square = square_of([found], video.info, size)
  if measures is not None and found.track is not None:
    driver = measure(found.track, square, math.ceil(_MEASURED * video.info.fps))
    fitted = retarget(found.track, square, driver, measures) if mapped else None
    if fitted is None:
      track, body = found.track, dataclasses.replace(measure(found.track, square), widths=measures.widths)
    else:
      (track, square), body = fitted, measures
    poses = lambda square, first: pose_renders(track, square, first, body)
    found = found._replace(landmarks=seen_landmarks(track), poses=poses, track=track)
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
