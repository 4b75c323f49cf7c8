"""Reads video files with PyAV: their facts, and their frames as RGB."""

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
  film_stream,
  frame_rate,
  in_order,
  missing_frames,
  shown_stamps,
  sound_stream,
)
from anchor_jax.video.geometry import Geometry, geometry_of
from anchor_jax.video.hdr import is_hdr, to_sdr
from anchor_jax.video.interlaced import deinterlaced

# A file counts as truncated when more than this share of the frames that its header claims is missing.
_MISSING_SHARE = 0.05
# Seconds: without an index (MPEG), or with one of other times (AVI), a place may come after the key frame it needs.
_EARLIER = (2, 15)


@dataclasses.dataclass(frozen=True)
class VideoInfo:
  """The facts of a video file.

  Attributes:
    fps: frames per second, judged by the time stamps (see `frame_rate`).
    width, height: of the picture as it is shown (see `geometry`), in pixels.
    frames: number of frames that are shown, counted in the packets.
    seconds: from the first frame to the end of the last one, by the time stamps.
    has_audio: whether the file has a sound track.
    times: [T] time stamps of the frames in order, in units of `unit`; None where the file has none in order.
    unit: of the time stamps, in seconds; None where they are not to be believed.
    missing: number of frames that its header claims beyond those that are there: the end is cut off.
    hdr: whether its pictures are of high dynamic range; `read_frames` brings them down (video/hdr.py).
    interlaced: whether it begins with interlaced pictures; `read_frames` makes whole ones (video/interlaced.py).
    geometry: how its stored pictures are shown: turned, mirrored, with square pixels.
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
  check_name(path)
  regular_file(path, "video")
  if path.stat().st_size == 0:
    raise UserError(f"{path} is empty (0 bytes): record or copy it again")
  try:
    container = av.open(str(path))
  except (av.error.FFmpegError, ValueError):
    raise UserError(
      f"{path} is not a video that can be read, or it is cut off: give a complete mp4, mkv, mov or webm"
    ) from None
  if film_stream(container) is None:
    container.close()
    raise UserError(f"{path} has no moving picture in it, only sound, a cover or data: give a video")
  return container


def _film(container: Any) -> Any:
  """The stream of an open file that has one."""
  stream = film_stream(container)
  assert stream is not None, "checked when the file was opened"
  return stream


def _check_complete(path: Path, seen: int, missing: int) -> None:
  if not seen:
    raise UserError(f"{path} holds no frame: it is empty or cut off; record or copy it again")
  claimed = seen + missing
  if missing > max(2, _MISSING_SHARE * claimed):
    raise UserError(
      f"{path} is cut off: {seen} of {claimed} frames are there; copy it again, or prepare what is there with --cut-off"
    )


def _picture(frame: av.VideoFrame) -> UInt8[NdArray, "H W 3"]:
  """The stored picture as RGB; what is transparent is black, as players show it."""
  if is_hdr(frame):
    return to_sdr(frame)
  if not any(component.is_alpha for component in frame.format.components):
    return frame.to_ndarray(format="rgb24")
  image = frame.to_ndarray(format="rgba")
  return np.ascontiguousarray(cv2.multiply(image[..., :3], image[..., 3:].repeat(3, axis=2), scale=1 / 255))


def _decode(container: Any, stream: Any) -> Iterator[av.VideoFrame]:
  """The frames of all whole packets: those that the decoder holds back come too where the last packet is torn."""
  for packet in container.demux(stream):
    if packet.size and not packet.is_corrupt:
      yield from packet.decode()
  yield from stream.decode(None)


def probe(path: str | os.PathLike, cut_off: bool = False) -> VideoInfo:
  """Reads a video's facts: the packets are counted, only the first frame is decoded.

  Args:
    path: the video.
    cut_off: take what is there of a file whose end is missing, however much that is.

  Raises:
    UserError: no such file, empty, not a video, no picture, or cut off (more than 5 percent and 2 frames are missing).
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
      stamps = _decoded_stamps(path)  # each field may have a packet of its own, of which the second has no stamp
    unit = stream.time_base
    times = in_order(stamps)
    missing = missing_frames(claim, len(stamps), times, unit, frame_rate(rate, times, unit))
    _check_complete(path, 0 if first is None else len(stamps), 0 if cut_off else missing)
    assert first is not None
    stamps = shown_stamps(stamps, first.pts)
    times = in_order(stamps)
    count, fps = len(stamps), frame_rate(rate, times, unit)
    if not fps:
      raise UserError(f"{path} does not say its frame rate: convert it to mp4")
    geometry = geometry_of(first, stream)
  length = 0.0 if times is None or unit is None else float((times[-1] - times[0]) * unit)
  seconds = length + 1 / fps if length > 0 else count / fps
  shown = (fps, *geometry.size, count, seconds, has_audio)
  return VideoInfo(*shown, times, unit, missing, is_hdr(first), bool(first.interlaced_frame), geometry)


