"""Reads and writes video files with PyAV: H.264 that browsers play, and lossless streams for poses and masks."""

import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
from tqdm import tqdm

from anchor_jax.errors import UserError
from anchor_jax.files import new_file
from anchor_jax.inputs import regular_file
from anchor_jax.motion.hdr import is_hdr, to_sdr
from anchor_jax.shapes import Int, NdArray, UInt8

# A file counts as truncated when more than this share of the frames that its header claims is missing.
_MISSING_SHARE = 0.05


class Format(NamedTuple):
  """How a video stream is encoded: encoder, pixel format, and the encoder's options, all by FFmpeg's names."""

  codec: str
  pixels: str
  options: Mapping[str, str]


H264 = Format("libx264", "yuv420p", {"preset": "medium"})
LOSSLESS = Format("libx264rgb", "rgb24", {"preset": "ultrafast", "qp": "0"})


@dataclasses.dataclass(frozen=True)
class VideoInfo:
  """The facts of a video file.

  Attributes:
    fps: frames per second, judged by the time stamps (see `frame_rate`).
    width, height: of the picture as it is shown (after rotation), in pixels.
    frames: number of frames, counted in the packets.
    seconds: from the first frame to the end of the last one, by the time stamps.
    has_audio: whether the file has a sound track.
    times: [T] time stamps of the frames in order, in units of `unit`; None where the file has none.
    unit: of the time stamps, in seconds; None where they are not to be believed.
    missing: number of frames that its header claims beyond those that are there: the end is cut off.
    rotation: quarter turns, counter-clockwise, by which its pictures are turned to stand upright.
    hdr: whether its pictures are of high dynamic range; `read_frames` brings them down (motion/hdr.py).
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
  rotation: int = 0
  hdr: bool = False


def _open(path: Path) -> av.container.InputContainer:
  regular_file(path, "video")
  if path.stat().st_size == 0:
    raise UserError(f"{path} is empty (0 bytes): record or copy it again")
  try:
    container = av.open(str(path))
  except (av.error.FFmpegError, ValueError):
    raise UserError(
      f"{path} is not a video that can be read, or it is cut off: give a complete mp4, mkv, mov or webm"
    ) from None
  if not container.streams.video:
    container.close()
    raise UserError(f"{path} has no picture in it, only sound or data: give a video")
  return container


def _claimed_frames(stream: Any, rate: float | None) -> int:
  """How many frames the header says there are, 0 where it does not say (a live recording)."""
  if stream.frames:
    return stream.frames
  clock = stream.metadata.get("DURATION", "")  # Matroska keeps each stream's length in a tag, h:m:s
  if rate and clock.count(":") == 2:
    hours, minutes, seconds = clock.split(":")
    return int((int(hours) * 3600 + int(minutes) * 60 + float(seconds)) * rate)
  return 0


def _check_complete(path: Path, seen: int, claimed: int) -> None:
  if not seen:
    raise UserError(f"{path} holds no frame: it is empty or cut off; record or copy it again")
  if claimed - seen > max(2, _MISSING_SHARE * claimed):
    raise UserError(
      f"{path} is cut off: {seen} of {claimed} frames are there; copy it again, or prepare what is there with --cut-off"
    )


def _quarter_turns(frame: av.VideoFrame) -> int:
  """How often its file says to turn the picture, counter-clockwise; phones store portraits as landscapes."""
  return round(frame.rotation / 90) % 4


def _picture(frame: av.VideoFrame) -> UInt8[NdArray, "H W 3"]:
  """The frame as RGB, upright."""
  image = to_sdr(frame) if is_hdr(frame) else frame.to_ndarray(format="rgb24")
  turns = _quarter_turns(frame)
  return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def _decode(container: Any, stream: Any) -> Iterator[av.VideoFrame]:
  """The frames of all whole packets: those that the decoder holds back come too where the last packet is torn."""
  for packet in container.demux(stream):
    if packet.size and not packet.is_corrupt:
      yield from packet.decode()
  yield from stream.decode(None)


def frame_rate(claim: Fraction | None, times: Int[NdArray, " T"] | None, unit: Fraction | None) -> float | None:
  """Returns the frames per second of a stream: what its header claims, unless the time stamps contradict it.

  Args:
    claim: of the header.
    times: [T] time stamps in order, in units of `unit` seconds.

  Returns:
    The claim where it agrees with the stamps' mean distance up to 2 percent or one unit; else the rate of the usual
    distance, which is the mean of those near the median. The claim where there are too few stamps; None if neither.
  """
  steps = np.diff(times) if times is not None else np.zeros(0)
  if unit is None or not len(steps) or not steps.any():
    return float(claim) if claim else None
  if claim and abs(1 / float(claim * unit) - steps.mean()) <= max(0.02 * steps.mean(), 1 / len(steps)):
    return float(claim)
  middle = np.median(steps[steps > 0])
  usual = steps[(steps > 0.5 * middle) & (steps < 1.5 * middle)]
  return float(Fraction(1 / float(usual.mean() * unit)).limit_denominator(1001))  # stamps may be rounded


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
    stream = container.streams.video[0]
    claim = stream.average_rate or stream.guessed_rate
    has_audio, stamps, first = bool(container.streams.audio), [], None
    try:
      for packet in container.demux(stream):
        if packet.size and not packet.is_corrupt:
          stamps.append(packet.pts)
        if first is None:
          first = next(iter(packet.decode()), None)
    except av.error.FFmpegError:
      raise UserError(f"{path} is damaged or cut off after frame {len(stamps)}: copy it again") from None
    count, unit = len(stamps), stream.time_base
    times = None if None in stamps else np.sort(np.array(stamps, np.int64))
    fps = frame_rate(claim, times, unit)
    claimed = _claimed_frames(stream, fps)
    _check_complete(path, count if first is not None else 0, 0 if cut_off else claimed)
    assert first is not None
    if not fps:
      raise UserError(f"{path} does not say its frame rate: convert it to mp4")
    turns = _quarter_turns(first)
  width, height = (first.height, first.width) if turns % 2 else (first.width, first.height)
  length = 0.0 if times is None or unit is None else float((times[-1] - times[0]) * unit)
  seconds = length + 1 / fps if length > 0 else count / fps
  missing = max(0, claimed - count)
  return VideoInfo(fps, width, height, count, seconds, has_audio, times, unit, missing, turns, is_hdr(first))


def read_frames(
  path: str | os.PathLike, first: int = 0, info: VideoInfo | None = None
) -> Iterator[UInt8[NdArray, "H W 3"]]:
  """Decodes a video, frame by frame, RGB and upright; no further than its frames are taken.

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
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    stamps, shape = [], None
    try:
      for frame in _from(container, stream, first, info):
        if frame.is_corrupt:
          raise UserError(f"{path} is damaged at frame {first + len(stamps)}: copy it again")
        image = _picture(frame)
        if image.shape != (shape or image.shape):
          raise UserError(f"{path} changes its picture size at frame {first + len(stamps)}: convert it to one size")
        shape = image.shape
        yield image
        stamps.append(frame.pts)
    except av.error.FFmpegError:
      raise UserError(f"{path} is damaged or cut off after frame {first + len(stamps)}: copy it again") from None
    times = None if None in stamps else np.array(stamps, np.int64)
    rate = frame_rate(stream.average_rate, times, stream.time_base)
    _check_complete(path, first + len(stamps), _claimed_frames(stream, rate) if info is None else info.frames)


