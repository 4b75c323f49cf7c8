"""How much of the disk the page may fill: in all, whoever asks for it, since visitors are free to come as many."""

import os
import shutil
import threading
import time
from pathlib import Path

from anchor_jax.core.errors import UserError

_GIGABYTE = 10**9
_RESERVE = 1 * _GIGABYTE  # of the disk, that is never used up
_FRESH = 60.0  # seconds for which a measurement holds


class Disk:
  """The room that is left in a folder. Several threads may use it."""

  def __init__(self, folder: Path, gigabytes: float):
    """Takes the folder, and how large everything in it may become."""
    self._folder, self._most = folder, gigabytes * _GIGABYTE
    self._lock = threading.Lock()
    self._size, self._measured = 0, float("-inf")

  def check(self, more: int = 0) -> None:
    """Checks that there is room, for so many bytes more.

    It looks at every file once a minute at most.

    Raises:
      UserError: the folder is as large as it may be, or the disk is nearly full.
    """
    with self._lock:
      if time.monotonic() - self._measured > _FRESH:
        self._size, self._measured = _size_of(self._folder), time.monotonic()
      if self._size + more > self._most:
        most = f"{self._most / _GIGABYTE:g} GB"
        raise UserError(f"this page fills the {most} that it may: delete a video or a person, or tell who runs it")
    if shutil.disk_usage(self._folder).free < _RESERVE + more:
      raise UserError("the disk of this page is nearly full: delete a video or a person, or tell who runs it")

  def add(self, count: int) -> None:
    """Counts bytes that were written since the last measurement, negative ones that were removed."""
    with self._lock:
      self._size += count


def _size_of(folder: Path) -> int:
  total = 0
  for place, _, files in os.walk(folder):
    for name in files:
      try:
        total += os.lstat(os.path.join(place, name)).st_size
      except OSError:  # it was removed meanwhile
        continue
  return total
