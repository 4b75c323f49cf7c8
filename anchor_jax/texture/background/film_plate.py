"""The room in a film's full picture, at the film's own resolution: what `generate --frame=film` puts a frame back into.

It is gathered from a few frames all over the film, as the median of the colors that surely show the room. The file has
the safetensors format; its metadata holds `format`, the `crop` as JSON, and the `crc32` of all contents.
"""

import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Bool, NdArray, UInt8
from anchor_jax.files.inputs import regular_file, strict_json
from anchor_jax.files.outputs import new_file
from anchor_jax.texture.gather import PLATE_MARGIN
from anchor_jax.texture.stored import checksum, ordered

FILM_PLATE = "appearance_film.safetensors"  # in prepared folders, and in a part's folder
FORMAT = "1"
_MOST_FRAMES, _LEAST_FRAMES, _BYTES = 25, 9, 2**28  # sampled frames, and their memory
_MAX_SIDE = 8192  # pixels
_NOT_SEEN = 256  # above all colors, so that it sorts last
_ROWS = 64  # whose medians are computed at once


@dataclasses.dataclass(frozen=True)
class FilmPlate:
  """The background of a film's full picture.

  Attributes:
    plate: the picture without the person; 0 where `coverage` is 0.
    coverage: 255 where the room was seen, else 0.
    crop: left, top, width and height of the part that becomes the frame, in pixels.
  """

  plate: UInt8[NdArray, "H W 3"]
  coverage: UInt8[NdArray, "H W"]
  crop: tuple[int, int, int, int]


def sample_count(height: int, width: int) -> int:
  """Number of a film's frames to gather from; fewer for large pictures, since all are held in memory."""
  return int(np.clip(_BYTES // (4 * height * width), _LEAST_FRAMES, _MOST_FRAMES))


def gather_film_plate(
  pictures: Iterable[tuple[UInt8[NdArray, "H W 3"], UInt8[NdArray, "H W"]]], crop: tuple[int, int, int, int]
) -> FilmPlate:
  """The background of some frames of a film, all of the same view of the room.

  Args:
    pictures: frames, and masks of what is not the room: 255 where the person is, or somebody else.
    crop: see `FilmPlate`.

  Raises:
    ValueError: no frame.
  """
  frames, rooms = [], []
  for frame, mask in pictures:
    margin = max(1, round(crop[3] * PLATE_MARGIN))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
    frames.append(frame)
    rooms.append(cv2.dilate(mask, kernel) < 128)
  plate = np.zeros_like(frames[0]) if frames else None
  if plate is None:
    raise ValueError("a film without frames has no background")
  known = np.any(rooms, axis=0)
  for top in range(0, len(plate), _ROWS):
    rows = slice(top, top + _ROWS)
    plate[rows] = _median(np.stack([frame[rows] for frame in frames]), np.stack([room[rows] for room in rooms]))
  return FilmPlate(plate, np.where(known, 255, 0).astype(np.uint8), crop)


def _median(frames: UInt8[NdArray, "N h W 3"], rooms: Bool[NdArray, "N h W"]) -> UInt8[NdArray, "h W 3"]:
  """The lower median of the colors of each pixel that show the room; 0 where none does."""
  values = np.sort(np.where(rooms[..., None], frames, np.uint16(_NOT_SEEN)), axis=0)
  middle = np.maximum(rooms.sum(axis=0) - 1, 0) // 2
  chosen = np.take_along_axis(values, middle[None, ..., None], axis=0)[0]
  return np.where(chosen == _NOT_SEEN, 0, chosen).astype(np.uint8)


def write_film_plate(path: str | os.PathLike, film: FilmPlate) -> None:
  """Writes a film plate's file atomically.

  Raises:
    UserError: `path` cannot be written.
  """
  arrays = {"plate": np.ascontiguousarray(film.plate), "coverage": np.ascontiguousarray(film.coverage)}
  metadata = {"format": FORMAT, "crop": json.dumps(film.crop)}
  metadata["crc32"] = checksum(arrays, [metadata["crop"]])
  with new_file(path) as partial:
    partial.write_bytes(ordered(save(arrays, metadata)))


def film_plate_of(folder: Path) -> FilmPlate | None:
  """The film plate in a prepared folder or a part's folder; None without one.

  Raises:
    UserError: it is damaged.
  """
  return read_film_plate(folder / FILM_PLATE) if (folder / FILM_PLATE).exists() else None


def read_film_plate(path: str | os.PathLike) -> FilmPlate:
  """Reads a file that `write_film_plate` wrote.

  Raises:
    UserError: the file is missing, damaged, or of another format.
  """
  regular_file(path, "film plate")
  try:
    with safe_open(path, "numpy") as opened:
      metadata = opened.metadata() or {}
      if metadata.get("format") != FORMAT:
        raise ValueError("another format")
      crop = strict_json(metadata["crop"])
      height, width, _ = opened.get_slice("plate").get_shape()
      if not (len(crop) == 4 and all(type(number) is int and number >= 0 for number in crop)):
        raise ValueError("crop")
      if max(height, width) > _MAX_SIDE or crop[0] + crop[2] > width or crop[1] + crop[3] > height or not min(crop[2:]):
        raise ValueError("size")
      arrays = {name: opened.get_tensor(name) for name in ("plate", "coverage")}
    if any(array.dtype != np.uint8 for array in arrays.values()) or arrays["coverage"].shape != (height, width):
      raise ValueError("arrays of the wrong kind or size")
    if arrays["plate"].shape != (height, width, 3) or checksum(arrays, [metadata["crop"]]) != metadata.get("crc32"):
      raise ValueError("not as it was written")
  except (SafetensorError, OSError, ValueError, KeyError, TypeError, OverflowError):
    raise UserError(f"{path} is not a film's background or is damaged: prepare the person's film again") from None
  return FilmPlate(**arrays, crop=(crop[0], crop[1], crop[2], crop[3]))