def _from(container: Any, stream: Any, first: int, info: VideoInfo | None) -> Iterator[av.VideoFrame]:
  """The decoded frames from number `first` on."""
  times = info.times if info is not None else None
  if first and times is not None and first < len(times) and (np.diff(times) > 0).all():
    wanted = int(times[first])
    container.seek(wanted, stream=stream, backward=True)
    frames = itertools.dropwhile(lambda frame: frame.pts is None or frame.pts < wanted, _decode(container, stream))
    found = next(frames, None)
    if found is not None and found.pts == wanted:
      yield found
      yield from frames
      return
    container.seek(int(times[0]), stream=stream, backward=True)  # stamps of packets and frames differ: count instead
  yield from itertools.islice(_decode(container, stream), first, None)


def even(frame: UInt8[NdArray, "H W C"]) -> UInt8[NdArray, "h w C"]:
  """Returns the frame with an odd width or height padded by a repeated row or column, since yuv420p needs even ones."""
  height, width = frame.shape[:2]
  if not (height % 2 or width % 2):
    return frame
  return cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)


def default_crf(height: int, width: int) -> int:
  """The quality of the H.264 stream of a video of this size, 0 (best) to 51.

  Small videos are looked at enlarged: at 128 pixels 18 adds 1.5 grey levels of flicker, 12 adds 1.0 for half as many
  bytes more. At 512 the compression of 18 is hard to see.
  """
  return 18 if min(height, width) >= 512 else 12


def add_stream(
  container: Any, fps: Fraction, frame: UInt8[NdArray, "H W C"], options: Mapping[str, str], format: Format = H264
) -> Any:
  """Adds a stream for frames of this size; `options` go before those of the format."""
  stream = container.add_stream(format.codec, rate=fps)
  stream.height, stream.width, stream.pix_fmt = *frame.shape[:2], format.pixels
  stream.codec_context.time_base = 1 / fps
  if format.pixels.startswith("yuv"):
    # Players guess the colours of a stream that does not name them: ITU-R BT.601, limited range.
    context = stream.codec_context
    context.color_range, context.colorspace, context.color_primaries, context.color_trc = 1, 6, 6, 6
  stream.options = {**format.options, **options}
  return stream


