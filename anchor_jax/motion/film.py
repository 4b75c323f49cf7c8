"""The motion of a film or a track, straight from its sidecar or its landmarks; nothing is written to disk."""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from anchor_jax.body.pose import pose_renders
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.core.shapes import Float, NdArray
from anchor_jax.films.crops import crop_of
from anchor_jax.films.poses import OpenedFilm, find_poses
from anchor_jax.films.room import film_cameras
from anchor_jax.landmarks.absence import absent_frames, rest_while_absent
from anchor_jax.landmarks.extents import track_extents
from anchor_jax.landmarks.filling import fill_and_smooth, fill_missing
from anchor_jax.landmarks.framing import CropRect, center_of, frame_person
from anchor_jax.landmarks.proportions.alignment import align
from anchor_jax.landmarks.proportions.measures import BodyMeasures, measure
from anchor_jax.landmarks.proportions.retarget import retarget_shots
from anchor_jax.landmarks.sidecar import PoseRender
from anchor_jax.landmarks.tracks import SHOULDERS, Track, seen_landmarks
from anchor_jax.motion.frames import Motion, MotionFrame
from anchor_jax.motion.long_film import WHOLE, LongFilm
from anchor_jax.motion.steady import shaken_track, steady_track, through_camera
from anchor_jax.texture.background.camera_path import in_crop
from anchor_jax.video.timing import pick, tick_frames

_MARGIN = 1.0  # seconds that are tracked beyond the last frame of the motion, since filling and smoothing look ahead
_MEASURED = 30.0  # seconds over which a driver is measured at least


def film_motion(
  film: OpenedFilm,
  *,
  size: int | FrameSize,
  frames: int | None = None,
  fps: float | int | None = None,
  measures: BodyMeasures | None = None,
  mapped: bool = True,
  camera: str = "still",
  whole: bool = False,
) -> Motion:
  """Returns the motion of a video, identical to that of a folder prepared from it alone at the same size.

  For solids of the folder's widths, `measures` must be those in its meta.json.

  With a sidecar, `Motion.frames` decodes the sidecar's streams from the last key frame on, only as far as its frames
  are taken. Without one, the landmark model runs now, over the frames that are needed for `frames` and one second more;
  or over the first seconds of a film of more than a minute, and then as far as frames are taken (motion/long_film.py).

  With `measures` and without a sidecar, the motion is retargeted to that body and its place in the picture, unless the
  driver already has them (landmarks/proportions/). The driver is measured over all frames that show a person; with
  `frames`, over at least the first 30 seconds, so the landmark model runs that far in any case. Nothing is smoothed or
  filled across cuts.

  Args:
    film: from `open_film`, with a point on the driver if there are several people.
    size: width and height of the pose renders in pixels, or the side of squares.
    frames: number of frames from the start (at `fps`); default all.
    fps: frame rate of the motion; default the video's.
    measures: of the person who is to make the motion, with the widths of the solids and the shift of the cloth; None
      leaves the motion as it is, with solids of standard widths.
    mapped: whether to retarget the motion; otherwise only widths, cloth and rest pose come from `measures`.
    camera: if the film's camera moves, "still" takes that out of the motion, "film" keeps it. A film with a sidecar is
      not decoded, so its camera counts as still.
    whole: whether to find a long film as a whole, too.

  Raises:
    UserError: see `find_poses`; or no face in any frame.
  """
  size = FrameSize.of(size)
  native, ticks = film.info.fps, tick_frames(film.info)
  needed = None if frames is None else math.ceil((frames * native / (fps or native)) + _MARGIN * native)
  if needed is not None and measures is not None and mapped and film.posed is None:
    needed = max(needed, math.ceil(_MEASURED * native))
  if ticks is not None and needed is not None:
    ticks = ticks[:needed]
    needed = ticks[-1] + 1
  frame_count = film.info.frames if needed is None else min(needed, film.info.frames)
  if film.posed is None and not whole and frame_count > WHOLE * native:
    long = LongFilm(film, size, measures, mapped, retarget_track)
    if not long.moving:
      motion = _at_ticks(Motion(native, size, long.length, long.frames, late=long.absent), ticks)
      return motion.at_fps(fps).first(frames)
  poses = find_poses(film, frames=needed, progress=True)
  crop = crop_of(poses, film.info, size)
  track, in_frame = poses.track, None
  if track is not None:
    cameras = film_cameras(film, track)
    if cameras is not None:
      place = (crop.left, crop.top, crop.width, crop.height)
      in_frame = in_crop(cameras, (film.info.height, film.info.width), place)
      track = steady_track(track, cameras)
    if measures is not None:
      track, crop, measures = retarget_track(track, crop, measures, mapped)
    track = rest_while_absent(track)
    if in_frame is not None and camera == "film":
      track = shaken_track(track, in_frame, crop)
    renders = lambda crop, first: pose_renders(track, crop, first, measures)
    poses = poses._replace(landmarks=seen_landmarks(track), poses=renders, track=track)
  cuts = () if poses.track is None else poses.track.cuts
  absent = None if poses.track is None else absent_frames(poses.track)
  landmarks = fill_missing(crop.points(poses.landmarks), cuts)
  frames_from = lambda first: _motion_frames(poses.poses(crop, first), landmarks, first)
  motion = _at_ticks(Motion(native, size, len(landmarks), frames_from, absent), ticks)
  if in_frame is not None and camera == "film":
    motion = through_camera(motion, in_frame if ticks is None else in_frame[ticks], camera)
  return motion.at_fps(fps).first(frames)


