"""How the pictures that a film file holds are shown: turned, mirrored, with square pixels, without black bars."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import cv2
import numpy as np

from anchor_jax.core.shapes import NdArray, UInt8

_ALMOST_SQUARE = 0.01  # a pixel at most this much wider or narrower than tall is left as it is
_WIDEST = 4  # a pixel that is wider or taller than so many times its other side is a mistake of the header
_FLAT = 0.01  # of the squared norm: a display matrix whose determinant is smaller has no orientation


class Geometry(NamedTuple):
  """From a stored picture to the shown one; the steps are made in this order.

  Attributes:
    stored: width and height of the stored picture.
    stretched: width and height that the stored picture is resized to, so that its pixels are square; None: they are.
    mirrored: whether left and right are exchanged.
    turns: quarter turns, counter-clockwise.
    bars: black columns on the left, rows on the top, columns on the right and rows at the bottom that are cut off.
  """

  stored: tuple[int, int] = (0, 0)
  stretched: tuple[int, int] | None = None
  mirrored: bool = False
  turns: int = 0
  bars: tuple[int, int, int, int] = (0, 0, 0, 0)

  def shown(self, picture: UInt8[NdArray, "H W C"]) -> UInt8[NdArray, "h w C"]:
    """Returns a stored picture as it is shown."""
    if self.stretched is not None:
      picture = cv2.resize(picture, self.stretched, interpolation=cv2.INTER_CUBIC)
    if self.mirrored:
      picture = picture[:, ::-1]
    left, top, right, bottom = self.bars
    picture = np.rot90(picture, self.turns)
    return np.ascontiguousarray(picture[top : len(picture) - bottom, left : picture.shape[1] - right])

  @property
  def size(self) -> tuple[int, int]:
    """Width and height of the shown picture."""
    width, height = self.stretched or self.stored
    width, height = (height, width) if self.turns % 2 else (width, height)
    left, top, right, bottom = self.bars
    return width - left - right, height - top - bottom


def orientation(matrix: Sequence[float] | None) -> tuple[bool, int]:
  """Returns whether a display matrix mirrors (left and right, before turning), and its quarter turns counter-clockwise.

  Args:
    matrix: its nine numbers a b u, c d v, x y w: (x, y) of the stored picture is shown at (a x + c y, b x + d y). None
      for none.

  Returns:
    The nearest of the eight orientations; that of a matrix that says none (all zero, or it makes a line of the
    picture) is (False, 0).
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
      # Counter-clockwise, with y downwards: (x, y) goes to (cosine x + sine y, -sine x + cosine y).
      found[mirrored, turns] = sign * (a / x * cosine - b / x * sine) + c / y * sine + d / y * cosine
  return max(found, key=lambda key: found[key])


def display_matrix(frame: Any) -> tuple[float, ...] | None:
  """Returns the display matrix that comes with a decoded frame, as `orientation` takes it; None where there is none."""
  for side in frame.side_data:
    if side.type.name == "DISPLAYMATRIX":
      return tuple(np.frombuffer(bytes(side), np.int32).astype(float).tolist()[:9])
  return None


def square_pixels(width: int, height: int, aspect: Fraction | None) -> tuple[int, int] | None:
  """Returns the width and height at which a picture's pixels are square; None where they are, or it is not known.

  The shorter side of a pixel is made longer, so that nothing is lost.

  Args:
    width, height: of the stored picture.
    aspect: width of a pixel by its height.
  """
  if not aspect or not 1 / _WIDEST <= aspect <= _WIDEST or abs(aspect - 1) <= _ALMOST_SQUARE:
    return None
  return (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))


def geometry_of(frame: Any, stream: Any) -> Geometry:
  """Returns the geometry of a film from its first decoded frame and its stream; no bars are looked for."""
  aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
  mirrored, turns = orientation(display_matrix(frame))
  size = frame.width, frame.height
  return Geometry(size, square_pixels(*size, aspect), mirrored, turns)
