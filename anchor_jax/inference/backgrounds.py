"""Backgrounds to put behind a person: a plain color, a picture, or a video, which loops."""

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.core.shapes import NdArray, UInt8
from anchor_jax.files.inputs import regular_file
from anchor_jax.video.bars import probe_film
from anchor_jax.video.picture import read_picture
from anchor_jax.video.read import VideoInfo, read_frames
from anchor_jax.video.timing import tick_frames

GREEN, TRANSPARENT = "green", "transparent"
_GREEN = (0, 177, 64)  # the color of green-screen cloth
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


@dataclasses.dataclass(frozen=True)
class Background:
  """A background that was opened and checked.

  Attributes:
    name: "green", "transparent", or the file's name.
    path: the file; None if there is none.
    frames: returns an endless iterator over the background's frames, given their size, the frames per second, and the
      number of the first frame; of a video the frame at that time, else always the same one. The largest part in the
      middle that has their shape is used.
  """

  name: str
  path: Path | None
  frames: Callable[[int | FrameSize, float | int, int], Iterator[UInt8[NdArray, "H W 3"]]]

  @property
  def transparent(self) -> bool:
    """Whether the person is cut out instead; `frames` is then not used."""
    return self.name == TRANSPARENT and self.path is None


def open_background(name: str) -> Background:
  """Opens and checks a background: "green", "transparent", a picture or a video.

  Raises:
    UserError: there is no such file, or it can't be read.
  """
  if name in (GREEN, TRANSPARENT):
    return Background(
      name, None, lambda size, fps, start: itertools.repeat(np.full((*FrameSize.of(size).shape, 3), _GREEN, np.uint8))
    )
  path = Path(name)
  if not os.path.lexists(path):
    raise UserError(f"--background={path}: no such file; give a picture, a video, {GREEN} or {TRANSPARENT}")
  regular_file(path, "background")
  if path.suffix.lower() in _PICTURES:
    picture = read_picture(path)
    return Background(path.name, path, lambda size, fps, start: itertools.repeat(_middle(picture, size)))
  info = probe_film(path)
  return Background(path.name, path, lambda size, fps, start: _film(path, info, size, fps, start))


def _middle(picture: UInt8[NdArray, "H W 3"], size: int | FrameSize) -> UInt8[NdArray, "h w 3"]:
  height, width = picture.shape[:2]
  size = FrameSize.of(size)
  across, down = (
    min(width, round(height * size.width / size.height)),
    min(height, round(width * size.height / size.width)),
  )
  left, top = round((width - across) / 2), round((height - down) / 2)
  smooth = cv2.INTER_AREA if size.height < down else cv2.INTER_CUBIC
  return cv2.resize(picture[top : top + down, left : left + across], size, interpolation=smooth)


def _film(
  path: Path, info: VideoInfo, size: int | FrameSize, fps: float | int, start: int
) -> Iterator[UInt8[NdArray, "H W 3"]]:
  ticks = tick_frames(info) or range(info.frames)
  pictures, position, shown = iter(()), -1, np.zeros((*FrameSize.of(size).shape, 3), np.uint8)
  for number in itertools.count(start):
    target = ticks[int(number * info.fps / fps + 1e-6) % len(ticks)]
    if target < position or position < 0:
      pictures, position = enumerate(read_frames(path, target, info), start=target), -1
    if target != position:
      for index, frame in pictures:
        if index >= target:
          position, shown = target, _middle(frame, size)
          break
    yield shown
