"""Stretches of a film in which nobody is seen, such as title cards and cut-aways: there the person rests."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from anchor_jax.core.shapes import Bool, Float, Int, NdArray
from anchor_jax.landmarks.filling import SHORT_GAP, short_gaps
from anchor_jax.landmarks.shown import ARMS, ease
from anchor_jax.landmarks.tracks import SHOULDERS, Track

REST = 0.5  # seconds in which the person comes to rest after being seen, and moves to where they are seen next
_MOUTH, _EYES = (13, 14), ((159, 145), (386, 374))  # face points: inner lips, upper and lower lids


def absent_frames(track: Track) -> Bool[NdArray, " T"]:
  """Returns the frames of a filled track in which nobody is seen, apart from gaps short enough to interpolate."""
  absent = np.zeros(len(track), bool)
  if track.has_body is None:
    return absent
  longest = SHORT_GAP * track.fps
  for first, last in track.shots:
    seen = track.has_body[first:last]
    edges = _touches_an_end(seen, longest) if seen.any() else np.zeros_like(seen)
    absent[first:last] = ~(seen | short_gaps(seen, longest) | edges)
  return absent


def _touches_an_end(seen: Bool[NdArray, " T"], longest: float) -> Bool[NdArray, " T"]:
  """The unseen frames before the first and after the last seen one, if they are few."""
  frames = np.flatnonzero(seen)
  few = np.zeros_like(seen)
  if frames[0] <= longest:
    few[: frames[0]] = True
  if len(seen) - 1 - frames[-1] <= longest:
    few[frames[-1] + 1 :] = True
  return few


class Calm(NamedTuple):
  """The frame of a track in which the person is calmest: its points.

  Attributes:
    body, face, hands: as in `Track`, of one frame.
  """

  body: Float[NdArray, "33 3"]
  face: Float[NdArray, "N 3"]
  hands: Float[NdArray, "2 21 3"]


def rest_while_absent(track: Track, calm_at: Callable[[int], Calm] | None = None) -> Track:
  """Returns a filled track in which the person rests, with a neutral face, while nobody is seen.

  Head and shoulders are those of the calmest frame of the shot before (at the start: of the shot after). The person
  comes to rest from where they were last seen, and moves to where they are seen next, within half a second of the
  stretch; frames in which they are seen are unchanged.

  Args:
    track: filled and smoothed.
    calm_at: for a part of a film, returns how the person rests in the stretch that begins at a frame of it.
  """
  absent = absent_frames(track)
  if not absent.any() or absent.all():
    return track
  body, face, hands = track.body.copy(), track.face.copy(), track.hands.copy()
  shown = np.ones(body.shape[:2], np.float32) if track.shown is None else track.shown.copy()
  arms = [point for _, elbow, wrist, knuckles in ARMS for point in (elbow, wrist, *knuckles)]
  edges = np.flatnonzero(np.diff(np.concatenate([[False], absent, [False]]).astype(np.int8))).reshape(-1, 2)
  for first, last in edges.tolist():
    calm = calm_beside(track, first, last) if calm_at is None else calm_at(first)
    for points, resting in zip((body, face, hands), calm):
      points[first:last] = resting
    shown[first:last, arms] = 0
    count = min(round(REST * track.fps), (last - first) // 2)
    share = ease(np.arange(1, count + 1) / (count + 1)).astype(np.float32)
    for known, there, towards in (
      (first - 1, slice(first, first + count), share),
      (last, slice(last - count, last), share[::-1]),
    ):
      if 0 <= known < len(track) and count:
        _lead(track, (body, face, hands, shown), known, calm, there, towards, arms)
  return dataclasses.replace(track, body=body, face=face, hands=hands, shown=shown)


def _lead(
  track: Track,
  new: tuple[NdArray, NdArray, NdArray, NdArray],
  known: int,
  calm: Calm,
  there: slice,
  share: Float[NdArray, " K"],
  arms: list[int],
) -> None:
  """Moves the person in some frames from a known frame (share 0) to the calmest one (share 1)."""
  body, face, hands, shown = new
  share = share[:, None, None]
  old, rest = track.body[known], calm.body
  body[there] = old + share * (rest - old)
  face[there] = track.face[known] + share * (calm.face - track.face[known])
  step = body[there][:, SHOULDERS] - old[list(SHOULDERS)]
  for side, (_, elbow, wrist, knuckles) in enumerate(ARMS):
    points = [elbow, wrist, *knuckles]
    body[there, points] = old[points] + step[:, side, None]  # the rest pose takes over as `shown` falls
    hands[there, side] = track.hands[known, side] + step[:, side, None]
  before = np.ones(body.shape[1], np.float32) if track.shown is None else track.shown[known]
  shown[there, arms] = before[arms] * (1 - share[:, 0])


def calm_beside(track: Track, first: int, last: int) -> Calm:
  """Returns how the person rests in frames `first` to `last` (exclusive), in which nobody is seen.

  It is the calmest frame of the shot before, or at the start of the shot after.
  """
  absent = absent_frames(track)
  source = next((a, b) for a, b in track.shots if a <= (first - 1 if first else last) < b)
  calm = calmest_frame(track, np.flatnonzero(~absent[slice(*source)]) + source[0])
  return Calm(track.body[calm], track.face[calm], track.hands[calm])


def calmest_frame(track: Track, frames: Int[NdArray, " K"]) -> int:
  """Returns the one of these frames with head and shoulders nearest to their usual place, mouth closed, eyes open."""
  body, face = track.body[frames][..., :2], track.face[frames]
  points = np.concatenate([body[:, :9], body[:, SHOULDERS]], axis=1)
  away = np.linalg.norm(points - np.median(points, axis=0), axis=-1).mean(axis=1) / track.shoulder_width
  if np.isfinite(face).all() and face.shape[1] > max(max(pair) for pair in _EYES):
    tall = np.linalg.norm(face[:, 10] - face[:, 152], axis=-1)
    gap = lambda pair: np.linalg.norm(face[:, pair[0]] - face[:, pair[1]], axis=-1) / np.maximum(tall, 1e-6)
    eyes = np.mean([gap(pair) for pair in _EYES], axis=0)
    away = away + gap(_MOUTH) + np.maximum(np.percentile(eyes, 75) - eyes, 0) * 4
    away = np.where(track.has_face[frames], away, away + 1)
  return int(frames[away.argmin()])
