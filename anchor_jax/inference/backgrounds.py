"""Pictures to put behind a person: a plain colour, a picture file, or a video, which begins anew when it ends."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import NdArray, UInt8
from anchor_jax.files.inputs import regular_file
from anchor_jax.landmarks.framing import square_around
from anchor_jax.video.bars import probe_film
from anchor_jax.video.picture import read_picture
from anchor_jax.video.read import read_frames
from anchor_jax.video.timing import tick_frames

GREEN, TRANSPARENT = "green", "transparent"
_GREEN = (0, 177, 64)  # the colour of studio cloth
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def check_background(name: str) -> None:
  """Checks that `backgrounds` will find something. Raises UserError otherwise."""
  if name not in (GREEN, TRANSPARENT):
    _check_file(Path(name))


def backgrounds(name: str, size: int, fps: float | int, start: int = 0) -> Iterator[UInt8[NdArray, "S S 3"]]:
  """Yields a background for each frame from number `start` on, without end: the central square, resized.

  Args:
    name: "green", or a picture or a video; of a video the frame that it shows at that time.
    size: height and width in pixels.
    fps: frames per second.
    start: number of the first frame.

  Raises:
    UserError: the file can't be read.
  """
  if name == GREEN:
    still = np.full((size, size, 3), _GREEN, np.uint8)
  elif Path(name).suffix.lower() in _PICTURES:
    still = _central(read_picture(name), size)
  else:
    yield from _film(Path(name), size, fps, start)
    return
  while True:
    yield still


def _central(picture: UInt8[NdArray, "H W 3"], size: int) -> UInt8[NdArray, "S S 3"]:
  height, width = picture.shape[:2]
  return square_around(width, height, (width / 2, height / 2), size).image(picture)


def _check_file(path: Path) -> None:
  if not os.path.lexists(path):
    raise UserError(f"--background={path}: no such file; give a picture, a video, {GREEN} or {TRANSPARENT}")
  regular_file(path, "background")
  if path.suffix.lower() not in _PICTURES:
    probe_film(path)


def _film(path: Path, size: int, fps: float | int, start: int) -> Iterator[UInt8[NdArray, "S S 3"]]:
  info = probe_film(path)
  ticks = tick_frames(info) or range(info.frames)
  pictures, there, made = iter(()), -1, np.zeros((size, size, 3), np.uint8)
  for number in itertools.count(start):
    wanted = ticks[int(number * info.fps / fps + 1e-6) % len(ticks)]
    if wanted < there or there < 0:
      pictures, there = enumerate(read_frames(path, wanted, info), start=wanted), -1
    if wanted != there:
      for found, frame in pictures:
        if found >= wanted:
          there, made = wanted, _central(frame, size)
          break
    yield made
