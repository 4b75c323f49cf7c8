"""A hand of one person, picture by picture, in a crop that the body or the hand before gives."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from anchor_jax.core.shapes import Bool, Float, NdArray, UInt8
from anchor_jax.landmarks.networks.bodies import Body
from anchor_jax.landmarks.networks.crops import Crop, circle_through, turn_of
from anchor_jax.landmarks.networks.litert import LiteNetwork

HAND = 21
_LEAST = 0.5  # score of a hand, from which it counts
_LEAST_SEEN = 0.1  # share of a hand's points in the picture, from which it counts
_LEAST_WRIST = 0.1  # visibility of a wrist, from which its hand is looked for
_OF_BODY = ((15, 17, 19), (16, 18, 20))  # wrist, little finger, index finger of the body's points: left, right
_SECOND_CROPS = (0.55, 0.7)  # sides of the crops where a hand is looked for again, as shares of the first, wide one
_CROPS = (None, *_SECOND_CROPS)  # all three; None is the recrop network's
_UNDECIDED = len(_CROPS) - 1  # pictures: together with the next one, each crop is tried
_MISSED = 8  # pictures in which a hand is missing before it is looked for with less work
# The recrop network is asked again after so many pictures, or when the body's hand has turned (degrees), moved or grown
# (shares of the wide crop).
_RECROPPED, _STILL = 4, (15, 0.1, 0.1)
_TRUSTED = 4  # pictures for which a hand that only a second crop showed is followed without the recrop network
_OTHER = 0.25  # palms by which a hand may begin nearer to the other arm's wrist than to its own
_PALM = (0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18)


class HandFinder:
  """Finds one hand that belongs to a body."""

  def __init__(self, files: Mapping[str, bytes], side: int):
    """Prepares the networks in `files`, by name, for the left (0) or the right (1) hand."""
    self._recrop, self._hand = LiteNetwork(files["hand_recrop"]), LiteNetwork(files["hand_landmark_full"])
    self._side = side
    self._undecided: list[tuple[UInt8[NdArray, "H W C"], Body | None]] = []
    self.reset()

  def reset(self) -> None:
    """Forgets the pictures before."""
    self._last: Float[NdArray, "21 3"] | None = None
    self._recropped: tuple[Crop, Crop, int] | None = None  # from where to where, and how many pictures ago
    self._missed = self._glances = self._trusted = 0

  def find(self, picture: UInt8[NdArray, "H W C"], body: Body | None) -> Float[NdArray, "21 3"] | None:
    """Finds the hand in the next picture; depth grows away from the viewer."""
    return self._next(picture, body)

  def find_late(self, picture: UInt8[NdArray, "H W C"], body: Body | None) -> Sequence[Float[NdArray, "21 3"] | None]:
    """As `find`, with less work where the hand has been missing; returns what is decided now, oldest picture first.

    In such a picture only one of three crops is tried. When it shows a hand, this picture and the two before are
    searched as `find` does; until then they are undecided.
    """
    self._undecided.append((picture, body))
    if self._worth_a_search(picture, body):
      found = [self._next(*each) for each in self._undecided]
      self._undecided.clear()
      return found
    return self._give_up(len(self._undecided) - _UNDECIDED)

  def settle(self) -> list[None]:
    """Decides on all pictures so far, and returns what was undecided."""
    return self._give_up(len(self._undecided))

  def _give_up(self, count: int) -> list[None]:
    """Decides that the oldest pictures show no hand."""
    count = max(0, count)
    del self._undecided[:count]
    self._missed += count
    return [None] * count

  def _worth_a_search(self, picture: UInt8[NdArray, "H W C"], body: Body | None) -> bool:
    """Whether the hand was there a moment ago, or one crop shows it."""
    if self._last is not None:
      return True
    wide = None if body is None else self._around(picture, body)
    if body is None or wide is None:
      return False
    if self._missed < _MISSED:
      return True
    self._glances += 1
    scale = _CROPS[self._glances % len(_CROPS)]
    found = self._in_crop(picture, self._narrow(picture, wide) if scale is None else wide.square(scale))
    return found is not None and self._own(picture, body, found[1])

  def _next(self, picture: UInt8[NdArray, "H W C"], body: Body | None) -> Float[NdArray, "21 3"] | None:
    self._last = None if body is None else self._find(picture, body)
    self._missed = self._missed + 1 if self._last is None else 0
    return self._last

  def _find(self, picture: UInt8[NdArray, "H W C"], body: Body) -> Float[NdArray, "21 3"] | None:
    wide = self._around(picture, body)
    if wide is None:
      self._recropped = None
      return None
    found = self._in_crop(picture, self._crop(picture, wide))
    if found is not None and self._own(picture, body, found[1]):
      return found[1]
    # blurred and overlapping hands are often found without the recrop
    tries = [self._in_crop(picture, wide.square(scale)) for scale in _SECOND_CROPS]
    finds = [find for find in tries if find is not None and self._own(picture, body, find[1])]
    self._recropped = None
    self._trusted = _TRUSTED if finds else 0
    return max(finds, key=lambda find: find[0])[1] if finds else None

  def _around(self, picture: UInt8[NdArray, "H W C"], body: Body) -> Crop | None:
    """A wide square where the body has the hand; None where the picture can't show it."""
    wrist, little, index = body.points[list(_OF_BODY[self._side])]
    if body.visible[_OF_BODY[self._side][0]] < _LEAST_WRIST:
      return None
    middle = (2 * index + little) / 3
    wide = circle_through(middle, wrist, 90)._replace(turn=turn_of(wrist, middle, 90)).square(2.7, -0.1)
    reached = wide.finite and _inside(picture, np.array([[wide.x, wide.y]]), wide.width).any()
    return wide if reached else None

  def _crop(self, picture: UInt8[NdArray, "H W C"], wide: Crop) -> Crop:
    """Where to look for the hand: around the hand before, if it is near enough to where the body has it."""
    last = self._last
    before = None if last is None else _crop_around(last)
    kept = lambda crop: before is not None and before.near(crop, 40, 0.2, 0.4) and crop.contains(last, -0.1)
    if last is not None and before is not None and self._trusted and wide.contains(last, 0.0):
      self._trusted -= 1
      return before
    if before is not None and self._recropped is not None:
      start, crop, age = self._recropped
      if age < _RECROPPED and wide.near(start, *_STILL) and kept(crop.carried(start, wide)):
        self._recropped = start, crop, age + 1
        return before
    crop = self._narrow(picture, wide)
    self._recropped = wide, crop, 0
    return before if before is not None and kept(crop) else crop

  def _narrow(self, picture: UInt8[NdArray, "H W C"], wide: Crop) -> Crop:
    """The recrop network's idea of where in the wide square the hand is."""
    center, edge = wide.place(self._recrop(wide.cut(picture, 256))[0].reshape(2, 2) / 256)
    return circle_through(center, edge, -90).square(1.0, -0.1)

  def _own(self, picture: UInt8[NdArray, "H W C"], body: Body, hand: Float[NdArray, "21 3"]) -> bool:
    """Beyond MediaPipe: whether the hand is in the picture, and none of the other arm."""
    wrist, other = (body.points[_OF_BODY[side][0]] for side in (self._side, 1 - self._side))
    return bool(_inside(picture, hand).mean() >= _LEAST_SEEN and _begins_at(hand, wrist, other))

  def _in_crop(self, picture: UInt8[NdArray, "H W C"], crop: Crop) -> tuple[float, Float[NdArray, "21 3"]] | None:
    """The score and the points of a hand in a crop; None where the network sees none."""
    if not crop.finite:
      return None
    raw, score, *_ = self._hand(crop.cut(picture, 224))
    if score.ravel()[0] < _LEAST:
      return None
    return float(score.ravel()[0]), crop.place(raw.reshape(HAND, 3) / (224, 224, 224 * 0.4))


