"""Body measures: lengths of a person's body and its place in the picture, robust over a video.

Lengths are shares of the height of the crop rectangle (`framing.CropRect`), so they do not depend on the size of the
frames. The landmark model's depth is unreliable, so limbs are measured in the picture: as the 95th percentile of their
lengths, since a limb that points at the camera looks short.

Only frames in which the person, the face or the hand was found count. Shots may differ in scale: within each shot,
lengths are measured in shoulder widths.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from anchor_jax.core.shapes import Bool, Float, NdArray
from anchor_jax.landmarks.framing import CropRect
from anchor_jax.landmarks.proportions.cloth import ClothShift
from anchor_jax.landmarks.proportions.evidence import Evidence, evidence_of
from anchor_jax.landmarks.proportions.rest import RestPose, gather_rest, standard_rest
from anchor_jax.landmarks.proportions.widths import Widths
from anchor_jax.landmarks.tracks import EARS, ELBOWS, HIPS, SHOULDERS, WRISTS, Track

_LIMB_PERCENTILE = 95
_LEAST_FRAMES = 5  # a shot with fewer uses the shoulder width of all shots
_LEAST_VISIBLE = 0.05  # a limb that is inside the picture in a smaller share of the frames is not measured
# Shortest plausible upper arm or forearm in shoulder widths, and forearm in upper arms. A shorter one points at the
# camera in nearly all frames, so its length is unknown. Adults have 0.9 and 0.75 shoulder widths.
_SHORTEST_ARM, _SHORTEST_FOREARM = 0.4, 0.45
# Fields with parts of their own.
_PARTS: dict[str, Any] = {"widths": Widths, "rest": RestPose, "evidence": Evidence, "cloth": ClothShift}
_LEAST_SEEN = 0.05  # weight of a length that a film never shows
_LARGEST = 10.0  # frame heights; a larger stored measure is damaged


@dataclasses.dataclass(frozen=True)
class BodyMeasures:
  """Measures of one body; lengths in heights of the crop rectangle, which becomes the frame.

  Attributes:
    place: x and y of the middle between the shoulders, the median over the video.
    shoulders: distance between the shoulders, the 80th percentile, since a turned body looks narrower.
    neck: middle between the shoulders to middle between the ears, median.
    torso: middle between the shoulders to middle between the hips, median.
    hips: distance between the hips, median.
    palm: wrist to middle knuckle in three dimensions, median of both hands.
    upper_arm: shoulder to elbow, of both arms; None if it is almost never inside the picture, or points at the camera
      in nearly all frames.
    forearm: elbow to wrist, likewise.
    face: width and height of the face mesh in three dimensions, median; None if no face was found.
    widths: of the body's solids, clothes and hair included (body/fit.py); None for a standard body, as in files of
      earlier versions.
    rest: how the person holds what a film does not show; None for standard hanging arms, as in files of earlier
      versions.
    evidence: how much of all this the films show; None in files of earlier versions.
    cloth: how clothes and hair slide over the body with the pose; None if the films do not show it, as in files of
      earlier versions.
  """

  place: tuple[float, float]
  shoulders: float
  neck: float
  torso: float
  hips: float
  palm: float
  upper_arm: float | None
  forearm: float | None
  face: tuple[float, float] | None
  widths: Widths | None = None
  rest: RestPose | None = None
  evidence: Evidence | None = None
  cloth: ClothShift | None = None

  def reframed(self, scale: float, shift: tuple[float, float]) -> "BodyMeasures":
    """Returns the measures of the same person in a frame of another size.

    Args:
      scale: height of the old frame in heights of the new one.
      shift: corner of the old frame in the new one, in heights of the new one.
    """
    lengths = ("shoulders", "neck", "torso", "hips", "palm", "upper_arm", "forearm")
    scaled = {name: value and value * scale for name in lengths for value in (getattr(self, name),)}
    face = self.face and (self.face[0] * scale, self.face[1] * scale)
    place = self.place[0] * scale + shift[0], self.place[1] * scale + shift[1]
    return dataclasses.replace(self, place=place, face=face, **scaled)

  def to_json(self) -> dict[str, Any]:
    """Returns the measures by name, rounded to a millionth of the height."""
    rounded = lambda value: [round(v, 6) for v in value] if isinstance(value, tuple) else value and round(value, 6)
    named = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
    numbers = {name: rounded(value) for name, value in named.items() if name not in _PARTS}
    return numbers | {name: named[name].to_json() for name in _PARTS if named[name] is not None}

  @property
  def rest_pose(self) -> RestPose:
    """The person's rest pose, or hanging arms of the person's lengths."""
    if self.rest is not None:
      return self.rest
    return standard_rest(*(long and long / self.shoulders for long in (self.upper_arm, self.forearm)))

  def seen(self, name: str) -> float:
    """Returns how much the films show of a length, as a weight; 1 if that is unknown."""
    return 1.0 if self.evidence is None else max(self.evidence.lengths.get(name, 1.0), _LEAST_SEEN)

  @classmethod
  def from_json(cls, values: Any) -> "BodyMeasures":
    """Returns the measures that `to_json` wrote.

    Raises:
      ValueError, KeyError or TypeError: the values are no such measures.
    """
    read: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
      if field.name in _PARTS:
        stored = values.get(field.name)
        read[field.name] = None if stored is None else _PARTS[field.name].from_json(stored)
        continue
      if values[field.name] is None and field.name in ("upper_arm", "forearm", "face"):
        read[field.name] = None
        continue
      pair = field.name in ("place", "face")
      stored: Any = values[field.name]
      numbers = [float(number) for number in (stored if pair else [stored])]
      lowest = -_LARGEST if field.name == "place" else 1e-6
      if len(numbers) != 1 + pair or not all(math.isfinite(n) and lowest <= n <= _LARGEST for n in numbers):
        raise ValueError(f"body measure {field.name}")
      read[field.name] = tuple(numbers) if pair else numbers[0]
    return cls(**read)


def measure(track: Track, crop: CropRect) -> BodyMeasures:
  """Returns the measures of the person in a track, over all frames in which the person was found.

  Args:
    track: filled and smoothed.
    crop: the crop rectangle of its video.
  """
  found = np.ones(len(track), bool) if track.has_body is None else track.has_body
  body, unit = track.body[found], _units(track, found)
  middle = body[:, SHOULDERS, :2].mean(axis=1)
  x, y = (np.median(middle, axis=0) - (crop.left, crop.top)) / crop.height
  width = np.linalg.norm(body[:, SHOULDERS[0], :2] - body[:, SHOULDERS[1], :2], axis=-1)
  shoulders = _positive(float(np.percentile(width, 80)) / crop.height)
  in_units = lambda vectors: np.linalg.norm(vectors, axis=-1) / unit
  median = lambda lengths: _positive(float(np.median(lengths)) * shoulders)
  upper_arm, forearm = (
    _limb(track, body[:, start, :2], body[:, end, :2], unit, _shown(track, found, end))
    for start, end in ((SHOULDERS, ELBOWS), (ELBOWS, WRISTS))
  )
  if forearm is not None and forearm < _SHORTEST_FOREARM * (upper_arm or 0.0):
    forearm = None
  rest = gather_rest([(track, max(float(np.percentile(width, 80)), 1e-6))], upper_arm, forearm)
  return BodyMeasures(
    place=(float(x), float(y)),
    shoulders=shoulders,
    neck=median(in_units(body[:, EARS, :2].mean(axis=1) - middle)),
    torso=median(in_units(body[:, HIPS, :2].mean(axis=1) - middle)),
    hips=median(in_units(body[:, HIPS[0], :2] - body[:, HIPS[1], :2])),
    palm=_palm(track, found, unit, median),
    upper_arm=None if upper_arm is None else _positive(upper_arm * shoulders),
    forearm=None if forearm is None else _positive(forearm * shoulders),
    face=_face(track, found, unit, median),
    rest=rest,
    evidence=evidence_of(track, found),
  )


def shared_rest(films: Sequence[tuple[Track, CropRect, BodyMeasures]]) -> RestPose | None:
  """Returns the rest pose of one person over all of several films: filled track, crop rectangle, and measures in it."""
  if not films:
    return None
  joined = median_measures([body for _, _, body in films], [len(track) for track, _, _ in films])
  upper_arm, forearm = (long and long / joined.shoulders for long in (joined.upper_arm, joined.forearm))
  return gather_rest([(track, body.shoulders * crop.height) for track, crop, body in films], upper_arm, forearm)


def _units(track: Track, found: Bool[NdArray, " T"]) -> Float[NdArray, " F"]:
  """Shoulder width in pixels for each frame with the person: that of its shot, or of the full track in short shots."""
  units = np.full(len(track), _width(track.body[found]))
  for first, last in track.shots if len(track.shots) > 1 else ():
    found_in_shot = found[first:last]
    if found_in_shot.sum() >= _LEAST_FRAMES:
      units[first:last] = _width(track.body[first:last][found_in_shot])
  return units[found]


def _width(body: Float[NdArray, "T 33 3"]) -> float:
  """The 80th percentile of the shoulders' width, in pixels."""
  return max(float(np.percentile(np.linalg.norm(body[:, 11, :2] - body[:, 12, :2], axis=-1), 80)), 1e-6)


