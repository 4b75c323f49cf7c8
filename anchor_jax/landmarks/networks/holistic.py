"""Body, face and hands of a person, picture by picture: each network reads a crop from the network before it.

The networks, crops, thresholds and rules for reusing a crop in the next picture are those of MediaPipe Holistic
(Grishchenko and Bazarevsky 2020; the numbers are in its published graphs). Points are not smoothed here.
"""

import math
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np

from anchor_jax.core.shapes import Float, NdArray, UInt8
from anchor_jax.landmarks.networks.crops import Crop, box_around, circle_through, full_square, turn_of
from anchor_jax.landmarks.networks.detectors import FACE_NEAR, POSE, Detector
from anchor_jax.landmarks.networks.litert import AttentionFaceNetwork, LiteNetwork

BODY, FACE, HAND = 33, 478, 21
_LEAST = 0.5  # score of a person, a face or a hand, from which it counts
_LEAST_WRIST = 0.1  # visibility of a wrist, from which its hand is looked for
_REFINED = 4  # cells of a heat map on each side of a point
_HANDS = ((15, 17, 19), (16, 18, 20))  # wrist, little finger, index finger of the body's points: left, right
_SECOND_CROPS = (0.55, 0.7)  # sides of the crops where a hand is looked for again, as shares of the first, wide one
_PALM = (0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18)
_UNSURE = (5.68842, -0.748699, -57.8051, 291.309, -624.717)  # polynomial: how unsure a pixel of the mask is
_MASK_SIDE = 640  # largest side at which the mask is computed, in pixels
_KEPT = 0.7  # share of the mask before where the new one is unsure

# The one-euro filter (Casiez et al. 2012) of the points that place the body's crop: cutoffs in Hz, speed in crops per
# second.
_RATE, _SPEED_CUTOFF, _LEAST_CUTOFF, _CUTOFF_BY_SPEED = 30.0, 1.0, 0.01, 10.0


class Detection(NamedTuple):
  """The landmarks of one picture; points as in `Track`, NaN where nothing was found.

  Attributes:
    body, face, hands: the points.
    share: the person's share of each pixel, 0 to 255; None where it was not requested.
  """

  body: Float[NdArray, "33 3"]
  face: Float[NdArray, "478 3"]
  hands: Float[NdArray, "2 21 3"]
  share: UInt8[NdArray, "H W"] | None


# A body's points, how visible they are, and the person's share of each pixel; no points where nobody was found.
_Body: TypeAlias = tuple[Float[NdArray, "33 3"] | None, Float[NdArray, " 33"], UInt8[NdArray, "H W"] | None]


