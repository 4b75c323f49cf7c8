"""Folders that the page may empty: those that carry a mark of its own. Everything else in its folder stays as it is."""

import itertools
import os
import shutil
import stat
from pathlib import Path

MARK = ".of-the-page"


def own_folder(parent: Path, name: str) -> tuple[Path, list[Path]]:
  """Returns a folder that carries the mark: PARENT/NAME, or NAME-2 and so on where that one is somebody else's.

  A folder without the mark is taken over only if it is empty.

  Returns:
    The folder, and those that were left alone since they hold something and carry no mark.
  """
  others: list[Path] = []
  for number in itertools.count(1):
    place = parent / (name if number == 1 else f"{name}-{number}")
    if not os.path.lexists(place):
      place.mkdir()
    if is_regular(place / MARK) and is_folder(place):
      return place, others
    if is_folder(place) and not any(place.iterdir()):
      (place / MARK).touch()
      return place, others
    others.append(place)
  raise AssertionError  # the loop has no end


def erase(folder: Path, mark: str) -> None:
  """Removes a folder that carries a mark, and the mark last: an interrupted removal can go on.

  Args:
    folder: a real folder; links in it are removed and not followed.
    mark: name of the file in it that says whose it is.

  Raises:
    OSError: something could not be removed; the mark is still there.
  """
  for place in folder.iterdir():
    if place.name == mark:
      continue
    if is_folder(place):
      shutil.rmtree(place)
    else:
      place.unlink(missing_ok=True)
  (folder / mark).unlink(missing_ok=True)
  folder.rmdir()


def is_folder(place: Path) -> bool:
  """Whether this is a folder itself, and no link to one."""
  return _is(place, stat.S_ISDIR)


def is_regular(place: Path) -> bool:
  """Whether this is a regular file itself, and no link to one, no pipe and no device."""
  return _is(place, stat.S_ISREG)


def _is(place: Path, kind) -> bool:
  try:
    return kind(os.lstat(place).st_mode)
  except (OSError, ValueError):
    return False
