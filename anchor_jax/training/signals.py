"""SIGTERM and Ctrl-C: the run stops after the current step, which it saves.

Clouds send SIGTERM before they take a machine away. Without a handler, Ctrl-C (SIGINT) would raise KeyboardInterrupt at
any point: inside a JAX callback it is lost, elsewhere all work since the last checkpoint is.
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


class StoppedBySignal(Stopped):
  """A signal stopped the run after a step that is saved. The exit code is the signal's: 143 or 130."""

  def __init__(self, step: int, number: int = signal.SIGTERM):
    """Takes the saved step and the number of the signal."""
    name = _NAMES[signal.Signals(number)]
    super().__init__(f"stopped by {name} after step {step}, which is saved: start again to go on", 128 + number)


class StopRequest:
  """Whether a signal has asked the run to stop.

  Attributes:
    signal: number of that signal; SIGTERM if another process received it.
  """

  def __init__(self):
    self.signal: int = signal.SIGTERM
    self._requested = False

  def set(self, number: int = signal.SIGTERM) -> None:
    """Records that the run should stop after the current step."""
    self.signal, self._requested = number, True

  def requested(self) -> bool:
    """Whether to stop, decided by this process alone; False with several processes, which must agree on a step."""
    return self._requested and jax.process_count() == 1

  def requested_after(self, step: int) -> bool:
    """Whether to stop after this step; the same answer in all processes of a run."""
    if jax.process_count() > 1:  # JAX's coordination service handles SIGTERM and agrees on a step
      return bool(multihost_utils.reached_preemption_sync_point(step))
    return self._requested


@contextlib.contextmanager
def catch_stop_signals() -> Iterator[StopRequest]:
  """Context in which SIGTERM and the first Ctrl-C set the request; the second Ctrl-C ends the process at once.

  A process that ignores SIGINT, such as one in the background, continues to ignore it.
  """
  request, several, before = StopRequest(), jax.process_count() > 1, {}

  def interrupted(*_: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.write(2, b"\nCtrl-C: the run stops after this step and saves it; once more ends it at once\n")
    request.set(signal.SIGINT)
    if several:
      os.kill(os.getpid(), signal.SIGTERM)  # for JAX's coordination service

  handlers: dict[int, Any] = {} if several else {signal.SIGTERM: lambda *_: request.set()}
  if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    handlers[signal.SIGINT] = interrupted
  try:
    for number, handler in handlers.items():
      before[number] = signal.signal(number, handler)
  except ValueError:  # only the main thread may set handlers
    pass
  try:
    yield request
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
