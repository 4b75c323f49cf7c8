"""Which joints a film shows: inside the picture, and sure enough; with smooth weights over time.

The landmark model places all joints of a person in every picture, also those that it can't see. Joints outside the
picture are guesses, and so are joints of which the model says that they are hidden.
"""

import dataclasses
import itertools

import numpy as np

from anchor_jax.core.shapes import Bool, Float, NdArray
from anchor_jax.landmarks.hands import plausible_hand
from anchor_jax.landmarks.tracks import ELBOWS, INDEXES, NOSE, PINKIES, SHOULDERS, THUMBS, WRISTS, Track

LEAST_VISIBLE = 0.3  # visibility of a joint, from which it counts as shown
_LEAST_PERSON = 0.5  # visibility of the nose or a shoulder, from which a body without a face counts
FADE = 0.4  # seconds in which a joint comes from its rest before it is shown, and goes there afterwards
_INSIDE = 0.02  # of the picture's height; a wrist nearer to an edge is unsure, unless its hand is found
_BELOW = (0.0, 0.15)  # heights of the face below the picture at which shoulders begin to be, and are, guesses
_AT_EDGE = (-0.2, 0.0)  # the same for unsure shoulders
_SURE = (0.7, 0.3)  # visibility at which shoulders begin to be, and are, unsure
_WELL_INSIDE = 0.1  # of the picture's height; a hand this far from its edges can't leave it unseen
_LOST, _NEAR = 1.5, 0.6  # seconds that such a hand may be lost; shoulder widths from there to where it is found again
_LEAST_HAND = 0.5  # share of a hand's points inside the picture
BLINK = 0.2  # seconds; joints that are shown for less than that are false detections

ARMS = tuple((SHOULDERS[s], ELBOWS[s], WRISTS[s], (PINKIES[s], INDEXES[s], THUMBS[s])) for s in (0, 1))


def without_guesses(track: Track) -> Track:
  """Returns a track with gaps, also where the model found a body of which it is sure of nothing, such as a drawing."""
  if track.visible is None:
    return track
  sure = track.visible[:, [NOSE, *SHOULDERS]].max(axis=1) >= _LEAST_PERSON
  keep = sure | track.has_face
  if keep.all():
    return track
  known = lambda points: np.where(keep.reshape(-1, *[1] * (points.ndim - 1)), points, np.float32(np.nan))
  return dataclasses.replace(track, body=known(track.body), hands=known(track.hands))


def shown_joints(track: Track, unit: float) -> Bool[NdArray, "T 33"]:
  """Returns which body points each frame shows.

  Elbows and wrists are looked at; the points of a hand count as its wrist does, all others as shown where the person
  was found. A wrist is also shown by a hand that is found on it.

  Args:
    track: as the landmark model found it, with gaps.
    unit: a shoulder's width in pixels.
  """
  body, found = track.body, np.isfinite(track.body[:, 0, 0])
  shown = np.repeat(found[:, None], body.shape[1], axis=1)
  sure = np.ones_like(shown) if track.visible is None else track.visible >= LEAST_VISIBLE
  shown[:, ELBOWS] &= sure[:, ELBOWS] & inside(body[:, ELBOWS], track)
  for side, wrist in enumerate(WRISTS):
    hand = track.hands[:, side]
    held = plausible_hand(hand, body[:, wrist], unit) & (inside(hand, track).mean(axis=1) >= _LEAST_HAND)
    seen = found & (held | (sure[:, wrist] & inside(body[:, wrist], track, _INSIDE * track.height)))
    shown[:, [wrist, PINKIES[side], INDEXES[side], THUMBS[side]]] = seen[:, None]
  return shown


