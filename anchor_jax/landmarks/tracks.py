"""Tracks: body, face and hand points of a person over a video, with gaps filled and points smoothed over time.

Points are in pixels of the video: x right, y down, z toward the viewer (same unit, rough; origin between the hips for
the body, at the wrist for a hand, in the head for the face). Numbering is MediaPipe's: 33 body points, 468 or 478 face
points, 21 points a hand. Left and right are the person's own; hand 0 is the left one.
"""

import dataclasses
import itertools

import cv2
import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Bool, Float, Int, NdArray, UInt8

NOSE, SHOULDERS, ELBOWS, WRISTS, HIPS = 0, (11, 12), (13, 14), (15, 16), (23, 24)
PINKIES, INDEXES, THUMBS = (17, 18), (19, 20), (21, 22)  # the coarse knuckles among the body points
# Corners of both eyes (the person's right eye, on the picture's left, first), tip of the nose, corners of the mouth.
_EYE_CORNERS, _NOSE_TIP, _MOUTH_CORNERS = ((33, 133), (362, 263)), 4, (61, 291)

SHORT_GAP = 0.4  # seconds; a hand is interpolated over shorter gaps, its fingers are unknown in longer ones
SLOW, FAST = 0.075, 0.022  # standard deviations of the smoothing in seconds, at rest and in motion
_DEFAULT_PALM = 0.27  # shoulder widths, for a hand that is never found
BRISK = 0.8  # shoulder widths a second; faster points get the smoothing in motion


@dataclasses.dataclass(frozen=True)
class Track:
  """Points and masks of a person over T frames, from the landmark model.

  Attributes:
    width, height: of the video in pixels.
    fps: frames per second.
    body: [T 33 3] points, NaN where no person was found.
    face: [T N 3] points, NaN where no face was found.
    hands: [T 2 21 3] points, NaN where a hand was not found.
    triangles: [K 3] the face mesh, as numbers of face points.
    masks: T PNG files (u8, 0 to 255) with the person's share of each pixel; see `mask`.
    has_face: [T] whether the face was found in a frame.
    columns: [T 2] the person's columns of the picture, first and last + 1, if other people are in it; None for all.
    cuts: numbers of the frames that start a new shot; nothing is filled or smoothed across them.
    has_body: [T] whether the person was found in a frame, in a filled track; None if unknown.
    has_hands: [T 2] whether a plausible hand was found, in a filled track; None if unknown.
  """

  width: int
  height: int
  fps: float
  body: Float[NdArray, "T 33 3"]
  face: Float[NdArray, "T N 3"]
  hands: Float[NdArray, "T 2 21 3"]
  triangles: Int[NdArray, "K 3"]
  masks: tuple[bytes, ...]
  has_face: Bool[NdArray, " T"]
  columns: Int[NdArray, "T 2"] | None = None
  cuts: tuple[int, ...] = ()
  has_body: Bool[NdArray, " T"] | None = None
  has_hands: Bool[NdArray, "T 2"] | None = None

  def __len__(self) -> int:
    return len(self.body)

  def mask(self, frame: int) -> UInt8[NdArray, "H W"]:
    """Returns the person's mask of a frame, 0 or 255."""
    share = cv2.imdecode(np.frombuffer(self.masks[frame], np.uint8), cv2.IMREAD_GRAYSCALE)
    assert share is not None
    return np.where(share > 127, 255, 0).astype(np.uint8)

  def only_person(self, frame: int, picture: UInt8[NdArray, "H W *C"]) -> UInt8[NdArray, "H W *C"]:
    """Returns a frame's picture with other people's columns painted gray."""
    return picture if self.columns is None else only_columns(picture, *self.columns[frame].tolist())

  def part(self, first: int, last: int) -> "Track":
    """Returns the track of frames `first` to `last` (exclusive)."""
    optional = [name for name in ("columns", "has_body", "has_hands") if getattr(self, name) is not None]
    names = ("body", "face", "hands", "masks", "has_face", *optional)
    cuts = tuple(cut - first for cut in self.cuts if first < cut < last)
    return dataclasses.replace(self, **{name: getattr(self, name)[first:last] for name in names}, cuts=cuts)

  @property
  def shots(self) -> list[tuple[int, int]]:
    """First and last (exclusive) frame of each shot, in order."""
    inside = sorted({cut for cut in self.cuts if 0 < cut < len(self)})
    return list(itertools.pairwise([0, *inside, len(self)]))

  @property
  def shoulder_width(self) -> float:
    """The distance between the shoulders in pixels: the 80th percentile, since a turned body looks narrower."""
    left, right = (self.body[:, side, :2] for side in SHOULDERS)
    return float(np.nanpercentile(np.linalg.norm(left - right, axis=-1), 80))


