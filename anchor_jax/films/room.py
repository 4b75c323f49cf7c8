"""Follows the room through a film: from pictures and person masks to its camera path (texture/background/).

Corners of the room, away from the person, are followed from the oldest key picture that shows enough of the room (KLT
with a check backward, then a similarity by RANSAC), so errors do not add up over time: a film from the hand that keeps
looking at one room has few key pictures. Where too few corners agree, or the room would jump, the picture before takes
the place of the key picture: two neighbors are alike even where compression or blur has changed the corners. A picture
that neither explains is lost; lost pictures are interpolated.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import NamedTuple

import cv2
import numpy as np

from anchor_jax.core.shapes import Float, NdArray, UInt8
from anchor_jax.films.poses import OpenedFilm
from anchor_jax.landmarks.tracks import Track, only_columns
from anchor_jax.texture.background.camera_path import (
  STILL,
  camera_of,
  cameras_of,
  inverse,
  joined,
  matrix_of,
  median_camera,
  movement,
  parts_of,
)
from anchor_jax.video.read import read_frames

_SIDES = (240, 480)  # pixels: shortest and longest longer side of the pictures that are compared
_AROUND = 21  # pixels: side of the surroundings against which light is evened out
_EVERY = 0.2  # seconds between the pictures that decide whether the camera moves
# Of the height: a camera that moves the corners of the picture less is still; real ones stay below 0.002.
STILL_SHARE = 0.004
_CORNERS, _DISTANCE = 300, 6  # corners of a key picture, and pixels between them
_PERSON = 1 / 30  # of the height: corners this near to the person do not count
_LEAST, _LEAST_SHARE = 12, 0.35  # corners that must agree, and their share of the ones that were followed
_CELLS, _LEAST_CELLS = 4, 4  # the picture in cells of 1/4 x 1/4, and how many of them must have agreeing corners
_REACH = 0.12  # of the height: a picture moved further than this from all key pictures becomes one
_KEYS = 40  # key pictures
_JUMP = 0.15  # of the height: a room that moves further from one picture to the next is lost
# A camera this far from a line through the five around it, in heights and in medians of that distance, is an error.
_OUTLIER, _OUTLIER_RATIO = 0.01, 5.0
_LOST = 0.25  # share of lost pictures in a shot from which its camera counts as unknown, and so as still


class _Search(NamedTuple):
  """How corners are looked for.

  Attributes:
    window: side in pixels of what is compared around each; small ones miss less beside the moving person.
    levels: of halved pictures, for corners that are farther away than a window.
    fits: pixels by which a corner that is followed back, or that agrees with the similarity, may miss.
  """

  window: int
  levels: int
  fits: float


_ROUGH, _FINE = _Search(15, 3, 1.0), _Search(9, 0, 0.5)


@dataclasses.dataclass(frozen=True)
class KeyPicture:
  """A key picture.

  Attributes:
    picture: from `comparable`.
    corners: that are followed in other pictures, in pixels.
    camera: by which it shows the room.
  """

  picture: UInt8[NdArray, "h w"]
  corners: Float[NdArray, "N 1 2"]
  camera: Float[NdArray, "4"]


class _Follower:
  """Follows the room through the pictures of one shot, the first of which shows it as `STILL` does."""

  def __init__(self, mask_of: Callable[[int], UInt8[NdArray, "H W"]]):
    """Takes the function that returns a frame's person mask, 0 or 255, at any size."""
    self._mask_of = mask_of
    self._keys: list[KeyPicture] = []
    self._last = np.array(STILL)
    self._before: tuple[int, UInt8[NdArray, "h w"]] | None = None  # the newest picture that was not lost

  def camera(self, number: int, gray: UInt8[NdArray, "h w"]) -> Float[NdArray, "4"] | None:
    """The camera of the next picture, which is frame `number` of the film; None where the room is lost."""
    if not self._keys:
      camera = np.array(STILL)
      self._keys.append(self._key(number, gray, camera))
    else:
      camera = self._by_keys(gray)
      if camera is None and self._before is not None:
        camera = self._from(self._key(*self._before, self._last), gray)
      if camera is None:
        return None
      if len(self._keys) < _KEYS and min(_apart(camera, key.camera, gray) for key in self._keys) > _REACH:
        self._keys.append(self._key(number, gray, camera))
    self._last, self._before = camera, (number, gray)
    return camera

  def _by_keys(self, gray: UInt8[NdArray, "h w"]) -> Float[NdArray, "4"] | None:
    """The camera from the first of up to three key pictures that agrees."""
    distance = lambda key: _apart(self._last, key.camera, gray)
    near = [key for key in self._keys if distance(key) < _REACH]
    rest = sorted((key for key in self._keys if distance(key) >= _REACH), key=distance)
    keys = [*near[:1], *sorted(near[1:], key=distance)[:1], *rest[:1], *self._keys[-1:]][:3]
    cameras = (self._from(key, gray) for key in keys)
    return next((camera for camera in cameras if camera is not None), None)

  def _from(self, key: KeyPicture, gray: UInt8[NdArray, "h w"]) -> Float[NdArray, "4"] | None:
    """The camera that a key picture gives; None if it gives none or the room would jump."""
    step = matched(key, gray, joined(self._last, inverse(key.camera)))
    camera = None if step is None else joined(step, key.camera)
    return None if camera is None or _apart(camera, self._last, gray) > _JUMP else camera

  def _key(self, number: int, gray: UInt8[NdArray, "h w"], camera: Float[NdArray, "4"]) -> KeyPicture:
    height, width = gray.shape
    person = cv2.resize(self._mask_of(number), (width, height), interpolation=cv2.INTER_AREA)
    reach = 2 * max(1, round(height * _PERSON)) + 1
    room = cv2.dilate(np.where(person > 64, 255, 0).astype(np.uint8), np.ones((reach, reach), np.uint8)) == 0
    return KeyPicture(gray, corners_of(gray, room.astype(np.uint8)), camera)