def _decoded_stamps(path: Path) -> list[int | None]:
  """The time stamps of all frames that can be decoded."""
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
  """Decodes a video, frame by frame, RGB and as it is shown (see `Geometry`); no further than its frames are taken.

  Args:
    path: the video.
    first: number of the first frame wanted.
    info: the video's facts, of `probe`: with them, decoding starts at the last key frame before `first`, and the frames
      that are there are enough, also where the header claims more.

  Raises:
    UserError: no such file, empty, not a video, damaged or cut off (raised when the iteration gets there).
  """
  path = Path(path)
  with _open(path) as container:
    stream = _film(container)
    stream.thread_type = "AUTO"
    claim = claim_of(container, stream) if info is None else None
    stamps, geometry = [], None if info is None else info.geometry
    lead = 1 if first and info is not None and info.interlaced else 0  # of the frame before depends how one is made
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
      times = in_order(stamps)
      rate = frame_rate(stream.average_rate, times, stream.time_base)
      missing = missing_frames(claim, seen, times, stream.time_base, rate)
    _check_complete(path, seen, missing)


def key_frames(path: str | os.PathLike, info: VideoInfo, numbers: Iterable[int]) -> Iterator[UInt8[NdArray, "H W 3"]]:
  """Decodes the last key frame before each of some frames, once; none where they can't be found by their time stamps.

  Args:
    path: the video.
    info: its facts, of `probe`.
    numbers: of the frames, rising.

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
  """The frames from number `first` on; raises where one is damaged or of another size than those before."""
  size = None
  for number, frame in enumerate(frames, start=first):
    if frame.is_corrupt:
      raise UserError(f"{path} is damaged at frame {number}: copy it again")
    if (frame.width, frame.height) != (size or (frame.width, frame.height)):
      raise UserError(f"{path} changes its picture size at frame {number}: convert it to one size")
    size = frame.width, frame.height
    yield frame


def _from(path: Path, container: Any, stream: Any, first: int, info: VideoInfo | None) -> Iterator[av.VideoFrame]:
  """The decoded frames from number `first` on, of a file that was just opened."""
  times = info.times if info is not None else None
  if first and times is not None and first < len(times) and (np.diff(times) > 0).all():
    wanted = int(times[first])
    for earlier in (0, *_EARLIER):
      found, frames = None, iter(())
      with contextlib.suppress(av.error.FFmpegError):  # no such place
        container.seek(max(int(times[0]), wanted - round(earlier / stream.time_base)), stream=stream, backward=True)
        frames = itertools.dropwhile(lambda frame: frame.pts is None or frame.pts < wanted, _decode(container, stream))
        found = next(frames, None)
      if found is not None and found.pts == wanted:
        yield found
        yield from frames
        return
    with _open(path) as again:  # stamps of packets and frames differ, or the file has no index: count instead
      yield from itertools.islice(_decode(again, _film(again)), first, None)
  else:
    yield from itertools.islice(_decode(container, stream), first, None)
