"""Deinterlaces film whose odd and even rows were captured a moment apart."""

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import av.filter

# One output per frame (not per field), field order from each frame's flag; progressive frames pass unchanged.
_OPTIONS = "mode=send_frame:parity=auto:deint=interlaced"
_COPIED = ("color_range", "colorspace", "color_primaries", "color_trc", "pts")
_UNIT = Fraction(1, 90_000)  # seconds; required by the graph, but the filter ignores time stamps


def deinterlaced(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
  """Yields one frame per input frame; those flagged as interlaced are deinterlaced with FFmpeg's bwdif.

  A result depends on the frames before and after it. To start mid-film, pass the preceding frame too and drop its
  result.

  Args:
    frames: decoded frames, all of one size and pixel format.
  """
  graph, previous, waiting = None, None, deque()
  for frame in frames:
    if graph is None and not frame.interlaced_frame:
      previous = frame
      yield frame
      continue
    if graph is None:
      graph = _graph(frame)
      if previous is not None:
        graph.push(previous)
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
  """The frames that the filter has ready; `waiting` holds their inputs, None for one that was already yielded."""
  while True:
    try:
      deinterlaced_frame = graph.vpull()
    except (av.error.BlockingIOError, av.error.EOFError):
      return
    frame = waiting.popleft()
    if frame is not None:
      for name in _COPIED:
        setattr(deinterlaced_frame, name, getattr(frame, name))
      yield deinterlaced_frame
