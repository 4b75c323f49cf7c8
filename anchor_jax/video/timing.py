"""A constant frame rate from the time stamps of a video: phones film at a varying rate."""

import logging
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from anchor_jax.video.read import VideoInfo

log = logging.getLogger(__name__)

_MOST = 4  # ticks for each frame; what has more (and is not short) has wrong time stamps, or a long pause
_SHORT = 10  # seconds


def tick_frames(info: VideoInfo) -> list[int] | None:
  """Returns for each tick of the constant rate `info.fps` the number of the frame nearest in time.

  None where frame n is tick n: each frame is within half a frame of its own tick, there are no time stamps, or they
  leave three quarters of more than 10 seconds without a frame and are not to be believed.
  """
  if info.times is None or info.unit is None or len(info.times) < 2:
    return None
  at = (info.times - info.times[0]) * float(info.unit * Fraction(info.fps))  # in ticks
  if np.abs(at - np.arange(len(at))).max() <= 0.5:
    return None
  count = round(float(at[-1])) + 1
  if count > _MOST * len(at) + _SHORT * info.fps:
    message = "%d frames are spread over %.0f s by their time stamps, which are ignored therefore: taken as %g a second"
    log.warning(message, len(at), count / info.fps, info.fps)
    return None
  return np.searchsorted((at[1:] + at[:-1]) / 2, np.arange(count), side="right").tolist()


def tick_count(info: VideoInfo) -> int:
  """Returns the number of ticks: the length of the video in frames of its constant rate."""
  ticks = tick_frames(info)
  return info.frames if ticks is None else len(ticks)


def pick(items: Iterable[Any], numbers: Iterable[int], first: int = 0) -> Iterator[Any]:
  """The items of these numbers, which do not fall; `items` begin with number `first`."""
  source = enumerate(items, start=first)
  here, item = next(source, (None, None))
  for number in numbers:
    while here is not None and here < number:
      here, item = next(source, (None, None))
    if here is None:
      return
    yield item
