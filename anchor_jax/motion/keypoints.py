"""Keypoints in OpenPose's JSON format, which DWPose and others write too, as a motion.

A folder holds a file a frame, NAME_000000000000_keypoints.json, in the order of the numbers in their names, or one
file holds a list of frames. A frame has
"people", each with pose_keypoints_2d (25 points, or 18 of COCO), face_keypoints_2d (70), hand_left_keypoints_2d and
hand_right_keypoints_2d (21): x, y, confidence, in pixels, or in shares of canvas_width and canvas_height.
Depth is not in these files: bodies and hands are flat, faces as deep as the mean face turned as they are.
"""

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from anchor_jax.body.face_points import mean_face, mesh_of_landmarks, with_depth
from anchor_jax.core.errors import UserError, one_line
from anchor_jax.core.shapes import Float, NdArray
from anchor_jax.files.inputs import read_json, sorted_by_number
from anchor_jax.landmarks.measures import BodyMeasures
from anchor_jax.landmarks.tracks import Track
from anchor_jax.motion.film import track_motion
from anchor_jax.motion.frames import Motion

FPS = 25.0  # where the caller does not say
_SURE, _SURE_FACE = 0.1, 0.2  # confidence from which on a point counts, and the mean from which on a face does
_FARTHEST = 2.0**16  # pixels
# Numbers among the landmark model's 33 body points, and in the formats of 25 and of 18 points.
_BODY_25 = {0: 0, 2: 16, 5: 15, 7: 18, 8: 17, 11: 5, 12: 2, 13: 6, 14: 3, 15: 7, 16: 4, 23: 12, 24: 9, 25: 13, 26: 10,
            27: 14, 28: 11, 29: 21, 30: 24, 31: 19, 32: 22}  # fmt: skip
_BODY_18 = {0: 0, 2: 15, 5: 14, 7: 17, 8: 16, 11: 5, 12: 2, 13: 6, 14: 3, 15: 7, 16: 4, 23: 11, 24: 8, 25: 12, 26: 9,
            27: 13, 28: 10}  # fmt: skip
# Where points are that are never seen, from the middle of the shoulders, in shoulder widths; those of her left side.
_USUAL = {7: (0.2, -0.5), 13: (0.62, 0.72), 15: (0.6, 1.4), 17: (0.62, 1.6), 19: (0.55, 1.6), 21: (0.5, 1.5),
          23: (0.3, 1.5), 25: (0.3, 2.6), 27: (0.3, 3.7), 29: (0.3, 3.8), 31: (0.35, 3.9), 2: (0.09, -0.55),
          1: (0.05, -0.55), 3: (0.13, -0.55), 9: (0.08, -0.38), 0: (0.0, -0.45)}  # fmt: skip
_RIGHT = {1: 4, 2: 5, 3: 6, 0: 0}  # of the points in `_USUAL`; all others are followed by their right one


def is_keypoints(path: str | os.PathLike) -> bool:
  """Whether a path is a JSON file, or a folder of JSON files that is no prepared folder."""
  path = Path(path)
  if os.path.isdir(path):  # Path.is_dir raises for a name that is too long
    return not os.path.lexists(path / "meta.json") and any(path.glob("*.json"))
  return path.suffix.lower() == ".json"


def read_keypoint_motion(
  path: str | os.PathLike,
  *,
  size: int,
  frames: int | None = None,
  fps: float | int | None = None,
  measures: BodyMeasures | None = None,
  mapped: bool = True,
) -> Motion:
  """Returns the motion of keypoints, rendered as that of a video without a sidecar is.

  Args:
    path: a JSON file with a list of frames, or a folder with a file for each.
    size: height and width of the pose renders, in pixels.
    frames: only the first so many frames; default all.
    fps: how many a second there are; default 25.
    measures, mapped: see `read_video_motion`.

  Raises:
    UserError: the files are missing, damaged, of another format, or show no person or no face.
  """
  track = read_keypoints(path, float(fps or FPS), None if frames is None else frames + math.ceil(fps or FPS))
  return track_motion(track, size, measures, mapped).first(frames)


