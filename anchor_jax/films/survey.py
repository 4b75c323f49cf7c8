"""A first look at a film, before any landmark: cuts, light, sharpness and movement of the camera, frame by frame."""

import collections
import itertools
from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np

from anchor_jax.core.shapes import Bool, Float, Int, NdArray, UInt8

WINDOW = 0.2  # seconds; what lasts less long is neither a cut nor a stretch of its own
_TINY, _WIDTH, _THUMBNAIL = (16, 9), 320, 112  # pixels: cuts; light, sharpness and camera; pictures of the report
_CUT = 12.0  # grey levels of mean change
_STANDS_OUT, _ALONE = 3.0, 2.0  # times the usual change around a cut, and the changes before and after it
_CONTRAST, _FLAT = 40.0, 4.0  # grey levels: to which pictures are brought, and what counts as none
_USUAL = 0.5  # seconds around a change in which others are looked at
_RECENT = 15  # pictures of a stream, whose changes are usual ones
_DARK = 40  # of 255: the brightest 5 percent of a frame's pixels are below it
_BLURRED = 0.3  # of the usual detail in its shot
_BLOCKS, _LEAST, _TRUSTED = (3, 4), 4.0, 0.3  # of the picture; grey levels of contrast; of the correlation's peak


class Survey(NamedTuple):
  """What a first look tells of each of T frames.

  Attributes:
    tiny: [T h w 3] the picture, very small.
    light: [T] luma below which 95 percent of the pixels are, 0 to 255.
    detail: [T] variance of the Laplacian over that of the luma: falls when the picture is out of focus or smeared.
    places: {frame: (reference, x, y)} how far the background has moved since a reference frame, as a share of the
      picture's width; every 0.2 s. The reference changes where the two have nothing in common.
    thumbnails: {frame: JPEG file} every 0.2 s.
    cuts: [K] numbers of the frames that begin a new shot; 0 is not among them.
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
    """The number of each frame's shot, from 0."""
    return np.searchsorted(self.cuts, np.arange(len(self)), side="right")

  @property
  def dark(self) -> Bool[NdArray, " T"]:
    """Which frames are dark."""
    return self.light < _DARK

  @property
  def blurred(self) -> Bool[NdArray, " T"]:
    """Which frames have less than 30 percent of the detail that is usual in their shot."""
    found, shots = np.zeros(len(self), bool), self.shots
    for shot in range(len(self.cuts) + 1):
      here = (shots == shot) & ~self.dark
      if here.any():
        found |= here & (self.detail < _BLURRED * np.median(self.detail[here]))
    return found

  def camera(self, first: int, last: int) -> float:
    """How far the camera moved between frames `first` and `last` (exclusive), as a share of the picture's width."""
    groups: dict[int, list[tuple[float, float]]] = {}
    for frame, (reference, *place) in self.places.items():
      if first <= frame < last:
        groups.setdefault(reference, []).append((place[0], place[1]))
    return max((float(np.linalg.norm(np.ptp(places, axis=0))) for places in groups.values()), default=0.0)


def survey(frames: Iterable[UInt8[NdArray, "H W 3"]], fps: float | int) -> Survey:
  """Looks at all frames of a film once; keeps half a kilobyte a frame and a small picture every 0.2 s."""
  tiny, light, detail, places, thumbnails = [], [], [], {}, {}
  every, camera = max(1, round(WINDOW * fps)), _Camera()
  for number, frame in enumerate(frames):
    tiny.append(cv2.resize(frame, _TINY, interpolation=cv2.INTER_AREA))
    grey = cv2.cvtColor(_narrow(frame, _WIDTH), cv2.COLOR_RGB2GRAY)
    light.append(np.percentile(grey[::2, ::2], 95))
    detail.append(cv2.Laplacian(grey, cv2.CV_32F).var() / (grey.var() + 1.0))
    if number % every == 0:
      places[number] = camera.place(number, grey)
      thumbnails[number] = cv2.imencode(".jpg", _narrow(frame, _THUMBNAIL)[..., ::-1])[1].tobytes()
  pictures, luma = np.stack(tiny), np.array(light, np.float32)
  lit = np.flatnonzero(luma >= _DARK)  # what is seen after a dark stretch is compared with what was seen before
  cuts = lit[find_cuts(pictures[lit], fps)] if len(lit) else lit
  return Survey(pictures, luma, np.array(detail, np.float32), places, thumbnails, cuts)


def film_cuts(frames: Iterable[UInt8[NdArray, "H W 3"]], fps: float | int) -> tuple[int, ...]:
  """Returns the numbers of the frames that begin a new shot, in order; a film is looked at once, less than by `survey`.

  Where 0.2 s or more are dark, the dark stretch is a shot of its own, also where the same scene goes on after it.
  """
  tiny, light = [], []
  for frame in frames:
    tiny.append(cv2.resize(frame, _TINY, interpolation=cv2.INTER_AREA))
    light.append(np.percentile(cv2.cvtColor(_narrow(frame, _WIDTH), cv2.COLOR_RGB2GRAY)[::2, ::2], 95))
  dark = np.array(light) < _DARK
  lit = np.flatnonzero(~dark)
  cuts = {int(lit[number]) for number in find_cuts(np.stack(tiny)[lit], fps)} if len(lit) else set()
  edges = [0, *(np.flatnonzero(dark[1:] != dark[:-1]) + 1).tolist(), len(dark)]
  for first, last in itertools.pairwise(edges):
    if last - first >= WINDOW * fps and dark[first]:
      cuts |= {first, last}
  return tuple(sorted(cut for cut in cuts if 0 < cut < len(dark)))


