"""Retargeting: the track of one person mapped onto the body of another, and onto her place in the picture.

Every bone keeps its direction and is scaled by one factor for the whole video: her length over the driving person's.
So her own motion stays as it is, no frame depends on those before it, and errors of single frames are not amplified.
What a hand touches is not kept: it misses a chin or the other hand by what the arms' proportions differ.
"""

import dataclasses
import math

import numpy as np

from anchor_jax.core.shapes import Float, NdArray
from anchor_jax.landmarks.framing import CropSquare
from anchor_jax.landmarks.measures import EARS, BodyMeasures
from anchor_jax.landmarks.tracks import ELBOWS, HIPS, SHOULDERS, WRISTS, Track

# How differently the proportions of one person are measured in two videos, relative. 13 clips of three signers differ
# from the medians of their own by at most 0.48 of these, root mean square, and from the others' by at least 0.60.
_SPREAD = {"neck": 0.06, "upper_arm": 0.06, "forearm": 0.12, "palm": 0.12}
_FACE_SPREAD = 0.045
_SAME_BUILD = 0.54
# The same camera: relative difference in scale, and sides of the square across and down.
_SAME_SCALE, _SAME_PLACE = 0.04, (0.06, 0.03)
_FURTHEST = 2.0  # no bone is scaled by more than this, or less than its inverse, in comparison with the shoulders

_HEAD = tuple(range(11))  # body points of the head
_KNUCKLES = ((17, 19, 21), (18, 20, 22))  # body points of each hand
_LEGS = ((25, 27, 29, 31), (26, 28, 30, 32))


@dataclasses.dataclass(frozen=True)
class Scales:
  """Factors from the driving person's lengths to hers, both in sides of their squares.

  Attributes:
    shoulders: of the shoulders, and of movements from place to place.
    neck, torso, hips, upper_arm, forearm, hand: of these.
    face: across and along the face.
  """

  shoulders: float
  neck: float
  torso: float
  hips: float
  upper_arm: float
  forearm: float
  hand: float
  face: tuple[float, float]


def scales(driver: BodyMeasures, hers: BodyMeasures) -> Scales | None:
  """Returns the factors from the driver's body to hers; None where both are the same person before the same camera.

  Where the proportions are the same and the framing is not, all factors are equal. A limb that is not known of both
  gets the factor of the shoulders.
  """
  whole = hers.shoulders / driver.shoulders
  if _same_build(driver, hers):
    moved = np.abs(np.subtract(driver.place, hers.place))
    if abs(whole - 1) < _SAME_SCALE and (moved < _SAME_PLACE).all():
      return None
    return Scales(whole, whole, whole, whole, whole, whole, whole, (whole, whole))

  def factor(of_hers: float | None, of_driver: float | None) -> float:
    if of_hers is None or of_driver is None:
      return whole
    return float(np.clip(of_hers / of_driver, whole / _FURTHEST, whole * _FURTHEST))

  names = ("neck", "torso", "hips", "upper_arm", "forearm")
  bones = {name: factor(getattr(hers, name), getattr(driver, name)) for name in names}
  faces = zip(hers.face or (None, None), driver.face or (None, None))
  across, along = (factor(*pair) for pair in faces)
  return Scales(whole, **bones, hand=factor(hers.palm, driver.palm), face=(across, along))


def _same_build(driver: BodyMeasures, hers: BodyMeasures) -> bool:
  """Whether the proportions differ no more than they do between videos of one person."""
  pairs = [(getattr(driver, name), getattr(hers, name), spread) for name, spread in _SPREAD.items()]
  if driver.face is not None and hers.face is not None:
    pairs += [(*pair, _FACE_SPREAD) for pair in zip(driver.face, hers.face)]
  whole = hers.shoulders / driver.shoulders
  differences = [
    math.log(whole * one / other) / spread for one, other, spread in pairs if one is not None and other is not None
  ]
  return float(np.sqrt(np.mean(np.square(differences)))) < _SAME_BUILD


