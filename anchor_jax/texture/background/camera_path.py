"""Camera paths: where the room is in each picture of a film whose camera moves.

A camera is a similarity (a, b, x, y) from the room, as the steady camera shows it, to the picture: a point p of the
room is seen at z p + t, with z = a + b i and t = x + y i. Points are complex numbers x + y i (x right, y down) from the
middle of the picture, in picture heights, so a camera does not depend on the size of the picture. A camera path is one
camera for each frame, [T 4]; a film whose camera is still has none.
"""

from typing import Any

import numpy as np

from anchor_jax.core.shapes import Float, NdArray, Shaped

STILL = (1.0, 0.0, 0.0, 0.0)
_DECIMALS = 6  # in files; a thousandth of a pixel at 1000 pixels


def parts_of(cameras: Float[NdArray, "... 4"]) -> tuple[Shaped[NdArray, "..."], Shaped[NdArray, "..."]]:
  """Factor z and shift t of each camera."""
  cameras = np.asarray(cameras, np.float64)
  return np.asarray(cameras[..., 0] + 1j * cameras[..., 1]), np.asarray(cameras[..., 2] + 1j * cameras[..., 3])


def cameras_of(factor: Any, shift: Any) -> Float[NdArray, "... 4"]:
  """The cameras with these factors and shifts: complex numbers, or arrays of them."""
  factor, shift = np.broadcast_arrays(factor, shift)
  return np.stack([factor.real, factor.imag, shift.real, shift.imag], axis=-1).astype(np.float64)


def joined(outer: Float[NdArray, "... 4"], inner: Float[NdArray, "... 4"]) -> Float[NdArray, "... 4"]:
  """The cameras that do what `inner` does, then what `outer` does."""
  (factor, shift), (inner_factor, inner_shift) = parts_of(outer), parts_of(inner)
  return cameras_of(factor * inner_factor, factor * inner_shift + shift)


def inverse(cameras: Float[NdArray, "... 4"]) -> Float[NdArray, "... 4"]:
  """The cameras from the picture back to the room."""
  factor, shift = parts_of(cameras)
  return cameras_of(1 / factor, -shift / factor)


def matrix_of(camera: Float[NdArray, "4"], shape: tuple[int, ...]) -> Float[NdArray, "2 3"]:
  """A camera as a matrix on pixels of pictures of `shape` (height, width), with the first pixel's center at (0, 0)."""
  factor, shift = parts_of(camera)
  height, width = shape[:2]
  middle = complex(width - 1, height - 1) / 2
  moved = middle + shift * height - factor * middle
  return np.array([[factor.real, -factor.imag, moved.real], [factor.imag, factor.real, moved.imag]])


def camera_of(matrix: Float[NdArray, "2 3"], shape: tuple[int, ...]) -> Float[NdArray, "4"]:
  """The camera of a matrix, as `matrix_of` returns it, that is a similarity."""
  height, width = shape[:2]
  factor, moved = complex(matrix[0, 0], matrix[1, 0]), complex(matrix[0, 2], matrix[1, 2])
  middle = complex(width - 1, height - 1) / 2
  return cameras_of(factor, (factor * middle + moved - middle) / height)


def in_crop(
  cameras: Float[NdArray, "T 4"], shape: tuple[int, ...], crop: tuple[float, float, float, float]
) -> Float[NdArray, "T 4"]:
  """The cameras of a part of the picture.

  Args:
    cameras: of the full picture.
    shape: height and width of the full picture in pixels.
    crop: left, top, width and height of the part in these pixels.
  """
  left, top, width, height = crop
  middle = complex(left + width / 2 - shape[1] / 2, top + height / 2 - shape[0] / 2)
  factor, shift = parts_of(cameras)
  return cameras_of(factor, (factor * middle + shift * shape[0] - middle) / height)


def moved_points(
  cameras: Float[NdArray, "... 4"], points: Float[NdArray, "... D"], shape: tuple[int, ...]
) -> Float[NdArray, "... D"]:
  """Points in pixels of a picture of `shape`, as the cameras show them; a third coordinate (depth) is only scaled.

  With a path, the points' first axis is time.
  """
  height, width = shape[:2]
  factor, shift = (part.reshape(*part.shape, *(1,) * (points.ndim - 1 - part.ndim)) for part in parts_of(cameras))
  at = factor * ((points[..., 0] - width / 2) + 1j * (points[..., 1] - height / 2)) + shift * height
  moved = np.array(points, np.float32)
  moved[..., 0], moved[..., 1] = at.real + width / 2, at.imag + height / 2
  moved[..., 2:] *= np.abs(factor)[..., None]
  return moved


def median_camera(cameras: Float[NdArray, "T 4"]) -> Float[NdArray, "4"]:
  """The steady camera amid a path: medians of zoom, rotation and shift."""
  factor, shift = parts_of(cameras)
  log = np.log(factor)
  median = lambda values: np.median(values.real) + 1j * np.median(values.imag)
  return cameras_of(np.exp(median(log)), median(shift))


def movement(cameras: Float[NdArray, "T 4"], shape: tuple[int, ...]) -> Float[NdArray, " T"]:
  """How far each camera moves a corner of the picture at most, in picture heights."""
  height, width = shape[:2]
  corners = np.array([complex(x, y) for x in (-0.5, 0.5) for y in (-0.5, 0.5)])
  corners = corners.real * width / height + 1j * corners.imag
  factor, shift = parts_of(cameras)
  return np.abs(factor[:, None] * corners + shift[:, None] - corners).max(axis=1)


def to_json(cameras: Float[NdArray, "T 4"]) -> list[list[float]]:
  """The cameras as they are stored."""
  return np.round(np.asarray(cameras, np.float64), _DECIMALS).tolist()
