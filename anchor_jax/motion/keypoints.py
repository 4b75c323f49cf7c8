"""The motion of keypoint files in OpenPose's JSON format, which DWPose and others write, too.

A folder has one file per frame, NAME_000000000000_keypoints.json, in the order of the numbers in their names; or one
file has a list of frames. A frame has "people", each with pose_keypoints_2d (25 points, or 18 of COCO),
face_keypoints_2d (70), hand_left_keypoints_2d and hand_right_keypoints_2d (21): x, y and confidence, in pixels or in
shares of canvas_width and canvas_height. The files have no depth: bodies and hands are flat, and faces get the depth of
the mean face, rotated like them.
"""

import itertools
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anchor_jax.body.face_points import mesh_of_landmarks, with_depth
from anchor_jax.core.errors import UserError, one_line
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.core.shapes import Float, NdArray
from anchor_jax.files.inputs import read_json, sorted_by_number
from anchor_jax.landmarks.mean_face import mean_face
from anchor_jax.landmarks.proportions.measures import BodyMeasures
from anchor_jax.landmarks.tracks import Track
from anchor_jax.motion.film import track_motion
from anchor_jax.motion.frames import Motion

FPS = 25.0  # default, since the files have no frame rate
_CHECKED = 1000  # frames that are read when keypoints are opened
_LEAST_CONFIDENCE, _LEAST_FACE_CONFIDENCE = 0.1, 0.2  # of a point, and the mean of a face
_FARTHEST = 2.0**16  # pixels
# From the landmark model's 33 body points to those of the formats of 25 and of 18 points.
_BODY_25 = {0: 0, 2: 16, 5: 15, 7: 18, 8: 17, 11: 5, 12: 2, 13: 6, 14: 3, 15: 7, 16: 4, 23: 12, 24: 9, 25: 13, 26: 10,
            27: 14, 28: 11, 29: 21, 30: 24, 31: 19, 32: 22}  # fmt: skip
_BODY_18 = {0: 0, 2: 15, 5: 14, 7: 17, 8: 16, 11: 5, 12: 2, 13: 6, 14: 3, 15: 7, 16: 4, 23: 11, 24: 8, 25: 12, 26: 9,
            27: 13, 28: 10}  # fmt: skip
# Default places of the person's left points, from the middle of the shoulders, in shoulder widths.
_DEFAULTS = {7: (0.2, -0.5), 13: (0.62, 0.72), 15: (0.6, 1.4), 17: (0.62, 1.6), 19: (0.55, 1.6), 21: (0.5, 1.5),
             23: (0.3, 1.5), 25: (0.3, 2.6), 27: (0.3, 3.7), 29: (0.3, 3.8), 31: (0.35, 3.9), 2: (0.09, -0.55),
             1: (0.05, -0.55), 3: (0.13, -0.55), 9: (0.08, -0.38), 0: (0.0, -0.45)}  # fmt: skip
_RIGHT = {1: 4, 2: 5, 3: 6, 0: 0}  # the right counterparts of points in `_DEFAULTS`; those of all others are the next


class _Person(NamedTuple):
  """One person in one frame: points in pixels, NaN where missing, and the size of the picture if there is a person."""

  body: Float[NdArray, "33 2"]
  face: Float[NdArray, "70 2"]
  hands: Float[NdArray, "2 21 2"]
  size: Float[NdArray, "2"] | None = None


def is_keypoints(path: str | os.PathLike) -> bool:
  """Returns whether a path is a JSON file, or a folder of JSON files that is not a prepared folder."""
  path = Path(path)
  if os.path.isdir(path):  # Path.is_dir raises for a name that is too long
    return not os.path.lexists(path / "meta.json") and any(path.glob("*.json"))
  return path.suffix.lower() == ".json"


class Keypoints:
  """The keypoints of one person over time; files are read once, as their frames are needed."""

  def __init__(self, path: Path):
    """Takes a JSON file with a list of frames, or a folder with one file per frame."""
    self._path, self._read, self._rest = path, [], _follow(path)

  def track(self, fps: float, frames: int | None = None) -> Track:
    """Returns the points as a track, with gaps and not smoothed.

    Args:
      fps: frames per second.
      frames: number of frames from the start; default all.

    Raises:
      UserError: a file is missing, damaged or of another format, or shows nobody.
    """
    missing = None if frames is None else max(0, frames - len(self._read))
    self._read += itertools.islice(self._rest, missing)
    people = self._read[:frames]
    sizes = [person.size for person in people if person.size is not None]
    if not sizes:
      raise UserError(f"{self._path} shows nobody with both shoulders in any frame")
    width, height = np.ceil(np.maximum(np.max(sizes, axis=0), 16)).astype(int).tolist()
    body, marks, hands = (np.stack(points) for points in zip(*(person[:3] for person in people)))
    flat = lambda points: np.concatenate([points, 0 * points[..., :1]], axis=-1).astype(np.float32)
    face = mesh_of_landmarks(with_depth(marks[:, :68].astype(np.float32)), flat(marks[:, 68:]))
    has_face = np.isfinite(face[:, 0, 0])
    visible = np.isfinite(body[..., 0]).astype(np.float32)
    points = flat(_filled(body)), face, flat(hands)
    return Track(width, height, fps, *points, mean_face()[1], (), has_face, visible=visible)

  def motion(
    self,
    *,
    size: int | FrameSize,
    frames: int | None = None,
    fps: float | int | None = None,
    measures: BodyMeasures | None = None,
    mapped: bool = True,
  ) -> Motion:
    """Returns the motion, rendered like that of a video without a sidecar.

    Args:
      size: width and height of the pose renders in pixels, or the side of squares.
      frames: number of frames from the start; default all.
      fps: frame rate of the files; default 25.
      measures, mapped: see `film_motion`.

    Raises:
      UserError: see `track`; or no face in any frame.
    """
    fps = float(fps or FPS)
    track = self.track(fps, None if frames is None else frames + math.ceil(fps))  # smoothing looks ahead
    return track_motion(track, size, measures, mapped).first(frames)