def retarget(
  track: Track, square: CropSquare, driver: BodyMeasures, hers: BodyMeasures
) -> tuple[Track, CropSquare] | None:
  """Returns the motion of a track as another person makes it, and the square to render it in.

  Args:
    track: mended, of the driving person.
    square: the crop of the driving video, of the size of the renders.
    driver: measures of the track in that square.
    hers: of the person who is to make the motion, in the square that she was filmed in.

  Returns:
    A track in pixels of the renders without the masks of the video, which show the other person; None where the driver
    is the same person before the same camera, see `scales`.
  """
  by = scales(driver, hers)
  if by is None:
    return None
  size = square.size
  old, face, hands = (square.points(points).astype(np.float64) for points in (track.body, track.face, track.hands))
  new = np.empty_like(old)
  middle = old[:, SHOULDERS].mean(axis=1, keepdims=True)
  rest = np.array([*np.multiply(driver.place, size), 0.0])
  moved = np.array([*np.multiply(hers.place, size), 0.0]) + by.shoulders * (middle - rest)
  new[:, SHOULDERS] = moved + by.shoulders * (old[:, SHOULDERS] - middle)

  hips = old[:, HIPS].mean(axis=1, keepdims=True)
  moved_hips = moved + by.torso * (hips - middle)
  new[:, HIPS] = moved_hips + by.hips * (old[:, HIPS] - hips)
  ears = old[:, EARS].mean(axis=1, keepdims=True)
  moved_ears = moved + by.neck * (ears - middle)
  across, along = by.face
  new[:, _HEAD] = moved_ears + np.array([across, along, across]) * (old[:, _HEAD] - ears)
  new_hands = np.empty_like(hands)
  for side in (0, 1):

    def carry(start: int, end: int | list[int], scale: float) -> None:
      ends = [end] if isinstance(end, int) else end
      new[:, ends] = new[:, start, None] + scale * (old[:, ends] - old[:, start, None])

    carry(SHOULDERS[side], ELBOWS[side], by.upper_arm)
    carry(ELBOWS[side], WRISTS[side], by.forearm)
    carry(WRISTS[side], list(_KNUCKLES[side]), by.hand)
    carry(HIPS[side], list(_LEGS[side]), by.torso)
    wrist, moved_wrist = old[:, WRISTS[side], None], new[:, WRISTS[side], None]
    new_hands[:, side] = moved_wrist + by.hand * (hands[:, side] - wrist)
  new_face = _scaled_face(face, ears, moved_ears, by.face)
  fitted = dataclasses.replace(
    track,
    width=size,
    height=size,
    body=new.astype(np.float32),
    face=new_face.astype(np.float32),
    hands=new_hands.astype(np.float32),
    masks=(),
  )
  return fitted, CropSquare(0, 0, size, size)


def _scaled_face(
  face: Float[NdArray, "T N 3"],
  ears: Float[NdArray, "T 1 3"],
  moved_ears: Float[NdArray, "T 1 3"],
  scale: tuple[float, float],
) -> Float[NdArray, "T N 3"]:
  """The face's points scaled about the middle between the ears, across and along the face of each frame.

  NaN where the face was never found. The depth of the face starts in the head, not at the hips as the ears' does.
  """
  across, along = scale
  flat = np.array([1.0, 1.0, 0.0])
  local = face - ears * flat
  up, right = local[:, 10] - local[:, 152], local[:, 454] - local[:, 234]
  right = right / np.maximum(np.linalg.norm(right, axis=-1, keepdims=True), 1e-9)
  up = up - right * np.sum(up * right, axis=-1, keepdims=True)
  up = up / np.maximum(np.linalg.norm(up, axis=-1, keepdims=True), 1e-9)
  height = np.einsum("tnd,td->tn", local, up)
  return moved_ears * flat + across * local + (along - across) * height[..., None] * up[:, None]
