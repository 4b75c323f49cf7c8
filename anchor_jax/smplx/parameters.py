"""Files of SMPL-X parameters over time, as written by SHOW and TalkSHOW.

SHOW files (.pkl, or the same names in an .npz) have body_pose_axis [T 21 3], global_orient, jaw_pose, leye_pose,
reye_pose, transl [T 3], left_hand_pose and right_hand_pose [T 12] (principal components relative to the mean hand),
expression [T 100], betas [300], and a camera: camera_transl [3], focal_length and center in pixels, width, height.
TalkSHOW files (.npy) are [T 265]: jaw, left eye, right eye, root (3 each), body (63), both hands (45 each, relative to
the mean hand), expression (100); they have neither shape nor camera. Both have 30 frames a second.
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
_MOST_FRAMES, _WIDEST = 10**6, 400  # nine hours; columns of one parameter. Rows that stand for all frames are repeated.
_REQUIRED = ("global_orient", "body_pose")


@dataclasses.dataclass(frozen=True)
class SmplxCamera:
  """SHOW's camera: it looks along z, with x to the picture's right and y down; meters and pixels.

  Attributes:
    offset: [1 3] or [T 3] added to the body's places, meters.
    focal: focal lengths across and down, pixels.
    center: x and y, pixels.
    size: width and height of the picture.
  """

  offset: Float[NdArray, "*T 3"]
  focal: tuple[float, float]
  center: tuple[float, float]
  size: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class SmplxParameters:
  """Parameters over T frames; rotations are axis times angle in radians.

  Attributes:
    poses: [T P] of global_orient, body_pose, jaw_pose, leye_pose, reye_pose.
    hands: [T D] of the left and the right hand: principal components, or 45 numbers.
    betas: [S] shape coefficients.
    expression: [T E] expression coefficients.
    transl: [T 3] meters.
    fps: frames per second.
    camera: None if the file has none.
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
  """Returns whether a path has the suffix of a file of parameters."""
  return Path(path).suffix.lower() in SUFFIXES


def read_parameters(path: str | os.PathLike) -> SmplxParameters:
  """Returns the parameters in a file of SHOW or TalkSHOW.

  Raises:
    UserError: no such file, or it is damaged, has no pose, arrays of different lengths, or values that are not numbers.
  """
  path = Path(path)
  content = read_pickle(path) if path.suffix.lower() == ".pkl" else _arrays(path)
  if isinstance(content, list | tuple) and len(content) == 1:
    content = content[0]  # some of SHOW's own files have the parameters in a list
  if isinstance(content, np.ndarray):
    content = _split_columns(content, path)
  if not isinstance(content, Mapping):
    raise UserError(f"{path} has no named parameters: it is not a file of SHOW or TalkSHOW")
  try:
    return _parameters({str(name): value for name, value in content.items()})
  except (ValueError, TypeError, KeyError, IndexError) as error:
    raise UserError(f"{path} is not a file of SHOW or TalkSHOW: {one_line(error)}") from None


def _arrays(path: Path) -> Any:
  arrays = read_arrays(path, "file", "save the parameters again")
  return arrays.get("", arrays)


def _split_columns(array: NdArray, path: Path) -> dict[str, NdArray]:
  if array.ndim != 2 or array.shape[1] != sum(_COLUMNS.values()):
    raise UserError(f"{path} has an array of shape {array.shape} instead of TalkSHOW's (frames, 265)")
  parts = np.split(array, np.cumsum(list(_COLUMNS.values()))[:-1], axis=1)
  return dict(zip(_COLUMNS, parts, strict=True))


def _parameters(values: dict[str, Any]) -> SmplxParameters:
  if "body_pose_axis" in values:
    values["body_pose"] = values["body_pose_axis"]  # SHOW's body_pose is a code of these angles
  for name in _REQUIRED:
    if name not in values:
      raise ValueError(f"it has no {name}")
  length = max(len(_rows(values, name, size)) for name, size in _POSES.items() if name in values)
  if length > _MOST_FRAMES:
    raise ValueError(f"{length} frames, more than {_MOST_FRAMES}: split it")
  poses = {name: _over_time(values, name, size, length) for name, size in _POSES.items()}
  hands = tuple(_over_time(values, f"{side}_hand_pose", None, length) for side in ("left", "right"))
  for side in hands:
    if not 1 <= side.shape[1] <= 45:
      raise ValueError(f"{side.shape[1]} numbers of a hand instead of 45, or 12 principal components")
  betas = _numbers(values.get("betas", np.zeros(1)), "betas").reshape(-1)
  if len(betas) > _WIDEST:
    raise ValueError(f"{len(betas)} shape coefficients")
  expression = _over_time(values, "expression", None, length)
  fps = float(np.ravel(values.get("fps", FPS))[0])
  if not 1 <= fps <= 240:
    raise ValueError(f"{fps:g} frames per second")
  transl = _over_time(values, "transl", 3, length)
  return SmplxParameters(poses, (hands[0], hands[1]), betas, expression, transl, fps, _camera(values, length))


def _numbers(value: Any, name: str) -> Float[NdArray, "..."]:
  array = np.asarray(value)
  if array.size > _MOST_FRAMES * _WIDEST:  # a view can claim any size
    raise ValueError(f"{name} has {array.size} numbers")
  if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
    raise ValueError(f"{name} has values that are not numbers")
  return array.astype(np.float32)


def _rows(values: dict[str, Any], name: str, size: int | None) -> Float[NdArray, "T _"]:
  """An array with one row per frame, with its other axes flattened."""
  array = _numbers(values[name], name)
  rows = array.reshape(-1, size) if size else array.reshape(array.shape[0] if array.ndim > 1 else 1, -1)
  if not len(rows):
    raise ValueError(f"{name} has no frame")
  if rows.shape[1] > _WIDEST:
    raise ValueError(f"{name} has {rows.shape[1]} numbers a frame")
  return rows


def _over_time(values: dict[str, Any], name: str, size: int | None, length: int) -> Float[NdArray, "T _"]:
  """One row per frame; a single row is repeated, and a missing parameter is zero."""
  if name not in values:
    return np.zeros((length, size or 1), np.float32)
  rows = _rows(values, name, size)
  if len(rows) not in (1, length):
    raise ValueError(f"{name} has {len(rows)} frames, others {length}")
  return np.repeat(rows, length // len(rows), axis=0)


def _camera(values: dict[str, Any], length: int) -> SmplxCamera | None:
  names = ("camera_transl", "focal_length", "center", "width", "height")
  if not all(name in values for name in names):
    return None
  offset, focal, center, width, height = (_numbers(values[name], name).ravel() for name in names)
  if len(offset) not in (3, 3 * length) or len(focal) < 1 or len(center) < 2 or not (len(width) and len(height)):
    raise ValueError("a camera with arrays of unexpected shapes")
  size = int(width[0]), int(height[0])
  focal = float(focal[0]), float(focal[min(1, len(focal) - 1)])
  if min(*size, *focal) < 1 or max(size) > 2**14:
    raise ValueError(f"a camera of {size[0]} x {size[1]} pixels and a focal length of {focal[0]:g}")
  return SmplxCamera(offset.reshape(-1, 3), focal, (float(center[0]), float(center[1])), size)