def read_keypoints(path: str | os.PathLike, fps: float, frames: int | None = None) -> Track:
  """Returns the points of one person in files of keypoints, not mended; see `read_keypoint_motion` for the errors.

  Of several people it is the widest in the first frame, and then who is nearest to her last place.
  """
  path = Path(path)
  bodies, faces, hands, size, place = [], [], [], np.zeros(2), None
  for name, frame in _read(path):
    if frames is not None and len(bodies) >= frames:
      break
    try:
      canvas = np.array([float(frame.get(f"canvas_{side}", 0)) for side in ("width", "height")])
      if not ((canvas >= 0) & (canvas <= _FARTHEST)).all():
        raise ValueError(f"a canvas of {canvas[0]:g} x {canvas[1]:g}")
      people = [_person(person, canvas) for person in frame["people"]]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
      raise UserError(f"{name} holds no keypoints as OpenPose writes them ({one_line(error)})") from None
    people = [person for person in people if np.isfinite(person[0][[11, 12]]).all()]
    if place is None:
      key = lambda person: -float(np.linalg.norm(person[0][11] - person[0][12]))
    else:
      key = lambda person, place=place: float(np.linalg.norm(person[0][[11, 12]].mean(axis=0) - place))
    body, face, both = min(people, key=key) if people else _nobody()
    if people:
      place = body[[11, 12]].mean(axis=0)
      size = np.maximum(size, canvas if canvas.all() else np.nanmax(np.concatenate([body, face, *both]), axis=0) + 1)
    bodies.append(body)
    faces.append(face)
    hands.append(both)
  if not bodies or place is None:
    raise UserError(f"{path} shows nobody with both shoulders in any frame")
  body = _filled(np.stack(bodies))
  deep = lambda points: np.concatenate([points, 0 * points[..., :1]], axis=-1).astype(np.float32)
  marks = np.stack(faces)
  face = mesh_of_landmarks(with_depth(marks[:, :68].astype(np.float32)), deep(marks[:, 68:]))
  seen = np.isfinite(face[:, 0, 0])
  width, height = np.ceil(np.maximum(size, 16)).astype(int).tolist()
  return Track(width, height, fps, deep(body), face, deep(np.stack(hands)), mean_face()[1], (), seen)


def _read(path: Path) -> Iterable[tuple[Path, Any]]:
  """Name and content of each frame, in order."""
  for file in sorted_by_number(path.glob("*.json")) if os.path.isdir(path) else [path]:
    held = read_json(file, "file of keypoints", "write it again", nan=True)
    yield from ((file, frame) for frame in (held if isinstance(held, list) else [held]))


def _nobody() -> tuple[NdArray, NdArray, NdArray]:
  return np.full((33, 2), np.nan), np.full((70, 2), np.nan), np.full((2, 21, 2), np.nan)


def _person(person: dict[str, Any], canvas: Float[NdArray, "2"]) -> tuple[NdArray, NdArray, NdArray]:
  """Body, face and hands in pixels, NaN where a point is not sure."""
  points = _points(person["pose_keypoints_2d"], (25, 18))
  numbers = _BODY_25 if len(points) == 25 else _BODY_18
  body, face, hands = _nobody()
  body[list(numbers)] = _sure(points)[list(numbers.values())]
  marks = _points(person.get("face_keypoints_2d") or [0] * 210, (70, 68))
  if marks[:, 2].mean() >= _SURE_FACE:
    face[:68] = marks[:68, :2]
    eyes = [face[36:42].mean(axis=0), face[42:48].mean(axis=0)]  # of 68 points, pupils in the middle
    face[68:] = marks[68:, :2] if len(marks) == 70 and (marks[68:, 2] > _SURE).all() else eyes
  for side, name in enumerate(("left", "right")):
    hand = _points(person.get(f"hand_{name}_keypoints_2d") or [0] * 63, (21,))
    if (hand[:, 2] > _SURE).mean() > 0.8:
      hands[side] = hand[:, :2]
  shares = np.nanmax(np.abs(body)) <= 2 if np.isfinite(body).any() else False
  if shares and not canvas.all():
    raise ValueError("shares of the picture without canvas_width and canvas_height")
  scale = canvas if shares else np.ones(2)
  return body * scale, face * scale, hands * scale


def _points(values: Any, counts: tuple[int, ...]) -> Float[NdArray, "N 3"]:
  points = np.asarray(values, np.float64).reshape(-1, 3)
  if len(points) not in counts:
    raise ValueError(f"{len(points)} points instead of {' or '.join(map(str, counts))}")
  points = np.where(np.isfinite(points).all(axis=1, keepdims=True), points, 0)  # NaN: not found
  if np.abs(points).max() > _FARTHEST:
    raise ValueError(f"a point at {np.abs(points).max():g}")
  return points


def _sure(points: Float[NdArray, "N 3"]) -> Float[NdArray, "N 2"]:
  return np.where(points[:, 2:] > _SURE, points[:, :2], np.nan)


def _filled(body: Float[NdArray, "T 33 2"]) -> Float[NdArray, "T 33 2"]:
  """The points with gaps over time filled, from the shoulders on; frames without shoulders stay NaN."""
  known = np.isfinite(body[:, 11, 0])
  middle = body[:, (11, 12)].mean(axis=1)
  width = float(np.nanpercentile(np.linalg.norm(body[:, 11] - body[:, 12], axis=-1), 80))
  local, frames = (body - middle[:, None]) / width, np.arange(len(body))
  for left, (x, y) in _USUAL.items():
    for number, usual in ((left, (x, y)), (_RIGHT.get(left, left + 1), (-x, y))):
      seen = np.isfinite(local[:, number, 0])
      for axis in (0, 1):
        value = np.interp(frames, frames[seen], local[seen, number, axis]) if seen.any() else usual[axis]
        local[:, number, axis] = np.where(seen, local[:, number, axis], value)
  filled = local * width + middle[:, None]
  filled[~known] = np.nan
  return filled
