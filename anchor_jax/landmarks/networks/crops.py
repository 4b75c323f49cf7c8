"""Crops for the landmark networks: rotated rectangles in a picture, and the mapping of points back to it."""

import math
from typing import NamedTuple

import cv2
import numpy as np

from anchor_jax.core.shapes import Float, NdArray, UInt8


class Crop(NamedTuple):
  """A rotated rectangle in a picture.

  Attributes:
    x, y: its center, in pixels.
    width, height: in pixels.
    turn: from the picture's axes to its own, clockwise, in radians.
  """

  x: float
  y: float
  width: float
  height: float
  turn: float = 0.0

  @property
  def finite(self) -> bool:
    """Whether it can be cropped."""
    return all(map(math.isfinite, self)) and min(self.width, self.height) >= 1

  def square(self, scale: float, shift: float = 0.0) -> "Crop":
    """The square over the longer side, `scale` times as large, moved by `shift` heights along its own y axis."""
    side = max(self.width, self.height) * scale
    down = shift * self.height
    return Crop(self.x - down * math.sin(self.turn), self.y + down * math.cos(self.turn), side, side, self.turn)

  def matrix(self) -> Float[NdArray, "2 3"]:
    """From places in the crop, 0 to 1, to pixels of the picture."""
    cos, sin = math.cos(self.turn), math.sin(self.turn)
    turn = np.array([[cos, -sin], [sin, cos]]) * (self.width, self.height)
    return np.concatenate([turn, (np.array([[self.x], [self.y]]) - turn.sum(axis=1, keepdims=True) / 2)], axis=1)

  def cut(
    self, picture: UInt8[NdArray, "H W C"], size: int, low: float = 0.0, border: int = cv2.BORDER_REPLICATE
  ) -> Float[NdArray, "1 S S 3"]:
    """The crop as a network takes it: `size` pixels wide and high, from `low` to 1; see `aligned` for the picture."""
    matrix = self.matrix() / (size, size, 1)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    corners = np.array([[0, 0, 1], [size, 0, 1], [0, size, 1], [size, size, 1]]) @ matrix.T
    if ((corners >= 1) & (corners < (picture.shape[1] - 2, picture.shape[0] - 2))).all():
      border = cv2.BORDER_CONSTANT  # the same where no border shows, and a third faster
    crop = cv2.warpAffine(picture, matrix, (size, size), flags=flags, borderMode=border)
    if crop.shape[2] == 4:
      crop = cv2.cvtColor(crop, cv2.COLOR_RGBA2RGB)
    values = np.multiply(crop, np.float32((1 - low) / 255), dtype=np.float32)
    return (values + np.float32(low) if low else values)[None]

  def place(self, points: Float[NdArray, "N D"]) -> Float[NdArray, "N D"]:
    """Points in the picture, in pixels, from places in the crop, 0 to 1; depth, where there is one, in pixels too."""
    matrix = self.matrix()
    placed = np.array(points, np.float32)
    placed[:, :2] = points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    placed[:, 2:3] *= self.width
    return placed

  def contains(self, points: Float[NdArray, "N D"], margin: float) -> bool:
    """Whether all points are inside the crop, enlarged by `margin` of its sides."""
    local = self._turned(points[:, :2] - (self.x, self.y))
    return bool((np.abs(local) < np.array([self.width, self.height]) * (1 + margin) / 2).all())

  def near(self, other: "Crop", degrees: float, move: float, scale: float) -> bool:
    """Whether this crop differs little from `other`: in turn, and in place and size as shares of the other's sides."""
    turn = abs((self.turn - other.turn + math.pi) % (2 * math.pi) - math.pi)
    sides = np.array([other.width, other.height])
    moved = np.abs(other._turned(np.array([[self.x - other.x, self.y - other.y]]))[0])
    grown = np.abs(np.array([self.width, self.height]) - sides)
    return math.degrees(turn) <= degrees and bool((moved <= sides * move).all() and (grown <= sides * scale).all())

  def carried(self, before: "Crop", now: "Crop") -> "Crop":
    """The crop that lies to `now` as this one does to `before`; both are squares."""
    x, y = before._turned(np.array([[self.x - before.x, self.y - before.y]]))[0] * (now.width / before.width)
    cos, sin = math.cos(now.turn), math.sin(now.turn)
    zoom, turn = now.width / before.width, self.turn + now.turn - before.turn
    return Crop(now.x + cos * x - sin * y, now.y + sin * x + cos * y, self.width * zoom, self.height * zoom, turn)

  def _turned(self, offsets: Float[NdArray, "N 2"]) -> Float[NdArray, "N 2"]:
    cos, sin = math.cos(self.turn), math.sin(self.turn)
    return offsets @ np.array([[cos, -sin], [sin, cos]])


def aligned(picture: UInt8[NdArray, "H W 3"]) -> UInt8[NdArray, "H W 4"]:
  """Returns a picture with four bytes a pixel: it is cropped twice as fast, to the same values."""
  return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2RGBA), np.uint8)


def full_square(picture: UInt8[NdArray, "H W C"]) -> Crop:
  """Returns the smallest square around a picture, centered on it."""
  height, width = picture.shape[:2]
  side = float(max(height, width))
  return Crop(width / 2, height / 2, side, side)


def turn_of(start: Float[NdArray, " D"], end: Float[NdArray, " D"], target: float) -> float:
  """The turn, in radians, after which the direction from `start` to `end` is `target` degrees counterclockwise of x."""
  angle = math.radians(target) - math.atan2(-(end[1] - start[1]), end[0] - start[0])
  return (angle + math.pi) % (2 * math.pi) - math.pi


def box_around(points: Float[NdArray, "N D"], turn: float) -> Crop:
  """The upright box around points, turned about its center."""
  low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
  (x, y), (width, height) = (low + high) / 2, high - low
  return Crop(float(x), float(y), float(width), float(height), turn)


def circle_through(center: Float[NdArray, " D"], edge: Float[NdArray, " D"], target: float) -> Crop:
  """The square around the circle with this center through `edge`, turned as `turn_of` from the center to there."""
  side = 2 * float(np.hypot(*(edge[:2] - center[:2])))
  return Crop(float(center[0]), float(center[1]), side, side, turn_of(center, edge, target))