def _narrow(frame: UInt8[NdArray, "H W 3"], width: int) -> UInt8[NdArray, "h w 3"]:
  """The frame at most this wide."""
  height = max(1, round(frame.shape[0] * width / frame.shape[1]))
  return frame if frame.shape[1] <= width else cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)


def find_cuts(tiny: UInt8[NdArray, "T h w 3"], fps: float | int) -> Int[NdArray, " K"]:
  """Returns the numbers of the frames that begin a new shot.

  The picture changes there by more than 12 grey levels on average, 3 times as much as usual within half a second and
  twice as much as in the frames beside it (somebody who runs through the picture is no cut); and no frame of the 0.2 s
  before resembles one of the 0.2 s after (a flash is no cut). Brightness and contrast are made equal before: a light
  that goes on is no cut. Dissolves are not found.

  Args:
    tiny: [T h w 3] very small pictures.
    fps: frames per second.
  """
  pictures = tiny.reshape(len(tiny), -1).astype(np.float32)
  spread = pictures.std(axis=1, keepdims=True) + _FLAT
  pictures = (pictures - pictures.mean(axis=1, keepdims=True)) * (_CONTRAST / spread)
  far = lambda a, b: float(np.abs(pictures[a] - pictures[b]).mean())
  changes = np.array([0.0, *(far(n - 1, n) for n in range(1, len(tiny)))])
  near, around, cuts = max(1, round(WINDOW * fps)), max(2, round(_USUAL * fps)), []
  for number in np.flatnonzero(changes > _CUT):
    others = np.concatenate([changes[max(1, number - around) : number], changes[number + 1 : number + 1 + around]])
    beside = np.append(changes[number - 1], changes[number + 1 : number + 2]).max()
    if len(others) < 2 or changes[number] < max(_STANDS_OUT * np.median(others), _ALONE * beside):
      continue
    before, after = range(max(0, number - near), number), range(number, min(len(tiny), number + near))
    if min(far(a, b) for a in before for b in after) > changes[number] / 2:
      cuts.append(number)
  return np.array(cuts, np.int64)


class CutWatch:
  """Finds cuts in a stream of pictures from past ones only: the rules of `find_cuts` that need no later picture."""

  def __init__(self):
    self._last: Float[NdArray, " P"] | None = None
    self._changes: collections.deque[float] = collections.deque(maxlen=_RECENT)

  def begins_shot(self, picture: UInt8[NdArray, "H W 3"]) -> bool:
    """Whether the next picture begins a new shot; the first one does not."""
    tiny = cv2.resize(picture, _TINY, interpolation=cv2.INTER_AREA).reshape(-1).astype(np.float32)
    tiny = (tiny - tiny.mean()) * (_CONTRAST / (tiny.std() + _FLAT))
    change = 0.0 if self._last is None else float(np.abs(tiny - self._last).mean())
    usual = float(np.median(self._changes)) if self._changes else change
    self._last = tiny
    self._changes.append(change)
    return change > max(_CUT, _STANDS_OUT * usual)


class _Camera:
  """Follows the background from sample to sample."""

  def __init__(self):
    self._reference, self._last = None, None  # (frame number, grey picture, its place)

  def place(self, number: int, grey: UInt8[NdArray, "h w"]) -> tuple[int, float, float]:
    """Returns the reference's frame number and how far the background has moved from it, in widths of the picture."""
    for known in (self._reference, self._last):
      moved = None if known is None else background_shift(known[1], grey)
      if known is not None and moved is not None:
        self._last = (known[0], grey, known[2] + moved / grey.shape[1])
        x, y = self._last[2].tolist()
        return known[0], x, y
    self._reference = self._last = (number, grey, np.zeros(2))
    return number, 0.0, 0.0


def background_shift(before: UInt8[NdArray, "h w"], after: UInt8[NdArray, "h w"]) -> Float[NdArray, "2"] | None:
  """Returns by how many pixels (x, y) the background moved; None where fewer than 3 blocks have anything in common.

  It is the median over 12 blocks of the picture, of which a person fills fewer than half.
  """
  moved, (rows, columns) = [], _BLOCKS
  height, width = before.shape[0] // rows, before.shape[1] // columns
  if min(height, width) < 8:
    return np.zeros(2)
  window = cv2.createHanningWindow((width, height), cv2.CV_32F)
  for row in range(rows):
    for column in range(columns):
      part = np.s_[row * height : (row + 1) * height, column * width : (column + 1) * width]
      if before[part].std() >= _LEAST:
        shift, peak = cv2.phaseCorrelate(before[part].astype(np.float32), after[part].astype(np.float32), window)
        if peak >= _TRUSTED:
          moved.append(shift)
  return np.median(moved, axis=0) if len(moved) >= 3 else None
