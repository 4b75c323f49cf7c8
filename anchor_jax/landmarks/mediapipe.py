"""The landmark model: MediaPipe Holistic over a video. Its wheel (extra `landmarks`) contains the network files."""

import contextlib
import importlib
import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from anchor_jax.core.cli import quiet_stderr
from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Float, Int, NdArray, UInt8
from anchor_jax.landmarks.tracks import Track, only_columns
from anchor_jax.video.read import VideoInfo, read_frames

_BODY, _FACE, _HAND = 33, 478, 21
_WARM_UP = 4
# The face detector: rate, MediaPipe's model for faces up to 5 m away, least confidence.
_FACES_A_SECOND, _LONG_RANGE, _LEAST_CONFIDENCE = 10, 1, 0.6


def require_mediapipe(path: str | os.PathLike) -> Any:
  """Imports and returns the model's modules (holistic, face_mesh_connections), an optional install.

  Args:
    path: the video that needs the model, for the error message.

  Raises:
    UserError: the model is not installed.
  """
  # MediaPipe's libraries log to stderr
  os.environ.setdefault("GLOG_minloglevel", "2")
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  try:
    with quiet_stderr():
      face_mesh_connections, holistic = (
        importlib.import_module(f"mediapipe.python.solutions.{name}") for name in ("face_mesh_connections", "holistic")
      )
  except ImportError:
    raise UserError(
      f"{path} comes without poses, and the landmark model that finds them is not installed: run `make landmarks`"
      " (Python 3.11 or 3.12), or `uv pip install 'anchor-jax[landmarks]'` with the overrides of pyproject.toml"
    ) from None
  except (AttributeError, TypeError) as error:  # its generated code does not fit an unpinned protobuf
    raise UserError(
      f"the landmark model does not start with the installed packages ({error}): run `make landmarks`"
    ) from None
  return holistic, face_mesh_connections


class Detection(NamedTuple):
  """The landmarks of one picture; points as in `Track`, NaN where nothing was found.

  Attributes:
    body, face, hands: the points.
    share: the person's share of each pixel, 0 to 255; None where it was not requested.
  """

  body: Float[NdArray, "33 3"]
  face: Float[NdArray, "478 3"]
  hands: Float[NdArray, "2 21 3"]
  share: UInt8[NdArray, "H W"] | None


class LandmarkModel:
  """The landmark model as a context manager; it searches near the person's place in the picture before.

  Attributes:
    triangles: the face mesh, as in `Track`.
  """

  def __init__(self, path: str | os.PathLike, masks: bool = True):
    """Prepares the model.

    Args:
      path: the source of the pictures, for the error message.
      masks: whether to find the person's share of each pixel, too.

    Raises:
      UserError: the model is not installed.
    """
    self._holistic, connections = require_mediapipe(path)
    self.triangles, self._masks = mesh_triangles(connections.FACEMESH_TESSELATION), masks

  def __enter__(self) -> "LandmarkModel":
    # The model's own smoothing lags: `filling.fill_and_smooth` looks both ways, `following.py` smooths motion less.
    options = {
      "model_complexity": 1,
      "refine_face_landmarks": True,
      "enable_segmentation": self._masks,
      "smooth_landmarks": False,
    }
    with quiet_stderr():
      self._model = self._holistic.Holistic(**options).__enter__()
    return self

  def __exit__(self, *error: Any) -> None:
    self._model.__exit__(*error)

  def start_shot(self, frame: UInt8[NdArray, "H W 3"], reset: bool = False) -> None:
    """Settles on the first picture of a shot; `reset` forgets the shot before."""
    with quiet_stderr():  # it warns while it warms up, and needs a few frames to settle on a face
      if reset:
        self._model.reset()
      for _ in range(_WARM_UP):
        self._model.process(frame)

  def find(self, frame: UInt8[NdArray, "H W 3"]) -> Detection:
    """Finds a person in the next picture."""
    (height, width), found = frame.shape[:2], self._model.process(frame)
    hands = [_points(hand, _HAND, width, height) for hand in (found.left_hand_landmarks, found.right_hand_landmarks)]
    share = found.segmentation_mask if self._masks else None
    if share is not None:
      share = (255 * np.clip(share, 0, 1)).astype(np.uint8)
    elif self._masks:
      share = np.zeros((height, width), np.uint8)
    body, face = (
      _points(points, count, width, height)
      for points, count in ((found.pose_landmarks, _BODY), (found.face_landmarks, _FACE))
    )
    return Detection(body, face, np.stack(hands), share)


