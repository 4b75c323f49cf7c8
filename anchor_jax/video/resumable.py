"""Writes a video in fragments: FILE.partial.mp4 plays at any time, and a later run continues it."""

import contextlib
import heapq
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
from anchor_jax.video.sound import say_rest_is_left_out, sound_of
from anchor_jax.video.write import add_stream, default_crf, even, picture_of

_TAG = "comment"  # of the file's metadata: the settings, as JSON


class ResumableWriter:
  """Writes RGB frames to FILE.partial.mp4 in fragments of a second each; `finish` makes FILE.mp4 of it.

  Killed at any moment, the partial file has all the fragments that were complete by then.

  Attributes:
    frames: number of frames that the file holds or was given; more than 0 at first when it continues one.
  """

  def __init__(
    self, path: str | os.PathLike, fps: float, settings: Mapping[str, Any], resume: bool = False, live: bool = False
  ):
    """Prepares the file.

    Args:
      path: the .mp4 file to be.
      fps: frames per second, above 0.
      settings: what the frames depend on, fit for JSON; stored in the file, and compared when continuing.
      resume: continue a partial file if there is one.
      live: write each frame before the next one comes, in a fragment of its own; the file is larger for it.

    Raises:
      UserError: the file can't be written, or is being written, or the partial file was made with other settings.
    """
    if not 0 < fps <= 1000:
      raise UserError(f"a video needs a frame rate above 0 and at most 1000, not {fps:g}")
    self.path, self.partial, self._live = Path(path), partial_path(path), live
    self._fps = Fraction(fps).limit_denominator(1001)
    # A stream can't change its quality on the way, which was 18 for all sizes once.
    self._comment = json.dumps({**settings, "crf": "by size"}, sort_keys=True)
    self._container: Any = None
    self._stream: Any = None
    prepare_parent(self.path)
    if self.path.is_dir():
      raise UserError(f"{self.path} is a folder: name a file for the output")
    with contextlib.ExitStack() as opening:
      opening.enter_context(locked(self.path))
      self._old = _whole_fragments(self.partial) if resume and os.path.lexists(self.partial) else 0
      self.frames = _count(self.partial, self._old, self._comment) if self._old else 0
      self._lock = opening.pop_all()

  def write(self, frame: UInt8[NdArray, "H W 3"], tick: int | None = None) -> None:
    """Appends a frame; all have the first one's size.

    It is shown from `tick` / fps seconds on, and ticks grow from frame to frame; by default right after the one before.
    """
    frame = even(frame)
    if self._container is None:
      self._open(frame)
    self._guard(
      lambda: self._container.mux(
        self._stream.encode(picture_of(frame, self.frames if tick is None else tick, self._fps))
      )
    )
    self.frames += 1

  def _open(self, frame: UInt8[NdArray, "H W 3"]) -> None:
    """Begins the partial file anew, with the packets there were."""
    flags = "frag_keyframe+empty_moov+default_base_moof+use_metadata_tags"
    flags += "+frag_every_frame" if self._live else ""
    beside = partial_path(self.path, "resuming")
    self._container = self._guard(
      lambda: av.open(str(beside), "w", format="mp4", options={"movflags": flags, "flush_packets": "1"})
    )
    self._container.metadata[_TAG] = self._comment
    second = str(max(1, round(self._fps)))
    options = {"crf": str(default_crf(*frame.shape[:2])), "g": second, "keyint_min": second, "sc_threshold": "0"}
    # Few frames wait inside the encoder, and none is sent out of turn: a later run can put its own right behind them.
    options |= {"rc-lookahead": "8", "threads": "1", "bf": "0"}
    options |= {"tune": "zerolatency"} if self._live else {}
    self._stream = add_stream(self._container, self._fps, frame, options)
    self._guard(self._container.start_encoding)
    if self._old:
      with _Beginning(self.partial, self._old) as file, av.open(file) as old:
        # An mp4 keeps packets in another form than encoders make them, and the muxer takes one form a stream.
        as_encoded = BitStreamFilterContext("h264_mp4toannexb", old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
          for same in as_encoded.filter(packet) if packet.size else ():
            same.stream = self._stream
            self._guard(lambda packet=same: self._container.mux(packet))
    self._guard(lambda: os.replace(beside, self.partial))
    self._old = 0

  def finish(self, metadata: Mapping[str, str], audio: Path | None = None) -> None:
    """Closes the partial file and makes the final one, index in front, with the sound of `audio` if it has any."""
    if not self.frames:
      raise UserError(f"no frame to write to {self.path}")
    if self._container is not None:
      self._guard(lambda: self._container.mux(self._stream.encode(None)))
      self._guard(self._container.close)
      self._container = None
    with new_file(self.path, "finishing") as place, av.open(str(self.partial)) as source:
      options = {"movflags": "+faststart+use_metadata_tags"}
      with av.open(str(place), "w", format="mp4", options=options) as whole:
        whole.metadata.update({_TAG: self._comment, **metadata})
        _copy(source, whole, audio, float(self.frames / self._fps))
    self.partial.unlink(missing_ok=True)
    self._lock.close()

  def close(self) -> None:
    """Leaves the partial file as far as it got; nothing to do after `finish`."""
    with self._lock:
      if self._container is not None:
        with contextlib.suppress(OSError):  # the disk may be full: what was written before stays
          self._container.mux(self._stream.encode(None))
          self._container.close()
        self._container = None

  def _guard(self, call) -> Any:
    try:
      return call()
    except OSError as error:
      raise refuse(self.partial, error) from error


class _Beginning(io.RawIOBase):
  """The first bytes of a file, as a file of its own; they are read as they are needed."""

  def __init__(self, path: Path, size: int):
    self._file, self._size = open_input(path, "video"), size

  def readinto(self, buffer: Any, /) -> int:
    """Reads up to the end of those bytes."""
    return self._file.readinto(memoryview(buffer)[: max(0, self._size - self._file.tell())])

  def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
    """Goes to a place."""
    return self._file.seek(self._size + offset if whence == io.SEEK_END else offset, whence % io.SEEK_END)

  def tell(self) -> int:
    """The place of the next byte."""
    return self._file.tell()

  def readable(self) -> bool:
    """It is."""
    return True

  def seekable(self) -> bool:
    """It is."""
    return True

  def close(self) -> None:
    """Closes the file."""
    self._file.close()
    super().close()


def _whole_fragments(path: Path) -> int:
  """Bytes up to the end of the last whole fragment: boxes of (size, kind, body), see ISO/IEC 14496-12, 4.2."""
  with open_input(path, "video") as file:
    length, at, whole = os.fstat(file.fileno()).st_size, 0, 0
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
        whole = at
  return whole


def _count(path: Path, size: int, comment: str) -> int:
  """The frames in the first `size` bytes of a file that was begun with settings `comment`."""
  try:
    with _Beginning(path, size) as file, av.open(file) as old:
      found = old.metadata.get(_TAG)
      count = sum(packet.size > 0 for packet in old.demux(old.streams.video[0]))
  except (av.error.FFmpegError, IndexError):
    raise UserError(f"{path} is damaged: remove it and start again without --resume") from None
  if found != comment:
    raise UserError(f"{path} was begun with other settings: give the same ones, or start again without --resume")
  return count


def _copy(source: Any, whole: Any, audio: Path | None, seconds: float) -> None:
  """All packets of the picture, and those of the sound that are heard while it lasts, in the order of their times."""
  picture = source.streams.video[0]
  stream = whole.add_stream_from_template(picture)
  with contextlib.nullcontext(iter(())) if audio is None else sound_of(audio, whole, seconds) as sound:
    shown = (packet for packet in source.demux(picture) if packet.size)
    silent = False
    for packet in heapq.merge(shown, sound, key=_time):
      if packet.stream is picture:
        packet.stream = stream
        whole.mux(packet)
      elif not silent:
        try:
          whole.mux(packet)
        except ValueError as error:  # it is not what it says that it is: the picture is worth more
          say_rest_is_left_out(str(audio), error)
          silent = True


def _time(packet: Any) -> float:
  """When a packet is due, in seconds."""
  return float((packet.pts if packet.dts is None else packet.dts) * packet.time_base)
