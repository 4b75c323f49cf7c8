"""What a key frame shows of a person beside her pose: hair, hood, collar and sleeves reach beyond the pose's solids."""

import cv2
import numpy as np

from anchor_jax.core.shapes import Int, NdArray, UInt8

_GAP = 1 / 64  # of the picture's height; narrower gaps between surfaces lie within the person (see `person_surface`)
_NOISE = 20  # grey levels; what differs less from the empty room is the room


def outline_table(
  surface: UInt8[NdArray, "H W 3"],
  frame: UInt8[NdArray, "H W 3"],
  mask: UInt8[NdArray, "H W"] | None,
  plate: UInt8[NdArray, "H W 4"],
  reach: int,
) -> Int[NdArray, "H W 3"]:
  """For each pixel (x, y, what): the way to the nearest pixel beside the pose, and what is seen.

  `what` is 1 where the person is seen beside her pose, 0 where the room is seen and on the pose up to `reach` pixels
  from its outline, -1 deeper inside. The way is (0, 0) beside the pose and deeper inside.

  Args:
    surface: of the key frame; chart 0 beside the pose.
    frame: the key frame.
    mask: 255 where the person is; None if it is not known. Then she is everything that differs from the room.
    plate: RGB and coverage of the empty room, seen by the same camera. Ignored if it has another size.
    reach: pixels.
  """
  covered = (surface[..., 0] > 0).astype(np.uint8)
  margin = max(1, round(surface.shape[0] * _GAP / 2))
  kernel = np.ones((2 * margin + 1, 2 * margin + 1), np.uint8)
  padded = cv2.morphologyEx(np.pad(covered, 2 * margin), cv2.MORPH_CLOSE, kernel)
  beside = padded[2 * margin : -2 * margin, 2 * margin : -2 * margin] == 0
  person = np.ones_like(beside) if mask is None else mask > 127
  if plate.shape[:2] == frame.shape[:2]:
    change = np.abs(frame.astype(np.int16) - plate[..., :3]).max(axis=-1)
    person &= (plate[..., 3] == 0) | (change > _NOISE)
  table = np.zeros((*covered.shape, 3), np.int16)
  table[..., 2] = np.where(beside, person, -1)
  height, width = covered.shape
  around = np.pad(beside, reach)
  steps = [(y, x) for y in range(-reach, reach + 1) for x in range(-reach, reach + 1) if 0 < y * y + x * x <= reach**2]
  for y, x in sorted(steps, key=lambda step: -(step[0] ** 2 + step[1] ** 2)):  # the nearest one is written last
    there = ~beside & around[reach + y : reach + y + height, reach + x : reach + x + width]
    table[there] = (x, y, 0)
  return table