def _apart(camera: Float[NdArray, "4"], other: Float[NdArray, "4"], gray: UInt8[NdArray, "h w"]) -> float:
  """How far the two cameras show a corner of the picture from each other at most, in picture heights."""
  return float(movement(joined(camera, inverse(other))[None], gray.shape)[0])


def corners_of(gray: UInt8[NdArray, "h w"], room: UInt8[NdArray, "h w"]) -> Float[NdArray, "N 1 2"]:
  """The corners of a picture that can be followed, where `room` is not 0."""
  corners = cv2.goodFeaturesToTrack(gray, _CORNERS, 0.01, _DISTANCE, mask=room)
  return np.zeros((0, 1, 2), np.float32) if corners is None else corners


def matched(key: KeyPicture, gray: UInt8[NdArray, "h w"], guess: Float[NdArray, "4"]) -> Float[NdArray, "4"] | None:
  """The camera from a key picture to another picture; None if too few corners agree."""
  rough = _agreed(key, gray, guess, _ROUGH)
  if rough is None:
    return None
  fine = _agreed(key, gray, rough, _FINE)
  return rough if fine is None else fine


def _agreed(
  key: KeyPicture, gray: UInt8[NdArray, "h w"], guess: Float[NdArray, "4"], how: _Search
) -> Float[NdArray, "4"] | None:
  if len(key.corners) < _LEAST:
    return None
  start = cv2.transform(key.corners, matrix_of(guess, gray.shape)).astype(np.float32)
  settings = {"winSize": (how.window,) * 2, "maxLevel": how.levels, "flags": cv2.OPTFLOW_USE_INITIAL_FLOW}
  there, found, _ = cv2.calcOpticalFlowPyrLK(key.picture, gray, key.corners, start, **settings)
  back, found_back, _ = cv2.calcOpticalFlowPyrLK(gray, key.picture, there, key.corners.copy(), **settings)
  missed = np.linalg.norm(back - key.corners, axis=-1)[:, 0]
  good = (found[:, 0] > 0) & (found_back[:, 0] > 0) & (missed < how.fits)
  if good.sum() < _LEAST:
    return None
  corners, there = key.corners[good], there[good]
  matrix, agrees = cv2.estimateAffinePartial2D(
    corners, there, ransacReprojThreshold=how.fits, confidence=0.999, refineIters=20
  )
  if matrix is None:
    return None
  agreeing = corners[agrees[:, 0] > 0][:, 0]
  cells = np.unique((agreeing / np.array(gray.shape[::-1]) * _CELLS).astype(int), axis=0)
  if len(agreeing) < max(_LEAST, _LEAST_SHARE * len(corners)) or len(cells) < _LEAST_CELLS:
    return None
  return camera_of(matrix, gray.shape)


def film_cameras(film: OpenedFilm, track: Track | None, cuts: Iterable[int] = ()) -> Float[NdArray, "T 4"] | None:
  """The camera path of a film's full picture; None if its camera is still or unknown. See `follow_room`.

  Args:
    film: from `open_film`.
    track: of the person, whose masks and cuts are used; None for a film with a sidecar.
    cuts: of a film with a sidecar, the numbers of the frames that start a new shot.
  """
  info = film.info
  count, cuts = (info.frames, cuts) if track is None else (len(track), track.cuts)
  mask_of = lambda number: people_mask(film, track, number)
  return follow_room(lambda: read_frames(film.path, info=info), mask_of, count, info.fps, cuts)


def people_mask(film: OpenedFilm, track: Track | None, number: int) -> UInt8[NdArray, "H W"]:
  """The mask of a frame that is 255 where it shows people, columns of other people included; see `film_cameras`."""
  if track is None:
    assert film.posed is not None, "only a sidecar replaces the track"
    return film.posed.person_mask(number)
  mask = track.mask(number)
  return mask if track.columns is None else only_columns(mask, *track.columns[number].tolist(), value=255)


