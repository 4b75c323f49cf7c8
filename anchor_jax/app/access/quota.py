"""Limits the disk space of the page, in total over all visitors, since anyone can get more cookies."""

import os
import shutil
import threading
import time
from pathlib import Path

from anchor_jax.core.errors import UserError

_GIGABYTE = 10**9
_RESERVE = 1 * _GIGABYTE  # free disk space that is never used
_FRESH = 60.0  # seconds before the folder is measured again


class Disk:
  """Tracks the space used in a folder. Thread-safe."""

  def __init__(self, folder: Path, gigabytes: float):
    """Takes the folder and the limit for everything in it."""
    self._folder, self._limit = folder, gigabytes * _GIGABYTE
    self._lock = threading.Lock()
    self._size, self._measured = 0, float("-inf")

  def check(self, more: int = 0) -> None:
    """Checks that `more` bytes fit; measures the folder at most once a minute.

    Raises:
      UserError: the folder has reached its limit, or the disk is nearly full.
    """
    with self._lock:
      if time.monotonic() - self._measured > _FRESH:
        self._size, self._measured = _size_of(self._folder), time.monotonic()
      if self._size + more > self._limit:
        limit = f"{self._limit / _GIGABYTE:g} GB"
        raise UserError(f"this page has reached its limit of {limit}: delete a video or a person, or ask its operator")
    if shutil.disk_usage(self._folder).free < _RESERVE + more:
      raise UserError("the disk of this page is nearly full: delete a video or a person, or ask its operator")

  def add(self, count: int) -> None:
    """Counts bytes written since the last measurement; negative for removed ones."""
    with self._lock:
      self._size += count


def _size_of(folder: Path) -> int:
  total = 0
  for parent, _, files in os.walk(folder):
    for name in files:
      try:
        total += os.lstat(os.path.join(parent, name)).st_size
      except OSError:  # removed in the meantime
        continue
  return total
