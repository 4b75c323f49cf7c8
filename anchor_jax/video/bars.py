"""Finds black bars (letterbox, pillarbox) from key frames across a film; they are cropped when the film is read."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from anchor_jax.core.shapes import NdArray, UInt8
from anchor_jax.video.read import VideoInfo, key_frames, probe, read_frames

_SAMPLES = 24  # frames examined per film
_MIN_SAMPLES = 5  # usable frames needed for a decision; with fewer key frames, other frames are decoded
_BLACK, _MEAN = 20, 6.0  # gray levels of a bar: the maximum of a pixel, and of the mean
_STRAY = 0.005  # share of a bar's pixels that may be brighter
_LIT = 40  # of 255: a frame whose brightest 5 percent are below this is skipped (dark, or fading)
_FILLED = 0.6  # share of the line next to a bar that is not black in the median frame: the bar has a straight edge
_SAME, _USUALLY = 2, 0.7  # pixels by which a bar's width may vary, and the share of frames that must agree
_LIKE = 0.2  # how far two opposite bars may differ, as a share of their sum
_MIN_BARS, _MAX_BARS = 0.01, 0.75  # sum of two opposite bars, as a share of the picture's side


class Borders(NamedTuple):
  """Black borders of one frame.

  Attributes:
    left, top, right, bottom: number of black columns and rows.
    filled: for each border, the share of the first line inside it that is not black.
  """

  left: int
  top: int
  right: int
  bottom: int
  filled: tuple[float, float, float, float]


def probe_film(path: str | os.PathLike, cut_off: bool = False) -> VideoInfo:
  """Returns `probe` of a camera film, with black bars cropped.

  Use plain `probe` for videos that this package wrote (poses, masks, results): they have no bars.

  Raises:
    UserError: see `probe`.
  """
  info = probe(path, cut_off)
  bars = find_bars(path, info)
  geometry = info.geometry._replace(bars=bars)
  width, height = geometry.size
  return dataclasses.replace(info, width=width, height=height, geometry=geometry)


def find_bars(path: str | os.PathLike, info: VideoInfo) -> tuple[int, int, int, int]:
  """Returns the widths of a film's black bars: left, top, right, bottom; 0 where there is none.

  Two opposite bars count if they are black (not only dark), straight, of about equal width, and present in all of 24
  frames across the film that are bright enough to judge. A film without bars costs one decoded frame.

  Args:
    path: the film.
    info: its `probe`.
  """
  found: list[Borders] = []
  for picture in _samples(Path(path), info):
    borders = borders_of(picture)
    if borders is not None:
      found.append(borders)
      if not any(borders[:4]):
        return 0, 0, 0, 0
  return bars_of(found, info.width, info.height) if len(found) >= _MIN_SAMPLES else (0, 0, 0, 0)


def borders_of(picture: UInt8[NdArray, "H W 3"]) -> Borders | None:
  """Returns the black borders of a picture, or None where it is too dark to judge."""
  gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
  if np.percentile(gray[::2, ::2], 95) < _LIT:
    return None
  light = gray > _BLACK
  rows, columns = (~((light.mean(axis=axis) <= _STRAY) & (gray.mean(axis=axis) <= _MEAN)) for axis in (1, 0))
  if not rows.any() or not columns.any():
    return None
  top, bottom = int(rows.argmax()), int(rows[::-1].argmax())
  left, right = int(columns.argmax()), int(columns[::-1].argmax())
  inside = light[top : len(rows) - bottom, left : len(columns) - right]
  # The outermost line may be a blend with the bar; the next one is pure picture.
  edges = (inside[:, :2], inside[:2], inside[:, -2:], inside[-2:])
  filled = [float(edge.any(axis=axis).mean()) for edge, axis in zip(edges, (1, 0, 1, 0))]
  return Borders(left, top, right, bottom, (filled[0], filled[1], filled[2], filled[3]))


def bars_of(found: list[Borders], width: int, height: int) -> tuple[int, int, int, int]:
  """Returns the bars (left, top, right, bottom) that a film's frames share; see `find_bars`."""
  widths = np.array([borders[:4] for borders in found])
  least, filled = widths.min(axis=0), np.median([borders.filled for borders in found], axis=0)
  straight = ((widths - least <= _SAME).mean(axis=0) >= _USUALLY) & (filled >= _FILLED)
  bars = [0, 0, 0, 0]
  for one, other, side in ((0, 2, width), (1, 3, height)):
    both = least[one] + least[other]
    alike = abs(int(least[one]) - int(least[other])) <= max(_SAME, _LIKE * both)
    if straight[[one, other]].all() and alike and _MIN_BARS * side <= both <= _MAX_BARS * side:
      bars[one], bars[other] = int(least[one]), int(least[other])
  return bars[0], bars[1], bars[2], bars[3]


def _samples(path: Path, info: VideoInfo) -> Iterator[UInt8[NdArray, "H W 3"]]:
  """Pictures spread across a film: key frames, which decode fast, plus others where key frames are too few."""
  numbers = np.linspace(0, info.frames - 1, min(_SAMPLES, info.frames)).round().astype(int).tolist()
  keys = 0
  for picture in key_frames(path, info, numbers):
    yield picture
    keys += 1
  if keys < _MIN_SAMPLES:
    sampled = set(numbers)
    yield from (picture for number, picture in enumerate(read_frames(path, info=info)) if number in sampled)
