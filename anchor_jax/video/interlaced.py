"""Whole pictures from interlaced film, whose odd and even rows are filmed a moment apart."""

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import av.filter

# One picture a frame (not one a field), fields in the order that each frame names; other frames stay as they are.
_OPTIONS = "mode=send_frame:parity=auto:deint=interlaced"
_KEPT = ("color_range", "colorspace", "color_primaries", "color_trc", "pts")
_UNIT = Fraction(1, 90_000)  # seconds; time stamps play no part in it


def deinterlaced(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
  """Yields the frames, those that are marked as interlaced as whole pictures (FFmpeg's bwdif); one for each.

  A picture depends on the frames before and after it: to begin within a film, take the frame before too, and drop it.

  Args:
    frames: decoded, all of one size and pixel format.
  """
  graph, before, waiting = None, None, deque()
  for frame in frames:
    if graph is None and not frame.interlaced_frame:
      before = frame
      yield frame
      continue
    if graph is None:
      graph = _graph(frame)
      for known in [] if before is None else [before]:
        graph.push(known)
        waiting.append(None)
    waiting.append(frame)
    graph.push(frame)
    yield from _ready(graph, waiting)
  if graph is not None:
    graph.push(None)
    yield from _ready(graph, waiting)


def _graph(frame: av.VideoFrame) -> Any:
  graph = av.filter.Graph()
  source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=_UNIT)
  graph.link_nodes(source, graph.add("bwdif", _OPTIONS), graph.add("buffersink")).configure()
  return graph


def _ready(graph: Any, waiting: deque) -> Iterator[av.VideoFrame]:
  """The pictures that the filter gives now; `waiting` holds their frames, None for one that was yielded before."""
  while True:
    try:
      made = graph.vpull()
    except (av.error.BlockingIOError, av.error.EOFError):
      return
    frame = waiting.popleft()
    if frame is not None:
      for name in _KEPT:
        setattr(made, name, getattr(frame, name))
      yield made
