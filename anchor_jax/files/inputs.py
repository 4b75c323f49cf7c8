"""Reading inputs: regular files alone are opened, JSON is read strictly, and numbered files are in order.

Everything that a user names, or that lies in a folder that a user names, may be a pipe, a device or a loop of links:
opening one of those waits forever, or never ends.
"""

import errno
import json
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from anchor_jax.core.errors import UserError, one_line, suggestion

LARGEST_TEXT = 2**28  # bytes of a JSON file or a list: a meta.json of a million frames has a tenth of that
_KINDS = (
  (stat.S_ISDIR, "a folder"),
  (stat.S_ISFIFO, "a pipe"),
  (stat.S_ISSOCK, "a socket"),
  (stat.S_ISCHR, "a device"),
  (stat.S_ISBLK, "a device"),
)
_MOST_NAMES = 10_000  # of a folder, among which a misspelt name is looked for


def regular_file(path: str | os.PathLike, what: str = "file") -> Path:
  """Returns the path of a file that is there, is a regular one (links are followed) and may be read.

  Args:
    path: as the user gave it.
    what: what it is for messages, such as "video".

  Raises:
    UserError: there is no such file, it is a folder, a pipe, a device or a socket, its links lead in a circle, its name
      is no name, or it may not be read.
  """
  path = Path(path)
  try:
    mode = os.stat(path).st_mode
  except (OSError, ValueError) as error:  # ValueError: a null character
    raise _missing(path, what, error) from None
  if not stat.S_ISREG(mode):
    raise _irregular(path, what, mode)
  if not os.access(path, os.R_OK):
    raise UserError(f"cannot read {path}: permission denied")
  return path


def open_input(path: str | os.PathLike, what: str = "file") -> BinaryIO:
  """Returns a regular file, opened for reading; never waits for a pipe that another process put in its place.

  Raises:
    UserError: see `regular_file`.
  """
  path = regular_file(path, what)
  try:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
  except OSError as error:
    raise UserError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None
  file = os.fdopen(descriptor, "rb")
  mode = os.fstat(descriptor).st_mode
  if not stat.S_ISREG(mode):
    file.close()
    raise _irregular(path, what, mode)
  return file


def read_bytes(path: str | os.PathLike, what: str = "file", most: int = LARGEST_TEXT) -> bytes:
  """Returns what a regular file of at most `most` bytes holds.

  Raises:
    UserError: see `regular_file`; or it is larger.
  """
  with open_input(path, what) as file:
    size = os.fstat(file.fileno()).st_size
    if size > most:
      raise UserError(f"{path} has {size} bytes, more than any such {what}: it is damaged or something else")
    try:
      return file.read()
    except OSError as error:
      raise UserError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None


def read_json(path: str | os.PathLike, what: str = "file", remedy: str = "make it again", nan: bool = False) -> Any:
  """Returns the value in a JSON file.

  Args:
    path: the file.
    what: what it is for messages.
    remedy: what the user can do where it is damaged.
    nan: whether NaN and infinities count as numbers, which JSON does not have.

  Raises:
    UserError: see `regular_file`; or it is no JSON, larger than `LARGEST_TEXT`, or holds numbers that are not finite.
  """
  return parse_json(read_bytes(path, what), path, remedy, nan)


def parse_json(text: str | bytes, path: str | os.PathLike, remedy: str = "make it again", nan: bool = False) -> Any:
  """Returns the value in a JSON text; `path` is its name for messages, the rest as of `read_json`."""
  try:
    return strict_json(text, nan)
  except ValueError as error:
    raise UserError(f"{path} is damaged ({one_line(error)}): {remedy}") from None


def strict_json(text: str | bytes, nan: bool = False) -> Any:
  """Returns the value in a JSON text. Raises ValueError where it is none; `nan` as of `read_json`."""

  def number(written: str) -> float:
    value = float(written)
    if not nan and value in (float("inf"), float("-inf")):
      raise ValueError(f"the number {one_line(written, 20)} is too large")
    return value

  def constant(name: str) -> float:
    if not nan:
      raise ValueError(f"{name} is no number")
    return float(name)

  try:
    return json.loads(text, parse_float=number, parse_constant=constant)
  except RecursionError:
    raise ValueError("it is nested too deep") from None


def has_fields(path: str | os.PathLike, *names: str) -> bool:
  """Whether a file holds a JSON object with these fields."""
  try:
    held = read_json(path)
  except UserError:
    return False
  return isinstance(held, dict) and all(name in held for name in names)


def head_of(path: str | os.PathLike, count: int = 4096) -> bytes:
  """Returns the first bytes of a file; none where it can't be read."""
  try:
    with open_input(path) as file:
      return file.read(count)
  except (UserError, OSError):
    return b""


def natural(path: str | os.PathLike) -> list[tuple[int, str]]:
  """The key that sorts names by the numbers in them: frame 2 comes before frame 10."""
  parts = re.split(r"([0-9]+)", os.fspath(path))  # texts and numbers in turn, so that keys can be compared
  return [(int(part), part) if number % 2 else (-1, part) for number, part in enumerate(parts)]


def in_order(paths: Iterable[Path]) -> list[Path]:
  """Returns paths of numbered files in the order of their numbers."""
  return sorted(paths, key=natural)


def _missing(path: Path, what: str, error: Exception) -> UserError:
  number = getattr(error, "errno", None)
  if number == errno.ELOOP:
    return UserError(f"{path} is a link that leads back to itself: name the {what} itself")
  if number == errno.ENAMETOOLONG:
    return UserError(f"there is no {what} {one_line(path, 40)}: the name is longer than the system allows")
  if isinstance(error, ValueError):
    return UserError(f"{path} is no name of a file: give the path of a {what}")
  if number not in (errno.ENOENT, errno.ENOTDIR):
    return UserError(f"cannot read {path}: {(getattr(error, 'strerror', None) or str(error)).lower()}")
  if path.is_symlink():
    return UserError(f"{path} is a link to {os.readlink(path)}, which is not there: name the {what} itself")
  return UserError(f"there is no {what} {path}.{suggestion(path.name, _names(path.parent))}")


def _names(folder: Path) -> list[str]:
  names: list[str] = []
  try:
    with os.scandir(folder) as entries:
      for entry in entries:
        names.append(entry.name)
        if len(names) == _MOST_NAMES:
          break
  except OSError:
    pass
  return names


def _irregular(path: Path, what: str, mode: int) -> UserError:
  kind = next((name for matches, name in _KINDS if matches(mode)), "no regular file")
  save = "name a file" if stat.S_ISDIR(mode) else f"save it as a file first, and name that {what}"
  return UserError(f"{path} is {kind}, not a {what}: {save}")
