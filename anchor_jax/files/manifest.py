"""Lists a written folder's files with checksums, to find damage and files that something else put there.

FOLDER/.anchor_files.json has the size and CRC-32 of every other file in the folder. For files of more than 16 MiB the
checksum covers sixteen pieces, enough to recognize another file; with "whole" in the list it covers every byte, which
also finds flipped bits. Folders of earlier versions have no list.
"""

import concurrent.futures
import dataclasses
import json
import os
import re
import stat
import zlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

LIST = ".anchor_files.json"
FORMAT = "anchor_jax files 1"
UNFINISHED = "unfinished"  # the kind of a folder that is being written
_PIECE, _PIECES = 2**20, 16
_BLOCK = 2**24  # bytes per read; zlib releases the GIL
_THREADS = 4


@dataclasses.dataclass(frozen=True)
class FolderKind:
  """A kind of folder that a writer creates, and how to recognize it: a writer replaces only its own kind.

  Attributes:
    name: such as "models"; stored in the list of files.
    legacy_files: for a folder without a list, returns the names of the files that an earlier version wrote, judging by
      their content.
    rebuilt: pattern of the names of files that are added later and can be rebuilt, such as caches.
  """

  name: str
  legacy_files: Callable[[Path], Collection[str]] = lambda folder: ()
  rebuilt: str = "(?!)"


def files_in(folder: Path) -> Iterator[str]:
  """Yields the relative paths of all files in a folder and below, sorted; links are not followed."""
  for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
    if entry.is_dir(follow_symlinks=False):
      yield from (f"{entry.name}/{name}" for name in files_in(Path(entry.path)))
    else:
      yield entry.name


def write_list(folder: Path, kind: str, every_byte: bool = False) -> None:
  """Writes the list of all files in a folder.

  Args:
    folder: the folder.
    kind: name of its kind, such as "models".
    every_byte: checksum large files completely.
  """
  names = [name for name in files_in(folder) if name != LIST]
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    facts = list(pool.map(lambda name: _facts(folder / name, every_byte), names))
  text = json.dumps({"format": FORMAT, "kind": kind, "whole": every_byte, "files": dict(zip(names, facts))}, indent=1)
  partial = folder / _partial_name()
  partial.write_text(text + "\n")
  os.replace(partial, folder / LIST)


def read_list(folder: Path) -> dict[str, Any] | None:
  """Returns {"kind", "whole", "files": {name: [bytes, crc32]}} of a folder; None without a list.

  Raises:
    ValueError: the list is damaged.
  """
  if not os.path.lexists(folder / LIST):
    return None
  if not _is_regular(folder / LIST):
    raise ValueError(f"{LIST} is not a file")
  try:
    found = json.loads((folder / LIST).read_bytes())
  except (OSError, RecursionError) as error:
    raise ValueError(str(error)) from error
  if not isinstance(found, dict) or found.get("format") != FORMAT or type(found.get("whole")) is not bool:
    raise ValueError(f"{LIST} is not a list of files")
  files = found.get("files")
  if (
    not isinstance(found.get("kind"), str)
    or not isinstance(files, dict)
    or not all(
      isinstance(facts, list) and len(facts) == 2 and all(type(number) is int for number in facts)
      for facts in files.values()
    )
  ):
    raise ValueError(f"{LIST} is not a list of files")
  return found


def find_damage(folder: Path, share: tuple[int, int] = (0, 1)) -> str:
  """Returns a description of the first damaged file in a folder's list; "" without damage or without a list.

  Files that are not in the list are ignored.

  Args:
    folder: the folder.
    share: (index, count) of this process among those that divide the files.
  """
  try:
    found = read_list(folder)
  except ValueError:
    return f"{LIST} is damaged"
  if found is None:
    return ""
  index, count = share
  files = dict(list(found["files"].items())[index::count])
  for name in files:
    if not _is_regular(folder / name):
      return f"{name} is missing"
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    for (name, listed), facts in zip(
      files.items(), pool.map(lambda name: _facts(folder / name, found["whole"]), files)
    ):
      if facts[0] != listed[0]:
        return f"{name} has {facts[0]} bytes instead of {listed[0]}"
      if facts != listed:
        return f"{name} has changed"
  return ""


def is_unfinished(folder: Path) -> bool:
  """Whether a folder was left incomplete by its writer; it may be deleted with its content."""
  try:
    found = read_list(folder)
  except ValueError:
    return False
  return found is not None and found["kind"] == UNFINISHED


def find_foreign(folder: Path, kind: FolderKind) -> str:
  """Returns a description of the first file that a writer of this kind did not leave in a folder as it is now.

  Returns "" if there is none, if the folder is empty, or if there is no folder.
  """
  if not folder.is_dir():
    return ""
  names = [
    name for name in files_in(folder) if name not in (LIST, _partial_name()) and not re.fullmatch(kind.rebuilt, name)
  ]
  try:
    found = read_list(folder)
  except ValueError:
    return f"{LIST}, which is damaged"
  if found is not None and found["kind"] != kind.name and names:
    return f"{names[0]}, which something else wrote ({found['kind']})"
  if found is None:
    known = kind.legacy_files(folder) if names else ()
    foreign = next((name for name in names if name not in known or not _is_regular(folder / name)), None)
    return f"{foreign}, which was not written by this command or by an earlier version" if foreign else ""
  for name in names:
    if name not in found["files"] or not _is_regular(folder / name):
      return f"{name}, which was not written by this command"
  for name in names:
    if _facts(folder / name, found["whole"]) != found["files"][name]:
      return f"{name}, which was changed since it was written"
  return ""


def not_newer(folder: Path, names: Collection[str], last: str) -> set[str]:
  """Returns those of the named files that exist and are not newer than `last`, the file their writer wrote last."""
  times = {name: os.lstat(folder / name).st_mtime_ns for name in names if _is_regular(folder / name)}
  return {name for name, time in times.items() if last in times and time <= times[last]}


def _is_regular(path: Path) -> bool:
  """Whether a path is a regular file and not a link."""
  try:
    return stat.S_ISREG(os.lstat(path).st_mode)
  except OSError:
    return False


def _partial_name() -> str:
  return f"{LIST}.partial"


def _facts(path: Path, every_byte: bool) -> list[int]:
  """Returns [bytes, crc32] of a file."""
  checksum = 0
  with path.open("rb") as file:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if every_byte or size <= _PIECE * _PIECES:
      while block := file.read(_BLOCK):
        checksum = zlib.crc32(block, checksum)
    else:
      for number in range(_PIECES):
        file.seek((size - _PIECE) * number // (_PIECES - 1))
        checksum = zlib.crc32(file.read(_PIECE), checksum)
  return [size, checksum]
