"""Lists of the files that a writer left in a folder, with checksums: what was damaged since, and what is not its own.

FOLDER/.anchor_files.json names every other file in the folder, its size and its CRC-32. A file of more than 16 MiB is
read in sixteen pieces for that, unless the list is a `whole` one: sixteen pieces show that it is another file, and only
all of it shows that a bit has flipped. Folders of earlier versions have no list.
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
_BLOCK = 2**24  # bytes that are read at once; zlib lets other threads run meanwhile
_THREADS = 4


@dataclasses.dataclass(frozen=True)
class FolderKind:
  """What a writer makes: how its folders are known, so that it replaces those and no other.

  Attributes:
    name: of the kind, such as "models"; a list of files holds it.
    earlier: returns the names of the files in a folder without a list that an earlier version of the writer is known to
      have written, by what they hold.
    rebuilt: matches the names of files that others of this package add later, and make again where they are gone.
  """

  name: str
  earlier: Callable[[Path], Collection[str]] = lambda folder: ()
  rebuilt: str = "(?!)"


def files_in(folder: Path) -> Iterator[str]:
  """Yields the names of all files below a folder, sorted, with "/" between their parts; links are not followed."""
  for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
    if entry.is_dir(follow_symlinks=False):
      yield from (f"{entry.name}/{name}" for name in files_in(Path(entry.path)))
    else:
      yield entry.name


def write_list(folder: Path, kind: str, whole: bool = False) -> None:
  """Writes the list of all files that a folder holds now.

  Args:
    folder: the folder.
    kind: what it is, such as "models"; see `read_list`.
    whole: read every byte of large files for their checksums.
  """
  names = [name for name in files_in(folder) if name != LIST]
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    facts = list(pool.map(lambda name: _facts(folder / name, whole), names))
  text = json.dumps({"format": FORMAT, "kind": kind, "whole": whole, "files": dict(zip(names, facts))}, indent=1)
  partial = folder / _partial_name()
  partial.write_text(text + "\n")
  os.replace(partial, folder / LIST)


def read_list(folder: Path) -> dict[str, Any] | None:
  """Returns {"kind", "whole", "files": {name: [bytes, crc32]}} of a folder; None where it has no list.

  Raises:
    ValueError: the list is damaged.
  """
  if not os.path.lexists(folder / LIST):
    return None
  if not _is_regular(folder / LIST):
    raise ValueError(f"{LIST} is no file")
  try:
    found = json.loads((folder / LIST).read_bytes())
  except (OSError, RecursionError) as error:
    raise ValueError(str(error)) from error
  if not isinstance(found, dict) or found.get("format") != FORMAT or type(found.get("whole")) is not bool:
    raise ValueError(f"{LIST} is no list of files")
  files = found.get("files")
  if (
    not isinstance(found.get("kind"), str)
    or not isinstance(files, dict)
    or not all(
      isinstance(facts, list) and len(facts) == 2 and all(type(number) is int for number in facts)
      for facts in files.values()
    )
  ):
    raise ValueError(f"{LIST} is no list of files")
  return found


def find_damage(folder: Path, share: tuple[int, int] = (0, 1)) -> str:
  """Returns what is wrong with the files that a folder's list names, in words; "" where all is well or without a list.

  Files that the list does not name are not looked at.

  Args:
    folder: the folder.
    share: (index, count) of this process among those that look at the files together; each takes some of them.
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
    for (name, listed), now in zip(files.items(), pool.map(lambda name: _facts(folder / name, found["whole"]), files)):
      if listed != now:
        return f"{name} has {now[0]} bytes instead of {listed[0]}" if now[0] != listed[0] else f"{name} has changed"
  return ""


def is_unfinished(folder: Path) -> bool:
  """Whether a folder was being written when its writer ended; it may be removed with all that is in it."""
  try:
    found = read_list(folder)
  except ValueError:
    return False
  return found is not None and found["kind"] == UNFINISHED


def find_foreign(folder: Path, kind: FolderKind) -> str:
  """Returns what a folder holds that a writer of this kind did not leave there as it is, in words; "" for nothing.

  Folders without a file, and paths where there is no folder, hold nothing.
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
    known = kind.earlier(folder) if names else ()
    strange = next((name for name in names if name not in known or not _is_regular(folder / name)), None)
    return f"{strange}, which was not written by this command or by an earlier version" if strange else ""
  for name in names:
    if name not in found["files"] or not _is_regular(folder / name):
      return f"{name}, which was not written by this command"
  for name in names:
    if _facts(folder / name, found["whole"]) != found["files"][name]:
      return f"{name}, which was changed since it was written"
  return ""


def not_newer(folder: Path, names: Collection[str], last: str) -> set[str]:
  """Returns those of some files that are there and were not changed after the one that their writer wrote last."""
  found = {name: os.lstat(folder / name).st_mtime_ns for name in names if _is_regular(folder / name)}
  return {name for name, changed in found.items() if last in found and changed <= found[last]}


def _is_regular(path: Path) -> bool:
  """Whether a path is a file itself, no link, pipe or device."""
  try:
    return stat.S_ISREG(os.lstat(path).st_mode)
  except OSError:
    return False


def _partial_name() -> str:
  return f"{LIST}.partial"


def _facts(path: Path, whole: bool) -> list[int]:
  """[bytes, crc32] of a file."""
  checksum = 0
  with path.open("rb") as file:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if whole or size <= _PIECE * _PIECES:
      while block := file.read(_BLOCK):
        checksum = zlib.crc32(block, checksum)
    else:
      for number in range(_PIECES):
        file.seek((size - _PIECE) * number // (_PIECES - 1))
        checksum = zlib.crc32(file.read(_PIECE), checksum)
  return [size, checksum]