def _palm(track: Track, found: Bool[NdArray, " T"], unit: Float[NdArray, " F"], median: Any) -> float:
  """Palm length of the hands that were found, or else of those that were placed on the wrists."""
  hands = track.hands[found]
  lengths = np.linalg.norm(hands[:, :, 9] - hands[:, :, 0], axis=-1) / unit[:, None]
  known = None if track.has_hands is None else track.has_hands[found]
  return median(lengths if known is None or not known.any() else lengths[known])


def _face(
  track: Track, found: Bool[NdArray, " T"], unit: Float[NdArray, " F"], median: Any
) -> tuple[float, float] | None:
  """Width and height of the face; None if it was never found."""
  face = track.face[found]
  known = np.isfinite(face[:, 0, 0])
  if not known.all():
    return None
  seen = track.has_face[found] if track.has_face[found].any() else known
  across, along = (np.linalg.norm(face[seen, a] - face[seen, b], axis=-1) for a, b in ((454, 234), (10, 152)))
  return median(across / unit[seen]), median(along / unit[seen])


def _positive(length: float) -> float:
  """The length, at least a thousandth of the height, so that it is a safe divisor."""
  return max(length, 1e-3)


def _shown(track: Track, found: Bool[NdArray, " T"], joints: tuple[int, int]) -> Bool[NdArray, "F 2"]:
  """In which frames with the person the film shows these joints."""
  return np.ones((int(found.sum()), 2), bool) if track.shown is None else track.shown[found][:, joints] == 1