class Holistic:
  """Finds one person in the pictures of a film, which it is shown in order; a context manager."""

  def __init__(self, files: Mapping[str, bytes], masks: bool = True):
    """Prepares the networks.

    Args:
      files: of files.py, by name.
      masks: whether to find the person's share of each pixel, too.
    """
    self._pose = LiteNetwork(files["pose_landmark_full"])
    self._people = Detector(LiteNetwork(files["pose_detection"]), POSE, _LEAST)
    self._faces = Detector(LiteNetwork(files["face_detection_short_range"]), FACE_NEAR, _LEAST)
    self._face = AttentionFaceNetwork(files["face_landmark_with_attention"])
    self._hands = [(LiteNetwork(files["hand_recrop"]), LiteNetwork(files["hand_landmark_full"])) for _ in _HANDS]
    self._masks = masks
    self._threads = ThreadPoolExecutor(3)
    self._started: Future[_Body] | None = None
    self.reset()

  def reset(self) -> None:
    """Forgets the pictures before."""
    self._person: Crop | None = None
    self._ends: tuple[Float[NdArray, "2 2"], Float[NdArray, "2 2"], Float[NdArray, "2 2"]] | None = None
    self._last_face: Float[NdArray, "478 3"] | None = None
    self._last_hands: list[Float[NdArray, "21 3"] | None] = [None, None]
    self._share: Float[NdArray, "H W"] | None = None

  def close(self) -> None:
    """Ends the threads."""
    self._threads.shutdown()

  def find(self, picture: UInt8[NdArray, "H W 3"]) -> Detection:
    """Finds the person in the next picture."""
    return self.finish(picture, self.start(picture))

  def start(self, picture: UInt8[NdArray, "H W 3"]) -> "Future[_Body]":
    """Starts on the next picture's body, on another thread. One picture may be started before the last is finished."""
    if self._started is not None:
      wait([self._started])  # each body is looked for where the one before was
    self._started = self._threads.submit(self._find_body, picture)
    return self._started

  def finish(self, picture: UInt8[NdArray, "H W 3"], started: "Future[_Body]") -> Detection:
    """Finds face and hands beside the body that was started."""
    body, visible, share = started.result()
    if body is None:
      self._last_face, self._last_hands = None, [None, None]
      nothing = lambda *shape: np.full((*shape, 3), np.nan, np.float32)
      empty = np.zeros(picture.shape[:2], np.uint8) if self._masks else None
      return Detection(nothing(BODY), nothing(FACE), nothing(2, HAND), empty)
    sides = [self._threads.submit(self._find_hand, picture, body, visible, side) for side in (0, 1)]
    self._last_face = self._find_face(picture, body)
    self._last_hands = [side.result() for side in sides]
    known = lambda points, count: np.full((count, 3), np.nan, np.float32) if points is None else _toward(points)
    hands = np.stack([known(points, HAND) for points in self._last_hands])
    return Detection(_toward(body), known(self._last_face, FACE), hands, share)

  def _find_body(self, picture: UInt8[NdArray, "H W 3"]) -> _Body:
    crop = self._person
    if crop is None:
      self._ends = None
      people = self._people.find(picture, full_square(picture))
      if not people:
        self._share = None
        return None, np.zeros(BODY, np.float32), None
      hips, edge = people[0].points[:2]
      crop = circle_through(hips, edge, 90).square(1.25)
    self._person = None
    outputs = self._pose(crop.cut(picture, 256)) if crop.finite else None
    if outputs is None or outputs[1].ravel()[0] < _LEAST:
      self._share = None
      return None, np.zeros(BODY, np.float32), None
    raw, _, mask, heat, _ = outputs
    raw = raw.reshape(39, 5)
    local = _refine(raw[:, :3] / 256, heat[0])
    points = crop.place(local)
    ends = self._steady(points[33:35, :2])
    self._person = circle_through(ends[0], ends[1], 90).square(1.25)
    share = None
    if self._masks:
      share = self._mask(mask[0, :, :, 0], crop, picture.shape[:2])
    return points[:BODY], 1 / (1 + np.exp(-raw[:BODY, 3])), share

  def _steady(self, ends: Float[NdArray, "2 2"]) -> Float[NdArray, "2 2"]:
    """The points that place the next crop, smoothed unless they move: a crop that jitters makes the points jitter."""
    if self._ends is None:
      self._ends = (ends, ends, np.zeros_like(ends))
      return ends
    raw, smooth, speed = self._ends
    side = max(2 * float(np.hypot(*(ends[1] - ends[0]))), 1.0)
    speed = speed + _pass(_SPEED_CUTOFF) * ((ends - raw) / side * _RATE - speed)
    smooth = smooth + _pass(_LEAST_CUTOFF + _CUTOFF_BY_SPEED * np.abs(speed)) * (ends - smooth)
    self._ends = (ends, smooth, speed)
    return smooth

  def _mask(self, logits: Float[NdArray, "256 256"], crop: Crop, shape: tuple[int, int]) -> UInt8[NdArray, "H W"]:
    share = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
    zoom = min(1.0, _MASK_SIDE / max(shape))  # it has no more detail than 256 pixels a crop give
    size = (max(1, round(shape[1] * zoom)), max(1, round(shape[0] * zoom)))
    matrix = crop.matrix() / (256, 256, 1) * np.array([[size[0] / shape[1]], [size[1] / shape[0]]])
    new = cv2.warpAffine(share, matrix, size, flags=cv2.INTER_LINEAR)
    if self._share is not None and self._share.shape == new.shape:
      x = np.square(new - 0.5)
      unsure = np.zeros_like(x)
      for factor in reversed(_UNSURE):
        unsure = x * (factor + unsure)
      new = new + (self._share - new) * (1 - np.minimum(unsure, 1)) * _KEPT
    self._share = new
    levels = (255 * np.clip(new, 0, 1)).astype(np.uint8)
    return levels if levels.shape == shape else cv2.resize(levels, shape[::-1], interpolation=cv2.INTER_LINEAR)

  def _find_face(
    self, picture: UInt8[NdArray, "H W 3"], body: Float[NdArray, "33 3"]
  ) -> Float[NdArray, "478 3"] | None:
    wide = box_around(body[:11], turn_of(body[5], body[2], 0)).square(3.0)
    faces = self._faces.find(picture, wide) if wide.finite else []
    if not faces:
      return None
    eyes = faces[0].points
    crop = box_around(eyes, turn_of(eyes[0], eyes[1], 0)).square(2.0, -0.1)
    last = self._last_face
    if last is not None:
      before = box_around(last, turn_of(last[33], last[263], 0)).square(1.5)
      if before.near(crop, 15, 0.1, 0.3) and crop.contains(last, -0.2):
        crop = before
    if not crop.finite:
      return None
    points, logit = self._face(crop.cut(picture, 192))
    return crop.place(points / 192) if logit > 0 else None

  def _find_hand(
    self, picture: UInt8[NdArray, "H W 3"], body: Float[NdArray, "33 3"], visible: Float[NdArray, " 33"], side: int
  ) -> Float[NdArray, "21 3"] | None:
    wrist, little, index = body[list(_HANDS[side])]
    if visible[_HANDS[side][0]] < _LEAST_WRIST:
      return None
    middle = (2 * index + little) / 3
    wide = circle_through(middle, wrist, 90)._replace(turn=turn_of(wrist, middle, 90)).square(2.7, -0.1)
    if not wide.finite:
      return None
    recrop, network = self._hands[side]
    center, edge = wide.place(recrop(wide.cut(picture, 256))[0].reshape(2, 2) / 256)
    crop = circle_through(center, edge, -90).square(1.0, -0.1)
    last = self._last_hands[side]
    if last is not None:
      before = _hand_crop(last)
      if before.near(crop, 40, 0.2, 0.4) and crop.contains(last, -0.1):
        crop = before
    found = _points_of_hand(network, picture, crop)
    if found is None:  # beyond MediaPipe: blurred and overlapping hands are often found without the recrop
      tries = (_points_of_hand(network, picture, wide.square(scale)) for scale in _SECOND_CROPS)
      found = max(filter(None, tries), key=lambda one: one[0], default=None)
    return None if found is None else found[1]


