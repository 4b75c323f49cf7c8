"""The crop rectangle: the part of a film's picture, around the person, that becomes the frame."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from anchor_jax.core.errors import UserError, printable
from anchor_jax.core.frame_size import SIDES, FrameSize
from anchor_jax.core.shapes import Float, NdArray, UInt8
from anchor_jax.landmarks.extents import Extents

AIR = 0.12  # above the hair, in heights of the head
REACH = 0.1  # around the hands, likewise
_CUT, _MORE = 3.0, 0.3  # how much a share of the person that is lost, and more pixels, count against another shape


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


def rect_around(
  width: int, height: int, center: tuple[float, float], size: FrameSize, scale: float = np.inf
) -> CropRect:
  """Returns the largest crop for frames of `size` within a picture of (width, height), centered near `center`.

  `scale` limits it to so many pixels of the picture per pixel of a frame.
  """
  sides = np.array([width, height])
  scale = float(min(scale, np.min(sides / size)))
  inner = np.minimum(np.round(np.multiply(size, scale)).astype(int), sides)
  left, top = (int(np.clip(round(c - side / 2), 0, n - side)) for c, side, n in zip(center, inner, sides))
  return CropRect(left, top, int(inner[0]), int(inner[1]), size)


def frame_person(
  extents: Extents,
  center: tuple[float, float],
  size: FrameSize,
  *,
  width: int,
  height: int,
  first: int = 0,
  scale: float = np.inf,
) -> CropRect:
  """Returns the largest crop for frames of `size`, as near to `center` as head and hands allow.

  The crop moves from there no further than needed: first the head with its hair must be inside, then air above it, then
  the hands, then some space around them.

  Args:
    extents: where the person is.
    center: x and y of the crop's middle if nothing else matters.
    size: of the frames.
    width, height: of the part of the film's picture that may be used.
    first: its first column.
    scale: see `rect_around`.
  """
  crop = rect_around(width, height, (center[0] - first, center[1]), size, scale)
  head, hands = _range(extents.head, 1), _range(extents.hands, 2)
  tall = 0.0 if head is None else float(np.median(extents.head[:, 3] - extents.head[:, 1]))
  wanted = [box for box in (head, _wider(head, 0, AIR * tall), hands, _wider(hands, REACH * tall)) if box is not None]
  left = _placed(crop.left, crop.width, width, [(box[0] - first, box[2] - first) for box in wanted])
  top = _placed(crop.top, crop.height, height, [(box[1], box[3]) for box in wanted])
  return dataclasses.replace(crop, left=left + first, top=top)


def tight_frame(extents: Extents, width: int, height: int, first: int = 0) -> tuple[float, float, float, float] | None:
  """Returns the rectangle of a film's picture where the person ever is; None if nobody was found.

  Head, hair and air above, shoulders, and seen hands with space around them.

  Args:
    extents, width, height, first: see `frame_person`.

  Returns:
    Left, top, right, bottom in pixels of the film.
  """
  head, hands, body = (_range(boxes, margin) for boxes, margin in zip(extents[1:], (1, 2, 5)))
  tall = float(np.median(extents.head[:, 3] - extents.head[:, 1])) if len(extents.head) else 0.0
  boxes = [_wider(head, AIR * tall, 2 * AIR * tall), _wider(hands, 2 * REACH * tall), _wider(body, REACH * tall)]
  known = np.array([box for box in boxes if box is not None]).reshape(-1, 4)
  if not len(known):
    return None
  left, top = np.maximum(known[:, :2].min(axis=0), (first, 0))
  right, bottom = np.minimum(known[:, 2:].max(axis=0), (first + width, height))
  return float(left), float(top), float(right), float(bottom)


def _range(boxes: Float[NdArray, "N 4"], margin: float) -> Float[NdArray, "4"] | None:
  """The box around nearly all boxes: a percentage `margin` of them may reach beyond each side. None without any."""
  if not len(boxes):
    return None
  return np.concatenate(
    [np.percentile(boxes[:, :2], margin, axis=0), np.percentile(boxes[:, 2:], 100 - margin, axis=0)]
  )


def _wider(box: Float[NdArray, "4"] | None, around: float, above: float | None = None) -> Float[NdArray, "4"] | None:
  """A box with space around it, and above it more or less than that."""
  return None if box is None else box + (-around, -(around if above is None else above), around, around)


def _placed(start: int, length: int, total: int, wanted: Sequence[tuple[float, float]]) -> int:
  """The start of an interval of this length in 0 to `total`, near `start`, that holds the wanted ones.

  Earlier ones come first. Of one that is too long or too far away, as much is held as those before it allow.
  """
  low, high = 0.0, float(total - length)
  for first, last in wanted:
    first, last = max(first, 0.0), min(last, float(total))
    least, most = last - length, first
    if least > most:
      least = most = (least + most) / 2
    low, high = float(np.clip(least, low, high)), float(np.clip(most, low, high))
  return int(np.clip(round(np.clip(start, low, high)), 0, total - length))


class AutoSize(NamedTuple):
  """Frames of the shape that the film and the person have, with about as many pixels as a square of this side."""

  side: int = 128

  def __str__(self) -> str:
    return "auto" if self == AutoSize() else f"auto:{self.side}"

  def of(self, width: float, height: float, picture: tuple[int, int]) -> FrameSize:
    """Returns the size of frames for a part of a film's picture.

    Its sides are multiples of 64. It has 0.7 to 2 times the pixels of the square, and shows the part as completely and
    with as little around it as the picture's borders allow, in frames no narrower or wider than 1 : 2 or the film.

    Args:
      width, height: of the part.
      picture: width and height of the film.
    """
    shape, film = width / height, picture[0] / picture[1]
    width, height = height * max(shape, min(film, 0.5)), width / min(shape, max(film, 2.0))
    options = [FrameSize(64 * across, 64 * down) for across in range(1, 33) for down in range(1, 33)]
    about = [option for option in options if 0.7 <= option.width * option.height / self.side**2 <= 2]

    def cost(option: FrameSize) -> float:
      scale = min(max(width / option.width, height / option.height), *np.divide(picture, option))
      shown = min(1.0, scale * option.width / width) * min(1.0, scale * option.height / height)
      misfit = abs(np.log(option.width / option.height * height / width))
      more = max(0.0, np.log(option.width * option.height / self.side**2))
      return float(misfit + _CUT * (1 - shown) + _MORE * more)

    return min(about or options[:1], key=cost)


def parse_size(text: str) -> FrameSize | AutoSize:
  """Returns the size in a flag: `128`, `384x640`, `auto` or `auto:256`.

  Raises:
    UserError: the text is none of these, or frames can't have that size.
  """
  word, _, side = text.lower().partition(":")
  if word != "auto":
    return FrameSize.parse(text)
  if text.endswith(":") or (side and not (side.isascii() and side.isdigit() and 64 <= int(side[:6]) <= SIDES[1])):
    raise UserError(f"--size={printable(text)}: give auto:SIDE with the side of a square, 64 to {SIDES[1]} pixels")
  return AutoSize(int(side)) if side else AutoSize()


def center_of(landmarks: Float[NdArray, "T N 2"], width: int, height: int) -> tuple[float, float]:
  """Returns a person's place in a video: the median of the landmarks, or the picture's middle without any."""
  known = landmarks[np.isfinite(landmarks).all(axis=-1)]
  if not len(known):
    return width / 2, height / 2
  x, y = np.median(known, axis=0)
  return float(x), float(y)
