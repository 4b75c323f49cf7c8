"""SIGTERM, which clouds send before they take a machine away: the step under way is finished and saved."""

import contextlib
import signal
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils


class Preempted(SystemExit):
  """SIGTERM came, and everything is saved. Leaves the program with the exit code that SIGTERM has.

  Attributes:
    told: how far the run got.
  """

  def __init__(self, told: str):
    super().__init__(128 + signal.SIGTERM)
    self.told = told


class Preemption:
  """Whether this run was asked to stop."""

  def __init__(self):
    self.asked = False

  def after(self, step: int) -> bool:
    """Whether to stop after this step; all processes of a run get the same answer."""
    if jax.process_count() > 1:  # JAX's own service heard the signal, and agrees with the others on a step
      return bool(multihost_utils.reached_preemption_sync_point(step))
    return self.asked


@contextlib.contextmanager
def listening() -> Iterator[Preemption]:
  """Listens to SIGTERM while the block runs."""
  preemption = Preemption()
  if jax.process_count() > 1:
    yield preemption
    return

  def ask(*_) -> None:
    preemption.asked = True

  try:
    before = signal.signal(signal.SIGTERM, ask)
  except ValueError:  # not the main thread: somebody else's business
    yield preemption
    return
  try:
    yield preemption
  finally:
    signal.signal(signal.SIGTERM, before)