def _at_ticks(motion: Motion, ticks: list[int] | None) -> Motion:
  """The motion of a film with the frames of its ticks (`tick_frames`); as it is if there are none."""
  if ticks is None:
    return motion

  def frames(first: int) -> Iterator[MotionFrame]:
    rest = ticks[first:]
    return pick(motion.frames(rest[0]), rest, rest[0]) if rest else iter(())

  absent = None if motion.absent is None else motion.absent[ticks]
  late = None if motion.late is None else lambda count, find=motion.late: find(ticks[count - 1] + 1)[ticks[:count]]
  return dataclasses.replace(motion, length=len(ticks), frames=frames, absent=absent, late=late)


def track_motion(track: Track, size: int | FrameSize, measures: BodyMeasures | None, mapped: bool) -> Motion:
  """Returns the motion of a track without a video, as `film_motion` does for a video.

  Args:
    track: with gaps, not smoothed; its masks are not used.
    size, measures, mapped: see `film_motion`.

  Raises:
    UserError: no person or no face in any frame.
  """
  track, size = fill_and_smooth(track), FrameSize.of(size)
  center = center_of(track.body[:, SHOULDERS, :2], track.width, track.height)
  crop = frame_person(track_extents(track), center, size, width=track.width, height=track.height)
  if measures is not None:
    track, crop, measures = retarget_track(track, crop, measures, mapped)
  track = rest_while_absent(track)
  landmarks = fill_missing(crop.points(seen_landmarks(track)), track.cuts)
  frames = lambda first: _motion_frames(pose_renders(track, crop, first, measures), landmarks, first)
  return Motion(track.fps, size, len(track), frames, absent_frames(track))


def retarget_track(
  track: Track, crop: CropRect, target: BodyMeasures, mapped: bool
) -> tuple[Track, CropRect, BodyMeasures]:
  """Returns a filled track as the target makes the motion, its crop rectangle, and the measures to render it with.

  Args:
    track: of the driver.
    crop: the crop rectangle of the driving video, of the size of the renders.
    target: measures of the person who is to make the motion.
    mapped: whether to retarget; otherwise only widths, cloth and rest pose are the target's.
  """
  retargeted = retarget_shots(track, crop, target) if mapped else None
  if retargeted is None:
    driver = measure(track, crop)
    rest = target.rest or driver.rest
    unmapped = dataclasses.replace(driver, widths=target.widths, cloth=target.cloth, rest=rest)
    return track, crop, align(target, driver) if mapped else unmapped
  return *retargeted, target


def _motion_frames(
  renders: Iterator[PoseRender], landmarks: Float[NdArray, "T 5 2"], first: int
) -> Iterator[MotionFrame]:
  for number, item in enumerate(renders, start=first):
    yield MotionFrame(np.ascontiguousarray(item.pose), item.face_mask[..., None], landmarks[number], item.surface)