def picture_of(frame: UInt8[NdArray, "H W C"], number: int, fps: Fraction) -> av.VideoFrame:
  """Returns frame `number`, RGB or RGBA, with its time stamp, for the encoder."""
  picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24" if frame.shape[2] == 3 else "rgba")
  picture.pts, picture.time_base = number, 1 / fps
  return picture


class VideoWriter:
  """Writes RGB frames to a video file; a context manager. The file is renamed to its name when the block succeeds.

  H.264, yuv420p, index in front: plays in a browser. An odd width or height is padded (`even`). With `lossless`, every
  value is exact (H.264 RGB in Matroska; not for browsers).

  Attributes:
    frames: number of frames written so far.
  """

  def __init__(
    self,
    path: str | os.PathLike,
    fps: float | int,
    size: tuple[int, int] | None = None,
    *,
    lossless: bool = False,
    crf: int | None = None,
    metadata: Mapping[str, str] | None = None,
  ):
    """Prepares the file; it is opened by the `with` statement.

    Args:
      path: an .mp4 (or .mkv, .mov) file; with `lossless`, an .mkv file.
      fps: frames per second, above 0.
      size: (width, height) in pixels; by default that of the first frame.
      lossless: keep every value exactly.
      crf: quality of the H.264 stream, 0 (best) to 51; None: `default_crf`.
      metadata: free text tags of the file.
    """
    if not fps > 0:
      raise UserError(f"a video needs a frame rate above 0, not {fps}")
    self.path, self.frames = Path(path), 0
    self._fps, self._size, self._lossless, self._crf = Fraction(fps).limit_denominator(1001), size, lossless, crf
    self._metadata = dict(metadata or {})
    self._container: Any = None
    self._stream: Any = None

  def __enter__(self) -> "VideoWriter":
    self._file = new_file(self.path)
    partial = self._file.__enter__()
    try:
      options = {"movflags": "+faststart+use_metadata_tags"} if self.path.suffix in (".mp4", ".mov") else {}
      self._container = av.open(str(partial), "w", options=options)
    except (OSError, ValueError) as error:
      self._file.__exit__(type(error), error, error.__traceback__)
      raise UserError(f"cannot write {self.path}: give a file name that ends in .mp4 or .mkv") from None
    self._container.metadata.update(self._metadata)
    return self

  def write(self, frame: UInt8[NdArray, "H W 3"]) -> None:
    """Appends one RGB frame of the video's size."""
    assert self._container is not None, "VideoWriter is a context manager: use it in a `with` statement"
    height, width = frame.shape[:2]
    self._size = self._size or (width, height)
    if (width, height) != self._size:
      raise ValueError(f"frame {self.frames} is {width}x{height}, the video {self._size[0]}x{self._size[1]}")
    frame = frame if self._lossless else even(frame)
    if self._stream is None:
      crf = default_crf(height, width) if self._crf is None else self._crf
      options, kind = ({}, LOSSLESS) if self._lossless else ({"crf": str(crf)}, H264)
      self._stream = add_stream(self._container, self._fps, frame, options, kind)
    self._container.mux(self._stream.encode(picture_of(frame, self.frames, self._fps)))
    self.frames += 1

  def __exit__(self, kind, error, traceback) -> None:
    assert self._container is not None
    try:
      if kind is None and not self.frames:
        raise UserError(f"no frame to write to {self.path}")
      if kind is None:
        self._container.mux(self._stream.encode(None))
      self._container.close()
    except BaseException as problem:
      if kind is None:
        self._file.__exit__(type(problem), problem, problem.__traceback__)
        raise
    self._file.__exit__(kind, error, traceback)


def write_video(
  path: str | os.PathLike,
  frames: Iterable[UInt8[NdArray, "H W 3"]],
  fps: float | int,
  *,
  metadata: Mapping[str, str] | None = None,
  total: int | None = None,
  progress: str | None = None,
) -> int:
  """Writes frames to an H.264 video that browsers play, as they come; returns their number.

  Args:
    path: an .mp4 (or .mkv, .mov) file; it takes its name when all frames are written.
    frames: RGB, all of one size.
    fps: frames per second, above 0.
    metadata: text tags of the file.
    total: number of frames to come, for the progress bar.
    progress: label of a progress bar; None for no bar.

  Raises:
    UserError: the file cannot be written, or there is no frame.
  """
  with VideoWriter(path, fps, metadata=metadata) as writer:
    for frame in tqdm(frames, desc=progress, total=total, disable=progress is None, unit="frame"):
      writer.write(np.asarray(frame))
  return writer.frames
