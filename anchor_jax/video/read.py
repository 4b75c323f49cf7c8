"""Reads video files with PyAV: properties (`probe`) and decoded RGB frames (`read_frames`)."""

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Int, NdArray, UInt8
from anchor_jax.files.inputs import regular_file
from anchor_jax.files.outputs import check_name
from anchor_jax.video.container import (
  claim_of,
  decodable_stamps,
  display_order,
  film_stream,
  frame_rate,
  missing_frames,
  sound_stream,
)
from anchor_jax.video.geometry import Geometry, geometry_of
from anchor_jax.video.hdr import is_hdr, to_sdr
from anchor_jax.video.interlaced import deinterlaced

# A file counts as truncated when more than this share of the frames its header claims is missing.
_MISSING_SHARE = 0.05
# Seconds to seek earlier when a seek lands past the key frame: without an index (MPEG), or with an inexact one (AVI).
_EARLIER = (2, 15)


@dataclasses.dataclass(frozen=True)
class VideoInfo:
  """Properties of a video file.

  Attributes:
    fps: frames per second, checked against the time stamps (see `frame_rate`).
    width, height: size of the displayed picture (see `geometry`), in pixels.
    frames: number of displayed frames, counted from the packets.
    seconds: duration from the first frame to the end of the last one, from the time stamps.
    has_audio: whether the file has an audio track.
    times: [T] sorted time stamps of the frames, in units of `unit`; None if they are missing or restart.
    unit: time stamp unit in seconds; None if the time stamps can't be trusted.
    missing: number of frames that the header claims beyond those in the file; above 0, its end is cut off.
    hdr: whether the film is HDR; `read_frames` tone-maps it (video/hdr.py).
    interlaced: whether the film starts with interlaced pictures; `read_frames` deinterlaces (video/interlaced.py).
    geometry: how stored pictures are displayed: rotation, mirroring, square pixels, cropped bars.
  """

  fps: float
  width: int
  height: int
  frames: int
  seconds: float
  has_audio: bool
  times: Int[NdArray, " T"] | None = dataclasses.field(default=None, compare=False, repr=False)
  unit: Fraction | None = dataclasses.field(default=None, compare=False, repr=False)
  missing: int = 0
  hdr: bool = False
  interlaced: bool = False
  geometry: Geometry = Geometry()


def _open(path: Path) -> av.container.InputContainer:
  """Opens a video file; raises UserError if it is no file with a video stream."""
  check_name(path)
  regular_file(path, "video")
  if path.stat().st_size == 0:
    raise UserError(f"{path} is empty (0 bytes): record or copy it again")
  try:
    container = av.open(str(path))
  except (av.error.FFmpegError, ValueError):
    raise UserError(
      f"{path} is not a video that can be read, or its end is cut off: give a complete mp4, mkv, mov or webm"
    ) from None
  if film_stream(container) is None:
    container.close()
    raise UserError(f"{path} has no moving picture, only sound, a cover image or data: give a video")
  return container


def _film(container: Any) -> Any:
  """The video stream of a file that `_open` returned."""
  stream = film_stream(container)
  assert stream is not None, "checked when the file was opened"
  return stream


def _check_complete(path: Path, seen: int, missing: int) -> None:
  if not seen:
    raise UserError(f"{path} has no frames: it is empty or cut off; record or copy it again")
  claimed = seen + missing
  if missing > max(2, _MISSING_SHARE * claimed):
    raise UserError(
      f"{path} is cut off: it has {seen} of {claimed} frames; copy it again, or prepare those frames with --cut-off"
    )


def _picture(frame: av.VideoFrame) -> UInt8[NdArray, "H W 3"]:
  """The stored picture as RGB, over black where it is transparent, as players show it."""
  if is_hdr(frame):
    return to_sdr(frame)
  if not any(component.is_alpha for component in frame.format.components):
    return frame.to_ndarray(format="rgb24")
  image = frame.to_ndarray(format="rgba")
  return np.ascontiguousarray(cv2.multiply(image[..., :3], image[..., 3:].repeat(3, axis=2), scale=1 / 255))


def _decode(container: Any, stream: Any) -> Iterator[av.VideoFrame]:
  """The frames of all intact packets, including those the decoder still buffers when the last packet is damaged."""
  for packet in container.demux(stream):
    if packet.size and not packet.is_corrupt:
      yield from packet.decode()
  yield from stream.decode(None)


def probe(path: str | os.PathLike, cut_off: bool = False) -> VideoInfo:
  """Returns a video's properties; packets are counted, and only the first frame is decoded.

  Args:
    path: the video.
    cut_off: accept a file with a missing end, no matter how much is missing.

  Raises:
    UserError: no such file, empty, not a video, no video stream, or cut off (more than 5 percent and 2 frames missing).
  """
  path = Path(path)
  with _open(path) as container:
    stream = _film(container)
    rate = stream.average_rate or stream.guessed_rate
    claim, has_audio, stamps, first = claim_of(container, stream), sound_stream(container) is not None, [], None
    try:
      for packet in container.demux(stream):
        if packet.size and not packet.is_corrupt and not packet.is_discard:
          stamps.append(packet.pts)
        if first is None:
          first = next(iter(packet.decode()), None)
    except av.error.FFmpegError:
      raise UserError(f"{path} is damaged or cut off after frame {len(stamps)}: copy it again") from None
    if first is not None and first.interlaced_frame and None in stamps:
      stamps = _decoded_stamps(path)  # each field may be its own packet, and the second one has no time stamp
    unit = stream.time_base
    times = display_order(stamps)
    missing = missing_frames(claim, len(stamps), times, unit, frame_rate(rate, times, unit))
    _check_complete(path, 0 if first is None else len(stamps), 0 if cut_off else missing)
    assert first is not None
    stamps = decodable_stamps(stamps, first.pts)
    times = display_order(stamps)
    count, fps = len(stamps), frame_rate(rate, times, unit)
    if not fps:
      raise UserError(f"{path} states no frame rate: convert it to mp4")
    geometry = geometry_of(first, stream)
  length = 0.0 if times is None or unit is None else float((times[-1] - times[0]) * unit)
  seconds = length + 1 / fps if length > 0 else count / fps
  shown = (fps, *geometry.size, count, seconds, has_audio)
  return VideoInfo(*shown, times, unit, missing, is_hdr(first), bool(first.interlaced_frame), geometry)


