"""Stores uploads until they are used: each belongs to its sender, has a random name, and expires in an hour.

A visitor's browser gets a token for each upload. Tokens that come back are looked up among that visitor's own, and
outside input never becomes part of a path.
"""

import contextlib
import dataclasses
import logging
import os
import re
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from anchor_jax.app.access.people import is_name, new_name
from anchor_jax.app.access.quota import Disk
from anchor_jax.core.errors import UserError, printable

MAX_FILES = 16  # per upload
LIFETIME = 3600.0  # seconds
_MAX_WAITING = 48  # stored files per visitor
_MAX_CONCURRENT = 4  # uploads in progress per visitor
_MAX_CONCURRENT_IN_ALL = 32  # uploads in progress over all visitors
_VISITOR_SHARE = 8  # storage per visitor, in files of maximum size
_TOTAL_SHARES = 4  # storage over all visitors, in visitor shares


@dataclasses.dataclass(frozen=True)
class Upload:
  """An uploaded file.

  Attributes:
    token: identifies the file to its visitor.
    owner: the visitor, see `owners.py`.
    name: original file name, for messages.
    path: location on disk.
    size: bytes.
    received: arrival time in seconds of `time.monotonic`.
  """

  token: str
  owner: str
  name: str
  path: Path
  size: int
  received: float

  def open(self) -> BinaryIO:
    """Returns the file, opened for reading.

    Raises:
      UserError: it is gone, or no longer a regular file.
    """
    try:
      opened = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
      raise _gone(self.name) from None
    file = os.fdopen(opened, "rb")
    if not stat.S_ISREG(os.fstat(opened).st_mode):
      file.close()
      raise _gone(self.name)
    return file


class Intake:
  """All stored uploads. Thread-safe."""

  def __init__(self, folder: Path, megabytes: int, disk: Disk):
    """Empties the folder, since tokens do not survive a restart.

    Args:
      folder: where uploads are stored; must carry the page's mark (`marks.marked_folder`).
      megabytes: maximum size of a file.
      disk: the page's disk quota.
    """
    self._folder, self._largest, self.disk = folder, megabytes * 10**6, disk
    self._megabytes, self._lock = megabytes, threading.Lock()
    self._known: dict[str, Upload] = {}
    self._used: dict[str, set[str]] = {}  # by token: names of the people and jobs that have a copy
    self._in_progress: dict[str, int] = {}  # uploads, by visitor
    self._bytes: dict[str, int] = {}  # by visitor
    for path in folder.iterdir():
      if is_name(path.name) and not path.is_dir():
        path.unlink()

  @contextlib.contextmanager
  def receiving(self, owner: str) -> Iterator["Batch"]:
    """Context of one upload: yields the batch to fill; its files are stored on success and removed on failure.

    Raises:
      UserError: too many uploads are in progress, or there is no room.
    """
    self.sweep()
    with self._lock:
      own, total = self._in_progress.get(owner, 0), sum(self._in_progress.values())
      if own >= _MAX_CONCURRENT or total >= _MAX_CONCURRENT_IN_ALL:
        raise UserError("too many uploads are in progress: wait until one is complete")
      self._in_progress[owner] = own + 1
    batch = Batch(self, self._folder, owner, self._megabytes)
    try:
      yield batch
      batch.end()
      with self._lock:
        self._known |= {upload.token: upload for upload in batch.files}
    except BaseException:
      batch.drop()
      raise
    finally:
      with self._lock:
        self._in_progress[owner] -= 1
        if not self._in_progress[owner]:
          del self._in_progress[owner]

  def find(self, owner: str, token: object) -> Upload:
    """Returns a visitor's upload by its token.

    Raises:
      UserError: this visitor has no such upload (anymore).
    """
    with self._lock:
      upload = self._known.get(token) if isinstance(token, str) else None
    if upload is None or upload.owner != owner:
      raise _gone("this file")
    return upload

  def find_all(self, owner: str, tokens: Sequence[object]) -> list[Upload]:
    """Returns a visitor's uploads by their tokens; see `find`."""
    if len(tokens) > MAX_FILES:
      raise UserError(f"{len(tokens)} files are too many: upload at most {MAX_FILES}")
    return [self.find(owner, token) for token in dict.fromkeys(map(str, tokens))]

  def mark_used(self, uploads: Sequence[Upload], *by: str) -> None:
    """Records which people and jobs have a copy of the uploads, which stay usable until they expire."""
    with self._lock:
      for upload in uploads:
        self._used.setdefault(upload.token, set()).update(by)

  def forget(self, by: str) -> None:
    """Removes the uploads that were copied for a person or job that is being deleted."""
    with self._lock:
      copied = [token for token, users in self._used.items() if by in users]
    self._remove(copied)

  def make_room(self, owner: str, count: int) -> None:
    """Counts arriving bytes; if they do not fit, removes the visitor's uploads that were already used.

    Raises:
      UserError: there is no room.
    """
    self.disk.check(count)
    self.disk.add(count)
    with self._lock:
      self._bytes[owner] = self._bytes.get(owner, 0) + count
      own, total = self._bytes[owner], sum(self._bytes.values())
      files = [upload for upload in self._known.values() if upload.owner == owner]
      used = [upload.token for upload in files if upload.token in self._used]
    limit = _VISITOR_SHARE * self._largest
    if own <= limit and total <= _TOTAL_SHARES * limit and len(files) < _MAX_WAITING:
      return
    if used:
      self._remove(used)
      return
    self.release(owner, count)
    if own > limit or len(files) >= _MAX_WAITING:
      raise UserError(
        "too many of your uploads are unused: add the person or make the video first, or come back in an hour"
      )
    raise UserError("too many uploads are waiting to be used: come back in an hour")

  def release(self, owner: str, count: int) -> None:
    """Counts removed bytes."""
    self.disk.add(-count)
    with self._lock:
      self._bytes[owner] = self._bytes.get(owner, 0) - count
      if self._bytes[owner] <= 0:
        del self._bytes[owner]

  def sweep(self) -> None:
    """Removes expired uploads."""
    now = time.monotonic()
    with self._lock:
      expired = [token for token, upload in self._known.items() if now - upload.received > LIFETIME]
    self._remove(expired)

  def _remove(self, tokens: Sequence[str]) -> None:
    for token in tokens:
      with self._lock:
        upload = self._known.pop(token, None)
        self._used.pop(token, None)
      if upload is not None:
        upload.path.unlink(missing_ok=True)
        self.release(upload.owner, upload.size)


