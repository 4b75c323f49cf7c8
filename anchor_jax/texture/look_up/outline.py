"""What a key frame shows of the person beside the pose: hair, hoods and sleeves reach beyond the pose's solids."""

import cv2
import numpy as np

from anchor_jax.core.shapes import Bool, Int, NdArray, UInt8
from anchor_jax.texture.stored import SEEN

_GAP = 1 / 64  # of the picture's height; narrower gaps between surfaces are inside the person (see `person_surface`)
_NOISE = 20  # gray levels; pixels that differ less from the background plate show the room


def outline_table(
  surface: UInt8[NdArray, "H W 3"],
  frame: UInt8[NdArray, "H W 3"],
  mask: UInt8[NdArray, "H W"] | None,
  plate: UInt8[NdArray, "h w 4"],
  reach: int,
) -> Int[NdArray, "H W 3"]:
  """For each pixel (x, y, kind): the offset to the nearest pixel beside the pose, and what the pixel shows.

  `kind` is 1 for the person beside the pose; 0 for the room, and on the pose up to `reach` pixels from its outline; -1
  deeper inside. The offset is (0, 0) beside the pose and deeper inside.

  Args:
    surface: the key frame's surface map; chart 0 beside the pose.
    frame: the key frame.
    mask: share of the person, 0 to 255; None where unknown, then everything that differs from the plate is the person.
    plate: RGB and coverage of the background plate, from the same camera. Ignored if it has another size.
    reach: pixels.
  """
  covered = (surface[..., 0] > 0).astype(np.uint8)
  margin = max(1, round(surface.shape[0] * _GAP / 2))
  kernel = np.ones((2 * margin + 1, 2 * margin + 1), np.uint8)
  padded = cv2.morphologyEx(np.pad(covered, 2 * margin), cv2.MORPH_CLOSE, kernel)
  beside = padded[2 * margin : -2 * margin, 2 * margin : -2 * margin] == 0
  person = shows_person(frame, mask, plate)
  table = np.zeros((*covered.shape, 3), np.int16)
  table[..., 2] = np.where(beside, person, -1)
  around = np.pad(beside, reach)
  width = around.shape[1]
  steps = [(y, x) for y in range(-reach, reach + 1) for x in range(-reach, reach + 1) if 0 < y * y + x * x <= reach**2]
  # The nearest step comes first, of equally near ones the last. Pixels that have reached one are looked at no more.
  square = cv2.dilate(beside.astype(np.uint8), np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
  left = np.flatnonzero(np.pad(~beside & (square > 0), reach))
  offsets = np.zeros((around.size, 2), np.int16)
  deep = np.pad(~beside, reach).ravel()
  for y, x in sorted(steps, key=lambda step: (step[0] ** 2 + step[1] ** 2, -step[0], -step[1])):
    found = around.ravel()[left + y * width + x]
    offsets[left[found]] = (x, y)
    deep[left[found]] = False
    left = left[~found]
  inside = (slice(reach, -reach), slice(reach, -reach))
  table[..., :2] = offsets.reshape(*around.shape, 2)[inside]
  table[..., 2][~beside & ~deep.reshape(around.shape)[inside]] = 0
  return table


def shows_person(
  frame: UInt8[NdArray, "H W 3"], mask: UInt8[NdArray, "H W"] | None, plate: UInt8[NdArray, "h w 4"]
) -> Bool[NdArray, "H W"]:
  """Mask of a key frame's pixels that show the person; arguments as of `outline_table`."""
  person = np.ones(frame.shape[:2], bool) if mask is None else mask > 127
  if plate.shape[:2] == frame.shape[:2]:
    change = np.abs(frame.astype(np.int16) - plate[..., :3]).max(axis=-1)
    person &= (plate[..., 3] != SEEN) | (change > _NOISE)
  return person
