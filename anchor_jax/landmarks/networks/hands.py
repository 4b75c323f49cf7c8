"""A hand of one person, picture by picture, in a crop that the body or the hand before gives."""

import math
from collections.abc import Mapping

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
_OTHER = 0.25  # palms by which a hand may begin nearer to the other arm's wrist than to its own
_PALM = (0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18)


class HandFinder:
  """Finds one hand that belongs to a body."""

  def __init__(self, files: Mapping[str, bytes], side: int):
    """Prepares the networks in `files`, by name, for the left (0) or the right (1) hand."""
    self._recrop, self._hand = LiteNetwork(files["hand_recrop"]), LiteNetwork(files["hand_landmark_full"])
    self._side = side
    self.reset()

  def reset(self) -> None:
    """Forgets the pictures before."""
    self._last: Float[NdArray, "21 3"] | None = None

  def find(self, picture: UInt8[NdArray, "H W 3"], body: Body | None) -> Float[NdArray, "21 3"] | None:
    """Finds the hand in the next picture; depth grows away from the viewer."""
    self._last = None if body is None else self._find(picture, body)
    return self._last

  def _find(self, picture: UInt8[NdArray, "H W 3"], body: Body) -> Float[NdArray, "21 3"] | None:
    wrist, little, index = body.points[list(_OF_BODY[self._side])]
    if body.visible[_OF_BODY[self._side][0]] < _LEAST_WRIST:
      return None
    middle = (2 * index + little) / 3
    other = body.points[_OF_BODY[1 - self._side][0]]
    wide = circle_through(middle, wrist, 90)._replace(turn=turn_of(wrist, middle, 90)).square(2.7, -0.1)
    if not wide.finite or not _inside(picture, np.array([[wide.x, wide.y]]), wide.width).any():
      return None
    center, edge = wide.place(self._recrop(wide.cut(picture, 256))[0].reshape(2, 2) / 256)
    crop = circle_through(center, edge, -90).square(1.0, -0.1)
    last = self._last
    if last is not None:
      before = _crop_around(last)
      if before.near(crop, 40, 0.2, 0.4) and crop.contains(last, -0.1):
        crop = before
    # beyond MediaPipe: no hands outside the picture, and none of the other arm
    own = lambda hand: _inside(picture, hand).mean() >= _LEAST_SEEN and _begins_at(hand, wrist, other)
    found = self._in_crop(picture, crop)
    if found is not None and own(found[1]):
      return found[1]
    # blurred and overlapping hands are often found without the recrop
    tries = [self._in_crop(picture, wide.square(scale)) for scale in _SECOND_CROPS]
    finds = [find for find in tries if find is not None and own(find[1])]
    return max(finds, key=lambda find: find[0])[1] if finds else None

  def _in_crop(self, picture: UInt8[NdArray, "H W 3"], crop: Crop) -> tuple[float, Float[NdArray, "21 3"]] | None:
    """The score and the points of a hand in a crop; None where the network sees none."""
    if not crop.finite:
      return None
    raw, score, *_ = self._hand(crop.cut(picture, 224))
    if score.ravel()[0] < _LEAST:
      return None
    return float(score.ravel()[0]), crop.place(raw.reshape(HAND, 3) / (224, 224, 224 * 0.4))


def _inside(picture: UInt8[NdArray, "H W 3"], points: Float[NdArray, "N D"], reach: float = 0) -> Bool[NdArray, " N"]:
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