def _points_of_hand(
  network: LiteNetwork, picture: UInt8[NdArray, "H W 3"], crop: Crop
) -> tuple[float, Float[NdArray, "21 3"]] | None:
  """The score and the points of a hand in a crop; None where the network sees none."""
  if not crop.finite:
    return None
  raw, score, *_ = network(crop.cut(picture, 224))
  if score.ravel()[0] < _LEAST:
    return None
  return float(score.ravel()[0]), crop.place(raw.reshape(HAND, 3) / (224, 224, 224 * 0.4))


def _pass(cutoff: float | Float[NdArray, "2 2"]) -> float | Float[NdArray, "2 2"]:
  """The share of a new value in a low-pass filter with this cutoff, in Hz."""
  return 1 / (1 + _RATE / (2 * math.pi * cutoff))


def _toward(points: Float[NdArray, "N 3"]) -> Float[NdArray, "N 3"]:
  """With depth that grows toward the viewer; the networks' grows away."""
  return points * np.array([1, 1, -1], np.float32)


def _hand_crop(hand: Float[NdArray, "21 3"]) -> Crop:
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


def _refine(points: Float[NdArray, "39 3"], heat: Float[NdArray, "64 64 39"]) -> Float[NdArray, "39 3"]:
  """Points moved to the middle of the heat around them, where there is enough of it."""
  height, width = heat.shape[:2]
  refined = points.copy()
  for number, (x, y) in enumerate(points[:, :2]):
    column, row = int(x * width), int(y * height)
    if not (x * width >= 0 and column < width and y * height >= 0 and row < height):
      continue
    left, top = max(0, column - _REFINED), max(0, row - _REFINED)
    sure = 1 / (1 + np.exp(-heat[top : row + _REFINED + 1, left : column + _REFINED + 1, number]))
    if sure.max() >= _LEAST:
      rows, columns = np.indices(sure.shape)
      total = sure.sum()
      refined[number, :2] = (
        ((columns + left) * sure).sum() / total / width,
        ((rows + top) * sure).sum() / total / height,
      )
  return refined