def _decoded_stamps(path: Path) -> list[int | None]:
  """Time stamps of all frames that decode."""
  with _open(path) as container:
    stream = _film(container)
    stream.thread_type = "AUTO"
    try:
      return [frame.pts for frame in _decode(container, stream)]
    except av.error.FFmpegError:
      raise UserError(f"{path} is damaged or cut off: copy it again") from None


def read_frames(
  path: str | os.PathLike, first: int = 0, info: VideoInfo | None = None
) -> Iterator[UInt8[NdArray, "H W 3"]]:
  """Yields a video's frames as RGB in display geometry (see `Geometry`), decoding lazily.

  Args:
    path: the video.
    first: index of the first frame to yield.
    info: the video's `probe`. With it, decoding starts at the last key frame before `first`, and a missing end of the
      file is no error.

  Raises:
    UserError: no such file, empty, not a video, damaged or cut off (raised when iteration gets there).
  """
  path = Path(path)
  with _open(path) as container:
    stream = _film(container)
    stream.thread_type = "AUTO"
    claim = claim_of(container, stream) if info is None else None
    stamps, geometry = [], None if info is None else info.geometry
    lead = 1 if first and info is not None and info.interlaced else 0  # deinterlacing needs the preceding frame
    try:
      frames = _checked(path, _from(path, container, stream, first - lead, info), first - lead)
      for frame in itertools.islice(deinterlaced(frames), lead, None):
        geometry = geometry_of(frame, stream) if geometry is None else geometry
        yield geometry.shown(_picture(frame))
        stamps.append(frame.pts)
    except av.error.FFmpegError:
      raise UserError(f"{path} is damaged or cut off after frame {first + len(stamps)}: copy it again") from None
    seen = first + len(stamps)
    if claim is None:
      missing = info.frames - seen if info is not None else 0
    else:
      times = display_order(stamps)
      rate = frame_rate(stream.average_rate, times, stream.time_base)
      missing = missing_frames(claim, seen, times, stream.time_base, rate)
    _check_complete(path, seen, missing)


def key_frames(path: str | os.PathLike, info: VideoInfo, numbers: Iterable[int]) -> Iterator[UInt8[NdArray, "H W 3"]]:
  """Yields the last key frame before each of some frames, each once; nothing if the video has no usable time stamps.

  Args:
    path: the video.
    info: its `probe`.
    numbers: ascending frame indices.

  Raises:
    UserError: see `probe`.
  """
  if info.times is None:
    return
  with _open(Path(path)) as container, contextlib.suppress(av.error.FFmpegError):
    stream, seen = _film(container), set()
    for number in numbers:
      container.seek(int(info.times[number]), stream=stream, backward=True)
      frame = next(_decode(container, stream), None)
      if frame is not None and not frame.is_corrupt and frame.pts not in seen:
        seen.add(frame.pts)
        yield info.geometry.shown(_picture(frame))


def _checked(path: Path, frames: Iterable[av.VideoFrame], first: int) -> Iterator[av.VideoFrame]:
  """The frames, numbered from `first`; raises UserError at a damaged one or one that changes size."""
  size = None
  for number, frame in enumerate(frames, start=first):
    if frame.is_corrupt:
      raise UserError(f"{path} is damaged at frame {number}: copy it again")
    if (frame.width, frame.height) != (size or (frame.width, frame.height)):
      raise UserError(f"{path} changes its picture size at frame {number}: convert it to one size")
    size = frame.width, frame.height
    yield frame


def _from(path: Path, container: Any, stream: Any, first: int, info: VideoInfo | None) -> Iterator[av.VideoFrame]:
  """The decoded frames from index `first` on, of a freshly opened file."""
  times = info.times if info is not None else None
  if first and times is not None and first < len(times) and (np.diff(times) > 0).all():
    target = int(times[first])
    for earlier in (0, *_EARLIER):
      found, frames = None, iter(())
      with contextlib.suppress(av.error.FFmpegError):  # the seek failed
        container.seek(max(int(times[0]), target - round(earlier / stream.time_base)), stream=stream, backward=True)
        frames = itertools.dropwhile(lambda frame: frame.pts is None or frame.pts < target, _decode(container, stream))
        found = next(frames, None)
      if found is not None and found.pts == target:
        yield found
        yield from frames
        return
    with _open(path) as reopened:  # packet and frame time stamps differ, or there is no index: count frames instead
      yield from itertools.islice(_decode(reopened, _film(reopened)), first, None)
  else:
    yield from itertools.islice(_decode(container, stream), first, None)
