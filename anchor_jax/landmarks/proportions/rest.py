"""The rest pose: how a person holds both arms while a film does not show them.

It is gathered from the person's own film and kept with the body measures. Vectors are in shoulder widths, x and y as in
pictures, z toward the viewer, of a person who faces the camera.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from anchor_jax.core.shapes import Float, NdArray
from anchor_jax.landmarks.tracks import ELBOWS, INDEXES, PINKIES, SHOULDERS, THUMBS, WRISTS, Track

UPPER_ARM, FOREARM = 0.9, 0.75  # shoulder widths, of adults
_BONES = 5
_HANGING = ((0.14, 0.99), (0.02, 1.0))  # directions of a hanging left arm's bones
_KNUCKLES = ((0.02, 0.24), (-0.05, 0.24), (-0.10, 0.13))  # of a hanging left hand, from its wrist
_SHOWN = 0.9  # an arm that is shown in a smaller share of the frames rests where the picture does not show it
_LOWEST, _NEAR_LOWEST = 98, 0.1  # percentile of a shown wrist's reach, and how near in shoulder widths a resting arm is
_FORWARD = 0.1  # shoulder widths; the depth of a standard arm's bones
_LARGEST = 3.0  # shoulder widths; a larger stored vector is damaged

Arm = tuple[tuple[float, float, float], ...]


@dataclasses.dataclass(frozen=True)
class RestPose:
  """How a person holds both arms at rest.

  Attributes:
    left, right: five vectors in shoulder widths: shoulder to elbow, elbow to wrist, and wrist to the knuckles of the
      little finger, the index finger and the thumb.
  """

  left: Arm
  right: Arm

  def arm(self, side: int) -> Float[NdArray, "5 3"]:
    """Returns the vectors of the left (0) or the right (1) arm."""
    return np.array((self.left, self.right)[side], np.float64)

  def to_json(self) -> dict[str, Any]:
    """Returns the vectors, rounded to a thousandth."""
    return {name: [[round(v, 3) for v in bone] for bone in arm] for name, arm in dataclasses.asdict(self).items()}

  @classmethod
  def from_json(cls, values: Any) -> "RestPose":
    """Returns the rest pose that `to_json` wrote.

    Raises:
      ValueError, KeyError or TypeError: the values are no rest pose.
    """
    return cls(*(_arm_of(values[field.name]) for field in dataclasses.fields(cls)))


def _arm_of(values: Any) -> Arm:
  arm = tuple(tuple(float(number) for number in bone) for bone in values)
  if len(arm) != _BONES or not all(
    len(bone) == 3 and all(math.isfinite(v) and abs(v) <= _LARGEST for v in bone) for bone in arm
  ):
    raise ValueError("rest pose")
  return tuple((x, y, z) for x, y, z in arm)


def standard_rest(upper_arm: float | None = None, forearm: float | None = None) -> RestPose:
  """Returns a rest pose with hanging arms, of these lengths in shoulder widths; None is that of an adult."""
  arms = []
  for sign in (1, -1):
    lengths = upper_arm or UPPER_ARM, forearm or FOREARM
    bones = [(sign * x * long, y * long, _FORWARD * long) for (x, y), long in zip(_HANGING, lengths, strict=True)]
    arms.append((*bones, *((sign * x, y, 0.0) for x, y in _KNUCKLES)))
  return RestPose(*arms)


def gather_rest(
  tracks: Sequence[tuple[Track, float]], upper_arm: float | None = None, forearm: float | None = None
) -> RestPose:
  """Returns the rest pose of one person over several films.

  An arm that nearly all frames show rests where it is held lowest. An arm that leaves the picture, or is hidden, hangs
  down, by the upper arm's usual direction if that is shown.

  Args:
    tracks: filled and smoothed, each with its shoulder width in pixels.
    upper_arm, forearm: their lengths in shoulder widths; None if unknown.
  """
  standard = standard_rest(upper_arm, forearm)
  return RestPose(*(_gathered(tracks, side, standard.arm(side)) for side in (0, 1)))


def _gathered(tracks: Sequence[tuple[Track, float]], side: int, standard: Float[NdArray, "5 3"]) -> Arm:
  """The rest of one side; `standard` where the films do not show it."""
  bones, elbow_shown, wrist_shown = [], [], []
  for track, unit in tracks:
    found = np.ones(len(track), bool) if track.has_body is None else track.has_body
    body = track.body[found].astype(np.float64) / unit
    shown = np.ones(body.shape[:2]) if track.shown is None else track.shown[found]
    bones.append(_bones(body, side))
    elbow_shown.append(shown[:, ELBOWS[side]] == 1)
    wrist_shown.append(shown[:, WRISTS[side]] == 1)
  vectors, elbow, wrist = (np.concatenate(parts) for parts in (bones, elbow_shown, wrist_shown))
  rest = standard.copy()
  if len(wrist) and wrist.mean() >= _SHOWN:
    reach = vectors[wrist, 0, 1] + vectors[wrist, 1, 1]
    rest = np.median(vectors[wrist][reach >= np.percentile(reach, _LOWEST) - _NEAR_LOWEST], axis=0)
  elif (hanging := elbow & ~wrist).any():
    rest[0] = np.median(vectors[hanging, 0], axis=0)
  # rounded as in files
  return _arm_of(np.clip(rest, -_LARGEST, _LARGEST).round(3).tolist())


def _bones(body: Float[NdArray, "T 33 3"], side: int) -> Float[NdArray, "T 5 3"]:
  """The five vectors of one side, as in `RestPose`."""
  shoulder, elbow, wrist = (body[:, points[side]] for points in (SHOULDERS, ELBOWS, WRISTS))
  knuckles = [body[:, points[side]] - wrist for points in (PINKIES, INDEXES, THUMBS)]
  return np.stack([elbow - shoulder, wrist - elbow, *knuckles], axis=1)
