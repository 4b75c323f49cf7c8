"""Uploads until they are used: each belongs to the visitor who sent it, under a random name, for an hour.

A visitor's browser gets a token for each. What comes back from it is looked up among that visitor's own tokens, and
nothing that came from outside is ever made part of a path.
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

MOST_FILES = 16  # in one upload
KEPT = 3600.0  # seconds
_MOST_KEPT = 48  # files of one visitor
_MOST_AT_ONCE = 4  # uploads of one visitor that are on their way
_MOST_IN_ALL = 32  # of all visitors
_SHARE = 8  # largest files that one visitor may have here; all together four times as many
_EVERYONE = 4


@dataclasses.dataclass(frozen=True)
class Upload:
  """A file that was uploaded.

  Attributes:
    token: what its visitor knows it by.
    owner: the visitor, see `owners.py`.
    name: what the file was called there, for messages.
    path: where it is.
    size: in bytes.
    came: when, in seconds of `time.monotonic`.
  """

  token: str
  owner: str
  name: str
  path: Path
  size: int
  came: float

  def open(self) -> BinaryIO:
    """Returns the file, opened for reading.

    Raises:
      UserError: it is not there any more, or not a file any more.
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
  """All uploads that wait to be used. Several threads may use it."""

  def __init__(self, folder: Path, megabytes: int, disk: Disk):
    """Empties a folder that carries the page's mark (`marks.own_folder`): nobody has a token of an earlier start.

    Args:
      folder: where they are.
      megabytes: size of the largest file.
      disk: what room there is.
    """
    self._folder, self._largest, self.disk = folder, megabytes * 10**6, disk
    self._megabytes, self._lock = megabytes, threading.Lock()
    self._known: dict[str, Upload] = {}
    self._used: dict[str, set[str]] = {}  # by token: for whom or what
    self._coming: dict[str, int] = {}  # by visitor: uploads on their way
    self._bytes: dict[str, int] = {}  # by visitor
    for place in folder.iterdir():
      if is_name(place.name) and not place.is_dir():
        place.unlink()

  @contextlib.contextmanager
  def receiving(self, owner: str) -> Iterator["Batch"]:
    """Yields a place for the files of one upload, which are kept when the block ends; if it fails, none is.

    Raises:
      UserError: too many are on their way, or there is no room.
    """
    self.sweep()
    with self._lock:
      mine, all_together = self._coming.get(owner, 0), sum(self._coming.values())
      if mine >= _MOST_AT_ONCE or all_together >= _MOST_IN_ALL:
        raise UserError("too many uploads are on their way: wait until one has arrived")
      self._coming[owner] = mine + 1
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
        self._coming[owner] -= 1
        if not self._coming[owner]:
          del self._coming[owner]

  def find(self, owner: str, token: object) -> Upload:
    """Returns the upload that a visitor means.

    Raises:
      UserError: this visitor has none of that token (any more).
    """
    with self._lock:
      upload = self._known.get(token) if isinstance(token, str) else None
    if upload is None or upload.owner != owner:
      raise _gone("this file")
    return upload

  def find_all(self, owner: str, tokens: Sequence[object]) -> list[Upload]:
    """Returns the uploads that a visitor means; see `find`."""
    if len(tokens) > MOST_FILES:
      raise UserError(f"{len(tokens)} files are too many: upload at most {MOST_FILES}")
    return [self.find(owner, token) for token in dict.fromkeys(map(str, tokens))]

  def mark_used(self, uploads: Sequence[Upload], *by: str) -> None:
    """Notes who or what has a copy of uploads; they can be used again until they go."""
    with self._lock:
      for upload in uploads:
        self._used.setdefault(upload.token, set()).update(by)

  def forget(self, by: str) -> None:
    """Removes what was used for somebody or something that is deleted."""
    with self._lock:
      gone = [token for token, users in self._used.items() if by in users]
    self._remove(gone)

  def make_room(self, owner: str, count: int) -> None:
    """Counts bytes that arrive; a visitor's uploads that were used already go first where there is no room for them.

    Raises:
      UserError: there is no room.
    """
    self.disk.check(count)
    self.disk.add(count)
    with self._lock:
      self._bytes[owner] = self._bytes.get(owner, 0) + count
      mine, all_together = self._bytes[owner], sum(self._bytes.values())
      files = [upload for upload in self._known.values() if upload.owner == owner]
      used = [upload.token for upload in files if upload.token in self._used]
    most = _SHARE * self._largest
    if mine <= most and all_together <= _EVERYONE * most and len(files) < _MOST_KEPT:
      return
    if used:
      self._remove(used)
      return
    self.release(owner, count)
    if mine > most or len(files) >= _MOST_KEPT:
      raise UserError(
        "too much of yours waits here to be used: add the person or make the video first, or come back in an hour"
      )
    raise UserError("too much waits here to be used: come back in an hour")

  def release(self, owner: str, count: int) -> None:
    """Counts bytes that are not here any more."""
    self.disk.add(-count)
    with self._lock:
      self._bytes[owner] = self._bytes.get(owner, 0) - count
      if self._bytes[owner] <= 0:
        del self._bytes[owner]

  def sweep(self) -> None:
    """Removes what nobody used for an hour."""
    now = time.monotonic()
    with self._lock:
      old = [token for token, upload in self._known.items() if now - upload.came > KEPT]
    self._remove(old)

  def _remove(self, tokens: Sequence[str]) -> None:
    for token in tokens:
      with self._lock:
        upload = self._known.pop(token, None)
        self._used.pop(token, None)
      if upload is not None:
        upload.path.unlink(missing_ok=True)
        self.release(upload.owner, upload.size)


class Batch:
  """The files of one upload while they arrive, one after another."""

  def __init__(self, intake: Intake, folder: Path, owner: str, megabytes: int):
    """Takes where they go, and how large each may be."""
    self.files: list[Upload] = []
    self._intake, self._folder, self._owner, self._megabytes = intake, folder, owner, megabytes
    self._file: BinaryIO | None = None
    self._path, self.name, self._size = folder, "", 0

  def begin(self, name: str) -> "Batch":
    """Begins a file, which was called so on the visitor's machine; the one before it is complete.

    Raises:
      UserError: these are too many.
    """
    self.end()
    if len(self.files) >= MOST_FILES:
      raise UserError(f"more than {MOST_FILES} files are too many: upload fewer at once")
    self._intake.make_room(self._owner, 0)
    self.name = shown_name(name)
    self._path, self._size = self._folder / new_name(), 0
    try:
      opened = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError as error:
      raise _full(error) from None
    self._file = os.fdopen(opened, "wb")
    return self

  def write(self, data: bytes) -> None:
    """Adds to the file that was begun.

    Raises:
      UserError: it is larger than it may be, or there is no room.
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
    """Completes the file that was begun, if there is one."""
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
    """Removes what has arrived."""
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


def shown_name(name: str) -> str:
  """Returns the name of a file for messages: without folders, printable, not too long, and its ending kept."""
  name = printable(re.split(r"[/\\]", name)[-1]).strip()
  stem, dot, suffix = name.rpartition(".")
  return f"{stem[:60]}{dot}{suffix[:12]}" if dot else name[:60] or "file"


def _plain(name: str) -> str:
  """The name as part of an address."""
  return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".") or "file"


def _full(error: OSError) -> UserError:
  logging.getLogger(__name__).error("an upload can't be written: %s", error)
  return UserError("this page can't keep uploads now, its disk may be full: tell who runs it")


def _gone(name: str) -> UserError:
  return UserError(f"{name} is not here any more: upload it again")
