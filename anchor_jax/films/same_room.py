"""Finds the room of one clip in another: so that all clips of a person from the hand have one steady camera."""

from collections.abc import Iterable

import cv2
import numpy as np

from anchor_jax.core.shapes import Float, NdArray, UInt8
from anchor_jax.films.poses import OpenedFilm
from anchor_jax.films.room import KeyPicture, comparable, corners_of, matched, people_mask
from anchor_jax.landmarks.framing import CropRect
from anchor_jax.landmarks.tracks import Track
from anchor_jax.texture.background.camera_path import STILL, inverse, joined, matrix_of, median_camera, movement
from anchor_jax.video.read import read_frames

PICTURES = 7  # of a clip, in which the room is looked for
_AGREE = 0.02  # of the height: pictures that place the room further from their median do not count
_LEAST = 3  # pictures that must agree
_EDGE = 1 / 24  # of the height: the room this near to what is not known of it does not count


def room_of_clip(
  film: OpenedFilm, track: Track | None, first: int, crop: CropRect, cameras: Float[NdArray, "T 4"]
) -> UInt8[NdArray, "H W 4"]:
  """RGB and coverage (255 or 0) of the room as a clip's steady camera shows it, from the frame that comes nearest.

  Args:
    film, track: see `room.film_cameras`.
    first: number of the clip's first frame.
    crop: the part of the picture that becomes the frame.
    cameras: the clip's camera path in that crop.
  """
  number = int(movement(cameras, crop.size.shape).argmin())
  frame = crop.image(next(read_frames(film.path, first + number, film.info)))
  reach = 2 * max(1, round(crop.size.height * _EDGE)) + 1
  person = cv2.dilate(crop.mask(people_mask(film, track, first + number)), np.ones((reach, reach), np.uint8))
  pixels = np.dstack([frame, np.where(person > 127, 0, 255).astype(np.uint8)])
  matrix = matrix_of(inverse(cameras[number]), crop.size.shape)
  moved = cv2.warpAffine(pixels, matrix, crop.size, flags=cv2.INTER_CUBIC)
  moved[..., 3] = np.where(moved[..., 3] > 250, 255, 0)
  return moved


def camera_in_room(
  room: UInt8[NdArray, "H W 4"], seen: Iterable[tuple[UInt8[NdArray, "H W 3"], Float[NdArray, "4"]]]
) -> Float[NdArray, "4"] | None:
  """The camera by which the steady camera of `room` sees what a clip's own steady camera shows; None if not found.

  Joined to the cameras of the clip (`joined(cameras, it)`), it makes them relative to that room.

  Args:
    room: RGB and coverage of the room as its steady camera shows it: a background plate.
    seen: pictures of the clip, of the same size, each with its camera.
  """
  reach = 2 * max(1, round(room.shape[0] * _EDGE)) + 1
  known = cv2.erode((room[..., 3] > 0).astype(np.uint8), np.ones((reach, reach), np.uint8), borderValue=1)
  gray = comparable(np.ascontiguousarray(room[..., :3]))
  known = cv2.resize(known, gray.shape[::-1], interpolation=cv2.INTER_NEAREST)
  key = KeyPicture(gray, corners_of(gray, known), np.array(STILL))
  found = []
  for picture, camera in seen:
    step = matched(key, comparable(picture), np.array(STILL))
    if step is not None:
      found.append(joined(inverse(camera), step))
  if len(found) < _LEAST:
    return None
  cameras = np.stack(found)
  off = movement(joined(cameras, inverse(median_camera(cameras))), room.shape)
  return median_camera(cameras[off < _AGREE]) if (off < _AGREE).sum() >= _LEAST else None
