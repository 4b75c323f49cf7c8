"""The landmark model over films and pictures: body, face, hands, and the person's share of each pixel."""

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from anchor_jax.core.shapes import Float, Int, NdArray, UInt8
from anchor_jax.landmarks.mean_face import mean_face
from anchor_jax.landmarks.networks.crops import full_square
from anchor_jax.landmarks.networks.detectors import FACE_FAR, Detector
from anchor_jax.landmarks.networks.files import LANDMARK_MODELS, read_models, require_landmarks
from anchor_jax.landmarks.networks.holistic import Detection, Holistic
from anchor_jax.landmarks.networks.litert import LiteNetwork
from anchor_jax.landmarks.tracks import Track, only_columns
from anchor_jax.video.read import VideoInfo, read_frames

_WARM_UP = 4
_AT_A_TIME = 6  # frames: enough to keep every thread of the model busy
# The detector of all faces: rate, least confidence.
_FACES_A_SECOND, _LEAST_FACE = 10, 0.6


class LandmarkModel:
  """The landmark model as a context manager; it searches near the person's place in the picture before.

  Attributes:
    triangles: the face mesh, as in `Track`.
  """

  def __init__(self, path: str | os.PathLike, masks: bool = True, model: str = "mediapipe"):
    """Prepares the model.

    Args:
      path: the source of the pictures, for the error message.
      masks: whether to find the person's share of each pixel, too.
      model: one of `LANDMARK_MODELS`.

    Raises:
      UserError: the networks or their runtime are not installed.
    """
    require_landmarks(path, model)
    self.triangles: Int[NdArray, "K 3"] = mean_face()[1]
    self._model = Holistic(read_models(model), masks, LANDMARK_MODELS[model])

  def __enter__(self) -> "LandmarkModel":
    return self

  def __exit__(self, *error: Any) -> None:
    self._model.close()

  def start_shot(self, frame: UInt8[NdArray, "H W 3"], reset: bool = False) -> None:
    """Settles on the first picture of a shot; `reset` forgets the shot before."""
    if reset:
      self._model.reset()
    for _ in range(_WARM_UP):
      self._model.start(frame)

  def find(self, frame: UInt8[NdArray, "H W 3"]) -> Detection:
    """Finds a person in the next picture."""
    return self._model.find(frame)

  def find_all(
    self, frames: Iterable[UInt8[NdArray, "H W 3"]], cuts: Iterable[int] = (), reset: bool = False
  ) -> Iterator[Detection]:
    """Yields what `find` finds in a film's frames, faster: several frames are worked on at a time.

    Hands that have been missing for a while are looked for with less work; see `HandFinder.find_late`.

    Args:
      frames: of the film.
      cuts: numbers of the frames that start a new shot; the first always does.
      reset: whether the model has seen other frames before, which it is to forget.
    """
    starts, waiting = {0, *cuts}, deque()
    for number, frame in enumerate(frames):
      if number in starts:
        self.start_shot(frame, reset=reset or number > 0)
      waiting.append(self._model.start(frame, late=True))
      if len(waiting) > _AT_A_TIME:
        yield waiting.popleft()()
    self._model.settle()
    while waiting:
      yield waiting.popleft()()


def track_video(
  path: str | os.PathLike,
  info: VideoInfo,
  *,
  frames: int | None = None,
  cuts: Sequence[int] = (),
  columns: Int[NdArray, "T 2"] | None = None,
  masks: bool = True,
  model: str = "mediapipe",
  progress: str | None = None,
) -> Track:
  """Returns body, face, hands and person mask in the frames of a video, with gaps and not smoothed.

  Deterministic to the bit on one machine.

  Args:
    path: the video.
    info: from `probe`.
    frames: number of frames to track from the start; default all.
    cuts: numbers of the frames that start a new shot, where the model is reset.
    columns: the person's columns of the picture; see `Track`. All others are hidden from the model.
    masks: whether to find the person's masks, too; without them it is faster.
    model: the landmark model, one of `LANDMARK_MODELS`.
    progress: label of the progress bar; None for no bar.

  Raises:
    UserError: the video cannot be read, or the model is not installed.
  """
  path = Path(path)
  count = info.frames if frames is None else min(frames, info.frames)
  bar = tqdm(desc=progress, total=count, disable=progress is None, unit="frame", leave=False)
  with bar, LandmarkModel(path, masks, model) as finder:
    pictures = read_frames(path, info=info)
    pictures = pictures if count == info.frames else itertools.islice(pictures, count)
    return track_pictures(finder, pictures, info, cuts=cuts, columns=columns, done=bar.update)


