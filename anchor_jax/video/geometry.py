"""From stored pictures to displayed ones: rotation, mirroring, square pixels, cropped black bars."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import cv2
import numpy as np
from av.sidedata.sidedata import Type

from anchor_jax.core.shapes import NdArray, UInt8

_ALMOST_SQUARE = 0.01  # aspect ratios this close to 1 are left alone
_MAX_ASPECT = 4  # a more extreme aspect ratio is an error in the header
_FLAT = 0.01  # a display matrix whose determinant is below this share of its squared norm has no orientation


class Geometry(NamedTuple):
  """How a stored picture becomes the displayed one; the steps apply in this order.

  Attributes:
    stored: width and height of the stored picture.
    stretched: width and height it is resized to for square pixels; None if they are square.
    mirrored: whether left and right are swapped.
    turns: counterclockwise quarter turns.
    bars: black columns and rows to crop: left, top, right, bottom.
  """

  stored: tuple[int, int] = (0, 0)
  stretched: tuple[int, int] | None = None
  mirrored: bool = False
  turns: int = 0
  bars: tuple[int, int, int, int] = (0, 0, 0, 0)

  def shown(self, picture: UInt8[NdArray, "H W C"]) -> UInt8[NdArray, "h w C"]:
    """Returns the displayed picture for a stored one."""
    if self.stretched is not None:
      picture = cv2.resize(picture, self.stretched, interpolation=cv2.INTER_CUBIC)
    if self.mirrored:
      picture = picture[:, ::-1]
    left, top, right, bottom = self.bars
    picture = np.rot90(picture, self.turns)
    return np.ascontiguousarray(picture[top : len(picture) - bottom, left : picture.shape[1] - right])

  @property
  def size(self) -> tuple[int, int]:
    """Width and height of the displayed picture."""
    width, height = self.stretched or self.stored
    width, height = (height, width) if self.turns % 2 else (width, height)
    left, top, right, bottom = self.bars
    return width - left - right, height - top - bottom


def orientation(matrix: Sequence[float] | None) -> tuple[bool, int]:
  """Returns whether a display matrix mirrors (left to right, before turning) and its counterclockwise quarter turns.

  Args:
    matrix: its nine numbers a b u, c d v, x y w, which put stored pixel (x, y) at (a x + c y, b x + d y); or None.

  Returns:
    The nearest of the eight orientations; (False, 0) for no matrix or a degenerate one (all zeros, or rank 1).
  """
  if matrix is None:
    return False, 0
  a, b, _, c, d, *_ = (float(number) for number in matrix)
  size = a * a + b * b + c * c + d * d
  if not size or abs(a * d - b * c) < _FLAT * size:
    return False, 0
  (x, y), found = (np.hypot(a, b), np.hypot(c, d)), {}
  for mirrored in (False, True):
    sign = -1 if mirrored else 1
    for turns, (cosine, sine) in enumerate([(1, 0), (0, 1), (-1, 0), (0, -1)]):
      # Counterclockwise with y down: (x, y) goes to (cosine x + sine y, -sine x + cosine y).
      found[mirrored, turns] = sign * (a / x * cosine - b / x * sine) + c / y * sine + d / y * cosine
  return max(found, key=lambda key: found[key])


def display_matrix(frame: Any) -> tuple[float, ...] | None:
  """Returns the display matrix of a decoded frame, in the layout `orientation` expects; None if it has none."""
  side = frame.side_data.get(Type.DISPLAYMATRIX)
  return None if side is None else tuple(np.frombuffer(bytes(side), np.int32).astype(float).tolist()[:9])


def square_pixels(width: int, height: int, aspect: Fraction | None) -> tuple[int, int] | None:
  """Returns the width and height at which a picture's pixels are square; None if they are already, or unknown.

  The picture is only ever enlarged, so no detail is lost.

  Args:
    width, height: of the stored picture.
    aspect: pixel width divided by pixel height.
  """
  if not aspect or not 1 / _MAX_ASPECT <= aspect <= _MAX_ASPECT or abs(aspect - 1) <= _ALMOST_SQUARE:
    return None
  return (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))


def geometry_of(frame: Any, stream: Any) -> Geometry:
  """Returns the geometry of a film from its first decoded frame and its stream, without black bars."""
  aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
  mirrored, turns = orientation(display_matrix(frame))
  size = frame.width, frame.height
  return Geometry(size, square_pixels(*size, aspect), mirrored, turns)
