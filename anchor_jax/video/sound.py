"""A film's sound for an MP4 that browsers play: copied if they support its codec, else re-encoded as AAC."""

import contextlib
import heapq
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.filter

from anchor_jax.core.errors import one_line
from anchor_jax.video.container import film_stream, sound_stream
from anchor_jax.video.splice import Splice

log = logging.getLogger(__name__)

_COPIED_CODECS = ("aac", "mp3", "opus", "flac")  # codecs that MP4 holds and browsers play
_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)  # sample rates of AAC in Hz
_DEFAULT_RATE = 48_000  # Hz
_BIT_RATE = 96_000  # bits per second and channel
_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}  # FFmpeg's names
_LEAD = 0.1  # seconds copied from before the picture; decoders need a packet or two to start, and play none of it
_MAX_BACKWARD = 0.5  # seconds; time stamps that jump back further are no rounding error

Stretches = Sequence[tuple[float, float]]  # begins and ends in seconds, rising, without overlaps


def copy_with_sound(
  source: Any, output: Any, film: str | os.PathLike | None, seconds: float, stretches: Stretches | None = None
) -> None:
  """Copies the picture of an open MP4 file into another one, with the sound of a film (`sound_of`), in order of time.

  Args:
    source: open for reading.
    output: open for writing, with no packet written yet.
    film, seconds, stretches: see `sound_of`; without a film there is no sound.
  """
  video = source.streams.video[0]
  stream = output.add_stream_from_template(video)
  with contextlib.nullcontext(iter(())) if film is None else sound_of(film, output, seconds, stretches) as sound:
    video_packets = (packet for packet in source.demux(video) if packet.size)
    silent = False
    for packet in heapq.merge(video_packets, sound, key=_time):
      if packet.stream is video:
        packet.stream = stream
        output.mux(packet)
      elif not silent:
        try:
          output.mux(packet)
        except ValueError as error:  # not the codec it claims to be; do not lose the picture over it
          _warn_sound_ends(str(film), error)
          silent = True


def _time(packet: Any) -> float:
  """Decode time of a packet in seconds."""
  return float((packet.pts if packet.dts is None else packet.dts) * packet.time_base)


@contextlib.contextmanager
def sound_of(
  film: str | os.PathLike, output: Any, seconds: float, stretches: Stretches | None = None
) -> Iterator[Iterator[Any]]:
  """Adds a film's sound to an open MP4 file; the context value yields its packets in order, ready to mux.

  Packets keep their timing relative to the film's first picture; those before it or after `seconds` are dropped. Takes
  the default of several audio tracks. Logs when sound is re-encoded, or dropped because no decoder is available.
  Holds only a few packets in memory.

  Args:
    film: a video or audio file.
    output: an MP4 file open for writing, with no packet written yet.
    seconds: length of its picture.
    stretches: what the picture shows of the film's time; all other sound is cut out, and what stays is encoded again.
  """
  begins = _first_picture(Path(film))
  with av.open(str(film)) as source:
    track = sound_stream(source)
    if track is None:
      yield iter(())
      return
    name = _codec_name(track)
    copy = _template(output, track) if stretches is None and name in _COPIED_CODECS else None
    if copy is not None:
      yield _until_damaged(_copied(source, track, copy, begins, seconds), film)
      return
    encoder = _encoder(output, track)
    if encoder is None:
      log.warning("the sound of %s (%s) is dropped: no decoder for it is installed", film, name)
      yield iter(())
      return
    splice = None
    if stretches is None:
      log.warning("the sound of %s (%s) is encoded as AAC: browsers do not play it as it is", film, name)
    else:
      splice, seconds = Splice(stretches, encoder.codec_context.sample_rate), stretches[-1][1]
    yield _until_damaged(_encoded(source, track, encoder, begins, seconds, splice), film)


def _until_damaged(packets: Iterator[Any], film: str | os.PathLike) -> Iterator[Any]:
  """The packets up to the first error: damaged sound must not cost the generated picture."""
  try:
    yield from packets
  except (av.error.FFmpegError, ValueError) as error:
    _warn_sound_ends(film, error)


def _warn_sound_ends(film: str | os.PathLike, error: Exception) -> None:
  """Logs that the rest of a film's sound is dropped."""
  log.warning("the rest of the sound of %s is dropped: it can't be used (%s)", film, one_line(error))


def _first_picture(film: Path) -> float:
  """The time in seconds of a film's first picture; 0 if it has none or no time stamp."""
  with av.open(str(film)) as source, contextlib.suppress(av.error.FFmpegError):
    stream = film_stream(source)
    frame = None if stream is None else next(source.decode(stream), None)
    if stream is not None and frame is not None and frame.pts is not None:
      return float(frame.pts * stream.time_base)
  return 0.0


