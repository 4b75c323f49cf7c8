"""SIGTERM and Ctrl-C: the run stops after the current step and saves it.

Clouds send SIGTERM before they take a machine away. Ctrl-C (SIGINT) would raise KeyboardInterrupt wherever Python is:
inside a callback of JAX it is dropped, and elsewhere it costs everything since the last checkpoint.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

from anchor_jax.core.errors import Stopped

_NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}


class Preempted(Stopped):
  """The run was stopped by a signal after a step that is saved. Its exit code is that of the signal: 143 or 130."""

  def __init__(self, step: int, number: int = signal.SIGTERM):
    """Takes the step and the number of the signal."""
    saved = f"stopped by {_NAMES[signal.Signals(number)]} after step {step}, which is saved: start again to go on"
    super().__init__(saved, 128 + number)


class Preemption:
  """Whether the run was asked to stop.

  Attributes:
    signal: the number of the signal that asked; SIGTERM where another process was asked.
  """

  def __init__(self):
    self.signal: int = signal.SIGTERM
    self._requested = False

  def request(self, number: int = signal.SIGTERM) -> None:
    """Asks the run to stop after the current step."""
    self.signal, self._requested = number, True

  def requested(self) -> bool:
    """Whether to stop, as far as this process alone can tell; False in a run of several, which must agree on a step."""
    return self._requested and jax.process_count() == 1

  def requested_after(self, step: int) -> bool:
    """Whether to stop after this step; the same in all processes of a run."""
    if jax.process_count() > 1:  # JAX's coordination service received SIGTERM, and agrees on a step with the others
      return bool(multihost_utils.reached_preemption_sync_point(step))
    return self._requested


@contextlib.contextmanager
def catch_stops() -> Iterator[Preemption]:
  """Catches SIGTERM and the first Ctrl-C while the block runs; the second Ctrl-C ends the process at once.

  A process that ignores SIGINT, as one in the background does, goes on ignoring it.
  """
  preemption, several, before = Preemption(), jax.process_count() > 1, {}

  def interrupted(*_: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.write(2, b"\nCtrl-C: the run stops after this step and saves it; once more ends it at once\n")
    preemption.request(signal.SIGINT)
    if several:
      os.kill(os.getpid(), signal.SIGTERM)  # for JAX's coordination service

  handlers: dict[int, Any] = {} if several else {signal.SIGTERM: lambda *_: preemption.request()}
  if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    handlers[signal.SIGINT] = interrupted
  try:
    for number, handler in handlers.items():
      before[number] = signal.signal(number, handler)
  except ValueError:  # only the main thread may set handlers
    pass
  try:
    yield preemption
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
