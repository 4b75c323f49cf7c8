"""Retargeting: maps the track of a driving person onto the body measures of another, the target.

Every bone keeps its direction and is scaled by one factor for the full video: target length over driver length. So a
person's own motion is unchanged, frames are independent of each other, and errors of single frames are not amplified.
Contacts are not preserved: a hand misses the chin or the other hand by as much as the proportions of the arms differ.
"""

import dataclasses
import math

import numpy as np

from anchor_jax.core.shapes import Float, NdArray
from anchor_jax.landmarks.framing import CropRect, full_crop
from anchor_jax.landmarks.proportions.measures import BodyMeasures, measure
from anchor_jax.landmarks.tracks import EARS, ELBOWS, HIPS, SHOULDERS, WRISTS, Track, joined

# Relative spread of the measured proportions of one person between videos. 13 clips of three signers differ from the
# medians of their own person by at most 0.48 of these (root mean square), and from other people's by at least 0.60.
_SPREAD = {"neck": 0.06, "upper_arm": 0.06, "forearm": 0.12, "palm": 0.12}
_FACE_SPREAD = 0.045
_SAME_BUILD = 0.54
# Largest differences with the same camera: relative in scale, and in frame heights across and down.
SAME_SCALE, _SAME_PLACE = 0.04, (0.06, 0.03)
_MEASURED = 0.5  # seconds of the driver that a shot needs to be measured alone
_NARROWEST = 1.4  # largest factor of the shoulders relative to that of the face's height
_LARGEST_RATIO = 2.0  # largest factor of a bone relative to that of the shoulders; its inverse is the smallest

_HEAD = tuple(range(11))  # body points of the head
_KNUCKLES = ((17, 19, 21), (18, 20, 22))  # body points of each hand
_LEGS = ((25, 27, 29, 31), (26, 28, 30, 32))


