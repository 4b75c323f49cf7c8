"""The camera of a motion: taken out, so that the person does not sway before a still room, or left in."""

import dataclasses
from collections.abc import Iterator

import cv2
import numpy as np

from anchor_jax.core.shapes import Float, NdArray
from anchor_jax.landmarks.framing import CropRect
from anchor_jax.landmarks.tracks import Track
from anchor_jax.motion.frames import Motion, MotionFrame
from anchor_jax.texture.background.camera_path import inverse, matrix_of, moved_points


def through_camera(motion: Motion, cameras: Float[NdArray, "T 4"] | None, camera: str) -> Motion:
  """Returns a motion of renders from a film whose camera moves as the steady camera or as the film's own sees it.

  For the steady camera, the renders themselves are moved; where the body then ends inside of the picture, its last
  pixels are repeated.

  Args:
    motion: as it is in the film.
    cameras: the camera path, one camera for each frame of the motion; None returns the motion as it is.
    camera: one of `frames.CAMERAS`.
  """
  if cameras is None:
    return motion

  def frames(first: int) -> Iterator[MotionFrame]:
    for frame, own in zip(motion.frames(first), cameras[first:]):
      yield frame._replace(camera=own) if camera == "film" else _steadied(frame, own)

  return dataclasses.replace(motion, frames=frames, moving=camera == "film")


def _steadied(frame: MotionFrame, camera: Float[NdArray, "4"]) -> MotionFrame:
  """The frame as the steady camera sees it."""
  shape, back = frame.pose.shape[:2], inverse(camera)
  matrix, size = matrix_of(back, shape), shape[::-1]
  moved = lambda picture, how: cv2.warpAffine(picture, matrix, size, flags=how, borderMode=cv2.BORDER_REPLICATE)
  return MotionFrame(
    moved(frame.pose, cv2.INTER_LINEAR),
    moved(frame.face_mask, cv2.INTER_NEAREST).reshape(frame.face_mask.shape),
    moved_points(back, frame.landmarks, shape),
    None if frame.surface is None else moved(frame.surface, cv2.INTER_NEAREST),
  )


def steady_track(track: Track, cameras: Float[NdArray, "T 4"]) -> Track:
  """Returns the points of a track as the steady camera sees them.

  Args:
    track: in pixels of the film.
    cameras: the camera path of the full picture.
  """
  return _moved(track, inverse(cameras), (0, 0, track.width, track.height))


def shaken_track(track: Track, cameras: Float[NdArray, "T 4"], crop: CropRect) -> Track:
  """Returns the points of a track that the steady camera saw as a camera path sees them.

  Args:
    track: in pixels of the film.
    cameras: the camera path in the crop.
    crop: the part of the picture that becomes the frame.
  """
  return _moved(track, cameras, (crop.left, crop.top, crop.width, crop.height))


def _moved(track: Track, cameras: Float[NdArray, "T 4"], crop: tuple[int, int, int, int]) -> Track:
  left, top, width, height = crop
  corner = np.array([left, top, 0], np.float32)
  moved = lambda points: moved_points(cameras, points - corner, (height, width)) + corner
  return dataclasses.replace(track, body=moved(track.body), face=moved(track.face), hands=moved(track.hands))
