"""Tracks: body, face and hand points of a person over a video.

Points are in pixels of the video: x right, y down, z toward the viewer (same unit, rough; origin between the hips for
the body, at the wrist for a hand, in the head for the face). Numbering is MediaPipe's: 33 body points, 468 or 478 face
points, 21 points a hand. Left and right are the person's own; hand 0 is the left one.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import cv2
import numpy as np

from anchor_jax.core.shapes import Bool, Float, Int, NdArray, UInt8

NOSE, EARS, SHOULDERS, ELBOWS, WRISTS, HIPS = 0, (7, 8), (11, 12), (13, 14), (15, 16), (23, 24)
PINKIES, INDEXES, THUMBS = (17, 18), (19, 20), (21, 22)  # the coarse knuckles among the body points
POINTS = ("body", "face", "hands", "has_face")  # arrays of a track by frame
OPTIONAL = ("columns", "has_body", "has_hands", "visible", "shown")  # those that may be None
# Corners of both eyes (the person's right eye, on the picture's left, first), tip of the nose, corners of the mouth.
_EYE_CORNERS, _NOSE_TIP, _MOUTH_CORNERS = ((33, 133), (362, 263)), 4, (61, 291)


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
    visible: [T 33] how sure it is that a picture shows a body point, 0 to 1; None if the points' source does not say.
    shown: [T 33] how far a body point comes from the film, 0 to 1, in a filled track; the rest is the person's rest
      pose (landmarks/placing.py). Given before, it stays: 1 for points that are known outside the picture, too.
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
  visible: Float[NdArray, "T 33"] | None = None
  shown: Float[NdArray, "T 33"] | None = None

  def __len__(self) -> int:
    return len(self.body)

  def mask(self, frame: int) -> UInt8[NdArray, "H W"]:
    """Returns the person's mask of a frame, 0 or 255."""
    return np.where(self.share(frame) > 127, 255, 0).astype(np.uint8)

  def share(self, frame: int) -> UInt8[NdArray, "H W"]:
    """Returns the person's rough share of each pixel of a frame, 0 to 255."""
    share = cv2.imdecode(np.frombuffer(self.masks[frame], np.uint8), cv2.IMREAD_GRAYSCALE)
    assert share is not None
    return np.asarray(share, np.uint8)

  def only_person(self, frame: int, picture: UInt8[NdArray, "H W *C"]) -> UInt8[NdArray, "H W *C"]:
    """Returns a frame's picture with other people's columns painted gray."""
    return picture if self.columns is None else only_columns(picture, *self.columns[frame].tolist())

  def slice(self, first: int, last: int) -> "Track":
    """Returns the track of frames `first` to `last` (exclusive)."""
    names = (*POINTS, "masks", *(name for name in OPTIONAL if getattr(self, name) is not None))
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


def joined(tracks: Sequence[Track], cuts: tuple[int, ...]) -> Track:
  """Returns tracks of one person one after the other, as one track with these cuts."""
  first = tracks[0]
  optional = [name for name in OPTIONAL if getattr(first, name) is not None]
  arrays = {name: np.concatenate([getattr(track, name) for track in tracks]) for name in (*POINTS, *optional)}
  masks = tuple(itertools.chain.from_iterable(track.masks for track in tracks))
  return dataclasses.replace(first, **arrays, masks=masks, cuts=cuts)


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
