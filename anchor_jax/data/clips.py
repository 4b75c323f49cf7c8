"""From a video to square posed frames of one size: sidecar or landmark model, crop, frame rate."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from anchor_jax.data.dataset import PosedClip
from anchor_jax.data.framing import centre_of, square_around
from anchor_jax.data.sidecar import PosedFrame, check_sidecar, has_sidecar, read_landmarks, read_posed_video
from anchor_jax.data.video import VideoInfo, probe
from anchor_jax.errors import UserError

LANDMARK_MODELS = ("mediapipe",)


def at_rate(frames: Iterable[PosedFrame], fps: float, wanted: float) -> Iterator[PosedFrame]:
  """Repeats or leaves out frames so that a clip of `fps` becomes one of `wanted` frames per second."""
  due = 0
  for number, frame in enumerate(frames):
    # a frame stands for the time [number, number + 1) / fps; those in whose middle it stands are due
    while (due + 0.5) * fps < (number + 1) * wanted:
      yield frame
      due += 1


def _from_sidecar(path: Path, size: int) -> Iterator[PosedFrame]:
  frames, square = read_posed_video(path), None
  landmarks = read_landmarks(path)
  for item in frames:
    if square is None:
      height, width = item.frame.shape[:2]
      square = square_around(width, height, centre_of(landmarks, width, height), size)
    yield PosedFrame(
      square.image(item.frame),
      square.image(item.pose),
      square.mask(item.person_mask),
      square.mask(item.face_mask),
      square.points(item.landmarks),
    )


def _from_landmarks(path: Path, size: int, progress: bool) -> Iterator[PosedFrame]:
  from anchor_jax.data import landmarks, render  # the landmark model is an extra

  track = landmarks.track_video(path, progress=f"landmarks of {path.name}" if progress else None)
  yield from render.posed_frames(path, track, size)


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
  from anchor_jax.data.landmarks import require_mediapipe

  require_mediapipe(path)
  return info


def read_clip(
  path: str | os.PathLike, *, size: int, person: str, fps: float | int | None = None, progress: bool = False
) -> PosedClip:
  """A video as a clip for `dataset.build`; frames are made when they are asked for.

  The poses, masks and landmarks come from the video's sidecar if it has one, else from the landmark model. The frames
  are the largest square around the person, resized.

  Args:
    path: the video.
    size: height and width of the clip's frames in pixels.
    person: name of who is in it.
    fps: frame rate of the clip; default that of the video.
    progress: show a bar while the landmark model runs.

  Raises:
    UserError: see `check_video`.
  """
  path = Path(path)
  if has_sidecar(path):
    info = check_sidecar(path)
    frames = _from_sidecar(path, size)
  else:
    info = probe(path)
    frames = _from_landmarks(path, size, progress)
  if fps is not None and fps != info.fps:
    frames = at_rate(frames, info.fps, float(fps))
  return PosedClip(path.stem, person, float(fps or info.fps), frames)
