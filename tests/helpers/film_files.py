"""Film files as phones and editors write them, made with PyAV; MP4 boxes are patched where it has no setting."""

import struct
from fractions import Fraction

import av
import numpy as np

_FOLDERS = (b"moov", b"trak", b"edts", b"mdia", b"minf", b"stbl")


def pictures(count, size=(64, 48)):
  """Pictures that differ from frame to frame and in all four corners."""
  width, height = size
  y, x = np.indices((height, width))
  return [
    np.stack([40 + x * 160 // width, 40 + y * 160 // height, np.full_like(x, 40 + 5 * i % 200)], axis=-1).astype(
      np.uint8
    )
    for i in range(count)
  ]


def write_film(
  path,
  frames,
  rate=25,
  *,
  codec="libx264",
  pixels="yuv420p",
  options=None,
  stamps=None,
  sound=None,
  aspect=None,
  prepare=None,
):
  """Writes RGB frames, shown at `stamps` / rate seconds; returns the path.

  Args:
    options: encoder options.
    aspect: aspect ratio of a pixel.
    sound: silence with clicks: (codec, sample rate, click times in seconds, length in seconds, start of the track).
    prepare: called with the container before any stream is added.
  """
  rate = Fraction(rate)
  with av.open(str(path), "w") as container:
    if prepare is not None:
      prepare(container)
    stream = container.add_stream(codec, rate=rate)
    stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], pixels
    stream.options = {"crf": "5"} | (options or {}) if codec == "libx264" else options or {}
    stream.codec_context.time_base = 1 / rate
    if aspect is not None:
      stream.codec_context.sample_aspect_ratio = aspect
    track = None if sound is None else container.add_stream(sound[0], rate=sound[1])
    if track is not None:
      track.layout = "mono"
      _write_clicks(container, track, *sound[1:])
    for number, frame in enumerate(frames):
      picture = av.VideoFrame.from_ndarray(frame, format="rgba" if frame.shape[2] == 4 else "rgb24")
      picture.pts, picture.time_base = number if stamps is None else stamps[number], 1 / rate
      container.mux(stream.encode(picture))
    container.mux(stream.encode(None))
  return path


def _write_clicks(container, track, rate, clicks, seconds, begins=0.0):
  wave = np.zeros((1, round(rate * seconds)), np.int16)
  for click in clicks:
    at = round((click - begins) * rate)
    wave[0, at : at + rate // 50] = 20_000 * np.sin(np.arange(rate // 50) * 2 * np.pi / 8)
  for first in range(0, wave.shape[1], 1024):
    part = av.AudioFrame.from_ndarray(wave[:, first : first + 1024], format="s16", layout="mono")
    part.sample_rate, part.pts, part.time_base = rate, first + round(begins * rate), Fraction(1, rate)
    container.mux(track.encode(part))
  container.mux(track.encode(None))


def clicks_in(path, begins=0.0):
  """Times of the clicks in a file's sound, in seconds after `begins`."""
  heard = []
  with av.open(str(path)) as container:
    resampler = av.AudioResampler(format="flt", layout="mono")
    for frame in container.decode(audio=0):
      for part in resampler.resample(frame):
        loud = np.abs(part.to_ndarray()[0])
        heard += [part.time + n / part.sample_rate - begins for n in np.flatnonzero(loud > 0.15)]
  heard = [time for number, time in enumerate(heard) if not number or time - heard[number - 1] > 0.1]
  return heard


def boxes(data, start=0, end=None):
  """Yields the boxes of an MP4, including nested ones: (kind, start, end, start of the body); ISO/IEC 14496-12, 4.2."""
  end = len(data) if end is None else end
  while start + 8 <= end:
    size, kind, head = int.from_bytes(data[start : start + 4], "big"), bytes(data[start + 4 : start + 8]), 8
    if size == 1:
      size, head = int.from_bytes(data[start + 8 : start + 16], "big"), 16
    yield kind, start, start + size, start + head
    if kind in _FOLDERS:
      yield from boxes(data, start + head, start + size)
    start += size


def set_matrix(path, matrix):
  """Writes a display matrix (a b u c d v x y w, a to d as plain numbers) into the first track of an MP4."""
  data = bytearray(path.read_bytes())
  body = next(body for kind, _, _, body in boxes(data) if kind == b"tkhd")
  a, b, c, d = (round(number * 2**16) for number in matrix)
  struct.pack_into(">9i", data, body + 40, a, b, 0, c, d, 0, 0, 0, 2**30)
  path.write_bytes(data)
  return path


def trim(path, shifts, milliseconds):
  """Trims an MP4 without re-encoding: all packets stay, and the edit list selects a part of them.

  Args:
    shifts: later start of each track, in the track's time units.
    milliseconds: length of the part.
  """
  data = bytearray(path.read_bytes())
  lists = [body for kind, _, _, body in boxes(data) if kind == b"elst"]
  for body, shift in zip(lists, shifts, strict=True):
    begins = struct.unpack_from(">I", data, body + 12)[0]
    struct.pack_into(">II", data, body + 8, milliseconds, begins + shift)
  path.write_bytes(data)
  return path
