"""A contact sheet of a texture, for inspection before training."""

import cv2
import numpy as np

from anchor_jax.core.shapes import NdArray, UInt8
from anchor_jax.texture.stored import SEEN, Texture
from anchor_jax.texture.texels import TEXELS

_UNSEEN = (90, 0, 90)
_COLUMNS = 8


def texture_sheet(texture: Texture, side: int = 256) -> UInt8[NdArray, "h w 3"]:
  """A row with background plate and key frames, and below it the seen charts of the atlas with their names.

  Unseen pixels and texels are purple.

  Args:
    texture: of one person.
    side: height at which plate and key frames are drawn.
  """
  plate = np.where(texture.plate_coverage[..., None] == SEEN, texture.plate, np.array(_UNSEEN, np.uint8))
  pictures = [_resized(picture, side) for picture in (plate, *texture.key_frames)]
  top = np.concatenate(pictures, axis=1)
  tiles = [
    _tile(texture.atlas[number], texture.coverage[number], name)
    for number, (name, _) in enumerate(texture.charts)
    if texture.coverage[number].any()
  ]
  tiles += [np.zeros_like(tile) for tile in tiles[:1]] * (-len(tiles) % _COLUMNS)
  rows = [np.concatenate(tiles[i : i + _COLUMNS], axis=1) for i in range(0, len(tiles), _COLUMNS)]
  width = max(part.shape[1] for part in (top, *rows))
  return np.concatenate([np.pad(part, ((0, 0), (0, width - part.shape[1]), (0, 0))) for part in (top, *rows)])


def _resized(picture: UInt8[NdArray, "H W 3"], side: int) -> UInt8[NdArray, "h w 3"]:
  height, width = picture.shape[:2]
  smooth = cv2.INTER_AREA if side < height else cv2.INTER_CUBIC
  return cv2.resize(picture, (round(side * width / height), side), interpolation=smooth)


def _tile(texels: UInt8[NdArray, "S S 3"], coverage: UInt8[NdArray, "S S"], name: str) -> UInt8[NdArray, "h w 3"]:
  """One chart at twice the size, below its name."""
  visible = np.where(coverage[..., None] > 0, texels, np.array(_UNSEEN, np.uint8))
  tile = np.zeros((2 * TEXELS + 16, 2 * TEXELS + 4, 3), np.uint8)
  tile[14:-2, 2:-2] = visible.repeat(2, axis=0).repeat(2, axis=1)
  cv2.putText(tile, name, (3, 10), cv2.FONT_HERSHEY_SIMPLEX, 0.33, (220, 220, 220), 1, cv2.LINE_AA)
  return tile
