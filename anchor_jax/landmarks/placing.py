"""Places the joints that a film does not show, by the person's own lengths and rest pose."""

import dataclasses

import numpy as np

from anchor_jax.core.shapes import Float, NdArray
from anchor_jax.landmarks.hands import relaxed_hand
from anchor_jax.landmarks.proportions.rest import RestPose
from anchor_jax.landmarks.shown import ARMS
from anchor_jax.landmarks.tracks import SHOULDERS, Track


def place_unseen(track: Track, rest: RestPose, unit: float, palm: float) -> Track:
  """Returns a track whose arms are at rest as far as its film does not show them (`Track.shown`).

  An arm that is shown stays as it is. Between both, each bone goes straight from one place to the other, so that an arm
  that is raised swings forward, toward the camera.

  Args:
    track: filled and smoothed, of the person whose rest pose it is, or retargeted to that person.
    rest: of the person.
    unit: the person's shoulder width in pixels of the track.
    palm: length from wrist to middle knuckle in pixels of the track.
  """
  shown = track.shown
  if shown is None or (shown == 1).all():
    return track
  body, hands = track.body.astype(np.float64), track.hands.copy()
  turned = np.clip((body[:, SHOULDERS[0], 0] - body[:, SHOULDERS[1], 0]) / unit, -1, 1)
  facing = np.stack([turned, np.ones_like(turned), np.ones_like(turned)], axis=-1)
  for side, (shoulder, elbow, wrist, knuckles) in enumerate(ARMS):
    to_elbow, to_wrist = shown[:, elbow, None], shown[:, wrist, None]
    if (to_elbow == 1).all() and (to_wrist == 1).all():
      continue
    bones = unit * rest.arm(side)[:, None] * facing
    old = body.copy()
    seen = (to_wrist == 1) & (to_elbow == 1)
    body[:, elbow] = body[:, shoulder] + _mixed(bones[0], old[:, elbow] - old[:, shoulder], to_elbow)
    body[:, wrist] = body[:, elbow] + _mixed(bones[1], old[:, wrist] - old[:, elbow], to_wrist)
    for bone, knuckle in zip(bones[2:], knuckles, strict=True):
      body[:, knuckle] = body[:, wrist] + _mixed(bone, old[:, knuckle] - old[:, wrist], to_wrist)
    resting = relaxed_hand(body.astype(np.float32), side, palm) - body[:, wrist, None]
    held = hands[:, side] - old[:, wrist, None]
    moved = body[:, wrist, None] + resting + to_wrist[..., None] * (held - resting)
    hands[:, side] = np.where(seen[..., None], hands[:, side], moved)
    for point in (elbow, wrist, *knuckles):
      body[:, point] = np.where(seen, old[:, point], body[:, point])
  return dataclasses.replace(track, body=body.astype(np.float32), hands=hands.astype(np.float32))


def _mixed(
  resting: Float[NdArray, "T 3"], seen: Float[NdArray, "T 3"], weight: Float[NdArray, "T 1"]
) -> Float[NdArray, "T 3"]:
  return resting + weight * (seen - resting)