def _codec_name(track: Any) -> str:
  """FFmpeg's name of an audio track's codec."""
  return "unknown" if track.codec_context is None else track.codec_context.codec.canonical_name


def _template(output: Any, track: Any) -> Any | None:
  try:
    return output.add_stream_from_template(track)
  except ValueError:  # MP4 can't hold this codec
    return None


def _encoder(output: Any, track: Any) -> Any | None:
  """A new AAC stream for an audio track; None if the track can't be decoded."""
  context = track.codec_context
  if context is None or not context.is_decoder or not context.sample_rate or not context.channels:
    return None
  rate = context.sample_rate if context.sample_rate in _RATES else _DEFAULT_RATE
  layout, channels = ("mono", 1) if context.channels == 1 else ("stereo", 2)
  return output.add_stream("aac", rate=rate, layout=layout, bit_rate=channels * min(_BIT_RATE, 4 * rate))


def _copied(source: Any, track: Any, copy: Any, begins: float, seconds: float) -> Iterator[Any]:
  for packet in _increasing(source.demux(track)):
    if packet.size and packet.pts is not None and -_LEAD <= packet.pts * packet.time_base - begins < seconds:
      shift = round(begins / packet.time_base)  # the output's picture begins at 0
      packet.pts, packet.dts, packet.stream = packet.pts - shift, (packet.dts or packet.pts) - shift, copy
      yield packet


def _increasing(packets: Iterable[Any]) -> Iterator[Any]:
  """The packets in increasing time; raises ValueError where time stamps restart, as in concatenated files."""
  last = None
  for packet in packets:
    if packet.dts is not None:
      if last is not None and (packet.dts - last) * packet.time_base < -_MAX_BACKWARD:
        raise ValueError("its time stamps restart")
      if last is not None and packet.dts <= last:
        continue
      last = packet.dts
    yield packet


def _encoded(
  source: Any, track: Any, encoder: Any, begins: float, seconds: float, splice: Splice | None
) -> Iterator[Any]:
  graph, format = None, None
  for frame in _decoded(source, track):
    if frame.pts is not None:
      time = float(frame.pts * (frame.time_base or track.time_base)) - begins
      if time >= seconds:
        break
      frame.pts, frame.time_base = round(time * frame.sample_rate), Fraction(1, frame.sample_rate)
    if (found := (frame.sample_rate, frame.format.name, frame.layout.nb_channels)) != format:
      yield from _filter_and_encode(graph, encoder, splice, None)
      graph, format = _graph(frame, encoder, seconds, begun=graph is not None), found
    yield from _filter_and_encode(graph, encoder, splice, frame)
  yield from _filter_and_encode(graph, encoder, splice, None)
  yield from encoder.encode(None)


def _decoded(source: Any, track: Any) -> Iterator[Any]:
  """The audio frames of all intact packets."""
  for packet in _increasing(source.demux(track)):
    with contextlib.suppress(av.error.InvalidDataError):
      yield from packet.decode()


def _graph(frame: Any, encoder: Any, seconds: float, begun: bool) -> Any:
  """A filter for frames like this one: converts to the encoder's format, cuts to 0..`seconds`, fills gaps with silence.

  `begun`: an earlier filter produced the start, so nothing is padded before the first frame.
  """
  context, graph = encoder.codec_context, av.filter.Graph()
  named = "channels" not in frame.layout.name  # some files state only the number of channels
  layout = frame.layout.name if named else _LAYOUTS.get(frame.layout.nb_channels, frame.layout.name)
  unit = Fraction(1, frame.sample_rate)
  source = graph.add_abuffer(sample_rate=frame.sample_rate, format=frame.format, layout=layout, time_base=unit)
  in_time = f"{context.sample_rate}:async=1" + ("" if begun else ":first_pts=0")
  form = f"sample_fmts=fltp:channel_layouts={context.layout.name}"
  parts = [("aresample", in_time), ("aformat", form), ("atrim", f"end={seconds:.6f}"), ("abuffersink", "")]
  graph.link_nodes(source, *(graph.add(name, options) for name, options in parts)).configure()
  return graph


def _filter_and_encode(graph: Any, encoder: Any, splice: Splice | None, frame: Any) -> Iterator[Any]:
  """Pushes a frame, or None at the end, through the filter; yields the packets that are ready."""
  if graph is None:
    return
  with contextlib.suppress(av.error.BlockingIOError, av.error.EOFError):
    graph.push(frame)
    while True:
      filtered = graph.pull()
      for kept in (filtered,) if splice is None else splice.frames(filtered):
        yield from encoder.encode(kept)