def track_pictures(
  finder: LandmarkModel,
  pictures: Iterable[UInt8[NdArray, "H W 3"]],
  info: VideoInfo,
  *,
  cuts: Sequence[int] = (),
  columns: Int[NdArray, "T 2"] | None = None,
  reset: bool = False,
  done: Callable[[], Any] = lambda: None,
) -> Track:
  """Returns body, face, hands and person mask in successive pictures of a video; see `track_video`.

  Args:
    finder: the model.
    pictures: at least one.
    info: of the video.
    cuts, columns: see `track_video`; numbers and rows are those of these pictures.
    reset: whether the model has seen other pictures before, which it is to forget.
    done: called after each picture.
  """
  seen, sure, files = [], [], []
  if columns is not None:
    pictures = (only_columns(frame, *columns[number].tolist()) for number, frame in enumerate(pictures))
  for number, found in enumerate(finder.find_all(pictures, cuts, reset)):
    seen.append(found[:3])
    mask = found.share
    sure += [] if found.visible is None else [found.visible]
    if mask is not None:
      if columns is not None:
        mask = only_columns(mask, *columns[number].tolist(), value=0)
      files.append(cv2.imencode(".png", mask)[1].tobytes())
    done()
  body, face, hands = (np.stack(points) for points in zip(*seen))
  return Track(
    info.width, info.height, info.fps, body, face, hands, finder.triangles, tuple(files),
    np.isfinite(face[:, 0, 0]), None if columns is None else columns[: len(body)],
    visible=np.stack(sure) if len(sure) == len(body) else None,
  )  # fmt: skip


def find_faces(
  path: str | os.PathLike, info: VideoInfo, *, frames: int | None = None
) -> list[tuple[int, Float[NdArray, "_ 4"]]]:
  """Returns all faces in a video, ten times a second: (number of the frame, [left, top, width, height] in pixels).

  People who look away are not found.

  Args:
    path: the video.
    info: from `probe`.
    frames: number of frames to search from the start; default all.

  Raises:
    UserError: the video cannot be read, or the model is not installed.
  """
  finder = FaceBoxes(path, info.fps)
  found: list[tuple[int, Float[NdArray, "_ 4"]]] = []
  for number, frame in enumerate(itertools.islice(read_frames(path, info=info), frames)):
    found += finder.find(number, frame)
  return found


class FaceBoxes:
  """Finds all faces in pictures of a film, ten times a second."""

  def __init__(self, path: str | os.PathLike, fps: float):
    """Prepares the detector.

    Args:
      path: the film, for the error message.
      fps: its frames per second.

    Raises:
      UserError: the model is not installed.
    """
    require_landmarks(path)
    self._detector = Detector(LiteNetwork(read_models()["face_detection_full_range"]), FACE_FAR, _LEAST_FACE)
    self._every = max(1, round(fps / _FACES_A_SECOND))

  def find(self, number: int, frame: UInt8[NdArray, "H W 3"]) -> list[tuple[int, Float[NdArray, "_ 4"]]]:
    """Returns the number of a frame with the faces in it, as in `find_faces`; nothing if it is not looked at."""
    if number % self._every:
      return []
    faces = self._detector.find(frame, full_square(frame))
    corners = np.array([face.box for face in faces], np.float32).reshape(-1, 2, 2)
    return [(number, np.concatenate([corners[:, 0], corners[:, 1] - corners[:, 0]], axis=1))]