class Batch:
  """The files of one upload as they arrive, one after another."""

  def __init__(self, intake: Intake, folder: Path, owner: str, megabytes: int):
    """Takes where to store the files of which owner, and their maximum size."""
    self.files: list[Upload] = []
    self._intake, self._folder, self._owner, self._megabytes = intake, folder, owner, megabytes
    self._file: BinaryIO | None = None
    self._path, self.name, self._size = folder, "", 0

  def begin(self, name: str) -> "Batch":
    """Completes the current file and begins the next; `name` is its name on the visitor's machine.

    Raises:
      UserError: too many files, or no room.
    """
    self.end()
    if len(self.files) >= MAX_FILES:
      raise UserError(f"too many files: upload at most {MAX_FILES} at once")
    self._intake.make_room(self._owner, 0)
    self.name = display_name(name)
    self._path, self._size = self._folder / new_name(), 0
    try:
      opened = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError as error:
      raise _full(error) from None
    self._file = os.fdopen(opened, "wb")
    return self

  def write(self, data: bytes) -> None:
    """Appends to the current file.

    Raises:
      UserError: the file is too large, or there is no room.
    """
    if self._file is None:
      raise UserError("this upload is damaged: try it again")
    if self._size + len(data) > self._megabytes * 10**6:
      raise UserError(f"{self.name} is larger than {self._megabytes} MB: upload a shorter film")
    self._intake.make_room(self._owner, len(data))
    self._size += len(data)
    try:
      self._file.write(data)
    except OSError as error:
      raise _full(error) from None

  def end(self) -> None:
    """Completes the current file, if there is one."""
    if self._file is None:
      return
    file, self._file = self._file, None
    try:
      file.close()
    except OSError as error:
      self._file = file
      raise _full(error) from None
    token = f"{self._path.name}/{_plain(self.name)}"
    self.files.append(Upload(token, self._owner, self.name, self._path, self._size, time.monotonic()))

  def drop(self) -> None:
    """Removes everything received so far."""
    if self._file is not None:
      with contextlib.suppress(OSError):
        self._file.close()
      self._file = None
      self._path.unlink(missing_ok=True)
      self._intake.release(self._owner, self._size)
    for upload in self.files:
      upload.path.unlink(missing_ok=True)
      self._intake.release(self._owner, upload.size)
    self.files = []


def display_name(name: str) -> str:
  """Returns a file name for messages: no folders, printable, shortened without losing its suffix."""
  name = printable(re.split(r"[/\\]", name)[-1]).strip()
  stem, dot, suffix = name.rpartition(".")
  return f"{stem[:60]}{dot}{suffix[:12]}" if dot else name[:60] or "file"


def _plain(name: str) -> str:
  """The name reduced to characters that are safe in a URL."""
  return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".") or "file"


def _full(error: OSError) -> UserError:
  logging.getLogger(__name__).error("an upload can't be written: %s", error)
  return UserError("this page can't store uploads now, its disk may be full: ask its operator")


def _gone(name: str) -> UserError:
  return UserError(f"{name} is no longer here: upload it again")
