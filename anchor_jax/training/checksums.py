"""Checksums of a run's checkpoints, written into each once orbax has finished it; orbax keeps none of the arrays."""

import logging
import threading
from pathlib import Path

from anchor_jax.files.manifest import write_list

log = logging.getLogger(__name__)
_POLL = 0.05  # seconds


class Listing:
  """Lists the files of one checkpoint after another in a thread, so that training goes on meanwhile."""

  def __init__(self, folder: Path):
    """Takes the folder that holds the checkpoints."""
    self._folder, self._written = folder, threading.Event()
    self._thread: threading.Thread | None = None

  def begin(self, step: int) -> None:
    """Starts to list the files of a checkpoint that is being written, as soon as it has its name."""
    self._written.clear()
    self._thread = threading.Thread(target=self._list, args=(self._folder / str(step),), daemon=True)
    self._thread.start()

  def wait(self) -> None:
    """Waits until the files are listed; call it when the checkpoint is written, or never will be."""
    self._written.set()
    if self._thread is not None:
      self._thread.join()
      self._thread = None

  def _list(self, checkpoint: Path) -> None:
    while not checkpoint.exists() and not self._written.wait(_POLL):
      pass  # orbax renames the folder when all is in it
    try:
      if checkpoint.exists():
        write_list(checkpoint, "checkpoint", every_byte=True)
    except OSError as error:
      log.warning("the checksums of %s can't be written (%s); it is read without them", checkpoint, error)
