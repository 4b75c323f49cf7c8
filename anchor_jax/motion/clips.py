"""From videos to square frames of one size with their poses: sidecar or landmark model, crop, frame rate."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anchor_jax.errors import UserError
from anchor_jax.motion import render
from anchor_jax.motion.fit import fit_widths
from anchor_jax.motion.framing import Square, centre_of, square_around
from anchor_jax.motion.landmarks import require_mediapipe, track_video
from anchor_jax.motion.measures import BodyMeasures, measure
from anchor_jax.motion.sidecar import Posed, PosedFrame, PosedVideo, PoseRender, has_sidecar, open_posed_video
from anchor_jax.motion.ticks import pick, tick_frames
from anchor_jax.motion.tracks import SHOULDERS, Track, mend, seen_landmarks
from anchor_jax.motion.video import VideoInfo, probe
from anchor_jax.shapes import Float, NdArray

LANDMARK_MODELS = ("mediapipe",)


FRAME_RATES = (1, 240)  # frames per second that cameras make


class PosedClip(NamedTuple):
  """A clip to be written to a prepared folder.

  Attributes:
    name: of the video, for people to read.
    person: name of who is in it; clips with the same name are the same person.
    fps: frames per second.
    frames: the frames with their poses, all of the prepared folder's size.
    square: left, top and side of the square of the video's picture, in its pixels; stored in meta.json.
    measures: of the person's body in that square; None where they are not known.
  """

  name: str
  person: str
  fps: float
  frames: Iterable[Posed]
  square: tuple[int, int, int] | None = None
  measures: BodyMeasures | None = None


class CheckedVideo(NamedTuple):
  """A video that was checked by `check_video`.

  Attributes:
    path: the file.
    info: its facts.
    posed: the video with its sidecar; None where the landmark model is to find the poses.
  """

  path: Path
  info: VideoInfo
  posed: PosedVideo | None


class FoundPoses(NamedTuple):
  """The poses of a video, in pixels of the video; renders are made for a given square.

  Attributes:
    anchors: points that say where the person is, NaN where missing.
    landmarks: five face landmarks, NaN where the face was not found.
    frames: function from a square, and the person's measures in it where they are known, to an iterator over the frames
      with their poses.
    poses: function from a square and a frame's number to an iterator over the pose sides from that frame on; the
      video's own picture is not decoded.
    track: the person's points, mended; None where the poses are those of a sidecar.
  """

  anchors: Float[NdArray, "T N 2"]
  landmarks: Float[NdArray, "T 5 2"]
  frames: Callable[[Square, BodyMeasures | None], Iterator[PosedFrame]]
  poses: Callable[[Square, int], Iterator[PoseRender]]
  track: Track | None = None


def check_video(
  path: str | os.PathLike, landmarks: str = "mediapipe", fps: float | int | None = None, cut_off: bool = False
) -> CheckedVideo:
  """Checks, before any long work, that the poses of a video can be found; each of its files is probed once.

  Args:
    path: the video.
    landmarks: the landmark model for a video without a sidecar.
    fps: the frame rate to take for that of a video which does not say a credible one.
    cut_off: take what is there of a video whose end is missing.

  Raises:
    UserError: see `probe` and `open_posed_video`; the frame rate is not credible; or the landmark model is needed and
      missing, or of an unknown name.
  """
  path = Path(path)
  if landmarks not in LANDMARK_MODELS:
    raise UserError(f'there is no landmark model "{landmarks}": use {", ".join(LANDMARK_MODELS)}')
  posed = open_posed_video(path, cut_off) if has_sidecar(path) else None
  info = probe(path, cut_off) if posed is None else posed.info
  if not FRAME_RATES[0] <= info.fps <= FRAME_RATES[1]:
    if fps is None:
      raise UserError(
        f"{path} has {info.fps:g} frames per second by its time stamps, which no camera makes: say how many it has with"
        " --fps=25 (or another number)"
      )
    info = dataclasses.replace(info, fps=float(fps), seconds=info.frames / fps, unit=None)
  if posed is None:
    require_mediapipe(path)
  return CheckedVideo(path, info, posed)


def find_poses(video: CheckedVideo, *, frames: int | None = None, progress: bool = False) -> FoundPoses:
  """Returns the poses of a video, from its sidecar, else from the landmark model, which runs now.

  Args:
    video: of `check_video`.
    frames: the landmark model runs over the first so many frames only, and only those are known; default all.
    progress: show a bar while the landmark model runs.

  Raises:
    UserError: no person in the video, or it is damaged.
  """
  if video.posed is not None:
    posed = video.posed
    return FoundPoses(
      posed.landmarks,
      posed.landmarks,
      lambda square, _: (_in_square(item, square) for item in posed.frames()),
      lambda square, first: (
        PoseRender(square.image(item.pose), square.mask(item.face_mask), square.surface(item.surface))
        for item in posed.poses(first)
      ),
    )
  bar = f"landmarks of {video.path.name}" if progress else None
  try:
    track = mend(track_video(video.path, video.info, frames=frames, progress=bar))
  except UserError as error:
    raise UserError(f"{video.path}: {error}" if str(video.path) not in str(error) else str(error)) from None
  poses = lambda square, first: render.pose_renders(track, square, first)
  frames_in = lambda square, measures: render.posed_frames(video.path, track, square, measures)
  return FoundPoses(track.body[:, SHOULDERS, :2], seen_landmarks(track), frames_in, poses, track)


def square_of(found: Sequence[FoundPoses], info: VideoInfo, size: int) -> Square:
  """Returns the square around the person in one or several videos of the same picture size."""
  anchors = np.concatenate([poses.anchors for poses in found])
  return square_around(info.width, info.height, centre_of(anchors, info.width, info.height), size)


def read_clips(
  videos: Sequence[CheckedVideo],
  *,
  size: int,
  person: str,
  fps: float | int | None = None,
  square: Square | None = None,
  progress: bool = False,
) -> list[PosedClip]:
  """Returns videos of one person as clips for `records.build`; their frames are made when they are iterated.

  The frames are the largest square around the person, resized; videos of the same picture size share one square, so
  that the room does not move from one to the next. The solids of the poses that the landmark model found are fitted to
  the person's masks in all videos together (motion/fit.py).

  Args:
    videos: of `check_video`.
    size: height and width of the clips' frames in pixels.
    person: name of who is in them.
    fps: frame rate of the clips; default that of each video.
    square: use this square instead, such as an earlier folder's.
    progress: show a bar while the landmark model runs.

  Raises:
    UserError: see `find_poses`; or `square` does not fit into a video.
  """
  found = [find_poses(video, progress=progress) for video in videos]
  squares = []
  for video in videos:
    info = video.info
    if square is None:
      same = [p for v, p in zip(videos, found) if (v.info.width, v.info.height) == (info.width, info.height)]
      used = square_of(same, info, size)
    else:
      used = Square(square.left, square.top, square.side, size)
      if used.left + used.side > info.width or used.top + used.side > info.height:
        raise UserError(
          f"{video.path} is {info.width}x{info.height}: the square of the other folder does not fit into it"
        )
    squares.append(used)
  measured = [None if p.track is None else measure(p.track, used) for p, used in zip(found, squares)]
  films = [(p.track, s, m) for p, s, m in zip(found, squares, measured) if p.track is not None and m is not None]
  widths = fit_widths(films)
  clips = []
  for video, poses, used, body in zip(videos, found, squares, measured):
    info, measures = video.info, None if body is None else dataclasses.replace(body, widths=widths)
    frames, ticks = poses.frames(used, measures), tick_frames(info)
    if ticks is not None:
      frames = pick(frames, ticks)
    if fps is not None and fps != info.fps:
      frames = resample_frames(frames, info.fps, float(fps))
    where = (used.left, used.top, used.side)
    clips.append(PosedClip(video.path.stem, person, float(fps or info.fps), frames, where, measures))
  return clips


def _in_square(item: PosedFrame, square: Square) -> PosedFrame:
  return PosedFrame(
    square.image(item.frame),
    square.image(item.pose),
    square.mask(item.person_mask),
    square.mask(item.face_mask),
    square.points(item.landmarks),
    square.surface(item.surface),
  )


def resample_frames(frames: Iterable[Any], fps: float | int, wanted: float | int) -> Iterator[Any]:
  """Repeats or leaves out frames so that a clip of `fps` becomes one of `wanted` frames per second."""
  due = 0
  for number, frame in enumerate(frames):
    # a frame stands until the next one comes, at (number + 1) / fps; frames are due at 0, 1 / wanted, 2 / wanted, ...
    while due * fps < (number + 1) * wanted:
      yield frame
      due += 1
