"""Writes videos with an alpha channel: VP9 in WebM for browsers, ProRes 4444 in QuickTime for editors."""

import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import NdArray, UInt8
from anchor_jax.files.outputs import new_file
from anchor_jax.video.write import Format, add_stream, encoder_frame, even

_FORMATS = {
  ".webm": Format("libvpx-vp9", "yuva420p", {"crf": "16", "b": "0", "auto-alt-ref": "0", "cpu-used": "3"}),
  ".mov": Format("prores_ks", "yuva444p10le", {"profile": "4444", "alpha_bits": "16"}),
}
SUFFIXES = tuple(_FORMATS)


class TransparentWriter:
  """Writes RGBA frames to a .webm or .mov file, which appears when `finish` is called; holds one frame in memory.

  Attributes:
    frames: number of frames written so far.
  """

  def __init__(self, path: str | os.PathLike, fps: float | int, metadata: Mapping[str, str]):
    """Opens the file under a temporary name.

    Args:
      path: a name that ends in one of `SUFFIXES`.
      fps: frames per second, above 0.
      metadata: text tags of the file.

    Raises:
      UserError: unsupported ending, or the file can't be written.
    """
    self.path, self.frames = Path(path), 0
    if self.path.suffix.lower() not in _FORMATS:
      raise UserError(f"{self.path}: the name of a transparent video must end in {' or '.join(SUFFIXES)}")
    self._fps, self._metadata = Fraction(fps).limit_denominator(1001), dict(metadata)
    self._file = new_file(self.path, lock=True)
    self._container: Any = av.open(str(self._file.__enter__()), "w")
    self._stream: Any = None

  def write(self, frame: UInt8[NdArray, "H W 4"]) -> None:
    """Appends a frame with straight (not premultiplied) alpha; all frames have the first one's size."""
    frame = even(frame)
    if self._stream is None:
      self._container.metadata.update(self._metadata)
      self._stream = add_stream(self._container, self._fps, frame, {}, _FORMATS[self.path.suffix.lower()])
    self._container.mux(self._stream.encode(encoder_frame(frame, self.frames, self._fps)))
    self.frames += 1

  def finish(self, metadata: Mapping[str, str], audio: Path | None = None, stretches: Any = None) -> None:
    """Completes the file. The arguments are ignored: tags are already written, and WebM can't hold a film's sound."""
    del metadata, audio, stretches
    if not self.frames:
      raise UserError(f"no frame to write to {self.path}")
    self._container.mux(self._stream.encode(None))
    self._close(None)

  def close(self) -> None:
    """Removes an unfinished file; does nothing after `finish`."""
    if self._container is not None:
      self._close(InterruptedError())

  def _close(self, error: BaseException | None) -> None:
    container, self._container = self._container, None
    container.close()
    self._file.__exit__(None if error is None else type(error), error, None)
