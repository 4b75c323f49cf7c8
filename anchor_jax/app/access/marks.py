"""Marks folders that the page may empty; anything without the mark is left alone."""

import itertools
import os
import shutil
import stat
from pathlib import Path

MARK = ".of-the-page"


def marked_folder(parent: Path, name: str) -> tuple[Path, list[Path]]:
  """Returns a folder with the mark: PARENT/NAME, or NAME-2 and so on if that one is not the page's.

  An unmarked folder is marked and used only if it is empty.

  Returns:
    The folder, and the nonempty unmarked ones that were passed over.
  """
  passed_over: list[Path] = []
  for number in itertools.count(1):
    folder = parent / (name if number == 1 else f"{name}-{number}")
    if not os.path.lexists(folder):
      folder.mkdir()
    if is_regular(folder / MARK) and is_folder(folder):
      return folder, passed_over
    if is_folder(folder) and not any(folder.iterdir()):
      (folder / MARK).touch()
      return folder, passed_over
    passed_over.append(folder)
  raise AssertionError("unreachable: the loop is infinite")


def erase(folder: Path, mark: str) -> None:
  """Removes a marked folder, and the mark last, so that an interrupted removal can continue.

  Args:
    folder: a real folder; links in it are removed, not followed.
    mark: name of the file that marks it.

  Raises:
    OSError: something could not be removed; the mark is still there.
  """
  for path in folder.iterdir():
    if path.name == mark:
      continue
    if is_folder(path):
      shutil.rmtree(path)
    else:
      path.unlink(missing_ok=True)
  (folder / mark).unlink(missing_ok=True)
  folder.rmdir()


def is_folder(path: Path) -> bool:
  """Returns whether the path is a folder, not a link to one."""
  return _is(path, stat.S_ISDIR)


def is_regular(path: Path) -> bool:
  """Returns whether the path is a regular file, not a link, pipe or device."""
  return _is(path, stat.S_ISREG)


def _is(path: Path, test) -> bool:
  try:
    return test(os.lstat(path).st_mode)
  except (OSError, ValueError):
    return False
