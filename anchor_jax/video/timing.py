"""Resamples video with a varying frame rate, as phones record it, to a constant rate."""

import logging
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from anchor_jax.video.read import VideoInfo

log = logging.getLogger(__name__)

_MAX_TICKS = 4  # per frame on average; a long video above this has wrong time stamps, or a long pause
_SHORT = 10  # seconds by which the limit is relaxed


def tick_frames(info: VideoInfo) -> list[int] | None:
  """Returns the index of the nearest frame in time for each tick of the constant rate `info.fps`.

  None means that frame n is tick n: each frame is within half a tick of its own, there are no time stamps, or they
  can't be right (they leave three quarters of a span of more than 10 seconds without a frame).
  """
  if info.times is None or info.unit is None or len(info.times) < 2:
    return None
  at = (info.times - info.times[0]) * float(info.unit * Fraction(info.fps))  # in ticks
  if np.abs(at - np.arange(len(at))).max() <= 0.5:
    return None
  count = round(float(at[-1])) + 1
  if count > _MAX_TICKS * len(at) + _SHORT * info.fps:
    message = "the time stamps spread %d frames over %.0f s, which can't be right: using %g frames per second instead"
    log.warning(message, len(at), count / info.fps, info.fps)
    return None
  return np.searchsorted((at[1:] + at[:-1]) / 2, np.arange(count), side="right").tolist()


def tick_count(info: VideoInfo) -> int:
  """Returns the length of the video in ticks of its constant frame rate."""
  ticks = tick_frames(info)
  return info.frames if ticks is None else len(ticks)


def pick(items: Iterable[Any], numbers: Iterable[int], first: int = 0) -> Iterator[Any]:
  """Yields the items at nondecreasing indices; the first of `items` has index `first`."""
  source = enumerate(items, start=first)
  position, item = next(source, (None, None))
  for number in numbers:
    while position is not None and position < number:
      position, item = next(source, (None, None))
    if position is None:
      return
    yield item
