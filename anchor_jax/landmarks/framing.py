"""The crop rectangle: the part of a film's picture, around the person, that becomes the frame."""

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from anchor_jax.core.frame_size import FrameSize
from anchor_jax.core.shapes import Float, NdArray, UInt8


@dataclasses.dataclass(frozen=True)
class CropRect:
  """A crop, the same in all frames of a video; a square if its frames are square.

  Attributes:
    left, top: corner in the source picture, in pixels.
    width, height: in the source picture, in pixels, in the proportions of `size` up to rounding.
    size: width and height after resizing, in pixels.
  """

  left: int
  top: int
  width: int
  height: int
  size: FrameSize

  @classmethod
  def square(cls, left: int, top: int, side: int, size: int) -> "CropRect":
    """Returns a square crop, given its corner and its side before and after resizing."""
    return cls(left, top, side, side, FrameSize.of(size))

  @classmethod
  def from_json(cls, values: Sequence[int], size: FrameSize) -> "CropRect":
    """Returns the crop that `to_json` wrote, for frames of this size."""
    left, top, width, *rest = values
    return cls(left, top, width, rest[0] if rest else width, size)

  def to_json(self) -> tuple[int, ...]:
    """Returns left, top and side of a square, or left, top, width and height."""
    return (self.left, self.top, self.width, *(() if self.width == self.height else (self.height,)))

  @property
  def right(self) -> int:
    """The first column beyond the crop."""
    return self.left + self.width

  @property
  def bottom(self) -> int:
    """The first row below the crop."""
    return self.top + self.height

  @property
  def scale(self) -> float:
    """Target pixels per source pixel."""
    return self.size.height / self.height

  def shifted(self, right: int, down: int) -> "CropRect":
    """Returns the crop moved by pixels of the source picture."""
    return dataclasses.replace(self, left=self.left + right, top=self.top + down)

  def image(self, picture: UInt8[NdArray, "H W *C"]) -> UInt8[NdArray, "h w *C"]:
    """Returns the crop of a picture, resized."""
    inside = picture[self.top : self.bottom, self.left : self.right]
    if (self.width, self.height) == self.size:
      return inside
    interpolation = cv2.INTER_AREA if self.size.height < self.height else cv2.INTER_CUBIC
    return cv2.resize(inside, self.size, interpolation=interpolation)

  def mask(self, mask: UInt8[NdArray, "H W"]) -> UInt8[NdArray, "h w"]:
    """Returns the crop of a mask, resized; 0 or 255."""
    return np.where(self.image(mask) > 127, 255, 0).astype(np.uint8)

  def surface(self, surface: UInt8[NdArray, "H W 3"] | None) -> UInt8[NdArray, "h w 3"] | None:
    """Returns the crop of a surface map, resized to nearest pixels so that charts never mix; None stays None."""
    if surface is None:
      return None
    rows = self.top + ((np.arange(self.size.height) + 0.5) * (self.height / self.size.height)).astype(int)
    columns = self.left + ((np.arange(self.size.width) + 0.5) * (self.width / self.size.width)).astype(int)
    return surface[rows[:, None], columns]

  def points(self, points: Float[NdArray, "*N D"]) -> Float[NdArray, "*N D"]:
    """Returns points of the source picture in pixels of the frame; a third coordinate (depth) is only scaled."""
    moved = np.array(points, np.float32)
    moved[..., 0] -= self.left
    moved[..., 1] -= self.top
    # across and down differ by the rounding of the crop's sides
    moved[..., 0] *= np.float32(self.size.width / self.width)
    moved[..., 1:] *= np.float32(self.scale)
    return moved


def full_crop(size: FrameSize) -> CropRect:
  """Returns the crop that leaves pictures of this size as they are."""
  return CropRect(0, 0, *size, size)


def rect_around(width: int, height: int, center: tuple[float, float], size: FrameSize) -> CropRect:
  """Returns the largest crop for frames of `size` within a picture of (width, height), centered near `center`."""
  sides = np.array([width, height])
  scale = float(np.min(sides / size))
  inner = np.minimum(np.round(np.multiply(size, scale)).astype(int), sides)
  left, top = (int(np.clip(round(c - side / 2), 0, n - side)) for c, side, n in zip(center, inner, sides))
  return CropRect(left, top, int(inner[0]), int(inner[1]), size)


def center_of(landmarks: Float[NdArray, "T N 2"], width: int, height: int) -> tuple[float, float]:
  """Returns a person's place in a video: the median of the landmarks, or the picture's middle without any."""
  known = landmarks[np.isfinite(landmarks).all(axis=-1)]
  if not len(known):
    return width / 2, height / 2
  x, y = np.median(known, axis=0)
  return float(x), float(y)