def _inside(picture: UInt8[NdArray, "H W C"], points: Float[NdArray, "N D"], reach: float = 0) -> Bool[NdArray, " N"]:
  """Which points are in the picture, or at most `reach` away from it."""
  height, width = picture.shape[:2]
  return np.all((points[:, :2] >= -reach) & (points[:, :2] < np.array([width, height]) + reach), axis=-1)


def _begins_at(hand: Float[NdArray, "21 3"], wrist: Float[NdArray, "3"], other: Float[NdArray, "3"]) -> bool:
  """Whether a hand begins at its own wrist: of two that touch, the network may show the other one."""
  away = lambda point: float(np.hypot(*(hand[0, :2] - point[:2])))
  return away(wrist) <= away(other) + _OTHER * float(np.hypot(*(hand[9, :2] - hand[0, :2])))


def _crop_around(hand: Float[NdArray, "21 3"]) -> Crop:
  """The crop around a hand for the next picture, upright along the fingers."""
  fingers = ((hand[6] + hand[14]) / 2 + hand[10]) / 2
  turn = turn_of(hand[0], fingers, 90)
  palm = hand[list(_PALM), :2]
  middle = (palm.min(axis=0) + palm.max(axis=0)) / 2
  cos, sin = math.cos(turn), math.sin(turn)
  back = np.array([[cos, sin], [-sin, cos]])
  local = (palm - middle) @ back.T
  low, high = local.min(axis=0), local.max(axis=0)
  x, y = middle + (low + high) / 2 @ back
  width, height = high - low
  return Crop(float(x), float(y), float(width), float(height), turn).square(2.0, -0.1)
