"""The landmark model: MediaPipe Holistic over a video. Its wheel (extra `landmarks`) carries the network files."""

import contextlib
import importlib
import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from anchor_jax.errors import UserError
from anchor_jax.motion.tracks import Track, only_columns
from anchor_jax.motion.video import VideoInfo, read_frames
from anchor_jax.shapes import Float, Int, NdArray

_BODY, _FACE, _HAND = 33, 478, 21
_WARM_UP = 4
_FACES_A_SECOND, _FAR_TOO, _SURE = 10, 1, 0.6  # of the model of faces: also those up to 5 m off; its least confidence


def require_mediapipe(path: str | os.PathLike) -> Any:
  """Imports the model's package, which is not part of the default install.

  Args:
    path: the video that needs it, for the message.

  Raises:
    UserError: it is not installed.
  """
  # its libraries log to stderr
  os.environ.setdefault("GLOG_minloglevel", "2")
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  try:
    with _quiet_stderr():
      face_mesh_connections, holistic = (
        importlib.import_module(f"mediapipe.python.solutions.{name}") for name in ("face_mesh_connections", "holistic")
      )
  except ImportError:
    raise UserError(
      f"no poses come with {path}, and the landmark model that would find them is not installed: run `make landmarks`"
      " (Python 3.11 or 3.12), or `uv pip install 'anchor-jax[landmarks]'` with the overrides of pyproject.toml"
    ) from None
  except (AttributeError, TypeError) as error:  # its generated code and another protobuf than the pinned one
    raise UserError(
      f"the landmark model does not start with the installed packages ({error}): run `make landmarks`"
    ) from None
  return holistic, face_mesh_connections


@contextlib.contextmanager
def _quiet_stderr():
  """Sends what C++ code writes to stderr to nowhere; not for long stretches, since bars are shown there too."""
  saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
  try:
    os.dup2(nowhere, 2)
    yield
  finally:
    os.dup2(saved, 2)
    os.close(saved)
    os.close(nowhere)


def track_video(
  path: str | os.PathLike,
  info: VideoInfo,
  *,
  frames: int | None = None,
  cuts: Sequence[int] = (),
  columns: Int[NdArray, "T 2"] | None = None,
  progress: str | None = None,
) -> Track:
  """Finds body, face, hands and person mask in the frames of a video; nothing is filled in or smoothed yet.

  The same video gives the same track, to the bit. 6 to 24 frames a second at 640 x 480 on two cores.

  Args:
    path: the video.
    info: its facts, of `probe`.
    frames: only the first so many frames; default all.
    cuts: numbers of the frames that begin a new shot, where the model begins anew.
    columns: the columns of the picture that are the person's; see `Track`. The model sees nothing of the others.
    progress: what the progress bar says; None for no bar.

  Raises:
    UserError: the video cannot be read, or the model is not installed.
  """
  path = Path(path)
  count = info.frames if frames is None else min(frames, info.frames)
  holistic, connections = require_mediapipe(path)
  body, face, hands, masks = [], [], [], []
  # the model would smooth with a lag; `tracks.mend` smooths looking both ways
  options = {
    "model_complexity": 1,
    "refine_face_landmarks": True,
    "enable_segmentation": True,
    "smooth_landmarks": False,
  }
  bar = tqdm(desc=progress, total=count, disable=progress is None, unit="frame", leave=False)
  with contextlib.ExitStack() as stack:
    stack.enter_context(bar)
    with _quiet_stderr():
      model = stack.enter_context(holistic.Holistic(**options))
    pictures = read_frames(path, info=info)
    for number, frame in enumerate(pictures if count == info.frames else itertools.islice(pictures, count)):
      if columns is not None:
        frame = only_columns(frame, *columns[number].tolist())
      if number == 0 or number in cuts:
        with _quiet_stderr():  # it warns while it warms up; and it finds its way into a face over some frames
          if number:
            model.reset()
          for _ in range(_WARM_UP):
            model.process(frame)
      found = model.process(frame)
      body.append(_points(found.pose_landmarks, _BODY, info.width, info.height))
      face.append(_points(found.face_landmarks, _FACE, info.width, info.height))
      both = (found.left_hand_landmarks, found.right_hand_landmarks)
      hands.append([_points(hand, _HAND, info.width, info.height) for hand in both])
      share = found.segmentation_mask
      mask = (
        np.zeros((info.height, info.width), np.uint8)
        if share is None
        else (255 * np.clip(share, 0, 1)).astype(np.uint8)
      )
      if columns is not None:
        mask = only_columns(mask, *columns[number].tolist(), value=0)
      masks.append(cv2.imencode(".png", mask)[1].tobytes())
      bar.update()
  return Track(
    info.width, info.height, info.fps, np.stack(body), np.stack(face), np.asarray(hands, np.float32),
    mesh_triangles(connections.FACEMESH_TESSELATION), tuple(masks), np.isfinite(np.stack(face)[:, 0, 0]),
    None if columns is None else columns[: len(body)],
  )  # fmt: skip


def find_faces(
  path: str | os.PathLike, info: VideoInfo, *, frames: int | None = None
) -> list[tuple[int, Float[NdArray, "_ 4"]]]:
  """Returns the faces of everybody in a video, ten times a second: (number of the frame, [left, top, width, height]).

  They are in pixels of the picture. Some 60 pictures a second on two cores; people who look away are not found.

  Args:
    path: the video.
    info: its facts, of `probe`.
    frames: only the first so many frames; default all.

  Raises:
    UserError: the video cannot be read, or the model is not installed.
  """
  require_mediapipe(path)
  detection = importlib.import_module("mediapipe.python.solutions.face_detection")
  every, scale = max(1, round(info.fps / _FACES_A_SECOND)), np.array([info.width, info.height] * 2, np.float32)
  found: list[tuple[int, Float[NdArray, "_ 4"]]] = []
  with contextlib.ExitStack() as stack:
    with _quiet_stderr():
      model = stack.enter_context(detection.FaceDetection(model_selection=_FAR_TOO, min_detection_confidence=_SURE))
    for number, frame in enumerate(itertools.islice(read_frames(path, info=info), frames)):
      if number % every == 0:
        with _quiet_stderr() if number == 0 else contextlib.nullcontext():
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
  """The triangles of a triangulated surface, from its edges: all three mutually linked points, each once."""
  near: dict[int, set[int]] = {}
  for a, b in edges:
    near.setdefault(a, set()).add(b)
    near.setdefault(b, set()).add(a)
  corners = ((a, b, c) for a, linked in near.items() for b, c in itertools.combinations(sorted(linked), 2))
  found = {tuple(sorted(triple)) for triple in corners if triple[2] in near[triple[1]]}
  return np.array(sorted(found), np.int32)
