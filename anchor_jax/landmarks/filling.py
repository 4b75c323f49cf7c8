"""Filling and smoothing of points over time, looking both ways; `motion/following.py` does it for live video."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Bool, Float, Int, NdArray
from anchor_jax.landmarks.hands import forearm_turn, plausible_hand, relaxed_hand, rotate, without_doubles
from anchor_jax.landmarks.shown import ARMS, faint_shoulders, inside, lost_hands, shown_joints, steady, weights
from anchor_jax.landmarks.tracks import EARS, NOSE, SHOULDERS, WRISTS, Track

SHORT_GAP = 0.4  # seconds; people, joints and hands are interpolated over shorter gaps
SLOW, FAST = 0.075, 0.022  # standard deviations of the smoothing in seconds, at rest and in motion
_DEFAULT_PALM = 0.27  # shoulder widths, for a hand that is never found
HEAD_TO_SHOULDERS = 0.4  # seconds; standard deviation of the head's motion that shoulders below the picture follow
# Of a standard person, in heights of the face: shoulder width, and from the ears down and back to the shoulders.
_SHOULDERS, _NECK, _SHOULDER_DEPTH = 1.9, 1.08, 0.7
BRISK = 0.8  # shoulder widths a second; faster points get the smoothing in motion


class Lengths(NamedTuple):
  """Lengths by which a shot is filled and smoothed, in pixels.

  Attributes:
    shoulders: width of the shoulders.
    face: height of the face; None if the shot does not show it.
    palms: of the left and the right hand, wrist to middle knuckle.
  """

  shoulders: float
  face: float | None
  palms: tuple[float, float]


def lengths_of(track: Track) -> Lengths:
  """Returns the lengths by which a shot is filled and smoothed, from a part of it that shows the person."""
  tall = face_height(track)
  track = dataclasses.replace(track, body=_with_shoulders(track, tall))
  unit = track.shoulder_width
  return Lengths(unit, tall, (unit * _palm(track, 0), unit * _palm(track, 1)))


def fill_and_smooth(track: Track, lengths: Sequence[Lengths | None] = ()) -> Track:
  """Returns the track with gaps filled and all points smoothed; only a face that is in no frame stays missing.

  Short gaps are interpolated over time. A hand that is missing for longer is replaced by a relaxed one, placed on the
  wrist and the coarse knuckles among the body points. The smoothing is symmetric in time, so nothing lags. Shots are
  independent of each other. In a shot that shows nobody, such as a title card, the person stands as at the end of the
  shot before, or at the start of the shot after.

  Arms that the film does not show stay where they were last seen, and `Track.shown` of the result says how far they are
  to be replaced by those of the person's rest pose (landmarks/placing.py). Shoulders below the picture follow the head.

  Args:
    track: with gaps.
    lengths: of each shot of a part of a film (`lengths_of`), so that all parts of a shot are treated alike; by default
      and for None they are those of the shot.

  Raises:
    UserError: no person in any frame.
  """
  seen = np.isfinite(track.body[:, 0, 0])
  if not seen.any():
    raise UserError("no person is found in the video: use one that shows the upper body")
  palms = [_palm(track, side) for side in (0, 1)]
  known = dict(zip(track.shots, lengths))
  shots = [(first, last) for first, last in track.shots if seen[first:last].any()]
  parts = [_fill_shot(track.slice(*shot), palms, known.get(shot)) for shot in shots]
  joined = lambda name: np.concatenate([getattr(part, name) for part in parts])
  in_shots = np.concatenate([np.arange(first, last) for first, last in shots])
  place = _last_known(in_shots, len(track))
  body, face = joined("body")[place], joined("face")[place]
  known = np.flatnonzero(np.isfinite(face[:, 0, 0]))
  if 0 < len(known) < len(face):  # a shot from behind borrows the face of another shot, placed on its nose
    nose, source = body[:, NOSE : NOSE + 1], known[_last_known(known, len(track))]
    face = np.where(np.isfinite(face), face, face[source] - nose[source] + nose)
  return dataclasses.replace(
    track,
    body=body,
    face=face,
    hands=joined("hands")[place],
    has_body=seen,
    has_hands=joined("has_hands")[place] & seen[:, None],
    shown=joined("shown")[place],
  )


def _last_known(known: Int[NdArray, " K"], count: int) -> Int[NdArray, " T"]:
  """For each of `count` frames, the index in `known` (frame numbers) of the last one up to it, or else of the first."""
  return np.clip(np.searchsorted(known, np.arange(count), side="right") - 1, 0, None)


def _palm(track: Track, side: int) -> float:
  """Length of a palm, wrist to middle knuckle, in shoulder widths: the median over all frames with a plausible hand."""
  unit, hand = track.shoulder_width, track.hands[:, side]
  lengths = np.linalg.norm(hand[:, 9] - hand[:, 0], axis=-1) / unit
  lengths = lengths[plausible_hand(hand, track.body[:, WRISTS[side]], unit)]
  return float(np.median(lengths)) if len(lengths) else _DEFAULT_PALM


def _fill_shot(track: Track, palms: list[float], lengths: Lengths | None) -> Track:
  """A shot that shows the person, filled and smoothed; `palms` in shoulder widths, for hands that it never shows."""
  tall = face_height(track) if lengths is None else lengths.face
  track = dataclasses.replace(track, body=_with_shoulders(track, tall), hands=without_doubles(track))
  unit = track.shoulder_width if lengths is None else lengths.shoulders
  seen = shown_joints(track, unit)
  lost = lost_hands(track, seen, unit)
  shown, body = _shown(track, seen, lost), interpolate(track.body)
  if track.shown is None:
    body = _with_held_arms(track, body, seen, lost)
  body = smooth(body, track.fps, unit)
  face = track.face
  if np.isfinite(face[:, 0, 0]).any():
    # across gaps the face keeps its shape and follows the body's nose
    nose = body[:, NOSE : NOSE + 1]
    face = smooth(interpolate(face - nose) + nose, track.fps, unit)
  usual = [palm * unit for palm in palms]
  palm = (None, None) if lengths is None else lengths.palms
  hands, known = zip(*(_fill_hand(track, body, side, unit, palm[side], usual[side], lost[:, side]) for side in (0, 1)))
  return dataclasses.replace(
    track, body=body, face=face, hands=np.stack(hands, axis=1), has_hands=np.stack(known, axis=1), shown=shown
  )


def _with_shoulders(track: Track, tall: float | None) -> Float[NdArray, "T 33 3"]:
  """The body with shoulders that lie below the picture placed under the head, as those of a standard person.

  `tall` is the height of the face in pixels; None if it is unknown.
  """
  faint = np.zeros(1) if track.shown is not None or tall is None else faint_shoulders(track, tall)
  if tall is None or not (faint > 0).any():
    return track.body
  faint = gaussian_smooth(faint[:, None, None], SHORT_GAP / 2 * track.fps)[:, 0, 0]
  ears = interpolate(track.body[:, EARS].mean(axis=1, keepdims=True))
  return under_head(track.body, gaussian_smooth(ears, HEAD_TO_SHOULDERS * track.fps)[:, 0], tall, faint)


def face_height(track: Track) -> float | None:
  """Returns the median height of the face in pixels; None if it is in no frame."""
  tall = np.linalg.norm(track.face[:, 10] - track.face[:, 152], axis=-1)
  return float(np.nanmedian(tall)) if np.isfinite(tall).any() else None


def under_head(
  body: Float[NdArray, "T 33 3"], ears: Float[NdArray, "T 3"], tall: float, share: Float[NdArray, " T"]
) -> Float[NdArray, "T 33 3"]:
  """Returns a body with its shoulders moved, by a share of the way, to where a standard person's would be.

  Args:
    body: of which frames without a person are NaN.
    ears: the place between the ears.
    tall: height of the face in pixels.
    share: 0 to 1.
  """
  moved = body.copy()
  for side, sign in zip(SHOULDERS, (1, -1), strict=True):
    under = ears + tall * np.array([sign * _SHOULDERS / 2, _NECK, -_SHOULDER_DEPTH])
    moved[:, side] += (share[:, None] * (under - moved[:, side])).astype(np.float32)
  return moved


def _shown(track: Track, seen: Bool[NdArray, "T 33"], lost: Bool[NdArray, "T 2"]) -> Float[NdArray, "T 33"]:
  """How far each body point comes from the film, see `Track.shown`; an arm is shown at least as far as its hand."""
  if track.shown is not None:
    return track.shown
  result = np.ones(seen.shape, np.float32)
  for side, (_, elbow, wrist, knuckles) in enumerate(ARMS):
    hand = steady(seen[:, wrist] | lost[:, side], track.fps, SHORT_GAP)
    result[:, [wrist, *knuckles]] = weights(hand, track.fps)[:, None]
    result[:, elbow] = weights(hand | steady(seen[:, elbow], track.fps, SHORT_GAP), track.fps)
  return result


def _with_held_arms(
  track: Track, body: Float[NdArray, "T 33 3"], shown: Bool[NdArray, "T 33"], lost: Bool[NdArray, "T 2"]
) -> Float[NdArray, "T 33 3"]:
  """The body with arms interpolated, relative to the shoulders, where they are not shown.

  In short gaps the model's points are better than interpolated ones, if they are in the picture.
  """
  held = body.copy()
  for side, (shoulder, elbow, wrist, knuckles) in enumerate(ARMS):
    short = short_gaps(shown[:, wrist], SHORT_GAP * track.fps) & ~lost[:, side]
    hand = shown[:, wrist] | (short & inside(body[:, wrist], track))
    for points, base, seen in (
      (elbow, shoulder, hand | shown[:, elbow]),
      (wrist, shoulder, hand),
      (knuckles, wrist, hand),
    ):
      numbers, seen = np.atleast_1d(points), seen[:, None, None]
      if seen.any() and not seen.all():
        local = np.where(seen, body[:, numbers] - body[:, base, None], np.float32(np.nan))
        held[:, numbers] = np.where(seen, body[:, numbers], interpolate(local) + held[:, base, None])
  return held


def guessed_hands(track: Track) -> Bool[NdArray, "T 2"]:
  """Returns which hands of an unfilled track are missing for too long to interpolate; they get guesses."""
  known = np.isfinite(track.hands[:, :, 0, 0])
  return np.stack([~(side | short_gaps(side, SHORT_GAP * track.fps)) for side in known.T], axis=1)


def interpolate(points: Float[NdArray, "T N D"]) -> Float[NdArray, "T N D"]:
  """Returns the points with missing frames (NaN in their first point) interpolated; constant beyond both ends."""
  known = np.isfinite(points[:, 0, 0])
  if known.all():
    return points
  frames, seen = np.arange(len(points)), np.flatnonzero(known)
  after = np.clip(np.searchsorted(seen, frames), 0, len(seen) - 1)
  before = np.clip(np.searchsorted(seen, frames, side="right") - 1, 0, len(seen) - 1)
  left, right = seen[before], seen[after]
  share = np.where(right > left, (frames - left) / np.maximum(right - left, 1), 0.0)[:, None, None]
  return (points[left] * (1 - share) + points[right] * share).astype(np.float32)


def short_gaps(known: Bool[NdArray, " T"], longest: float) -> Bool[NdArray, " T"]:
  """Returns True for unknown frames in runs of at most `longest` frames between known ones."""
  short, run = np.zeros(len(known), bool), 0
  for frame, is_known in enumerate(known):
    if is_known:
      if 0 < run <= longest and frame > run:
        short[frame - run : frame] = True
      run = 0
    else:
      run += 1
  return short


def smooth(points: Float[NdArray, "T N D"], fps: float, unit: float) -> Float[NdArray, "T N D"]:
  """Returns the points smoothed over time, more where little moves: the one-euro filter's idea without its lag.

  Args:
    points: a track without gaps.
    fps: frames per second.
    unit: a shoulder's width in pixels; speed is measured in it.
  """
  if len(points) < 3:
    return points
  calm, quick = gaussian_smooth(points, SLOW * fps), gaussian_smooth(points, FAST * fps)
  speed = np.linalg.norm(np.gradient(quick[..., :2], axis=0), axis=-1, keepdims=True) * (fps / unit)
  speed = gaussian_smooth(speed, SLOW * fps)
  share = np.clip(speed / BRISK, 0, 1)
  return (calm + share * (quick - calm)).astype(np.float32)


def gaussian_smooth(points: Float[NdArray, "T N D"], sigma: float) -> Float[NdArray, "T N D"]:
  """Returns points filtered over time by a Gaussian of `sigma` frames, in float64.

  Both ends are padded by point reflection, so that straight motion is not pulled inward there.
  """
  if sigma <= 0:
    return points
  from scipy.ndimage import gaussian_filter1d  # takes a fifth of a second to import

  radius = int(np.ceil(3 * sigma))
  # SciPy has no point-reflecting boundary mode
  padded = np.pad(points.astype(np.float64), ((radius, radius), (0, 0), (0, 0)), mode="reflect", reflect_type="odd")
  return gaussian_filter1d(padded, sigma, axis=0, radius=radius)[radius:-radius]


def _fill_hand(
  track: Track,
  body: Float[NdArray, "T 33 3"],
  side: int,
  unit: float,
  usual_palm: float | None,
  default_palm: float,
  lost: Bool[NdArray, " T"],
) -> tuple[Float[NdArray, "T 21 3"], Bool[NdArray, " T"]]:
  """One hand's points (found, interpolated or relaxed), and the frames in which it was found.

  Palms in pixels: `usual_palm` is the relaxed hand's; None for the median of those found, else `default_palm`.
  """
  wrist = body[:, WRISTS[side]]
  hand = track.hands[:, side] + wrist[:, None] * np.array([0, 0, 1], np.float32)  # its depth starts at its wrist
  known = plausible_hand(hand, wrist, unit)
  # in the frame of the forearm, so that the hand moves with the arm over a gap
  turn = forearm_turn(body, side)
  palm = default_palm if usual_palm is None else usual_palm
  if usual_palm is None and known.any():
    palm = float(np.nanmedian(np.linalg.norm(hand[known, 9] - hand[known, 0], axis=-1)))
  local = rotate(hand - wrist[:, None], -turn)
  local[~known] = np.nan
  relaxed = rotate(relaxed_hand(body, side, palm) - wrist[:, None], -turn)
  fill = known | lost | short_gaps(known, SHORT_GAP * track.fps)
  if known.any():
    interpolated = interpolate(local)
    # a hand fades into the relaxed one over a few frames instead of snapping
    weight = gaussian_smooth(fill[:, None, None].astype(np.float32), SLOW * track.fps)
    weight = np.where(fill[:, None, None], np.maximum(weight, known[:, None, None]), weight)
    local = weight * interpolated + (1 - weight) * relaxed
  else:
    local = relaxed
  hand = rotate(smooth(local.astype(np.float32), track.fps, unit), turn) + wrist[:, None]
  return hand.astype(np.float32), known


def fill_missing(landmarks: Float[NdArray, "T N 2"], cuts: Sequence[int] = ()) -> Float[NdArray, "T N 2"]:
  """Returns the points with missing ones (NaN) interpolated linearly over time; constant beyond both ends.

  Args:
    landmarks: points over time.
    cuts: numbers of the frames that start a new shot; nothing is interpolated across them. A shot in which a point is
      never known uses the last known one before the shot, or else the first one after it.

  Raises:
    UserError: a point is missing in all frames.
  """
  filled, frames = np.array(landmarks, np.float32), np.arange(len(landmarks))
  known: NdArray = np.asarray(np.isfinite(filled).all(axis=-1))
  if not known.any(axis=0).all():
    raise UserError("no face is found in any frame: use a video that shows the person's face")
  for point in range(filled.shape[1]):
    known_frames = frames[known[:, point]]
    before = known_frames[np.clip(np.searchsorted(known_frames, frames, side="right") - 1, 0, None)]
    last_known = filled[before, point]
    for shot in np.split(frames, [cut for cut in cuts if 0 < cut < len(frames)]):
      inside = known_frames[np.isin(known_frames, shot)]
      for axis in range(2):
        values = np.interp(shot, inside, filled[inside, point, axis]) if len(inside) else last_known[shot, axis]
        filled[shot, point, axis] = values
  return filled
