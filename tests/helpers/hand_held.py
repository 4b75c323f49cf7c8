"""Films from the hand: people in front of a textured room, seen through a camera that moves smoothly."""

import cv2
import numpy as np

from anchor_jax.landmarks.sidecar import PosedFrame
from anchor_jax.texture.background.camera_path import (
  cameras_of,
  inverse,
  joined,
  matrix_of,
  median_camera,
  moved_points,
)


def textured_room(size, seed=0):
  """A picture with detail of several sizes."""
  rng = np.random.default_rng(seed)
  room = np.zeros((size, size, 3), np.float32)
  for cells in (size // 16, size // 8, size // 4):
    squares = rng.integers(0, 256, (cells, cells, 3)).astype(np.float32)
    room += cv2.resize(squares, (size, size), interpolation=cv2.INTER_CUBIC)
  return np.clip(room / 3, 0, 255).astype(np.uint8)


def hand_path(count, seed=0, shift=0.04, turn=0.03, zoom=0.04, fps=25):
  """A camera path of sums of slow waves, relative to its own steady camera."""
  rng, time = np.random.default_rng(seed), np.arange(count) / fps
  waves = lambda size: size * sum(np.sin(2 * np.pi * (rate * time + rng.random())) / 2 for rate in (0.4, 1.1))
  factor = np.exp(waves(zoom) + 1j * waves(turn))
  path = cameras_of(factor, waves(shift) + 1j * waves(shift))
  return joined(path, inverse(median_camera(path)))


def seen_by(items, path, room=None, margin=0.1):
  """Posed frames as a camera of that path sees them; a share of the picture on each side is out of its sight."""
  for item, camera in zip(items, path):
    shape, size = item.pose.shape, item.pose.shape[0]
    cut = round(size * margin)
    matrix, inside = matrix_of(camera, shape), slice(cut, size - cut)

    def seen(picture, how, matrix=matrix, size=size, inside=inside):
      warped = cv2.warpAffine(picture, matrix, (size, size), flags=how, borderMode=cv2.BORDER_REPLICATE)
      return np.ascontiguousarray(warped[inside, inside])

    frame = item.frame if room is None else np.where(item.person_mask[..., None] > 127, item.frame, room)
    nearest, smooth = cv2.INTER_NEAREST, cv2.INTER_CUBIC
    surface = None if item.surface is None else seen(item.surface, nearest)
    points = moved_points(camera, item.landmarks, shape) - np.float32(cut)
    masks = (seen(mask, nearest) for mask in (item.person_mask, item.face_mask))
    yield PosedFrame(seen(frame, smooth), seen(item.pose, smooth), *masks, points, surface)


def in_sight(path, margin=0.1):
  """The path of the film that `seen_by` returns, whose pictures are smaller."""
  return np.concatenate([path[:, :2], path[:, 2:] / (1 - 2 * margin)], axis=1)
