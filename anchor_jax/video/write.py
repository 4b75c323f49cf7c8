"""Writes video files with PyAV: H.264 that browsers play, and lossless streams for poses and masks."""

import os
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
from tqdm import tqdm

from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import NdArray, UInt8
from anchor_jax.files.inputs import regular_file
from anchor_jax.files.outputs import new_file, partial_path, refuse_overwriting
from anchor_jax.video.container import has_sound
from anchor_jax.video.sound import Stretches, copy_with_sound


class Format(NamedTuple):
  """Encoder, pixel format and encoder options of a video stream, by their FFmpeg names."""

  codec: str
  pixels: str
  options: Mapping[str, str]


H264 = Format("libx264", "yuv420p", {"preset": "medium"})
LOSSLESS = Format("libx264rgb", "rgb24", {"preset": "ultrafast", "qp": "0"})


def even(frame: UInt8[NdArray, "H W C"]) -> UInt8[NdArray, "h w C"]:
  """Returns the frame with odd sides padded by one repeated row or column, since yuv420p needs even sides."""
  height, width = frame.shape[:2]
  if not (height % 2 or width % 2):
    return frame
  return cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)


def default_crf(height: int, width: int) -> int:
  """Returns the H.264 quality (CRF, 0 best to 51) for a video of this size.

  Small videos are viewed enlarged: at 128 pixels, CRF 18 adds 1.5 gray levels of flicker; CRF 12 adds 1.0 for half
  as many bytes again. At 512, CRF 18 is hard to see.
  """
  return 18 if min(height, width) >= 512 else 12


def add_stream(
  container: Any, fps: Fraction, frame: UInt8[NdArray, "H W C"], options: Mapping[str, str], format: Format = H264
) -> Any:
  """Adds and returns a stream for frames of this size; `options` override those of the format."""
  stream = container.add_stream(format.codec, rate=fps)
  stream.height, stream.width, stream.pix_fmt = *frame.shape[:2], format.pixels
  stream.codec_context.time_base = 1 / fps
  if format.pixels.startswith("yuv"):
    # Players guess the colors of a stream that does not declare them. Declare ITU-R BT.601, limited range.
    context = stream.codec_context
    context.color_range, context.colorspace, context.color_primaries, context.color_trc = 1, 6, 6, 6
  stream.options = {**format.options, **options}
  return stream


def encoder_frame(frame: UInt8[NdArray, "H W C"], number: int, fps: Fraction) -> av.VideoFrame:
  """Returns an RGB or RGBA frame as encoder input with the time stamp of frame `number`."""
  picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24" if frame.shape[2] == 3 else "rgba")
  picture.pts, picture.time_base = number, 1 / fps
  return picture


class VideoWriter:
  """Context manager that writes RGB frames to a video file, which appears under its name when the block succeeds.

  H.264, yuv420p, index in front: plays in browsers. Odd sides are padded (`even`). With `lossless`, every value is
  exact (H.264 RGB in Matroska, which browsers do not play).

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
    """Stores the settings; the `with` statement opens the file.

    Args:
      path: an .mp4 (or .mkv, .mov) file; with `lossless`, an .mkv file.
      fps: frames per second, above 0.
      size: (width, height) in pixels; default that of the first frame.
      lossless: encode every value exactly.
      crf: H.264 quality, 0 (best) to 51; default `default_crf`.
      metadata: text tags of the file.
    """
    if not fps > 0:
      raise UserError(f"a video needs a frame rate above 0, not {fps}")
    self.path, self.frames = Path(path), 0
    self._fps, self._size, self._lossless, self._crf = Fraction(fps).limit_denominator(1001), size, lossless, crf
    self._metadata = dict(metadata or {})
    self._container: Any = None
    self._stream: Any = None

  def __enter__(self) -> "VideoWriter":
    self._file = new_file(self.path, lock=True)
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
      options, format = ({}, LOSSLESS) if self._lossless else ({"crf": str(crf)}, H264)
      self._stream = add_stream(self._container, self._fps, frame, options, format)
    self._container.mux(self._stream.encode(encoder_frame(frame, self.frames, self._fps)))
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
  audio: str | os.PathLike | None = None,
  stretches: Stretches | None = None,
) -> int:
  """Writes frames to an H.264 video that browsers play, one at a time; returns their number.

  Args:
    path: an .mp4 (or .mkv, .mov) file, with sound an .mp4 file; it appears when all frames are written.
    frames: RGB, all of one size.
    fps: frames per second, above 0.
    metadata: text tags of the file.
    total: expected number of frames, for the progress bar.
    progress: label of a progress bar; None for no bar.
    audio: a video or audio file whose sound the video gets, if it has any; None for no sound.
    stretches: what the frames show of its time (`Motion.stretches`); by default all of it, from the beginning.

  Raises:
    UserError: the file cannot be written, there is no frame, or `audio` is no film.
  """
  if audio is not None:
    return _write_with_sound(Path(path), frames, fps, metadata, total, progress, Path(audio), stretches)
  with VideoWriter(path, fps, metadata=metadata) as writer:
    for frame in tqdm(frames, desc=progress, total=total, disable=progress is None, unit="frame"):
      writer.write(np.asarray(frame))
  return writer.frames


def _write_with_sound(
  path: Path,
  frames: Iterable[UInt8[NdArray, "H W 3"]],
  fps: float | int,
  metadata: Mapping[str, str] | None,
  total: int | None,
  progress: str | None,
  audio: Path,
  stretches: Stretches | None,
) -> int:
  """Writes frames to a silent video first, whose picture is then copied next to the sound; see `write_video`."""
  if path.suffix.lower() != ".mp4":
    raise UserError(f"{path}: a video with sound needs a name that ends in .mp4")
  refuse_overwriting(path, [regular_file(audio, "audio")])
  try:
    has_sound(audio)
  except (av.error.FFmpegError, ValueError):
    raise UserError(f"{audio} can't be read as audio: name a film, or leave out audio") from None
  with new_file(path, lock=True) as place:
    silent = partial_path(path, "finishing")
    try:
      count = write_video(silent, frames, fps, total=total, progress=progress)
      options = {"movflags": "+faststart+use_metadata_tags"}
      with av.open(str(silent)) as source, av.open(str(place), "w", format="mp4", options=options) as output:
        output.metadata.update(metadata or {})
        copy_with_sound(source, output, audio, float(count / Fraction(fps).limit_denominator(1001)), stretches)
    finally:
      silent.unlink(missing_ok=True)
  return count
