"""Reads an upload as it arrives: form data in parts (RFC 7578), of which the files are kept.

The parser is python-multipart's, which Gradio brings with it.
"""

import asyncio
import importlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from anchor_jax.app.access.intake import Batch
from anchor_jax.core.errors import UserError

_LARGEST_HEADER = 4096  # bytes of what stands before a file
_MOST_PARTS = 64
_PATIENCE = 20.0  # seconds that an upload may take longer than it would at the slowest speed
_SLOWEST = 20_000  # bytes a second


class Damaged(UserError):
  """What arrives is no upload."""


class TooSlow(UserError):
  """It arrives more slowly than anybody waits."""


class Patience:
  """How long a body that arrives piece by piece is waited for: by its pace, so that nobody holds a place for free."""

  def __init__(self, receive: Callable[[], Awaitable[Any]], slack: float = _PATIENCE, slowest: float = _SLOWEST):
    """Takes what gives the next piece (ASGI), seconds beyond the slowest pace, and that pace in bytes a second."""
    self._receive, self._slack, self._slowest = receive, slack, slowest
    self._began, self._bytes = time.monotonic(), 0

  async def piece(self) -> tuple[bytes, bool]:
    """Returns the next piece, and whether there are more.

    Raises:
      TooSlow: it does not come in time.
      Damaged: the other side went away.
    """
    limit = self._began + self._slack + self._bytes / self._slowest
    try:
      message = await asyncio.wait_for(self._receive(), max(0.0, limit - time.monotonic()))
    except TimeoutError:
      raise TooSlow("this comes too slowly: try it again over a better line") from None
    if message["type"] != "http.request":
      raise Damaged("the upload was broken off: try it again")
    data = message.get("body", b"")
    self._bytes += len(data)
    return data, message.get("more_body", False)


async def receive_files(
  content_type: str, patience: Patience, batch: Batch, came: Callable[[str, int], None] | None = None
) -> None:
  """Reads an upload into a batch.

  Args:
    content_type: the header, which has the boundary.
    patience: gives the pieces.
    batch: takes the files.
    came: called with each file's name and the number of bytes received.

  Raises:
    UserError: it is damaged, too slow, too large, or there is no room.
  """
  library: Any = importlib.import_module("python_multipart.multipart")
  kind, options = library.parse_options_header(content_type)
  if kind != b"multipart/form-data" or not 0 < len(options.get(b"boundary", b"")) <= 200:
    raise Damaged("this is no upload")
  parts = _Parts(library)
  try:
    parser = library.MultipartParser(options[b"boundary"], parts.callbacks())
    more = True
    while more:
      data, more = await patience.piece()
      parser.write(data)
      for act, value in parts.taken():
        if act == "begin":
          await asyncio.to_thread(batch.begin, value.decode("utf-8", "replace"))
        elif act == "data":
          await asyncio.to_thread(batch.write, value)
          if came is not None:
            came(batch.name, len(value))
        else:
          await asyncio.to_thread(batch.end)
    parser.finalize()
  except library.FormParserError as error:
    raise Damaged("this upload is damaged: try it again") from error
  if not parts.complete:
    raise Damaged("the upload was broken off: try it again")


class _Parts:
  """What the parser finds, as a list of what is to be done: it calls back in the middle of a piece."""

  def __init__(self, library: Any):
    self._library = library
    self._acts: list[tuple[str, bytes]] = []
    self._name, self._value, self._disposition = b"", b"", b""
    self._is_file, self._count, self._header = False, 0, 0
    self.complete = False

  def callbacks(self) -> Mapping[str, Callable[..., None]]:
    return {
      "on_part_begin": self._part_begin,
      "on_header_field": self._header_field,
      "on_header_value": self._header_value,
      "on_header_end": self._header_end,
      "on_headers_finished": self._headers_finished,
      "on_part_data": self._part_data,
      "on_part_end": self._part_end,
      "on_end": self._end,
    }

  def taken(self) -> list[tuple[str, bytes]]:
    acts, self._acts = self._acts, []
    return acts

  def _part_begin(self) -> None:
    self._name = self._value = self._disposition = b""
    self._is_file, self._header = False, 0
    self._count += 1
    if self._count > _MOST_PARTS:
      raise Damaged("this upload has too many parts")

  def _header_field(self, data: bytes, start: int, end: int) -> None:
    self._name += self._counted(data[start:end])

  def _header_value(self, data: bytes, start: int, end: int) -> None:
    self._value += self._counted(data[start:end])

  def _counted(self, data: bytes) -> bytes:
    self._header += len(data)
    if self._header > _LARGEST_HEADER:
      raise Damaged("this upload has a name that is too long")
    return data

  def _header_end(self) -> None:
    if self._name.lower() == b"content-disposition":
      self._disposition = self._value
    self._name = self._value = b""

  def _headers_finished(self) -> None:
    _, options = self._library.parse_options_header(self._disposition)
    if b"filename" in options:
      self._is_file = True
      self._acts.append(("begin", options[b"filename"]))

  def _part_data(self, data: bytes, start: int, end: int) -> None:
    if self._is_file:
      self._acts.append(("data", data[start:end]))

  def _part_end(self) -> None:
    if self._is_file:
      self._acts.append(("end", b""))

  def _end(self) -> None:
    self.complete = True