def _limb(
  track: Track,
  start: Float[NdArray, "F 2 2"],
  end: Float[NdArray, "F 2 2"],
  unit: Float[NdArray, " F"],
  shown: Bool[NdArray, "F 2"],
) -> float | None:
  """Length of a limb of both sides in shoulder widths; landmarks outside the picture are guesses and do not count."""
  picture = np.array([track.width, track.height])
  seen = np.all([(points >= 0).all(axis=-1) & (points < picture).all(axis=-1) for points in (start, end)], axis=0)
  seen &= shown
  if seen.sum() < max(1, _LEAST_VISIBLE * len(start)):
    return None
  lengths = (np.linalg.norm(end - start, axis=-1) / unit[:, None])[seen]
  length = float(np.percentile(lengths, _LIMB_PERCENTILE))
  return None if length < _SHORTEST_ARM else length


def median_measures(measures: Sequence[BodyMeasures], frames: Sequence[int]) -> BodyMeasures:
  """Returns the measures of one person over several videos: medians, weighted by the frames that show each length."""
  joined: dict[str, Any] = {}
  for field in dataclasses.fields(BodyMeasures):
    if field.name in _PARTS:  # usually of all videos at once; if not, those of the longest video
      parts = [(count, getattr(one, field.name)) for one, count in zip(measures, frames, strict=True)]
      known = [pair for pair in parts if pair[1] is not None]
      joined[field.name] = max(known, key=lambda pair: pair[0])[1] if known else None
      if field.name == "cloth":  # belongs to the widths: it says how cloth slides over these solids
        joined["cloth"] = next((one.cloth for one in measures if one.widths is joined["widths"]), None)
      continue
    known = [
      (getattr(one, field.name), count * one.seen(field.name)) for one, count in zip(measures, frames, strict=True)
    ]
    values, counts = zip(*[(value, count) for value, count in known if value is not None] or [(None, 0)])
    if values[0] is None:
      joined[field.name] = None
    elif isinstance(values[0], tuple):
      joined[field.name] = tuple(weighted_median(column, counts) for column in zip(*values))
    else:
      joined[field.name] = weighted_median(values, counts)
  return BodyMeasures(**joined)


def weighted_median(values: Sequence[float], weights: Sequence[float]) -> float:
  """Returns the value at half of the weight."""
  order = np.argsort(values)
  reached = np.cumsum(np.asarray(weights)[order])
  # the mean of two values where half of the weight ends between them
  middle = [np.searchsorted(2 * reached, reached[-1], side=side) for side in ("left", "right")]
  return float(np.mean([values[order[min(int(place), len(values) - 1)]] for place in middle]))
