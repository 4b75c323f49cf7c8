"""Reads inputs: opens regular files only, parses JSON strictly, and sorts numbered files.

A path that a user names, or an entry in a folder that a user names, may be a pipe, a device or a loop of links, and
reading one of those can block forever or never end.
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

LARGEST_TEXT = 2**28  # bytes; the meta.json of a million frames has a tenth of that
_KINDS = (
  (stat.S_ISDIR, "a folder"),
  (stat.S_ISFIFO, "a pipe"),
  (stat.S_ISSOCK, "a socket"),
  (stat.S_ISCHR, "a device"),
  (stat.S_ISBLK, "a device"),
)
_MAX_NAMES = 10_000  # of a folder, searched for a suggestion


def regular_file(path: str | os.PathLike, noun: str = "file") -> Path:
  """Returns the path of an existing, readable, regular file (links are followed).

  Args:
    path: as the user gave it.
    noun: what messages call the file, such as "video".

  Raises:
    UserError: there is no such file; it is a folder, pipe, device or socket; its links form a loop; its name is not
      valid; or permission is denied.
  """
  path = Path(path)
  try:
    mode = os.stat(path).st_mode
  except (OSError, ValueError) as error:  # ValueError: a null character
    raise _missing(path, noun, error) from None
  if not stat.S_ISREG(mode):
    raise _irregular(path, noun, mode)
  if not os.access(path, os.R_OK):
    raise UserError(f"cannot read {path}: permission denied")
  return path


def open_input(path: str | os.PathLike, noun: str = "file") -> BinaryIO:
  """Returns a regular file opened for reading; never blocks on a pipe that another process put in its place.

  Raises:
    UserError: see `regular_file`.
  """
  path = regular_file(path, noun)
  try:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
  except OSError as error:
    raise UserError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None
  file = os.fdopen(descriptor, "rb")
  mode = os.fstat(descriptor).st_mode
  if not stat.S_ISREG(mode):
    file.close()
    raise _irregular(path, noun, mode)
  return file


def read_bytes(path: str | os.PathLike, noun: str = "file", max_bytes: int = LARGEST_TEXT) -> bytes:
  """Returns the content of a regular file of at most `max_bytes`.

  Raises:
    UserError: see `regular_file`; or the file is larger.
  """
  with open_input(path, noun) as file:
    size = os.fstat(file.fileno()).st_size
    if size > max_bytes:
      raise UserError(f"{path} has {size} bytes, too many for a {noun}: it is damaged or something else")
    try:
      return file.read()
    except OSError as error:
      raise UserError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None


def read_json(path: str | os.PathLike, noun: str = "file", remedy: str = "make it again", nan: bool = False) -> Any:
  """Returns the value in a JSON file.

  Args:
    path: the file.
    noun: what messages call it.
    remedy: what the user can do if it is damaged.
    nan: accept NaN and infinities, which are not JSON.

  Raises:
    UserError: see `regular_file`; or the file is not JSON, is larger than `LARGEST_TEXT`, or has numbers that are not
      finite.
  """
  return parse_json(read_bytes(path, noun), path, remedy, nan)


def parse_json(text: str | bytes, path: str | os.PathLike, remedy: str = "make it again", nan: bool = False) -> Any:
  """Returns the value of a JSON text. Messages name `path`; for the rest see `read_json`."""
  try:
    return strict_json(text, nan)
  except ValueError as error:
    raise UserError(f"{path} is damaged ({one_line(error)}): {remedy}") from None


def strict_json(text: str | bytes, nan: bool = False) -> Any:
  """Returns the value of a JSON text; raises ValueError if it is not JSON. `nan` as in `read_json`."""

  def number(digits: str) -> float:
    value = float(digits)
    if not nan and value in (float("inf"), float("-inf")):
      raise ValueError(f"the number {one_line(digits, 20)} is too large")
    return value

  def constant(name: str) -> float:
    if not nan:
      raise ValueError(f"{name} is not a number")
    return float(name)

  try:
    return json.loads(text, parse_float=number, parse_constant=constant)
  except RecursionError:
    raise ValueError("it is nested too deep") from None


def has_fields(path: str | os.PathLike, *names: str) -> bool:
  """Whether a file holds a JSON object with these fields."""
  try:
    value = read_json(path)
  except UserError:
    return False
  return isinstance(value, dict) and all(name in value for name in names)


def head_of(path: str | os.PathLike, count: int = 4096) -> bytes:
  """Returns the first `count` bytes of a file, or b"" if it can't be read."""
  try:
    with open_input(path) as file:
      return file.read(count)
  except (UserError, OSError):
    return b""


def natural(path: str | os.PathLike) -> list[tuple[int, str]]:
  """Returns a sort key by the numbers in a name: frame 2 comes before frame 10."""
  parts = re.split(r"([0-9]+)", os.fspath(path))  # text and numbers alternate, so that keys are comparable
  return [(int(part), part) if number % 2 else (-1, part) for number, part in enumerate(parts)]


def sorted_by_number(paths: Iterable[Path]) -> list[Path]:
  """Returns paths sorted by the numbers in their names."""
  return sorted(paths, key=natural)


def _missing(path: Path, noun: str, error: Exception) -> UserError:
  number = getattr(error, "errno", None)
  if number == errno.ELOOP:
    return UserError(f"{path} is a link that leads back to itself: name the {noun} itself")
  if number == errno.ENAMETOOLONG:
    return UserError(f"there is no {noun} {one_line(path, 40)}: the name is longer than the system allows")
  if isinstance(error, ValueError):
    return UserError(f"{path} is not a valid file name: give the path of a {noun}")
  if number not in (errno.ENOENT, errno.ENOTDIR):
    return UserError(f"cannot read {path}: {(getattr(error, 'strerror', None) or str(error)).lower()}")
  if path.is_symlink():
    return UserError(f"{path} is a link to {os.readlink(path)}, which does not exist: name the {noun} itself")
  return UserError(f"there is no {noun} {path}.{suggestion(path.name, _names(path.parent))}")


def _names(folder: Path) -> list[str]:
  names: list[str] = []
  try:
    with os.scandir(folder) as entries:
      for entry in entries:
        names.append(entry.name)
        if len(names) == _MAX_NAMES:
          break
  except OSError:
    pass
  return names


def _irregular(path: Path, noun: str, mode: int) -> UserError:
  kind = next((name for matches, name in _KINDS if matches(mode)), "not a regular file")
  remedy = "name a file" if stat.S_ISDIR(mode) else f"save it as a file first, and name that {noun}"
  return UserError(f"{path} is {kind}, not a {noun}: {remedy}")
