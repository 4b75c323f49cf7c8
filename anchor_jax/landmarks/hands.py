"""Hands of a track: which ones are plausible, and relaxed ones in place of those that are missing."""

import numpy as np

from anchor_jax.core.shapes import Bool, Float, NdArray
from anchor_jax.landmarks.tracks import ELBOWS, INDEXES, PINKIES, WRISTS, Track

_DOUBLE = 0.9  # palms between two hands that are one


def plausible_hand(hand: Float[NdArray, "T 21 3"], wrist: Float[NdArray, "T 3"], unit: float) -> Bool[NdArray, " T"]:
  """Returns which frames have a hand that lies on its wrist and has the size of a hand."""
  distance = np.linalg.norm(hand[:, 0, :2] - wrist[:, :2], axis=-1)
  palm = np.linalg.norm(hand[:, 9] - hand[:, 0], axis=-1)
  with np.errstate(invalid="ignore"):
    return np.isfinite(palm) & (distance < 0.35 * unit) & (palm > 0.10 * unit) & (palm < 0.6 * unit)


def without_doubles(track: Track) -> Float[NdArray, "T 2 21 3"]:
  """Returns the hands of a track with gaps, without those that are the other one, found from both wrists.

  Of the two, the hand on the wrist of which the model is surer stays, or else on the nearer one.
  """
  hands = track.hands
  palm = np.linalg.norm(hands[:, :, 9] - hands[:, :, 0], axis=-1).mean(axis=1)
  apart = np.linalg.norm(hands[:, 0, :, :2] - hands[:, 1, :, :2], axis=-1).mean(axis=1)
  double = np.flatnonzero(apart < _DOUBLE * palm)
  if not len(double):
    return hands
  kept = hands.copy()
  if track.visible is not None:
    better = track.visible[double][:, WRISTS]
  else:
    better = -np.linalg.norm(hands[double, :, 0, :2] - track.body[double][:, WRISTS, :2], axis=-1)
  kept[double, better.argmin(axis=1)] = np.nan
  return kept


def forearm_turn(body: Float[NdArray, "T 33 3"], side: int) -> Float[NdArray, " T"]:
  """Returns the angle of a forearm in the picture, in radians."""
  forearm = body[:, WRISTS[side], :2] - body[:, ELBOWS[side], :2]
  return np.arctan2(forearm[:, 1], forearm[:, 0])


def rotate(points: Float[NdArray, "T N 3"], angle: Float[NdArray, " T"]) -> Float[NdArray, "T N 3"]:
  """Returns the points of each frame rotated about the origin in the picture, by an angle in radians."""
  c, s = np.cos(angle)[:, None], np.sin(angle)[:, None]
  x, y, z = np.moveaxis(points, -1, 0)
  return np.stack([c * x - s * y, s * x + c * y, z], axis=-1)


def relaxed_hand(body: Float[NdArray, "T 33 3"], side: int, palm: float) -> Float[NdArray, "T 21 3"]:
  """Returns a hand with slightly bent fingers on the body's coarse knuckles; `palm` is wrist to middle knuckle."""
  wrist, index, pinky, elbow = (body[:, points[side], :2] for points in (WRISTS, INDEXES, PINKIES, ELBOWS))
  along = (index + pinky) / 2 - wrist + 0.3 * (wrist - elbow) / 3
  along /= np.maximum(np.linalg.norm(along, axis=-1, keepdims=True), 1e-6)
  # The side of the index finger shows whether the palm or the back faces the viewer; a hand seen edge-on stays open.
  edge = np.stack([-along[:, 1], along[:, 0]], axis=-1)
  lean = np.sum((index - pinky) * edge, axis=-1, keepdims=True) / palm
  across = edge * np.where(lean >= 0, 1, -1) * np.clip(np.abs(lean), 0.5, 0.9)
  hand = np.zeros((len(body), 21, 3), np.float32)

  def place(u: float | int, v: float | int, z: float | int) -> NdArray:
    return np.concatenate([wrist + palm * (u * across + v * along), np.full((len(body), 1), palm * z)], axis=-1)

  hand[:, 0] = place(0, 0, 0)
  for joint, (u, v, z) in enumerate(
    [(0.3, 0.2, 0.1), (0.52, 0.5, 0.2), (0.6, 0.75, 0.25), (0.62, 0.95, 0.25)], start=1
  ):
    hand[:, joint] = place(u, v, z)
  for finger, (u, reach) in enumerate([(0.33, 0.95), (0.06, 1.0), (-0.20, 0.95), (-0.44, 0.85)]):
    for joint, (v, z) in enumerate([(1.0, 0.0), (1.38, 0.12), (1.6, 0.28), (1.72, 0.42)]):
      hand[:, 5 + 4 * finger + joint] = place(u * (1 + 0.1 * joint), v * reach, z)
  hand[..., 2] += body[:, WRISTS[side], None, 2]
  return hand
