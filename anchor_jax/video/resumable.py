"""Writes a video in fragments, so that FILE.partial.mp4 is always playable and a later run can continue it."""

import contextlib
import io
import json
import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.bitstream import BitStreamFilterContext

from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import NdArray, UInt8
from anchor_jax.files.inputs import open_input
from anchor_jax.files.locks import locked
from anchor_jax.files.outputs import new_file, partial_path, prepare_parent, refuse
from anchor_jax.video.sound import Stretches, copy_with_sound
from anchor_jax.video.write import add_stream, default_crf, encoder_frame, even

_TAG = "comment"  # metadata tag that holds the settings as JSON


class ResumableWriter:
  """Writes RGB frames to FILE.partial.mp4 in one-second fragments; `finish` turns it into FILE.mp4.

  If the process is killed, the partial file still holds every completed fragment.

  Attributes:
    frames: number of frames in the file so far; starts above 0 when it continues a partial file.
  """

  def __init__(
    self, path: str | os.PathLike, fps: float, settings: Mapping[str, Any], resume: bool = False, live: bool = False
  ):
    """Locks the output and checks a partial file that is to be continued.

    Args:
      path: the final .mp4 file.
      fps: frames per second, above 0.
      settings: everything the frames depend on, JSON-serializable; stored in the file and compared on resume.
      resume: continue the partial file if there is one.
      live: flush every frame in its own fragment, for a larger file.

    Raises:
      UserError: the file can't be written, another process is writing it, or the partial file has other settings.
    """
    if not 0 < fps <= 1000:
      raise UserError(f"a video needs a frame rate above 0 and at most 1000, not {fps:g}")
    self.path, self.partial, self._live = Path(path), partial_path(path), live
    self._fps = Fraction(fps).limit_denominator(1001)
    # A stream can't change quality midway; early versions used CRF 18 for all sizes, and their files don't match this.
    self._comment = json.dumps({**settings, "crf": "by size"}, sort_keys=True)
    self._container: Any = None
    self._stream: Any = None
    prepare_parent(self.path)
    if self.path.is_dir():
      raise UserError(f"{self.path} is a folder: name a file for the output")
    with contextlib.ExitStack() as opening:
      opening.enter_context(locked(self.path))
      self._old = _complete_bytes(self.partial) if resume and os.path.lexists(self.partial) else 0
      self.frames = _count(self.partial, self._old, self._comment) if self._old else 0
      self._lock = opening.pop_all()

  def write(self, frame: UInt8[NdArray, "H W 3"], tick: int | None = None) -> None:
    """Appends a frame; all frames have the first one's size.

    It is shown from `tick` / fps seconds on. Ticks must increase; the default is the one after the last frame's.
    """
    frame = even(frame)
    if self._container is None:
      self._open(frame)
    self._guard(
      lambda: self._container.mux(
        self._stream.encode(encoder_frame(frame, self.frames if tick is None else tick, self._fps))
      )
    )
    self.frames += 1

  def _open(self, frame: UInt8[NdArray, "H W 3"]) -> None:
    """Starts a new partial file and copies the packets of the old one into it."""
    flags = "frag_keyframe+empty_moov+default_base_moof+use_metadata_tags"
    flags += "+frag_every_frame" if self._live else ""
    temporary = partial_path(self.path, "resuming")
    self._container = self._guard(
      lambda: av.open(str(temporary), "w", format="mp4", options={"movflags": flags, "flush_packets": "1"})
    )
    self._container.metadata[_TAG] = self._comment
    second = str(max(1, round(self._fps)))
    options = {"crf": str(default_crf(*frame.shape[:2])), "g": second, "keyint_min": second, "sc_threshold": "0"}
    # Short lookahead and no B-frames: packets come out in display order, so a later run can append its own.
    options |= {"rc-lookahead": "8", "threads": "1", "bf": "0"}
    options |= {"tune": "zerolatency"} if self._live else {}
    self._stream = add_stream(self._container, self._fps, frame, options)
    self._guard(self._container.start_encoding)
    if self._old:
      with _Beginning(self.partial, self._old) as file, av.open(file) as old:
        # MP4 stores packets in AVCC form, encoders emit Annex B, and the muxer takes one form per stream.
        to_annex_b = BitStreamFilterContext("h264_mp4toannexb", old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
          for converted in to_annex_b.filter(packet) if packet.size else ():
            converted.stream = self._stream
            self._guard(lambda packet=converted: self._container.mux(packet))
    self._guard(lambda: os.replace(temporary, self.partial))
    self._old = 0

  def finish(self, metadata: Mapping[str, str], audio: Path | None = None, stretches: Stretches | None = None) -> None:
    """Closes the partial file and writes the final one, index in front, with the sound of `audio` if it has any.

    Args:
      metadata: text tags of the file.
      audio: a video or audio file; None for no sound.
      stretches: what the frames show of its time, in seconds; by default all of it, from the beginning.
    """
    if not self.frames:
      raise UserError(f"no frame to write to {self.path}")
    if self._container is not None:
      self._guard(lambda: self._container.mux(self._stream.encode(None)))
      self._guard(self._container.close)
      self._container = None
    with new_file(self.path, "finishing") as temporary, av.open(str(self.partial)) as source:
      options = {"movflags": "+faststart+use_metadata_tags"}
      with av.open(str(temporary), "w", format="mp4", options=options) as output:
        output.metadata.update({_TAG: self._comment, **metadata})
        copy_with_sound(source, output, audio, float(self.frames / self._fps), stretches)
    self.partial.unlink(missing_ok=True)
    self._lock.close()

  def close(self) -> None:
    """Flushes and closes the partial file, which stays on disk; does nothing after `finish`."""
    with self._lock:
      if self._container is not None:
        with contextlib.suppress(OSError):  # the disk may be full; earlier fragments stay
          self._container.mux(self._stream.encode(None))
          self._container.close()
        self._container = None

  def _guard(self, call) -> Any:
    try:
      return call()
    except OSError as error:
      raise refuse(self.partial, error) from error


class _Beginning(io.RawIOBase):
  """The first `size` bytes of a file as a read-only file object, without loading them."""

  def __init__(self, path: Path, size: int):
    self._file, self._size = open_input(path, "video"), size

  def readinto(self, buffer: Any, /) -> int:
    """Reads at most up to `size`."""
    return self._file.readinto(memoryview(buffer)[: max(0, self._size - self._file.tell())])

  def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
    """Moves the position."""
    return self._file.seek(self._size + offset if whence == io.SEEK_END else offset, whence % io.SEEK_END)

  def tell(self) -> int:
    """Position of the next byte."""
    return self._file.tell()

  def readable(self) -> bool:
    """Always true."""
    return True

  def seekable(self) -> bool:
    """Always true."""
    return True

  def close(self) -> None:
    """Closes the file."""
    self._file.close()
    super().close()


def _complete_bytes(path: Path) -> int:
  """Bytes up to the end of the last complete fragment; boxes are (size, kind, body), see ISO/IEC 14496-12, 4.2."""
  with open_input(path, "video") as file:
    length, at, complete = os.fstat(file.fileno()).st_size, 0, 0
    while at + 8 <= length:
      file.seek(at)
      head = file.read(16)
      size, kind = int.from_bytes(head[:4], "big"), head[4:8]
      if size == 1:
        size = int.from_bytes(head[8:], "big")
      if size < 8 or at + size > length:
        break
      at += size
      if kind == b"mdat":
        complete = at
  return complete


def _count(path: Path, size: int, comment: str) -> int:
  """Number of frames in the first `size` bytes of a partial file; raises UserError if its settings differ."""
  try:
    with _Beginning(path, size) as file, av.open(file) as old:
      found = old.metadata.get(_TAG)
      count = sum(packet.size > 0 for packet in old.demux(old.streams.video[0]))
  except (av.error.FFmpegError, IndexError):
    raise UserError(f"{path} is damaged: remove it and start again without --resume") from None
  if found != comment:
    raise UserError(f"{path} was started with other settings: use the same ones, or start again without --resume")
  return count
