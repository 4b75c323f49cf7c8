"""SIGTERM, which clouds send before they take a machine away: the run stops after the current step and saves it."""

import contextlib
import signal
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils


class Preempted(SystemExit):
  """The run was stopped by SIGTERM after a step that is saved. Its exit code is that of SIGTERM.

  Attributes:
    message: at which step the run stopped.
  """

  def __init__(self, message: str):
    super().__init__(128 + signal.SIGTERM)
    self.message = message


class Preemption:
  """Whether the run was asked to stop."""

  def __init__(self):
    self._requested = False

  def request(self) -> None:
    """Asks the run to stop after the current step."""
    self._requested = True

  def requested_after(self, step: int) -> bool:
    """Whether to stop after this step; the same in all processes of a run."""
    if jax.process_count() > 1:  # JAX's coordination service received the signal, and agrees on a step with the others
      return bool(multihost_utils.reached_preemption_sync_point(step))
    return self._requested


@contextlib.contextmanager
def catch_sigterm() -> Iterator[Preemption]:
  """Catches SIGTERM while the block runs."""
  preemption = Preemption()
  if jax.process_count() > 1:
    yield preemption
    return
  try:
    before = signal.signal(signal.SIGTERM, lambda *_: preemption.request())
  except ValueError:  # only the main thread may set handlers
    yield preemption
    return
  try:
    yield preemption
  finally:
    signal.signal(signal.SIGTERM, before)
