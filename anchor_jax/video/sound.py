"""The sound of a film for an MP4 that browsers play: copied where they play its kind, else encoded as AAC."""

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.filter

from anchor_jax.core.errors import one_line
from anchor_jax.video.container import film_stream, sound_stream

log = logging.getLogger(__name__)

_PLAYED = ("aac", "mp3", "opus", "flac")  # what MP4 holds and browsers play
_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)  # of AAC, samples a second
_USUAL_RATE, _BIT_RATE = 48_000, 96_000  # bits a second and channel
_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}  # channels, by FFmpeg
_LEAD = 0.1  # seconds of copied sound kept from before the picture, which are not heard: decoders need a packet or two

_BACK = 0.5  # seconds by which stamps go back: more is no mistake of rounding


@contextlib.contextmanager
def sound_of(film: str | os.PathLike, whole: Any, seconds: float) -> Iterator[Iterator[Any]]:
  """Adds the sound of a film to an open MP4 file; gives its packets in order, ready to mux, at the film's own times.

  What begins before the film's first picture, or after `seconds` of it, is left out. A sound of several is the default
  one. One that is encoded is said in a line, and so is one that nothing here decodes, which is left out. A few packets
  are in memory at a time.

  Args:
    film: a file with a picture, or sound alone.
    whole: the file to be, nothing of which is written yet.
    seconds: length of its picture.
  """
  begins = _first_picture(Path(film))
  with av.open(str(film)) as source:
    track = sound_stream(source)
    if track is None:
      yield iter(())
      return
    name = _kind(track)
    copy = _template(whole, track) if name in _PLAYED else None
    if copy is not None:
      yield _as_far_as_it_goes(_copied(source, track, copy, begins, seconds), film)
      return
    made = _encoder(whole, track)
    if made is None:
      log.warning("the sound of %s (%s) is left out: nothing here decodes it", film, name)
      yield iter(())
      return
    log.warning("the sound of %s (%s) is encoded as AAC: browsers do not play it as it is", film, name)
    yield _as_far_as_it_goes(_encoded(source, track, made, begins, seconds), film)


def _as_far_as_it_goes(packets: Iterator[Any], film: str | os.PathLike) -> Iterator[Any]:
  """The packets, up to where the file is damaged: the picture is there already, and is not lost for its sound."""
  try:
    yield from packets
  except (av.error.FFmpegError, ValueError) as error:
    say_rest_is_left_out(film, error)


def say_rest_is_left_out(film: str | os.PathLike, error: Exception) -> None:
  """Says in a line that the sound of a film ends before the film does."""
  log.warning("the rest of the sound of %s is left out: it can't be used (%s)", film, one_line(error))


def _first_picture(film: Path) -> float:
  """The time in seconds at which a film shows its first picture; 0 where it has none, or does not say."""
  with av.open(str(film)) as source, contextlib.suppress(av.error.FFmpegError):
    stream = film_stream(source)
    frame = None if stream is None else next(source.decode(stream), None)
    if stream is not None and frame is not None and frame.pts is not None:
      return float(frame.pts * stream.time_base)
  return 0.0


def _kind(track: Any) -> str:
  """FFmpeg's name for how a sound is encoded."""
  return "unknown" if track.codec_context is None else track.codec_context.codec.canonical_name


def _template(whole: Any, track: Any) -> Any | None:
  try:
    return whole.add_stream_from_template(track)
  except ValueError:  # mp4 holds no sound of that kind
    return None


def _encoder(whole: Any, track: Any) -> Any | None:
  """A new AAC stream for a sound; None where that can't be decoded."""
  context = track.codec_context
  if context is None or not context.is_decoder or not context.sample_rate or not context.channels:
    return None
  rate = context.sample_rate if context.sample_rate in _RATES else _USUAL_RATE
  layout, channels = ("mono", 1) if context.channels == 1 else ("stereo", 2)
  return whole.add_stream("aac", rate=rate, layout=layout, bit_rate=channels * min(_BIT_RATE, 4 * rate))


def _copied(source: Any, track: Any, copy: Any, begins: float, seconds: float) -> Iterator[Any]:
  for packet in _onwards(source.demux(track)):
    if packet.size and packet.pts is not None and -_LEAD <= packet.pts * packet.time_base - begins < seconds:
      late = round(begins / packet.time_base)  # our picture begins at 0
      packet.pts, packet.dts, packet.stream = packet.pts - late, (packet.dts or packet.pts) - late, copy
      yield packet


def _onwards(packets: Iterable[Any]) -> Iterator[Any]:
  """The packets; raises ValueError where their stamps go back (files that were put one behind the other)."""
  last = None
  for packet in packets:
    if packet.dts is not None:
      if last is not None and (packet.dts - last) * packet.time_base < -_BACK:
        raise ValueError("its time stamps begin anew")
      if last is not None and packet.dts <= last:
        continue
      last = packet.dts
    yield packet


def _encoded(source: Any, track: Any, made: Any, begins: float, seconds: float) -> Iterator[Any]:
  graph, shape = None, None
  for frame in _decoded(source, track):
    if frame.pts is not None:
      time = float(frame.pts * (frame.time_base or track.time_base)) - begins
      if time >= seconds:
        break
      frame.pts, frame.time_base = round(time * frame.sample_rate), Fraction(1, frame.sample_rate)
    if (found := (frame.sample_rate, frame.format.name, frame.layout.nb_channels)) != shape:
      yield from _made(graph, made, None)
      graph, shape = _graph(frame, made, seconds, begun=graph is not None), found
    yield from _made(graph, made, frame)
  yield from _made(graph, made, None)
  yield from made.encode(None)


def _decoded(source: Any, track: Any) -> Iterator[Any]:
  """The sound of all packets that are whole."""
  for packet in _onwards(source.demux(track)):
    with contextlib.suppress(av.error.InvalidDataError):
      yield from packet.decode()


def _graph(frame: Any, made: Any, seconds: float, begun: bool) -> Any:
  """A filter that takes frames like this one at their times from 0 to `seconds`, with silence where there are none."""
  context, graph = made.codec_context, av.filter.Graph()
  named = "channels" not in frame.layout.name  # files may say only how many there are
  layout = frame.layout.name if named else _LAYOUTS.get(frame.layout.nb_channels, frame.layout.name)
  unit = Fraction(1, frame.sample_rate)
  source = graph.add_abuffer(sample_rate=frame.sample_rate, format=frame.format, layout=layout, time_base=unit)
  in_time = f"{context.sample_rate}:async=1" + ("" if begun else ":first_pts=0")
  form = f"sample_fmts=fltp:channel_layouts={context.layout.name}"
  parts = [("aresample", in_time), ("aformat", form), ("atrim", f"end={seconds:.6f}"), ("abuffersink", "")]
  graph.link_nodes(source, *(graph.add(name, options) for name, options in parts)).configure()
  return graph


def _made(graph: Any, made: Any, frame: Any) -> Iterator[Any]:
  """The packets that are ready once the filter has been given a frame, or None at its end."""
  if graph is None:
    return
  with contextlib.suppress(av.error.BlockingIOError, av.error.EOFError):
    graph.push(frame)
    while True:
      yield from made.encode(graph.pull())
