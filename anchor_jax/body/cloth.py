"""Surface maps with the clothes and hair where the pose pulls them: `ClothShift` drawn into them."""

import cv2
import numpy as np

from anchor_jax.body.charts import CHARTS
from anchor_jax.core.shapes import Float, Int, NdArray, UInt8
from anchor_jax.landmarks.proportions.cloth import CELLS, ClothShift

DRAWN = 128  # height at which shifts are drawn; they are smooth
_SMOOTH = 3.0  # pixels at this height
_LARGEST = 6.0  # the same; nothing moves farther
_SURE = 1e-3
_CELL = 256 // CELLS


def _group(name: str) -> int:
  """Parts that hang together; nothing slides from one group to another. 0 for what does not slide: face and hands."""
  side, _, part = name.partition("_")
  if name in ("chest", "belly", "hips", "torso_back", "neck"):
    return 1
  if name == "cranium" or part == "ear":
    return 2
  return {"left": 3, "right": 4}.get(side, 0) if part in ("upper_arm", "forearm") else 0


GROUPS: UInt8[NdArray, " charts"] = np.array(
  [_group(chart.name) for chart in CHARTS] + [0] * (256 - len(CHARTS)), np.uint8
)


def cells_of(surface: UInt8[NdArray, "*H 3"]) -> Int[NdArray, "*H"]:
  """Returns the number of the cell that each pixel of a surface map shows."""
  chart, u, v = np.moveaxis(surface.astype(np.int64), -1, 0)
  return (chart * CELLS + v // _CELL) * CELLS + u // _CELL


def shift_cloth(
  surface: UInt8[NdArray, "H W 3"], cloth: ClothShift, features: Float[NdArray, " F"], shoulders: float
) -> UInt8[NdArray, "H W 3"]:
  """Returns a surface map with clothes and hair moved; outlines of the body's parts stay where they are.

  Args:
    surface: as it follows from the solids.
    cloth: the person's.
    features: of the pose, from `pose_features`.
    shoulders: distance between the person's shoulders, in pixels of the map.
  """
  shift = shift_field(surface, cloth.of_pose(features) * np.float32(shoulders))
  return moved_surface(surface, shift)


def shift_field(surface: UInt8[NdArray, "H W 3"], table: Float[NdArray, "N 2"]) -> Float[NdArray, "H W 2"]:
  """Returns how far each pixel's cloth has slid, right and down, in pixels; smooth within each group.

  Args:
    surface: as it follows from the solids.
    table: shift of each cell in pixels, as `ClothShift.of_pose` orders them.
  """
  height, width = surface.shape[:2]
  factor = min(1.0, DRAWN / height)
  size = (max(1, round(width * factor)), max(1, round(height * factor)))
  small = np.asarray(cv2.resize(surface, size, interpolation=cv2.INTER_NEAREST), np.uint8) if factor < 1 else surface
  raw, groups = table[cells_of(small)].astype(np.float32), GROUPS[small[..., 0]]
  sigma = _SMOOTH * size[1] / DRAWN
  field = np.zeros((height, width, 2), np.float32)
  for group in np.unique(groups[groups > 0]):
    inside = (groups == group).astype(np.float32)
    weight = cv2.GaussianBlur(inside, (0, 0), sigma)
    smooth = cv2.GaussianBlur(raw * inside[..., None], (0, 0), sigma) / np.maximum(weight, _SURE)[..., None]
    here = GROUPS[surface[..., 0]] == group
    field[here] = (smooth if factor == 1 else cv2.resize(smooth, (width, height)))[here]
  length = np.linalg.norm(field, axis=-1, keepdims=True)
  return field * np.minimum(1, _LARGEST * height / DRAWN / np.maximum(length, _SURE))


def moved_surface(surface: UInt8[NdArray, "H W 3"], shift: Float[NdArray, "H W 2"]) -> UInt8[NdArray, "H W 3"]:
  """Returns a surface map with each pixel taken from where the shift comes from, unless that is another group."""
  height, width = surface.shape[:2]
  rows, columns = np.mgrid[:height, :width].astype(np.float32)
  columns, rows = columns - shift[..., 0], rows - shift[..., 1]
  nearest = cv2.remap(surface, columns, rows, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
  moved = np.asarray(nearest, np.uint8)
  groups = GROUPS[surface[..., 0]]
  same = (groups > 0) & (GROUPS[moved[..., 0]] == groups)
  return np.where(same[..., None], moved, surface)
