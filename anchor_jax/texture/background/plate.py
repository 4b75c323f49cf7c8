"""The background plate of a film: gathered in the room's own frame, and shown through any camera.

Where the camera moves, each picture is first moved to where the steady camera would show it. The result, the room, is
larger than a picture, since a camera that moves sees more; the background plate is its part that the steady camera
shows. Where the camera is still, pictures are summed as they are and there is only the plate.
"""

import cv2
import numpy as np

from anchor_jax.core.shapes import Bool, Float, NdArray, UInt8
from anchor_jax.texture.background.camera_path import inverse, matrix_of
from anchor_jax.texture.background.nearby import nearby
from anchor_jax.texture.robust import BlockSums
from anchor_jax.texture.stored import GUESSED, Room, Texture

_BEYOND = 0.5  # of the picture: how far the room may reach beyond it on each side
_ALL = 254  # of 255: a moved pixel of the room must not be mixed with anything else


class RoomSums:
  """Sums of a film's room by block."""

  def __init__(self, blocks: int, shape: tuple[int, int], cameras: Float[NdArray, "T 4"] | None = None):
    """Takes the number of blocks, height and width of the pictures, and the camera path (None: a still camera)."""
    self._shape, self._cameras = shape, cameras
    self._left, self._top, width, height = (0, 0, shape[1], shape[0]) if cameras is None else _extent(shape, cameras)
    self._size = height, width
    self._sums = BlockSums(blocks, height * width)

  def add(self, block: int, number: int, frame: UInt8[NdArray, "H W 3"], room: Bool[NdArray, "H W"]) -> None:
    """Adds frame `number` of the film; `room` is the mask of its pixels that show the room."""
    if self._cameras is not None:
      frame, room = self._moved(frame, room, self._cameras[number])
    place = np.flatnonzero(room)
    self._sums.add(block, place, frame.reshape(-1, 3)[place], np.ones(len(place), np.float32))

  def _moved(
    self, frame: UInt8[NdArray, "H W 3"], room: Bool[NdArray, "H W"], camera: Float[NdArray, "4"]
  ) -> tuple[UInt8[NdArray, "h w 3"], Bool[NdArray, "h w"]]:
    """The frame as the steady camera shows it, and the mask of what is surely room."""
    to_room = matrix_of(inverse(camera), frame.shape)
    to_room[:, 2] += self._left, self._top
    height, width = self._size
    moved = cv2.warpAffine(frame, to_room, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.warpAffine(np.where(room, 255, 0).astype(np.uint8), to_room, (width, height))
    return moved, inside >= _ALL

  def plate_and_room(
    self, blocks: Bool[NdArray, " blocks"], continued: bool = False
  ) -> tuple[UInt8[NdArray, "H W 4"], Room | None]:
    """RGB and coverage of the background plate over some of the blocks, and the room if the camera moves.

    With `continued`, unseen parts have the color of what was seen around them.
    """
    colors = self._sums.colors(blocks)
    known = np.where(colors.weight > 0, 255, 0)
    pixels = np.concatenate([np.clip(np.rint(colors.color), 0, 255), known[:, None]], axis=1).astype(np.uint8)
    pixels = pixels.reshape(*self._size, 4)
    seen = pixels[..., 3] > 0
    if continued and seen.any():
      guess = np.rint(np.clip(nearby(pixels[..., :3], seen), 0, 255))
      guess = np.concatenate([guess, np.full((*seen.shape, 1), GUESSED)], axis=-1)
      pixels = np.where(seen[..., None], pixels, guess).astype(np.uint8)
    if self._cameras is None:
      return pixels, None
    height, width = self._shape
    plate = pixels[self._top : self._top + height, self._left : self._left + width]
    return plate, Room(pixels, (self._left, self._top), np.zeros((0, 4)))


def _extent(shape: tuple[int, int], cameras: Float[NdArray, "T 4"]) -> tuple[int, int, int, int]:
  """How far the room reaches beyond the picture to the left and above, and its width and height."""
  height, width = shape
  corners = np.array([[(x, y) for x in (0, width - 1) for y in (0, height - 1)]], np.float64)
  at = np.concatenate([cv2.transform(corners, matrix_of(inverse(camera), shape))[0] for camera in cameras])
  beyond = np.array([_BEYOND * width, _BEYOND * height])
  first = np.ceil(np.minimum(np.maximum(-at.min(axis=0), 0), beyond)).astype(int)
  last = np.ceil(np.minimum(np.maximum(at.max(axis=0) - (width - 1, height - 1), 0), beyond)).astype(int)
  left, top, right, bottom = *first.tolist(), *last.tolist()
  return left, top, left + width + right, top + height + bottom


class ShownPlate:
  """A texture's background plate, as any camera shows it."""

  def __init__(self, texture: Texture):
    """Takes the texture."""
    self._shape, self._corner = texture.plate.shape[:2], (0, 0)
    if texture.room is None:
      pixels = np.concatenate([texture.plate, texture.plate_coverage[..., None]], axis=-1)
    else:
      pixels, self._corner = texture.room.pixels, texture.room.corner
    self._continued = bool((pixels[..., 3] == GUESSED).any())
    self._colors, self._known = _filled(pixels), np.ascontiguousarray(pixels[..., 3])

  def through(self, camera: Float[NdArray, "4"]) -> UInt8[NdArray, "H W 4"]:
    """RGB and coverage of the plate as a camera shows it; the steady camera shows the plate itself."""
    height, width = self._shape
    matrix = matrix_of(camera, self._shape)
    matrix[:, 2] -= matrix[:, :2] @ self._corner
    size, beyond = (width, height), cv2.BORDER_REPLICATE
    color = cv2.warpAffine(self._colors, matrix, size, flags=cv2.INTER_CUBIC, borderMode=beyond)
    covered = cv2.warpAffine(self._known, matrix, size) >= _ALL
    plate = np.zeros((height, width, 4), np.uint8)
    if self._continued:
      plate[..., :3], plate[..., 3] = color, GUESSED
    plate[covered, :3], plate[covered, 3] = color[covered], 255
    return plate


def _filled(pixels: UInt8[NdArray, "h w 4"]) -> UInt8[NdArray, "h w 3"]:
  """Colors with a rim of neighboring ones where the room is unknown, so that interpolation does not mix in black."""
  share = (pixels[..., 3:] > 0).astype(np.float32)
  around = cv2.blur(pixels[..., :3] * share, (5, 5)) / np.maximum(cv2.blur(share, (5, 5)), 1e-3)[..., None]
  return np.where(share > 0, pixels[..., :3], np.rint(np.clip(around, 0, 255))).astype(np.uint8)
