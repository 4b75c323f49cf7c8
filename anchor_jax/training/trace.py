"""A profiler trace of a few training steps."""

from pathlib import Path
from typing import Any

import jax


class Trace:
  """Traces three steps, the third to the fifth if there are so many. A context manager.

  The trace is written when the last of the steps is done, or when the block is left before that.
  """

  def __init__(self, folder: Path | None, start: int, steps: int):
    """Prepares a trace into `folder`, or none if it is None; the run does steps start + 1 to `steps`."""
    self._folder, self._running = folder, False
    self._first = max(start + 1, min(start + 3, steps - 2))  # the first steps are slower than the others
    self._last = min(self._first + 2, steps)

  def __enter__(self) -> "Trace":
    return self

  def __exit__(self, *_) -> None:
    self._stop()

  def before(self, step: int) -> None:
    """To be called before a step."""
    if self._folder is not None and step == self._first:
      jax.profiler.start_trace(str(self._folder))
      self._running = True

  def after(self, step: int, results: Any) -> None:
    """To be called after a step, with arrays that it computes."""
    if self._running and step == self._last:
      jax.block_until_ready(results)
      self._stop()

  def _stop(self) -> None:
    if self._running:
      self._running = False
      jax.profiler.stop_trace()