def track_video(
  path: str | os.PathLike,
  info: VideoInfo,
  *,
  frames: int | None = None,
  cuts: Sequence[int] = (),
  columns: Int[NdArray, "T 2"] | None = None,
  progress: str | None = None,
) -> Track:
  """Returns body, face, hands and person mask in the frames of a video, with gaps and not smoothed.

  Deterministic to the bit. Runs at 6 to 24 frames a second at 640 x 480 on two cores.

  Args:
    path: the video.
    info: from `probe`.
    frames: number of frames to track from the start; default all.
    cuts: numbers of the frames that start a new shot, where the model is reset.
    columns: the person's columns of the picture; see `Track`. All others are hidden from the model.
    progress: label of the progress bar; None for no bar.

  Raises:
    UserError: the video cannot be read, or the model is not installed.
  """
  path = Path(path)
  count = info.frames if frames is None else min(frames, info.frames)
  seen, masks = [], []
  bar = tqdm(desc=progress, total=count, disable=progress is None, unit="frame", leave=False)
  with bar, LandmarkModel(path) as model:
    pictures = read_frames(path, info=info)
    for number, frame in enumerate(pictures if count == info.frames else itertools.islice(pictures, count)):
      if columns is not None:
        frame = only_columns(frame, *columns[number].tolist())
      if number == 0 or number in cuts:
        model.start_shot(frame, reset=number > 0)
      found = model.find(frame)
      seen.append(found[:3])
      mask = found.share
      assert mask is not None
      if columns is not None:
        mask = only_columns(mask, *columns[number].tolist(), value=0)
      masks.append(cv2.imencode(".png", mask)[1].tobytes())
      bar.update()
  body, face, hands = (np.stack(points) for points in zip(*seen))
  return Track(
    info.width, info.height, info.fps, body, face, hands, model.triangles, tuple(masks),
    np.isfinite(face[:, 0, 0]), None if columns is None else columns[: len(body)],
  )  # fmt: skip


def find_faces(
  path: str | os.PathLike, info: VideoInfo, *, frames: int | None = None
) -> list[tuple[int, Float[NdArray, "_ 4"]]]:
  """Returns all faces in a video, ten times a second: (number of the frame, [left, top, width, height] in pixels).

  Runs at about 60 frames a second on two cores. People who look away are not found.

  Args:
    path: the video.
    info: from `probe`.
    frames: number of frames to search from the start; default all.

  Raises:
    UserError: the video cannot be read, or the model is not installed.
  """
  require_mediapipe(path)
  detection = importlib.import_module("mediapipe.python.solutions.face_detection")
  every, scale = max(1, round(info.fps / _FACES_A_SECOND)), np.array([info.width, info.height] * 2, np.float32)
  found: list[tuple[int, Float[NdArray, "_ 4"]]] = []
  with contextlib.ExitStack() as stack:
    with quiet_stderr():
      options = {"model_selection": _LONG_RANGE, "min_detection_confidence": _LEAST_CONFIDENCE}
      model = stack.enter_context(detection.FaceDetection(**options))
    for number, frame in enumerate(itertools.islice(read_frames(path, info=info), frames)):
      if number % every == 0:
        with quiet_stderr() if number == 0 else contextlib.nullcontext():
          seen = model.process(frame).detections or ()
        boxes = [face.location_data.relative_bounding_box for face in seen]
        shares = np.array([(box.xmin, box.ymin, box.width, box.height) for box in boxes], np.float32)
        found.append((number, shares.reshape(-1, 4) * scale))
  return found


def _points(found: Any, count: int, width: int, height: int) -> Float[NdArray, "N 3"]:
  if found is None:
    return np.full((count, 3), np.nan, np.float32)
  # the model's depth grows away from the viewer, in units of the picture's width
  return np.array([(p.x * width, p.y * height, -p.z * width) for p in found.landmark], np.float32)


def mesh_triangles(edges: Iterable[tuple[int, int]]) -> Int[NdArray, "K 3"]:
  """Returns the triangles of a triangulated surface from its edges: each set of three mutually linked points once."""
  near: dict[int, set[int]] = {}
  for a, b in edges:
    near.setdefault(a, set()).add(b)
    near.setdefault(b, set()).add(a)
  corners = ((a, b, c) for a, linked in near.items() for b, c in itertools.combinations(sorted(linked), 2))
  found = {tuple(sorted(triple)) for triple in corners if triple[2] in near[triple[1]]}
  return np.array(sorted(found), np.int32)
