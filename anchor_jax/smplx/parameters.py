"""Files of SMPL-X parameters over time, as SHOW and TalkSHOW write them.

SHOW's (.pkl, or the same names in an .npz) hold body_pose_axis [T 21 3], global_orient, jaw_pose, leye_pose,
reye_pose, transl [T 3], left_hand_pose and right_hand_pose [T 12] (principal components, from the mean hand),
expression [T 100], betas [300], and the camera: camera_transl [3], focal_length and center in pixels, width, height.
TalkSHOW's (.npy) are [T 265]: jaw, left eye, right eye, root (3 each), body (63), both hands (45 each, from the
mean hand), expression (100); they have neither shape nor camera. Both have 30 frames a second.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from anchor_jax.core.errors import UserError, one_line
from anchor_jax.core.shapes import Float, NdArray
from anchor_jax.files.arrays import read_arrays
from anchor_jax.smplx.pickles import read_pickle

SUFFIXES = (".npz", ".npy", ".pkl")
FPS = 30.0
# TalkSHOW's columns, in order.
_COLUMNS = {
  "jaw_pose": 3, "leye_pose": 3, "reye_pose": 3, "global_orient": 3, "body_pose": 63, "left_hand_pose": 45,
  "right_hand_pose": 45, "expression": 100,
}  # fmt: skip
_POSES = {"global_orient": 3, "body_pose": 63, "jaw_pose": 3, "leye_pose": 3, "reye_pose": 3}
_MOST_FRAMES, _WIDEST = 10**6, 400  # nine hours; numbers of one kind a frame: what one row stands for is made in full
_REQUIRED = ("global_orient", "body_pose")


@dataclasses.dataclass(frozen=True)
class SmplxCamera:
  """A camera as SHOW has it: it looks along z, x goes to the picture's right and y down; metres and pixels.

  Attributes:
    offset: [3] or [T 3] what is added to the body's places.
    focal: pixels, across and down.
    centre: x and y, pixels.
    size: width and height of the picture.
  """

  offset: Float[NdArray, "*T 3"]
  focal: tuple[float, float]
  centre: tuple[float, float]
  size: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class SmplxMotion:
  """Parameters over T frames; angles are axes times radians.

  Attributes:
    poses: [T P] of global_orient, body_pose, jaw_pose, leye_pose, reye_pose.
    hands: [T D] of the left and of the right hand: principal components, or 45 numbers.
    betas: [S] of shape.
    expression: [T E].
    transl: [T 3] metres.
    fps: frames per second.
    camera: None where the file has none.
  """

  poses: dict[str, Float[NdArray, "T _"]]
  hands: tuple[Float[NdArray, "T D"], Float[NdArray, "T D"]]
  betas: Float[NdArray, " S"]
  expression: Float[NdArray, "T E"]
  transl: Float[NdArray, "T 3"]
  fps: float
  camera: SmplxCamera | None

  def __len__(self) -> int:
    return len(self.transl)


def is_parameters(path: str | os.PathLike) -> bool:
  """Whether a path is named as a file of parameters is."""
  return Path(path).suffix.lower() in SUFFIXES


def read_parameters(path: str | os.PathLike) -> SmplxMotion:
  """Returns the parameters in a file of SHOW or TalkSHOW.

  Raises:
    UserError: no such file, damaged, without a pose, of other lengths, or with something that is no number.
  """
  path = Path(path)
  held = read_pickle(path) if path.suffix.lower() == ".pkl" else _arrays(path)
  if isinstance(held, list | tuple) and len(held) == 1:
    held = held[0]  # SHOW's own steps keep the parameters in a list of one
  if isinstance(held, np.ndarray):
    held = _of_columns(held, path)
  if not isinstance(held, Mapping):
    raise UserError(f"{path} holds no parameters by name: it is no file of SHOW or TalkSHOW")
  try:
    return _motion({str(name): value for name, value in held.items()})
  except (ValueError, TypeError, KeyError, IndexError) as error:
    raise UserError(f"{path} is no file of SHOW or TalkSHOW: {one_line(error)}") from None


def _arrays(path: Path) -> Any:
  held = read_arrays(path, "file", "save the parameters again")
  return held.get("", held)


def _of_columns(held: NdArray, path: Path) -> dict[str, NdArray]:
  if held.ndim != 2 or held.shape[1] != sum(_COLUMNS.values()):
    raise UserError(f"{path} has an array of shape {held.shape} instead of TalkSHOW's (frames, 265)")
  parts = np.split(held, np.cumsum(list(_COLUMNS.values()))[:-1], axis=1)
  return dict(zip(_COLUMNS, parts, strict=True))


def _motion(held: dict[str, Any]) -> SmplxMotion:
  if "body_pose_axis" in held:
    held["body_pose"] = held["body_pose_axis"]  # SHOW also keeps a code of it, which is not needed then
  for name in _REQUIRED:
    if name not in held:
      raise ValueError(f"it has no {name}")
  length = max(len(_rows(held, name, size)) for name, size in _POSES.items() if name in held)
  if length > _MOST_FRAMES:
    raise ValueError(f"{length} frames, more than {_MOST_FRAMES}: divide it")
  poses = {name: _over_time(held, name, size, length) for name, size in _POSES.items()}
  hands = tuple(_over_time(held, f"{side}_hand_pose", None, length) for side in ("left", "right"))
  for side in hands:
    if not 1 <= side.shape[1] <= 45:
      raise ValueError(f"{side.shape[1]} numbers of a hand instead of 45, or 12 principal components")
  betas = _numbers(held.get("betas", np.zeros(1)), "betas").reshape(-1)
  if len(betas) > _WIDEST:
    raise ValueError(f"{len(betas)} numbers of shape")
  expression = _over_time(held, "expression", None, length)
  fps = float(np.ravel(held.get("fps", FPS))[0])
  if not 1 <= fps <= 240:
    raise ValueError(f"{fps:g} frames per second")
  transl = _over_time(held, "transl", 3, length)
  return SmplxMotion(poses, (hands[0], hands[1]), betas, expression, transl, fps, _camera(held, length))


def _numbers(value: Any, name: str) -> Float[NdArray, "..."]:
  array = np.asarray(value)
  if array.size > _MOST_FRAMES * _WIDEST:  # a view can claim any size
    raise ValueError(f"{name} has {array.size} numbers")
  if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
    raise ValueError(f"{name} holds what is no number")
  return array.astype(np.float32)


def _rows(held: dict[str, Any], name: str, size: int | None) -> Float[NdArray, "T _"]:
  """An array with one row a frame, however its last axes are cut."""
  array = _numbers(held[name], name)
  rows = array.reshape(-1, size) if size else array.reshape(array.shape[0] if array.ndim > 1 else 1, -1)
  if not len(rows):
    raise ValueError(f"{name} has no frame")
  if rows.shape[1] > _WIDEST:
    raise ValueError(f"{name} has {rows.shape[1]} numbers a frame")
  return rows


def _over_time(held: dict[str, Any], name: str, size: int | None, length: int) -> Float[NdArray, "T _"]:
  """The rows of all frames; one row stands for all of them, and what is missing is zero."""
  if name not in held:
    return np.zeros((length, size or 1), np.float32)
  rows = _rows(held, name, size)
  if len(rows) not in (1, length):
    raise ValueError(f"{name} has {len(rows)} frames, others {length}")
  return np.repeat(rows, length // len(rows), axis=0)


def _camera(held: dict[str, Any], length: int) -> SmplxCamera | None:
  names = ("camera_transl", "focal_length", "center", "width", "height")
  if not all(name in held for name in names):
    return None
  offset, focal, centre, width, height = (_numbers(held[name], name).ravel() for name in names)
  if len(offset) not in (3, 3 * length) or len(focal) < 1 or len(centre) < 2 or not (len(width) and len(height)):
    raise ValueError("a camera of other shapes")
  size = int(width[0]), int(height[0])
  focal = float(focal[0]), float(focal[min(1, len(focal) - 1)])
  if min(*size, *focal) < 1 or max(size) > 2**14:
    raise ValueError(f"a camera of {size[0]} x {size[1]} pixels and a focal length of {focal[0]:g}")
  return SmplxCamera(offset.reshape(-1, 3), focal, (float(centre[0]), float(centre[1])), size)
