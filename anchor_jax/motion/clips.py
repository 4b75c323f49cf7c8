"""From videos to square posed frames of one size: sidecar or landmark model, crop, frame rate."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anchor_jax.errors import UserError
from anchor_jax.motion import render
from anchor_jax.motion.framing import Square, centre_of, square_around
from anchor_jax.motion.landmarks import require_mediapipe, track_video
from anchor_jax.motion.sidecar import Posed, PosedFrame, check_sidecar, has_sidecar, read_landmarks, read_posed_video
from anchor_jax.motion.tracks import SHOULDERS, mend
from anchor_jax.motion.video import VideoInfo, probe
from anchor_jax.shapes import Float, NdArray

LANDMARK_MODELS = ("mediapipe",)


class PosedClip(NamedTuple):
  """A video on its way into a prepared folder.

  Attributes:
    name: of the video, for people to read.
    person: name of who is in it; clips with the same name are the same person.
    fps: frames per second.
    frames: what is known of each frame, all of the prepared folder's size.
    square: left, top and side of what was kept of the video's picture, in its pixels; kept in meta.json.
  """

  name: str
  person: str
  fps: float
  frames: Iterable[Posed]
  square: tuple[int, int, int] | None = None


class _Posed(NamedTuple):
  """A video whose poses are known: where its person is, and its frames in a given square."""

  path: Path
  info: VideoInfo
  anchors: Float[NdArray, "T N 2"]
  frames: Callable[[Square], Iterator[PosedFrame]]


def check_video(path: str | os.PathLike, landmarks: str = "mediapipe") -> VideoInfo:
  """Checks, before any long work, that a video can become a clip; returns its facts.

  Raises:
    UserError: see `probe` and `check_sidecar`; or the landmark model is needed and missing, or of an unknown name.
  """
  if landmarks not in LANDMARK_MODELS:
    raise UserError(f'there is no landmark model "{landmarks}": use {", ".join(LANDMARK_MODELS)}')
  if has_sidecar(path):
    return check_sidecar(path)
  info = probe(path)
  require_mediapipe(path)
  return info


def read_clips(
  paths: Sequence[str | os.PathLike],
  *,
  size: int,
  person: str,
  fps: float | int | None = None,
  square: Square | None = None,
  progress: bool = False,
) -> list[PosedClip]:
  """Videos of one person as clips for `dataset.build`; their frames are made when they are asked for.

  Poses, masks and landmarks come from a video's sidecar if it has one, else from the landmark model, which runs now.
  The frames are the largest square around the person, resized; videos of the same size share one square, so that the
  room stays where it is.

  Args:
    paths: the videos.
    size: height and width of the clips' frames in pixels.
    person: name of who is in them.
    fps: frame rate of the clips; default that of each video.
    square: the square to keep instead, such as an earlier folder's.
    progress: show a bar while the landmark model runs.

  Raises:
    UserError: see `check_video`; no person in a video; or `square` does not fit into one.
  """
  posed = [_posed(Path(path), progress) for path in paths]
  clips = []
  for video in posed:
    width, height = video.info.width, video.info.height
    if square is None:
      alike = [other.anchors for other in posed if (other.info.width, other.info.height) == (width, height)]
      kept = square_around(width, height, centre_of(np.concatenate(alike), width, height), size)
    else:
      kept = Square(square.left, square.top, square.side, size)
      if kept.left + kept.side > width or kept.top + kept.side > height:
        raise UserError(f"{video.path} is {width}x{height}: the square of the other folder does not fit into it")
    frames = video.frames(kept)
    if fps is not None and fps != video.info.fps:
      frames = resample_frames(frames, video.info.fps, float(fps))
    where = (kept.left, kept.top, kept.side)
    clips.append(PosedClip(video.path.stem, person, float(fps or video.info.fps), frames, where))
  return clips


def _posed(path: Path, progress: bool) -> _Posed:
  if has_sidecar(path):
    return _Posed(path, check_sidecar(path), read_landmarks(path), lambda square: _from_sidecar(path, square))
  try:
    track = mend(track_video(path, progress=f"landmarks of {path.name}" if progress else None))
  except UserError as error:
    raise UserError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from None
  anchors = track.body[:, SHOULDERS, :2]
  return _Posed(path, probe(path), anchors, lambda square: render.posed_frames(path, track, square))


def _from_sidecar(path: Path, square: Square) -> Iterator[PosedFrame]:
  for item in read_posed_video(path):
    yield PosedFrame(
      square.image(item.frame),
      square.image(item.pose),
      square.mask(item.person_mask),
      square.mask(item.face_mask),
      square.points(item.landmarks),
    )


def resample_frames(frames: Iterable[Any], fps: float | int, wanted: float | int) -> Iterator[Any]:
  """Repeats or leaves out frames so that a clip of `fps` becomes one of `wanted` frames per second."""
  due = 0
  for number, frame in enumerate(frames):
    # a frame stands until the next one comes, at (number + 1) / fps; frames are due at 0, 1 / wanted, 2 / wanted, ...
    while due * fps < (number + 1) * wanted:
      yield frame
      due += 1