def follow_room(
  frames: Callable[[], Iterable[UInt8[NdArray, "H W 3"]]],
  mask_of: Callable[[int], UInt8[NdArray, "H W"]],
  count: int,
  fps: float,
  cuts: Iterable[int] = (),
) -> Float[NdArray, "T 4"] | None:
  """The camera path of a film; None where its camera is still, or where the room can't be followed.

  Each shot has its own steady camera, the median of its path. A shot whose camera is still, or whose room can't be
  followed, has `STILL` throughout. Every frame is looked at only if five a second show that the camera moves.

  Args:
    frames: returns an iterator over the film's frames; called once or twice.
    mask_of: returns a frame's person mask, 0 or 255, at any size.
    count: number of frames.
    fps: frames per second.
    cuts: numbers of the frames that start a new shot.
  """
  edges = [0, *sorted({cut for cut in cuts if 0 < cut < count}), count]
  if not _path(frames(), mask_of, edges, max(1, round(_EVERY * fps))).any():
    return None
  path = _path(frames(), mask_of, edges, 1)
  return path + np.array(STILL) if path.any() else None


def _path(
  frames: Iterable[UInt8[NdArray, "H W 3"]],
  mask_of: Callable[[int], UInt8[NdArray, "H W"]],
  edges: list[int],
  every: int,
) -> Float[NdArray, "T 4"]:
  """The path minus `STILL`, from every `every`-th frame of each shot; frames between have 0."""
  path, shot, shape = np.zeros((edges[-1], 4)), -1, (1, 1)
  follower, seen = _Follower(mask_of), []
  for number, frame in zip(range(edges[-1]), frames):
    if number == edges[shot + 1]:
      _finish(path, seen, shape)
      follower, seen, shot = _Follower(mask_of), [], shot + 1
    if (number - edges[shot]) % every == 0:
      gray = comparable(frame)
      shape = gray.shape
      seen.append((number, follower.camera(number, gray)))
  _finish(path, seen, shape)
  return path


def _finish(path: Float[NdArray, "T 4"], seen: list[tuple[int, NdArray | None]], shape: tuple[int, ...]) -> None:
  """Writes the path of one shot, unless its camera is still or unknown."""
  known = [(number, camera) for number, camera in seen if camera is not None]
  if len(known) < max(3, (1 - _LOST) * len(seen)):
    return
  factor, shift = parts_of(np.stack([camera for _, camera in known]))
  values = np.stack([np.log(np.abs(factor)), np.unwrap(np.angle(factor)), shift.real, shift.imag])
  steady = _line_of_five(values)
  missed = movement(joined(_cameras(values), inverse(_cameras(steady))), shape)
  agree = missed <= max(_OUTLIER, _OUTLIER_RATIO * float(np.median(missed)))
  inside = np.arange(len(agree)).clip(*np.flatnonzero(agree)[[0, -1]]) == np.arange(len(agree))
  values = np.where(inside, values, steady)  # nothing to interpolate from beyond the ends
  kept = agree | ~inside
  numbers = np.array([number for number, _ in known])
  all_numbers = np.array([number for number, _ in seen])
  cameras = _cameras(np.stack([np.interp(all_numbers, numbers[kept], row[kept]) for row in values]))
  cameras = joined(cameras, inverse(median_camera(cameras)))
  if np.percentile(movement(cameras, shape), 95) > STILL_SHARE:
    path[all_numbers] = cameras - np.array(STILL)


def _cameras(values: Float[NdArray, "4 N"]) -> Float[NdArray, "N 4"]:
  """Cameras of logarithm of zoom, angle, and shift in x and y."""
  return cameras_of(np.exp(values[0] + 1j * values[1]), values[2] + 1j * values[3])


def _line_of_five(values: Float[NdArray, "4 N"]) -> Float[NdArray, "4 N"]:
  """Each row of at least three values, smoothed by lines through five neighbors: medians of slopes and of offsets.

  A single wrong value does not matter, even the last one, where a running median follows it.
  """
  count = values.shape[1]
  width = min(5, count)
  start = np.clip(np.arange(count) - width // 2, 0, count - width)
  places = start[:, None] + np.arange(width)
  near = values[:, places]
  first, second = np.triu_indices(width, 1)
  slope = np.median((near[..., second] - near[..., first]) / (second - first), axis=-1)
  from_here = places - np.arange(count)[:, None]
  return np.median(near - slope[..., None] * from_here, axis=-1)


def comparable(frame: UInt8[NdArray, "H W 3"]) -> UInt8[NdArray, "h w"]:
  """A picture in gray with its light evened out, so that exposure and shadows do not move corners."""
  height, width = frame.shape[:2]
  scale = float(np.clip(max(height, width), *_SIDES)) / max(height, width)
  gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
  if scale != 1:
    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    gray = cv2.resize(gray, (round(width * scale), round(height * scale)), interpolation=smooth)
  gray = gray.astype(np.float32)
  around = cv2.blur(gray, (_AROUND, _AROUND))
  contrast = np.sqrt(np.maximum(cv2.blur(gray * gray, (_AROUND, _AROUND)) - around * around, 0))
  return np.clip(128 + 50 * (gray - around) / (contrast + 12), 0, 255).astype(np.uint8)
