"""Measures a film before landmark detection: cuts, light, sharpness and camera motion for each frame."""

import collections
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from anchor_jax.core.shapes import Bool, Float, Int, NdArray, UInt8

WINDOW = 0.2  # seconds; shorter events are neither cuts nor stretches
_TINY, _WIDTH, _THUMBNAIL = (16, 9), 320, 112  # pixels: for cuts; for light, sharpness and camera; for the report
_CUT = 12.0  # gray levels; minimum mean change at a cut
_MEDIAN_RATIO, _ADJACENT_RATIO = 3.0, 2.0  # minimum ratio of a cut's change to nearby and to adjacent changes
_CONTRAST, _FLAT = 40.0, 4.0  # gray levels: pictures are scaled to this contrast; added noise floor
_NEARBY = 0.5  # seconds around a change that count as nearby
_RECENT = 15  # pictures of a stream that count as nearby
_DARK = 40  # of 255: dark if the brightest 5 percent of pixels are below this
_BLURRED = 0.3  # of the median detail in its shot
_BLOCKS = (3, 4)  # rows and columns of blocks for camera motion
_MIN_CONTRAST, _MIN_PEAK = 4.0, 0.3  # of a block: gray levels; peak of the phase correlation


class Survey(NamedTuple):
  """Measurements of a film's T frames.

  Attributes:
    tiny: [T h w 3] downscaled pictures.
    light: [T] 95th percentile of luma, 0 to 255.
    detail: [T] variance of the Laplacian divided by that of the luma; falls with defocus and motion blur.
    places: {frame: (reference, x, y)} background shift since a reference frame, as a share of the picture's width;
      every 0.2 s. A new reference starts where the two frames have nothing in common.
    thumbnails: {frame: JPEG file} every 0.2 s.
    cuts: [K] indices of frames that start a new shot, without 0.
  """

  tiny: UInt8[NdArray, "T h w 3"]
  light: Float[NdArray, " T"]
  detail: Float[NdArray, " T"]
  places: dict[int, tuple[int, float, float]]
  thumbnails: dict[int, bytes]
  cuts: Int[NdArray, " K"]

  def __len__(self) -> int:
    return len(self.tiny)

  @property
  def shots(self) -> Int[NdArray, " T"]:
    """The index of each frame's shot."""
    return np.searchsorted(self.cuts, np.arange(len(self)), side="right")

  @property
  def dark(self) -> Bool[NdArray, " T"]:
    """Whether each frame is dark."""
    return self.light < _DARK

  @property
  def blurred(self) -> Bool[NdArray, " T"]:
    """Whether each frame has less than 30 percent of the median detail in its shot."""
    blurred, shots = np.zeros(len(self), bool), self.shots
    for shot in range(len(self.cuts) + 1):
      lit = (shots == shot) & ~self.dark
      if lit.any():
        blurred |= lit & (self.detail < _BLURRED * np.median(self.detail[lit]))
    return blurred

  def camera(self, first: int, last: int) -> float:
    """Camera motion between frames `first` and `last` (exclusive), as a share of the picture's width."""
    groups: dict[int, list[tuple[float, float]]] = {}
    for frame, (reference, *place) in self.places.items():
      if first <= frame < last:
        groups.setdefault(reference, []).append((place[0], place[1]))
    return max((float(np.linalg.norm(np.ptp(places, axis=0))) for places in groups.values()), default=0.0)


def survey(frames: Iterable[UInt8[NdArray, "H W 3"]], fps: float | int) -> Survey:
  """Returns measurements of all frames in one pass; memory is half a kilobyte per frame and a thumbnail per 0.2 s."""
  tiny, light, detail, places, thumbnails = [], [], [], {}, {}
  every, camera = max(1, round(WINDOW * fps)), _Camera()
  for number, frame in enumerate(frames):
    tiny.append(cv2.resize(frame, _TINY, interpolation=cv2.INTER_AREA))
    gray = cv2.cvtColor(_narrow(frame, _WIDTH), cv2.COLOR_RGB2GRAY)
    light.append(np.percentile(gray[::2, ::2], 95))
    detail.append(cv2.Laplacian(gray, cv2.CV_32F).var() / (gray.var() + 1.0))
    if number % every == 0:
      places[number] = camera.place(number, gray)
      thumbnails[number] = cv2.imencode(".jpg", _narrow(frame, _THUMBNAIL)[..., ::-1])[1].tobytes()
  pictures, luma = np.stack(tiny), np.array(light, np.float32)
  lit = np.flatnonzero(luma >= _DARK)  # so the frame after a dark stretch is compared with the one before it
  cuts = lit[find_cuts(pictures[lit], fps)] if len(lit) else lit
  return Survey(pictures, luma, np.array(detail, np.float32), places, thumbnails, cuts)


def film_cuts(frames: Iterable[UInt8[NdArray, "H W 3"]], fps: float | int) -> tuple[int, ...]:
  """Returns the sorted indices of frames that start a new shot, in one pass cheaper than `survey`.

  A dark stretch of 0.2 s or more is a shot by itself, even if the same scene continues after it.
  """
  return cuts_between([glance(frame) for frame in frames], fps)


class Glance(NamedTuple):
  """What of a frame decides where shots begin: the tiny picture, and how bright its brightest parts are."""

  tiny: UInt8[NdArray, "h w 3"]
  light: float


def glance(frame: UInt8[NdArray, "H W 3"]) -> Glance:
  """Returns what `cuts_between` needs of a frame."""
  gray = cv2.cvtColor(_narrow(frame, _WIDTH), cv2.COLOR_RGB2GRAY)
  return Glance(cv2.resize(frame, _TINY, interpolation=cv2.INTER_AREA), float(np.percentile(gray[::2, ::2], 95)))


