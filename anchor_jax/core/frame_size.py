"""The size of frames: width and height in pixels."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from anchor_jax.core.errors import UserError, printable

SIDES = (32, 2048)  # pixels, smallest and largest side
_SQUARE_MULTIPLE, _MULTIPLE = 8, 64


class FrameSize(NamedTuple):
  """Width and height of frames in pixels; lengths that do not depend on it are stored as shares of the height.

  Files, flags and messages write a square as one number (`128`) and a rectangle as `640x384`, width first.
  """

  width: int
  height: int

  @classmethod
  def of(cls, value: "int | Sequence[int] | FrameSize") -> "FrameSize":
    """Returns the size of a square, given its side, or of (width, height)."""
    width, height = (value, value) if isinstance(value, int) else value
    return cls(int(width), int(height))

  @classmethod
  def parse(cls, text: str) -> "FrameSize":
    """Returns the size in a flag, `128` or `640x384`.

    Raises:
      UserError: the text is no size, or frames can't have it; see `check`.
    """
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isascii() and side.isdigit() and len(side) <= 6 for side in sides):
      raise UserError(f"--size={printable(text)}: give a square's side such as 256, or WIDTHxHEIGHT such as 384x640")
    return cls(int(sides[0]), int(sides[-1])).check()

  @classmethod
  def from_json(cls, value: Any) -> "FrameSize":
    """Returns the size that `to_json` wrote.

    Raises:
      ValueError or TypeError: the value is no size.
    """
    sides = [value, value] if isinstance(value, int) else list(value)
    if len(sides) != 2 or not all(type(side) is int and 1 <= side <= 2**14 for side in sides):
      raise ValueError("size")
    return cls(*sides)

  def with_height(self, height: int) -> "FrameSize":
    """Returns the size of frames of the same proportions with this height."""
    return FrameSize(max(1, round(height * self.width / self.height)), height)

  def check(self) -> "FrameSize":
    """Returns the size itself.

    Raises:
      UserError: a side is out of range, or not a multiple of 64 (of 8 for squares).
    """
    multiple = _SQUARE_MULTIPLE if self.is_square else _MULTIPLE
    if not all(SIDES[0] <= side <= SIDES[1] and side % multiple == 0 for side in self):
      raise UserError(f"--size={self}: give multiples of {multiple} from {SIDES[0]} to {SIDES[1]}")
    return self

  @property
  def is_square(self) -> bool:
    """Whether width and height are equal."""
    return self.width == self.height

  @property
  def shape(self) -> tuple[int, int]:
    """Height and width, as in the shape of an array."""
    return self.height, self.width

  def to_json(self) -> int | list[int]:
    """Returns the side of a square, or [width, height]."""
    return self.width if self.is_square else [self.width, self.height]

  def __str__(self) -> str:
    return str(self.width) if self.is_square else f"{self.width}x{self.height}"
