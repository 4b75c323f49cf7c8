"""Reads the files of a multipart upload (RFC 7578) as it arrives.

The parser is python-multipart, which Gradio depends on.
"""

import asyncio
import importlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from anchor_jax.app.access.intake import Batch
from anchor_jax.core.errors import UserError

_MAX_HEADER = 4096  # bytes of a part's headers
_MAX_PARTS = 64
_SLACK = 20.0  # seconds beyond what an upload takes at the minimum rate
_MIN_RATE = 20_000  # bytes per second


class Damaged(UserError):
  """The request body is not a complete upload."""


class TooSlow(UserError):
  """The request body arrives too slowly."""


class PacedBody:
  """A request body with a minimum transfer rate, so that slow clients can't hold connections."""

  def __init__(self, receive: Callable[[], Awaitable[Any]], slack: float = _SLACK, min_rate: float = _MIN_RATE):
    """Takes ASGI's `receive`, the seconds allowed beyond the minimum rate, and that rate in bytes per second."""
    self._receive, self._slack, self._min_rate = receive, slack, min_rate
    self._began, self._bytes = time.monotonic(), 0

  async def piece(self) -> tuple[bytes, bool]:
    """Returns the next piece and whether more follow.

    Raises:
      TooSlow: it does not arrive in time.
      Damaged: the client disconnected.
    """
    limit = self._began + self._slack + self._bytes / self._min_rate
    try:
      message = await asyncio.wait_for(self._receive(), max(0.0, limit - time.monotonic()))
    except TimeoutError:
      raise TooSlow("this arrives too slowly: try again over a faster connection") from None
    if message["type"] != "http.request":
      raise Damaged("the upload was interrupted: try again")
    data = message.get("body", b"")
    self._bytes += len(data)
    return data, message.get("more_body", False)


async def receive_files(
  content_type: str, body: PacedBody, batch: Batch, on_bytes: Callable[[str, int], None] | None = None
) -> None:
  """Reads the files of an upload into a batch.

  Args:
    content_type: the header, which states the boundary.
    body: the request body.
    batch: receives the files.
    on_bytes: called with a file's name and the number of bytes received.

  Raises:
    UserError: the upload is damaged, too slow or too large, or there is no room.
  """
  library: Any = importlib.import_module("python_multipart.multipart")
  kind, options = library.parse_options_header(content_type)
  if kind != b"multipart/form-data" or not 0 < len(options.get(b"boundary", b"")) <= 200:
    raise Damaged("this is not an upload")
  parts = _Parts(library)
  try:
    parser = library.MultipartParser(options[b"boundary"], parts.callbacks())
    more = True
    while more:
      data, more = await body.piece()
      parser.write(data)
      for act, value in parts.pop():
        if act == "begin":
          await asyncio.to_thread(batch.begin, value.decode("utf-8", "replace"))
        elif act == "data":
          await asyncio.to_thread(batch.write, value)
          if on_bytes is not None:
            on_bytes(batch.name, len(value))
        else:
          await asyncio.to_thread(batch.end)
    parser.finalize()
  except library.FormParserError as error:
    raise Damaged("this upload is damaged: try again") from error
  if not parts.complete:
    raise Damaged("the upload was interrupted: try again")


class _Parts:
  """Collects the parser's callbacks as a list of actions, since the parser calls back synchronously."""

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

  def pop(self) -> list[tuple[str, bytes]]:
    acts, self._acts = self._acts, []
    return acts

  def _part_begin(self) -> None:
    self._name = self._value = self._disposition = b""
    self._is_file, self._header = False, 0
    self._count += 1
    if self._count > _MAX_PARTS:
      raise Damaged("this upload has too many parts")

  def _header_field(self, data: bytes, start: int, end: int) -> None:
    self._name += self._counted(data[start:end])

  def _header_value(self, data: bytes, start: int, end: int) -> None:
    self._value += self._counted(data[start:end])

  def _counted(self, data: bytes) -> bytes:
    self._header += len(data)
    if self._header > _MAX_HEADER:
      raise Damaged("a file name in this upload is too long")
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