def only_columns(picture: UInt8[NdArray, "H W *C"], first: int, end: int, value: int = 128) -> NdArray:
  """Returns the picture with all columns but `first` to `end` (exclusive) set to `value`, gray by default."""
  painted = np.full_like(picture, value)
  painted[:, first:end] = picture[:, first:end]
  return painted


def five_landmarks(face: Float[NdArray, "T N 3"]) -> Float[NdArray, "T 5 2"]:
  """Returns the eyes (middles between their corners), nose and mouth corners; NaN without a face."""
  eyes = [face[:, corners, :2].mean(axis=1) for corners in _EYE_CORNERS]
  rest = [face[:, point, :2] for point in (_NOSE_TIP, *_MOUTH_CORNERS)]
  return np.stack([*eyes, *rest], axis=1).astype(np.float32)


def seen_landmarks(track: Track) -> Float[NdArray, "T 5 2"]:
  """Returns the five landmarks where the face was found, NaN in all other frames, even in a filled track."""
  points = five_landmarks(track.face)
  points[~track.has_face] = np.nan
  return points


def fill_and_smooth(track: Track) -> Track:
  """Returns the track with gaps filled and all points smoothed; only a face that is in no frame stays missing.

  Short gaps are interpolated over time. A hand that is missing for longer is replaced by a relaxed one, placed on the
  wrist and the coarse knuckles among the body points. The smoothing is symmetric in time, so nothing lags. Shots are
  independent of each other. In a shot that shows nobody, such as a title card, the person stands as at the end of the
  shot before, or at the start of the shot after.

  Raises:
    UserError: no person in any frame.
  """
  seen = np.isfinite(track.body[:, 0, 0])
  if not seen.any():
    raise UserError("no person is found in the video: use one that shows the upper body")
  palms = [_palm(track, side) for side in (0, 1)]
  shots = [(first, last) for first, last in track.shots if seen[first:last].any()]
  parts = [_fill_shot(track.part(first, last), palms) for first, last in shots]
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


def _fill_shot(track: Track, palms: list[float]) -> Track:
  """A shot that shows the person, filled and smoothed; `palms` in shoulder widths."""
  unit = track.shoulder_width
  body = smooth(interpolate(track.body), track.fps, unit)
  face = track.face
  if np.isfinite(face[:, 0, 0]).any():
    # across gaps the face keeps its shape and follows the body's nose
    nose = body[:, NOSE : NOSE + 1]
    face = smooth(interpolate(face - nose) + nose, track.fps, unit)
  hands, known = zip(*(_fill_hand(track, body, side, unit, palms[side] * unit) for side in (0, 1)))
  return dataclasses.replace(
    track, body=body, face=face, hands=np.stack(hands, axis=1), has_hands=np.stack(known, axis=1)
  )


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


# ---- hands -----------------------------------------------------------------------------------------------------------


def _fill_hand(
  track: Track, body: Float[NdArray, "T 33 3"], side: int, unit: float, default_palm: float
) -> tuple[Float[NdArray, "T 21 3"], Bool[NdArray, " T"]]:
  """One hand's points (found, interpolated or relaxed), and the frames in which it was found."""
  wrist = body[:, WRISTS[side]]
  hand = track.hands[:, side] + wrist[:, None] * np.array([0, 0, 1], np.float32)  # its depth starts at its wrist
  known = plausible_hand(hand, wrist, unit)
  # in the frame of the forearm, so that the hand moves with the arm over a gap
  turn = forearm_turn(body, side)
  palm = float(np.nanmedian(np.linalg.norm(hand[known, 9] - hand[known, 0], axis=-1))) if known.any() else default_palm
  local = rotate(hand - wrist[:, None], -turn)
  local[~known] = np.nan
  relaxed = rotate(relaxed_hand(body, side, palm) - wrist[:, None], -turn)
  fill = known | short_gaps(known, SHORT_GAP * track.fps)
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


def plausible_hand(hand: Float[NdArray, "T 21 3"], wrist: Float[NdArray, "T 3"], unit: float) -> Bool[NdArray, " T"]:
  """Returns which frames have a hand that lies on its wrist and has the size of a hand."""
  distance = np.linalg.norm(hand[:, 0, :2] - wrist[:, :2], axis=-1)
  palm = np.linalg.norm(hand[:, 9] - hand[:, 0], axis=-1)
  with np.errstate(invalid="ignore"):
    return np.isfinite(palm) & (distance < 0.35 * unit) & (palm > 0.10 * unit) & (palm < 0.6 * unit)


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
