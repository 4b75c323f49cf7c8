"""Black bars that an editor put around a film: found in key frames all over it, and cut off when it is read."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from anchor_jax.core.shapes import NdArray, UInt8
from anchor_jax.video.read import VideoInfo, key_frames, probe, read_frames

_SAMPLES, _FEWEST = 24, 5  # frames that are looked at; a film with fewer key frames is decoded for them
_BLACK, _STRAY, _MEAN = 20, 0.005, 6.0  # grey levels of a bar's pixels, the share that may be lighter, their mean
_LIT = 40  # of 255: a frame whose brightest 5 percent are below it says nothing (dark, or fading)
_FILLED = 0.6  # of the line next to a bar that is not black, in the usual frame: its edge is straight
_SAME, _USUALLY = 2, 0.7  # pixels by which a bar may differ, in this share of the frames: others are black beside it
_LIKE = 0.2  # of both bars together: how far they may differ from each other
_LEAST, _MOST = 0.01, 0.75  # of the picture's side that both bars take


class Borders(NamedTuple):
  """What is black around one frame.

  Attributes:
    left, top, right, bottom: black columns and rows.
    filled: of the first line inside each that is not black, the share that is not.
  """

  left: int
  top: int
  right: int
  bottom: int
  filled: tuple[float, float, float, float]


def probe_film(path: str | os.PathLike, cut_off: bool = False) -> VideoInfo:
  """Returns the facts of a film of somebody or of a place, as `probe` does, with its black bars cut off.

  For films as they come; what this package made (poses, masks, results) has none, and is read with `probe`.

  Raises:
    UserError: see `probe`.
  """
  info = probe(path, cut_off)
  bars = find_bars(path, info)
  geometry = info.geometry._replace(bars=bars)
  width, height = geometry.size
  return dataclasses.replace(info, width=width, height=height, geometry=geometry)


def find_bars(path: str | os.PathLike, info: VideoInfo) -> tuple[int, int, int, int]:
  """Returns how many columns on the left, rows on the top, on the right and at the bottom are black bars.

  Two opposite bars are cut off if they are black (not only dark), straight, about as wide as each other, and there in
  all of 24 frames over the whole film that are light enough to tell. A film whose first frame has none costs one
  decoded frame more.

  Args:
    path: the film.
    info: its facts, of `probe`.
  """
  found: list[Borders] = []
  for picture in _samples(Path(path), info):
    borders = borders_of(picture)
    if borders is not None:
      found.append(borders)
      if not any(borders[:4]):
        return 0, 0, 0, 0
  return bars_of(found, info.width, info.height) if len(found) >= _FEWEST else (0, 0, 0, 0)


def borders_of(picture: UInt8[NdArray, "H W 3"]) -> Borders | None:
  """Returns what is black around a picture; None where it is too dark to tell."""
  grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
  if np.percentile(grey[::2, ::2], 95) < _LIT:
    return None
  light = grey > _BLACK
  rows, columns = (~((light.mean(axis=axis) <= _STRAY) & (grey.mean(axis=axis) <= _MEAN)) for axis in (1, 0))
  if not rows.any() or not columns.any():
    return None
  top, bottom = int(rows.argmax()), int(rows[::-1].argmax())
  left, right = int(columns.argmax()), int(columns[::-1].argmax())
  inside = light[top : len(rows) - bottom, left : len(columns) - right]
  # The outermost line may be half black; the one after it is the picture's.
  edges = (inside[:, :2], inside[:2], inside[:, -2:], inside[-2:])
  filled = [float(edge.any(axis=axis).mean()) for edge, axis in zip(edges, (1, 0, 1, 0))]
  return Borders(left, top, right, bottom, (filled[0], filled[1], filled[2], filled[3]))


def bars_of(found: list[Borders], width: int, height: int) -> tuple[int, int, int, int]:
  """Returns the bars (left, top, right, bottom) that frames of one film have in common; see `find_bars`."""
  every = np.array([borders[:4] for borders in found])
  least, filled = every.min(axis=0), np.median([borders.filled for borders in found], axis=0)
  straight = ((every - least <= _SAME).mean(axis=0) >= _USUALLY) & (filled >= _FILLED)
  bars = [0, 0, 0, 0]
  for one, other, side in ((0, 2, width), (1, 3, height)):
    both = least[one] + least[other]
    alike = abs(int(least[one]) - int(least[other])) <= max(_SAME, _LIKE * both)
    if straight[[one, other]].all() and alike and _LEAST * side <= both <= _MOST * side:
      bars[one], bars[other] = int(least[one]), int(least[other])
  return bars[0], bars[1], bars[2], bars[3]


def _samples(path: Path, info: VideoInfo) -> Iterator[UInt8[NdArray, "H W 3"]]:
  """Pictures from all over a film: key frames, since they are decoded at once, or others where there are too few."""
  numbers = np.linspace(0, info.frames - 1, min(_SAMPLES, info.frames)).round().astype(int).tolist()
  keys = 0
  for picture in key_frames(path, info, numbers):
    yield picture
    keys += 1
  if keys < _FEWEST:
    wanted = set(numbers)
    yield from (picture for number, picture in enumerate(read_frames(path, info=info)) if number in wanted)