@dataclasses.dataclass(frozen=True)
class Scales:
  """Factors from the driver's lengths to the target's, both in heights of their crop rectangles.

  Attributes:
    shoulders: for the shoulders, and for movements of the body through the picture.
    neck, torso, hips, upper_arm, forearm, hand: for these.
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


def scales(driver: BodyMeasures, target: BodyMeasures) -> Scales | None:
  """Returns the factors from the driver's body to the target's; None for the same person in front of the same camera.

  With the same proportions and another framing, all factors are equal. A limb that is not known of both people gets the
  factor of the shoulders.
  """
  shoulders = target.shoulders / driver.shoulders
  if _same_build(driver, target):
    moved = np.abs(np.subtract(driver.place, target.place))
    if abs(shoulders - 1) < SAME_SCALE and (moved < _SAME_PLACE).all():
      return None
    return Scales(*[shoulders] * 7, face=(shoulders, shoulders))
  if driver.face is not None and target.face is not None:  # the shoulders of a driver seen from the side look narrow
    shoulders = min(shoulders, _NARROWEST * target.face[1] / driver.face[1])

  def factor(of_target: float | None, of_driver: float | None) -> float:
    if of_target is None or of_driver is None:
      return shoulders
    return float(np.clip(of_target / of_driver, shoulders / _LARGEST_RATIO, shoulders * _LARGEST_RATIO))

  names = ("neck", "torso", "hips", "upper_arm", "forearm")
  bones = {name: factor(getattr(target, name), getattr(driver, name)) for name in names}
  faces = zip(target.face or (None, None), driver.face or (None, None))
  across, along = (factor(*pair) for pair in faces)
  return Scales(shoulders, **bones, hand=factor(target.palm, driver.palm), face=(across, along))


def _same_build(driver: BodyMeasures, target: BodyMeasures) -> bool:
  """Whether the proportions differ no more than between videos of one person."""
  pairs = [(getattr(driver, name), getattr(target, name), spread) for name, spread in _SPREAD.items()]
  if driver.face is not None and target.face is not None:
    pairs += [(*pair, _FACE_SPREAD) for pair in zip(driver.face, target.face)]
  ratio = target.shoulders / driver.shoulders
  differences = [
    math.log(ratio * of_driver / of_target) / spread
    for of_driver, of_target, spread in pairs
    if of_driver is not None and of_target is not None
  ]
  return float(np.sqrt(np.mean(np.square(differences)))) < _SAME_BUILD


def retarget(track: Track, crop: CropRect, driver: BodyMeasures, target: BodyMeasures) -> tuple[Track, CropRect] | None:
  """Returns a track retargeted to another body, and the crop to render it in; None if nothing needs to change.

  Args:
    track: of the driver, filled and smoothed.
    crop: the crop rectangle of the driving video, of the size of the renders.
    driver: measures of the track in that crop.
    target: measures of the person who is to make the motion, in the crop rectangle of the target's own film.

  Returns:
    A track in pixels of the renders, without the video's masks, which show the driver. None if driver and target are
    the same person in front of the same camera; see `scales`.
  """
  factors = scales(driver, target)
  if factors is None:
    return None
  height = crop.size.height
  old, face, hands = (crop.points(points).astype(np.float64) for points in (track.body, track.face, track.hands))
  new = np.empty_like(old)
  middle = old[:, SHOULDERS].mean(axis=1, keepdims=True)
  rest = np.array([*np.multiply(driver.place, height), 0.0])
  moved = np.array([*np.multiply(target.place, height), 0.0]) + factors.shoulders * (middle - rest)
  new[:, SHOULDERS] = moved + factors.shoulders * (old[:, SHOULDERS] - middle)

  hips = old[:, HIPS].mean(axis=1, keepdims=True)
  moved_hips = moved + factors.torso * (hips - middle)
  new[:, HIPS] = moved_hips + factors.hips * (old[:, HIPS] - hips)
  ears = old[:, EARS].mean(axis=1, keepdims=True)
  moved_ears = moved + factors.neck * (ears - middle)
  across, along = factors.face
  new[:, _HEAD] = moved_ears + np.array([across, along, across]) * (old[:, _HEAD] - ears)
  new_hands = np.empty_like(hands)
  for side in (0, 1):

    def scale_bone(start: int, end: int | list[int], factor: float) -> None:
      ends = [end] if isinstance(end, int) else end
      new[:, ends] = new[:, start, None] + factor * (old[:, ends] - old[:, start, None])

    scale_bone(SHOULDERS[side], ELBOWS[side], factors.upper_arm)
    scale_bone(ELBOWS[side], WRISTS[side], factors.forearm)
    scale_bone(WRISTS[side], list(_KNUCKLES[side]), factors.hand)
    scale_bone(HIPS[side], list(_LEGS[side]), factors.torso)
    wrist, moved_wrist = old[:, WRISTS[side], None], new[:, WRISTS[side], None]
    new_hands[:, side] = moved_wrist + factors.hand * (hands[:, side] - wrist)
  new_face = _scaled_face(face, ears, moved_ears, factors.face)
  retargeted = dataclasses.replace(
    track,
    width=crop.size.width,
    height=crop.size.height,
    body=new.astype(np.float32),
    face=new_face.astype(np.float32),
    hands=new_hands.astype(np.float32),
    masks=(),
  )
  return retargeted, full_crop(crop.size)


def retarget_shots(track: Track, crop: CropRect, target: BodyMeasures) -> tuple[Track, CropRect] | None:
  """Returns a track retargeted to another body, each shot by its own measures; None if nothing needs to change.

  So the person keeps their size and place when the film cuts to another framing. Shots that show the driver for less
  than half a second are measured together with all others.

  Args:
    track, crop, target: see `retarget`.
  """
  driver = measure(track, crop)
  least = _MEASURED * track.fps
  parts, changed = [], False
  for first, last in _measured_parts(track):
    part = track.slice(first, last)
    found = len(part) if part.has_body is None else int(part.has_body.sum())
    together = len(part) == len(track) or found < least
    retargeted = retarget(part, crop, driver if together else measure(part, crop), target)
    changed |= retargeted is not None
    parts.append(in_crop(part, crop) if retargeted is None else retargeted[0])
  return (joined(parts, track.cuts), full_crop(crop.size)) if changed else None


def _measured_parts(track: Track) -> list[tuple[int, int]]:
  """First and last (exclusive) frame of each shot; shots that show nobody belong to the one before, or after."""
  parts: list[tuple[int, int]] = []
  for first, last in track.shots:
    empty = track.has_body is not None and not track.has_body[first:last].any()
    start_empty = bool(parts) and track.has_body is not None and not track.has_body[slice(*parts[-1])].any()
    if parts and (empty or start_empty):
      parts[-1] = parts[-1][0], last
    else:
      parts.append((first, last))
  return parts


def in_crop(track: Track, crop: CropRect) -> Track:
  """Returns a track in pixels of its crop rectangle's renders, without masks."""
  points = {name: crop.points(getattr(track, name)) for name in ("body", "face", "hands")}
  return dataclasses.replace(track, width=crop.size.width, height=crop.size.height, masks=(), **points)


def _scaled_face(
  face: Float[NdArray, "T N 3"],
  ears: Float[NdArray, "T 1 3"],
  moved_ears: Float[NdArray, "T 1 3"],
  scale: tuple[float, float],
) -> Float[NdArray, "T N 3"]:
  """The face's points scaled about the middle between the ears, across and along the face of each frame.

  NaN if the face was never found. The face's depth is relative to the head; the ears' depth is relative to the hips.
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
