"""The motion of a video or a track, straight from its sidecar or its landmarks: nothing is written to disk."""

import dataclasses
import math
import os
from collections.abc import Iterator

import numpy as np

from anchor_jax.body.face_crop import fill_missing
from anchor_jax.body.pose import pose_renders
from anchor_jax.core.shapes import Float, NdArray
from anchor_jax.films.poses import OpenedFilm, find_poses, open_film, square_of
from anchor_jax.landmarks.framing import CropSquare, center_of, square_around
from anchor_jax.landmarks.measures import BodyMeasures, measure
from anchor_jax.landmarks.retarget import retarget
from anchor_jax.landmarks.sidecar import PoseRender
from anchor_jax.landmarks.tracks import SHOULDERS, Track, fill_and_smooth, seen_landmarks
from anchor_jax.motion.frames import Motion, MotionFrame
from anchor_jax.video.timing import pick, tick_frames

_MARGIN = 1.0  # seconds tracked beyond the last frame wanted, since gaps and smoothing look ahead
_MEASURED = 30.0  # seconds over which at least the measures of a person are taken who drives another


def read_video_motion(
  path: str | os.PathLike,
  *,
  size: int,
  frames: int | None = None,
  fps: float | int | None = None,
  measures: BodyMeasures | None = None,
  mapped: bool = True,
  person_at: tuple[float, float] | None = None,
) -> Motion:
  """Returns the motion of a video, the same as that of a folder prepared from it alone at the same size.

  For solids as wide as that folder's, `measures` must be those in its meta.json.

  With a sidecar, `Motion.frames` decodes the sidecar's streams from the last key frame on, and no further than its
  frames are taken. The landmark model runs now, over the frames that are needed for `frames`, and one second more.

  With `measures` and without a sidecar, the motion is mapped onto that body and its place in the picture, unless the
  person in the video has the same (landmarks/retarget.py). The driving person's measures are taken of all frames that
  can be trusted; with `frames`, at least of the first 30 seconds, over which the landmark model then runs in any case.
  Nothing is smoothed or filled across cuts.

  Args:
    path: the video.
    size: height and width of the pose renders, in pixels.
    frames: only the first so many frames (at `fps`); default all.
    fps: frame rate of the motion; default the video's.
    measures: of the person who is to make the motion, whose solids have her widths; None leaves it as it is, with
      solids of standard widths.
    mapped: whether the motion is mapped onto that body; otherwise she lends it only the widths of her solids.
    person_at: who makes the motion, of several people: see `landmarks/people.py`; default the largest.

  Raises:
    UserError: see `open_film` and `find_poses`; or no face in any frame.
  """
  video = open_film(path, fps=fps, person_at=person_at)
  native, ticks = video.info.fps, tick_frames(video.info)
  needed = None if frames is None else math.ceil((frames * native / (fps or native)) + _MARGIN * native)
  if needed is not None and measures is not None and mapped and video.posed is None:
    needed = max(needed, math.ceil(_MEASURED * native))
  if ticks is not None and needed is not None:
    ticks = ticks[:needed]
    needed = ticks[-1] + 1
  return _motion_of(video, size, needed, ticks, measures, mapped).at_fps(fps).first(frames)


def _motion_of(
  video: OpenedFilm,
  size: int,
  needed: int | None,
  ticks: list[int] | None,
  measures: BodyMeasures | None,
  mapped: bool,
) -> Motion:
  found = find_poses(video, frames=needed, progress=True)
  square = square_of([found], video.info, size)
  if measures is not None and found.track is not None:
    track, square, body = fitted_track(found.track, square, measures, mapped)
    poses = lambda square, first: pose_renders(track, square, first, body)
    found = found._replace(landmarks=seen_landmarks(track), poses=poses, track=track)
  cuts = () if found.track is None else found.track.cuts
  landmarks = fill_missing(square.points(found.landmarks), cuts)

  def frames(first: int) -> Iterator[MotionFrame]:
    return _frames(found.poses(square, first), landmarks, first)

  if ticks is None:
    return Motion(video.info.fps, size, len(landmarks), frames)

  def at_ticks(first: int) -> Iterator[MotionFrame]:
    wanted = ticks[first:]
    return pick(frames(wanted[0]), wanted, wanted[0]) if wanted else iter(())

  return Motion(video.info.fps, size, len(ticks), at_ticks)


def track_motion(track: Track, size: int, measures: BodyMeasures | None, mapped: bool) -> Motion:
  """Returns the motion of landmarks that came without a video, as `read_video_motion` does that of a video.

  Args:
    track: not mended; its masks are not looked at.
    size, measures, mapped: see `read_video_motion`.

  Raises:
    UserError: no person or no face in any frame.
  """
  track = fill_and_smooth(track)
  centre = center_of(track.body[:, SHOULDERS, :2], track.width, track.height)
  square, body = square_around(track.width, track.height, centre, size), None
  if measures is not None:
    track, square, body = fitted_track(track, square, measures, mapped)
  landmarks = fill_missing(square.points(seen_landmarks(track)), track.cuts)
  frames = lambda first: _frames(pose_renders(track, square, first, body), landmarks, first)
  return Motion(track.fps, size, len(track), frames)


def fitted_track(
  track: Track, square: CropSquare, measures: BodyMeasures, mapped: bool
) -> tuple[Track, CropSquare, BodyMeasures]:
  """Returns a mended track as another person makes the motion, its square, and the measures to render it with.

  Args:
    track: of the driving person.
    square: the crop of the driving video, of the size of the renders.
    measures: of the person who is to make the motion.
    mapped: whether it is mapped onto her body; otherwise she lends it only the widths of her solids.
  """
  driver = measure(track, square)
  fitted = retarget(track, square, driver, measures) if mapped else None
  if fitted is None:
    return track, square, dataclasses.replace(driver, widths=measures.widths)
  return *fitted, measures


def _frames(poses: Iterator[PoseRender], landmarks: Float[NdArray, "T 5 2"], first: int) -> Iterator[MotionFrame]:
  for number, item in enumerate(poses, start=first):
    yield MotionFrame(np.ascontiguousarray(item.pose), item.face_mask[..., None], landmarks[number], item.surface)
