"""The crop square: the part of a film's picture, around the person, that becomes the frame."""

import dataclasses

import cv2
import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Float, NdArray, UInt8

SIZES = (32, 2048)  # pixels, smallest and largest frame


@dataclasses.dataclass(frozen=True)
class CropSquare:
  """A square crop, the same in all frames of a video.

  Attributes:
    left, top: corner in the source picture, in pixels.
    side: height and width in the source picture, in pixels.
    size: height and width after resizing, in pixels.
  """

  left: int
  top: int
  side: int
  size: int

  @property
  def scale(self) -> float:
    """Target pixels per source pixel."""
    return self.size / self.side

  def image(self, picture: UInt8[NdArray, "H W *C"]) -> UInt8[NdArray, "S S *C"]:
    """Returns the square of a picture, resized."""
    inside = picture[self.top : self.top + self.side, self.left : self.left + self.side]
    if self.side == self.size:
      return inside
    interpolation = cv2.INTER_AREA if self.size < self.side else cv2.INTER_CUBIC
    return cv2.resize(inside, (self.size, self.size), interpolation=interpolation)

  def mask(self, mask: UInt8[NdArray, "H W"]) -> UInt8[NdArray, "S S"]:
    """Returns the square of a mask, resized; 0 or 255."""
    return np.where(self.image(mask) > 127, 255, 0).astype(np.uint8)

  def surface(self, surface: UInt8[NdArray, "H W 3"] | None) -> UInt8[NdArray, "S S 3"] | None:
    """Returns the square of a surface map, resized to nearest pixels so that charts never mix; None stays None."""
    if surface is None:
      return None
    centers = (np.arange(self.size) + 0.5) * (self.side / self.size)
    rows, columns = (centers.astype(int) + corner for corner in (self.top, self.left))
    return surface[rows[:, None], columns]

  def points(self, points: Float[NdArray, "*N D"]) -> Float[NdArray, "*N D"]:
    """Returns points of the source picture in pixels of the square; a third coordinate (depth) is only scaled."""
    moved = np.array(points, np.float32)
    moved[..., 0] -= self.left
    moved[..., 1] -= self.top
    return moved * np.float32(self.scale)


def check_size(size: int) -> None:
  """Raises UserError unless frames can have this height and width in pixels."""
  if not SIZES[0] <= size <= SIZES[1] or size % 8:
    raise UserError(f"--size={size}: give a multiple of 8 from {SIZES[0]} to {SIZES[1]}")


def square_around(width: int, height: int, center: tuple[float, float], size: int) -> CropSquare:
  """Returns the largest square within a picture of (width, height), centered as near to `center` as possible."""
  side = min(width, height)
  left, top = (int(np.clip(round(c - side / 2), 0, n - side)) for c, n in zip(center, (width, height)))
  return CropSquare(left, top, side, size)


def center_of(landmarks: Float[NdArray, "T N 2"], width: int, height: int) -> tuple[float, float]:
  """Returns a person's place in a video: the median of the landmarks, or the picture's middle without any."""
  known = landmarks[np.isfinite(landmarks).all(axis=-1)]
  if not len(known):
    return width / 2, height / 2
  x, y = np.median(known, axis=0)
  return float(x), float(y)