def cuts_between(glances: Sequence[Glance], fps: float | int) -> tuple[int, ...]:
  """Returns the sorted indices of frames that start a new shot; see `film_cuts`. Half a second around decides."""
  dark = np.array([each.light for each in glances]) < _DARK
  lit = np.flatnonzero(~dark)
  tiny = np.stack([each.tiny for each in glances])
  cuts = {int(lit[number]) for number in find_cuts(tiny[lit], fps)} if len(lit) else set()
  edges = [0, *(np.flatnonzero(dark[1:] != dark[:-1]) + 1).tolist(), len(dark)]
  for first, last in itertools.pairwise(edges):
    if last - first >= WINDOW * fps and dark[first]:
      cuts |= {first, last}
  return tuple(sorted(cut for cut in cuts if 0 < cut < len(dark)))


def _narrow(frame: UInt8[NdArray, "H W 3"], width: int) -> UInt8[NdArray, "h w 3"]:
  """The frame, scaled down to at most this width."""
  height = max(1, round(frame.shape[0] * width / frame.shape[1]))
  return frame if frame.shape[1] <= width else cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)


def find_cuts(tiny: UInt8[NdArray, "T h w 3"], fps: float | int) -> Int[NdArray, " K"]:
  """Returns the indices of frames that start a new shot.

  At a cut the picture changes by more than 12 gray levels on average, by 3 times the median change within half a
  second, and by twice the adjacent changes (which excludes people running through the picture). No frame in the 0.2 s
  before may resemble one in the 0.2 s after (which excludes flashes). Brightness and contrast are normalized first, so
  switching on a light is no cut. Dissolves are not detected.

  Args:
    tiny: [T h w 3] downscaled pictures.
    fps: frames per second.
  """
  pictures = tiny.reshape(len(tiny), -1).astype(np.float32)
  spread = pictures.std(axis=1, keepdims=True) + _FLAT
  pictures = (pictures - pictures.mean(axis=1, keepdims=True)) * (_CONTRAST / spread)
  distance = lambda a, b: float(np.abs(pictures[a] - pictures[b]).mean())
  changes = np.array([0.0, *(distance(n - 1, n) for n in range(1, len(tiny)))])
  window, nearby, cuts = max(1, round(WINDOW * fps)), max(2, round(_NEARBY * fps)), []
  for number in np.flatnonzero(changes > _CUT):
    neighbors = np.concatenate([changes[max(1, number - nearby) : number], changes[number + 1 : number + 1 + nearby]])
    adjacent = np.append(changes[number - 1], changes[number + 1 : number + 2]).max()
    if len(neighbors) < 2 or changes[number] < max(_MEDIAN_RATIO * np.median(neighbors), _ADJACENT_RATIO * adjacent):
      continue
    before, after = range(max(0, number - window), number), range(number, min(len(tiny), number + window))
    if min(distance(a, b) for a in before for b in after) > changes[number] / 2:
      cuts.append(number)
  return np.array(cuts, np.int64)


class CutWatch:
  """Causal cut detection for live pictures: the rules of `find_cuts` that need no later picture."""

  def __init__(self):
    self._last: Float[NdArray, " P"] | None = None
    self._changes: collections.deque[float] = collections.deque(maxlen=_RECENT)

  def begins_shot(self, picture: UInt8[NdArray, "H W 3"]) -> bool:
    """Returns whether the next picture starts a new shot; the first one does not."""
    tiny = cv2.resize(picture, _TINY, interpolation=cv2.INTER_AREA).reshape(-1).astype(np.float32)
    tiny = (tiny - tiny.mean()) * (_CONTRAST / (tiny.std() + _FLAT))
    change = 0.0 if self._last is None else float(np.abs(tiny - self._last).mean())
    median = float(np.median(self._changes)) if self._changes else change
    self._last = tiny
    self._changes.append(change)
    return change > max(_CUT, _MEDIAN_RATIO * median)


class _Camera:
  """Tracks the background from sample to sample."""

  def __init__(self):
    self._reference, self._last = None, None  # (frame index, gray picture, its place)

  def place(self, number: int, gray: UInt8[NdArray, "h w"]) -> tuple[int, float, float]:
    """Returns the reference's frame index and the background's shift from it, in picture widths."""
    for earlier in (self._reference, self._last):
      shift = None if earlier is None else background_shift(earlier[1], gray)
      if earlier is not None and shift is not None:
        self._last = (earlier[0], gray, earlier[2] + shift / gray.shape[1])
        x, y = self._last[2].tolist()
        return earlier[0], x, y
    self._reference = self._last = (number, gray, np.zeros(2))
    return number, 0.0, 0.0


def background_shift(before: UInt8[NdArray, "h w"], after: UInt8[NdArray, "h w"]) -> Float[NdArray, "2"] | None:
  """Returns the background's shift (x, y) in pixels, or None if fewer than 3 blocks match.

  The median over 12 blocks ignores the person, who fills fewer than half of them.
  """
  shifts, (rows, columns) = [], _BLOCKS
  height, width = before.shape[0] // rows, before.shape[1] // columns
  if min(height, width) < 8:
    return np.zeros(2)
  window = cv2.createHanningWindow((width, height), cv2.CV_32F)
  for row in range(rows):
    for column in range(columns):
      part = np.s_[row * height : (row + 1) * height, column * width : (column + 1) * width]
      if before[part].std() >= _MIN_CONTRAST:
        shift, peak = cv2.phaseCorrelate(before[part].astype(np.float32), after[part].astype(np.float32), window)
        if peak >= _MIN_PEAK:
          shifts.append(shift)
  return np.median(shifts, axis=0) if len(shifts) >= 3 else None
