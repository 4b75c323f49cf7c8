"""Frames of another size than a person's own: at the same scale, with more of the room around the person, or less."""

import dataclasses

import cv2
import numpy as np

from anchor_jax.core.frame_size import FrameSize
from anchor_jax.core.shapes import NdArray, UInt8
from anchor_jax.texture.background.nearby import nearby
from anchor_jax.texture.background.plate import ShownPlate
from anchor_jax.texture.look_up.outline import shows_person
from anchor_jax.texture.stored import Texture

_AIR = 1 / 16  # of the new height: room above the head where the own frame is taller than the new one


def reframed(texture: Texture, size: FrameSize) -> Texture:
  """A person's texture for frames of another size.

  The person stays in place and as large as in the own frames. Frames that are wider get more room on both sides, taller
  ones above the person, or above and below where the person does not reach the lower edge. Narrower ones show what is
  around the person's middle, lower ones begin above the head. The background plate keeps what is known; beyond the own
  frame it shows what a camera that moved saw, or else continues smoothly. The room then stands still (`Texture.room` is
  None). Key frames stay as they are.
  """
  height, width = texture.plate.shape[:2]
  if (width, height) == size:
    return texture
  masks = _person_masks(texture)
  left, top = _corner(texture, masks, size)
  measures = texture.measures and texture.measures.reframed(
    height / size.height, (left / size.height, top / size.height)
  )
  plate, coverage = _plate(texture, size, left, top)
  return dataclasses.replace(
    texture, plate=plate, plate_coverage=coverage, key_masks=masks, measures=measures, room=None
  )


def _person_masks(texture: Texture) -> UInt8[NdArray, "K H W"]:
  """Masks of the person in the key frames, which need no plate of their camera any more."""
  count = len(texture.key_frames)
  plates = [np.concatenate([texture.plate, texture.plate_coverage[..., None]], axis=-1)] * count
  if texture.room is not None:
    shown = ShownPlate(texture)
    plates = [shown.through(camera) for camera in texture.room.key_cameras]
  given = [None] * count if texture.key_masks is None else texture.key_masks
  masks = [shows_person(*views) for views in zip(texture.key_frames, given, plates, strict=True)]
  return np.where(np.array(masks).reshape(texture.key_frames.shape[:3]), 255, 0).astype(np.uint8)


def _corner(texture: Texture, masks: UInt8[NdArray, "K H W"], size: FrameSize) -> tuple[int, int]:
  """Where the upper left corner of the own frame lies in the new one."""
  height, width = texture.plate.shape[:2]
  shown = masks.max(axis=0, initial=0)
  rows, columns = np.flatnonzero(shown.max(axis=1)), np.flatnonzero(shown.max(axis=0))
  middle = width / 2 if not len(columns) else float(columns.mean())
  if texture.measures is not None:
    middle = texture.measures.place[0] * height
  highest, lowest = (int(rows[0]), int(rows[-1])) if len(rows) else (0, height - 1)
  if size.width >= width:
    left = (size.width - width) // 2
  else:
    left = -int(np.clip(round(middle - size.width / 2), 0, width - size.width))
  if size.height < height:
    top = -int(np.clip(highest - round(size.height * _AIR), 0, height - size.height))
  else:
    top = size.height - height if lowest >= height - 2 else (size.height - height) // 2
  return left, top


def _plate(
  texture: Texture, size: FrameSize, left: int, top: int
) -> tuple[UInt8[NdArray, "h w 3"], UInt8[NdArray, "h w"]]:
  """Plate and coverage of the new frame; pixels behind the person stay unknown."""

  def moved(picture: NdArray, right: int, down: int) -> NdArray:
    return cv2.warpAffine(picture, np.array([[1, 0, right], [0, 1, down]], np.float32), size, flags=cv2.INTER_NEAREST)

  plate, coverage = moved(texture.plate, left, top), moved(texture.plate_coverage, left, top)
  beyond = moved(np.ones(texture.plate.shape[:2], np.uint8), left, top) == 0
  if texture.room is not None:
    column, row = texture.room.corner
    room = moved(texture.room.pixels, left - column, top - row)
    plate, coverage = np.where(beyond[..., None], room[..., :3], plate), np.where(beyond, room[..., 3], coverage)
    beyond &= coverage == 0
  if beyond.any() and coverage.any():
    room = nearby(plate, coverage > 0)
    plate = np.where(beyond[..., None], np.clip(np.rint(room), 0, 255).astype(np.uint8), plate)
    coverage = np.where(beyond, np.uint8(255), coverage)
  return plate, coverage