def faint_shoulders(track: Track, tall: float) -> Float[NdArray, " T"]:
  """Returns how far the shoulders are guesses, 0 to 1: those below the picture, and unsure ones at its lower edge.

  Args:
    track: as the landmark model found it.
    tall: height of the face in pixels.
  """
  below = (track.body[:, SHOULDERS, 1].max(axis=1) - track.height) / tall
  faint = _between(below, *_BELOW)
  if track.visible is not None:
    unsure = _between(track.visible[:, SHOULDERS].min(axis=1), *_SURE)
    faint = np.maximum(faint, unsure * _between(below, *_AT_EDGE))
  return np.nan_to_num(faint).astype(np.float32)


def _between(value: Float[NdArray, " T"], none: float, all_of: float) -> Float[NdArray, " T"]:
  """The share of the way from `none` (0) to `all_of` (1)."""
  return np.clip((value - none) / (all_of - none), 0, 1)


def inside(points: Float[NdArray, "*N D"], track: Track, margin: float = 0.0) -> Bool[NdArray, "*N"]:
  """Returns which points lie in the picture, at least `margin` pixels from its edges; NaN does not."""
  x, y = points[..., 0], points[..., 1]
  return (x >= margin) & (y >= margin) & (x < track.width - margin) & (y < track.height - margin)


def lost_hands(track: Track, shown: Bool[NdArray, "T 33"], unit: float) -> Bool[NdArray, "T 2"]:
  """Returns in which frames a hand must be in the picture, although it is not found.

  A hand that is lost well inside the picture, and found again near that place within 1.5 s, can't have left it.

  Args:
    track: as the landmark model found it, with gaps.
    shown: of `shown_joints`.
    unit: a shoulder's width in pixels.
  """
  lost = np.zeros((len(track), 2), bool)
  shoulders = track.body[:, SHOULDERS, :2].mean(axis=1)
  for side, wrist in enumerate(WRISTS):
    hand = track.hands[:, side, :, :2].mean(axis=1)
    middle = np.where(np.isfinite(hand), hand, track.body[:, wrist, :2])
    within, place = inside(middle, track, _WELL_INSIDE * track.height), (middle - shoulders) / unit
    frames = np.flatnonzero(shown[:, wrist])
    for before, after in itertools.pairwise(frames.tolist()):
      near = np.linalg.norm(place[after] - place[before]) < _NEAR
      if 1 < after - before <= _LOST * track.fps and within[before] and within[after] and near:
        lost[before + 1 : after, side] = True
  return lost


def steady(shown: Bool[NdArray, " T"], fps: float, gap: float) -> Bool[NdArray, " T"]:
  """Returns True where a joint is shown, gaps of at most `gap` seconds included, and short appearances left out."""
  edges = np.flatnonzero(np.diff(np.concatenate([[False], shown, [False]]).astype(np.int8))).reshape(-1, 2)
  joined: list[list[int]] = []
  for first, last in edges.tolist():
    if joined and first - joined[-1][1] <= gap * fps:
      joined[-1][1] = last
    else:
      joined.append([first, last])
  steady = np.zeros_like(shown)
  for first, last in joined:
    steady[first:last] = last - first >= min(BLINK * fps, len(shown))
  return steady


def weights(shown: Bool[NdArray, " T"], fps: float) -> Float[NdArray, " T"]:
  """Returns 1 where a joint is shown, falling to 0 within 0.4 s before and after."""
  if shown.all() or not shown.any():
    return shown.astype(np.float32)
  frames = np.flatnonzero(shown)
  place = np.searchsorted(frames, np.arange(len(shown)))
  before, after = frames[np.clip(place - 1, 0, None)], frames[np.clip(place, None, len(frames) - 1)]
  distance = np.minimum(np.abs(np.arange(len(shown)) - before), np.abs(after - np.arange(len(shown))))
  return ease(1 - np.where(shown, 0, distance) / (FADE * fps + 1)).astype(np.float32)


def ease(share: Float[NdArray, "*N"]) -> Float[NdArray, "*N"]:
  """Returns a share between 0 and 1 with a smooth start and end."""
  share = np.clip(share, 0, 1)
  return share * share * (3 - 2 * share)