def open_keypoints(path: str | os.PathLike) -> Keypoints:
  """Opens keypoint files and checks the first 1000 frames.

  Args:
    path: a JSON file with a list of frames, or a folder with one file per frame.

  Raises:
    UserError: a file is missing, damaged or of another format, or shows nobody.
  """
  keypoints = Keypoints(Path(path))
  keypoints.track(FPS, _CHECKED)
  return keypoints


def _follow(path: Path) -> Iterator[_Person]:
  """One person in each frame: the widest in the first frame, then whoever is nearest to the person's last place."""
  place = None
  for name, frame in _frames(path):
    try:
      canvas = np.array([float(frame.get(f"canvas_{side}", 0)) for side in ("width", "height")])
      if not ((canvas >= 0) & (canvas <= _FARTHEST)).all():
        raise ValueError(f"a canvas of {canvas[0]:g} x {canvas[1]:g}")
      people = [_person(person, canvas) for person in frame["people"]]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
      raise UserError(f"{name} has no keypoints in OpenPose's format ({one_line(error)})") from None
    people = [person for person in people if np.isfinite(person.body[[11, 12]]).all()]
    if not people:
      yield _nobody()
      continue
    if place is None:
      key = lambda person: -float(np.linalg.norm(person.body[11] - person.body[12]))
    else:
      key = lambda person, place=place: float(np.linalg.norm(person.body[[11, 12]].mean(axis=0) - place))
    person = min(people, key=key)
    place = person.body[[11, 12]].mean(axis=0)
    points = np.concatenate([person.body, person.face, *person.hands])
    yield person._replace(size=canvas if canvas.all() else np.nanmax(points, axis=0) + 1)


def _frames(path: Path) -> Iterator[tuple[Path, Any]]:
  """File and content of each frame, in order."""
  for file in sorted_by_number(path.glob("*.json")) if os.path.isdir(path) else [path]:
    content = read_json(file, "file of keypoints", "write it again", nan=True)
    yield from ((file, frame) for frame in (content if isinstance(content, list) else [content]))


def _nobody() -> _Person:
  return _Person(np.full((33, 2), np.nan), np.full((70, 2), np.nan), np.full((2, 21, 2), np.nan))


def _person(values: dict[str, Any], canvas: Float[NdArray, "2"]) -> _Person:
  points = _points(values["pose_keypoints_2d"], (25, 18))
  numbers = _BODY_25 if len(points) == 25 else _BODY_18
  body, face, hands, _ = _nobody()
  body[list(numbers)] = _confident(points)[list(numbers.values())]
  marks = _points(values.get("face_keypoints_2d") or [0] * 210, (70, 68))
  if marks[:, 2].mean() >= _LEAST_FACE_CONFIDENCE:
    face[:68] = marks[:68, :2]
    eyes = [face[36:42].mean(axis=0), face[42:48].mean(axis=0)]  # 68 points have no pupils: use the eyes' middles
    has_pupils = len(marks) == 70 and (marks[68:, 2] > _LEAST_CONFIDENCE).all()
    face[68:] = marks[68:, :2] if has_pupils else eyes
  for side, name in enumerate(("left", "right")):
    hand = _points(values.get(f"hand_{name}_keypoints_2d") or [0] * 63, (21,))
    if (hand[:, 2] > _LEAST_CONFIDENCE).mean() > 0.8:
      hands[side] = hand[:, :2]
  shares = np.nanmax(np.abs(body)) <= 2 if np.isfinite(body).any() else False
  if shares and not canvas.all():
    raise ValueError("shares of the picture without canvas_width and canvas_height")
  scale = canvas if shares else np.ones(2)
  return _Person(body * scale, face * scale, hands * scale)


def _points(values: Any, counts: tuple[int, ...]) -> Float[NdArray, "N 3"]:
  points = np.asarray(values, np.float64).reshape(-1, 3)
  if len(points) not in counts:
    raise ValueError(f"{len(points)} points instead of {' or '.join(map(str, counts))}")
  points = np.where(np.isfinite(points).all(axis=1, keepdims=True), points, 0)  # NaN: not found
  if np.abs(points).max() > _FARTHEST:
    raise ValueError(f"a point at {np.abs(points).max():g}")
  return points


def _confident(points: Float[NdArray, "N 3"]) -> Float[NdArray, "N 2"]:
  return np.where(points[:, 2:] > _LEAST_CONFIDENCE, points[:, :2], np.nan)


def _filled(body: Float[NdArray, "T 33 2"]) -> Float[NdArray, "T 33 2"]:
  """The points with gaps filled over time, relative to the shoulders; frames without shoulders stay NaN."""
  known = np.isfinite(body[:, 11, 0])
  middle = body[:, (11, 12)].mean(axis=1)
  width = float(np.nanpercentile(np.linalg.norm(body[:, 11] - body[:, 12], axis=-1), 80))
  local, frames = (body - middle[:, None]) / width, np.arange(len(body))
  for left, (x, y) in _DEFAULTS.items():
    for number, default in ((left, (x, y)), (_RIGHT.get(left, left + 1), (-x, y))):
      seen = np.isfinite(local[:, number, 0])
      for axis in (0, 1):
        value = np.interp(frames, frames[seen], local[seen, number, axis]) if seen.any() else default[axis]
        local[:, number, axis] = np.where(seen, local[:, number, axis], value)
  filled = local * width + middle[:, None]
  filled[~known] = np.nan
  return filled
