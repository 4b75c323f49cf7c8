"""Ends all processes of a run when one fails, dies or hangs, each with one line that says which and why.

Otherwise the others would wait in a collective until JAX's coordination service notices a missing process, and for a
hanging one forever. Every process runs a thread that gives signs of life and polls for failures, through the
key-value store of that service, and watches the process before it: process 0 watches the last one. Nothing is read from
all processes until one is late, so the traffic per process is the same in large runs.
"""

import contextlib
import dataclasses
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax

from anchor_jax.core import cli
from anchor_jax.core.errors import UserError, one_line

_FAILED, _READ, _ALIVE = "anchor_jax/failed", "anchor_jax/read", "anchor_jax/alive"
_POLL_S, _GRACE_S = 0.5, 10.0
_SIGN_S = 1.0  # between signs of life
_SILENT_S = 15.0  # without a sign of life, after which a process counts as dead
_STUCK_S = 40.0  # in one place while others have gone on, after which a process counts as hanging
_LONGER = 3.0  # ... or this many times as long as it has ever been in one place
_LONGEST_WAIT_S = 3600.0  # larger than differences in compilation time; a process that fails ends the others at once
# What a collective says when another process has gone; the other process's end is the reason.
_CONSEQUENCE = re.compile(r"gloo|connection (closed|reset)|socket closed|UNAVAILABLE|peer|heartbeat", re.IGNORECASE)

_place = (0, "the start")  # number and name of the place that the main thread has come to


def come_to(place: str) -> None:
  """Says what the main thread does next, such as "batch 7", so that a hanging process is found.

  All processes of a run come to the same places in the same order.
  """
  global _place
  _place = (_place[0] + 1, place)


@contextlib.contextmanager
def end_together() -> Iterator[None]:
  """Makes an error in the block end all processes of the run, and a process that dies or hangs end the others.

  The others exit with code 2.
  """
  client = _client() if jax.process_count() > 1 else None
  if client is None:
    yield
    return
  watch = Watch(client, jax.process_index(), jax.process_count())
  watch.sign()
  thread = threading.Thread(target=watch.run, daemon=True, name="errors of other processes")
  thread.start()
  try:
    yield
  except (Exception, KeyboardInterrupt) as error:
    line = "interrupted" if isinstance(error, KeyboardInterrupt) else one_line(error, 1000)
    if not isinstance(error, UserError | KeyboardInterrupt | OSError) and _CONSEQUENCE.search(line):
      thread.join(_SILENT_S + _GRACE_S)  # the watch ends this process when it knows the reason
    watch.report(line)
    cli.leave_at_once()  # at exit, JAX would wait for processes that have ended
    raise
  finally:
    watch.end()


def wait_for_processes(place: str) -> None:
  """Waits until all processes of the run have come to this place.

  On CPUs, processes meet in their first collective within 30 s or fail, and compiling may take one process longer.

  Args:
    place: its name; another one for each call.
  """
  client = _client() if jax.process_count() > 1 else None
  if client is not None:
    client.wait_at_barrier(f"anchor_jax/{place}", int(1000 * _LONGEST_WAIT_S))


def _client() -> Any:
  """Returns the client of JAX's coordination service, which is private; None if this version has it elsewhere."""
  try:
    from jax._src import distributed

    return distributed.global_state.client
  except (ImportError, AttributeError):
    return None


@dataclasses.dataclass(frozen=True)
class Sign:
  """A sign of life: its number, whether the process has ended well, the place it has come to, and its host."""

  number: int
  ended: bool
  place: int
  name: str
  host: str

  def text(self) -> str:
    """The sign as a value of the store."""
    return "\n".join((str(self.number), str(int(self.ended)), str(self.place), self.name, self.host))

  @classmethod
  def read(cls, text: str) -> "Sign":
    """The sign of such a value."""
    number, ended, place, name, host = text.split("\n")
    return cls(int(number), ended == "1", int(place), name, host)


class Watch:
  """Signs of life of this process, and what the others say or fail to say."""

  def __init__(self, client: Any, index: int, count: int):
    """Watches for process `index` of `count`, through a client of the store."""
    self._client, self._index, self._before = client, index, (index - 1) % count
    self._count, self._host = count, socket.gethostname()
    self._ended, self._reported, self._signs = threading.Event(), False, 0
    self._last: Sign | None = None  # of the process before this one
    self._signed = self._moved = time.monotonic()  # when that sign, and its place, came
    self._longest = 0.0  # seconds for which that process was in one place

  def sign(self, ended: bool = False) -> None:
    """Gives a sign of life."""
    self._signs += 1
    sign = Sign(self._signs, ended, *_place, self._host)
    with contextlib.suppress(Exception):
      self._client.key_value_set(f"{_ALIVE}/{self._index}", sign.text(), allow_overwrite=True)

  def run(self) -> None:
    """Polls until `end`; exits the process when another one has failed."""
    signed = -_SIGN_S
    while not self._ended.wait(_POLL_S):
      if (now := time.monotonic()) - signed >= _SIGN_S:
        signed = now
        self.sign()
      self._exit_if_told()
      if (failed := self._find(now)) is not None:
        with contextlib.suppress(Exception):  # another process found it first
          self._client.key_value_set(_FAILED, "\n".join(map(str, failed)))

  def end(self) -> None:
    """Ends the watch, and the others' watch over this process."""
    self._ended.set()
    self.sign(ended=True)

  def report(self, line: str) -> None:
    """Sends the line to the other processes and briefly waits until they have read it."""
    self._reported = True
    with contextlib.suppress(Exception):  # another process was first, or the service has ended
      self._client.key_value_set(_FAILED, f"{self._index}\n{self._host}\n{line}")
    deadline = time.monotonic() + _GRACE_S
    with contextlib.suppress(Exception):
      while len(self._client.key_value_dir_get(_READ)) < self._count - 1 and time.monotonic() < deadline:
        time.sleep(_POLL_S / 5)

  def _exit_if_told(self) -> None:
    try:
      index, host, line = self._client.key_value_try_get(_FAILED).split("\n", 2)
    except Exception:  # noqa: BLE001 - no failure so far; the client has one exception type for everything
      return
    if self._reported:
      return
    print(f"error: process {index} on {host} failed: {line}", file=sys.stderr)
    with contextlib.suppress(Exception):
      self._client.key_value_set(f"{_READ}/{self._index}", "")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(2)  # the main thread waits in a collective that will never end

  def _find(self, now: float) -> tuple[int, str, str] | None:
    """Number, host and fault of a process that is dead or hangs; None if there is none."""
    try:
      sign = Sign.read(self._client.key_value_try_get(f"{_ALIVE}/{self._before}"))
    except Exception:  # noqa: BLE001 - there is none; processes start to sign when all have connected
      sign = Sign(0, False, 0, "the start", "an unknown host")
    last, self._last = self._last, sign
    if last is None or sign.ended:
      self._signed = self._moved = now
      return None
    if sign.number != last.number:
      self._signed = now
    elif now - self._signed > _SILENT_S:
      return self._before, sign.host, f"it has given no sign of life for {_SILENT_S:.0f} s"
    if sign.place != last.place:
      self._longest = max(self._longest, (now - self._moved) * (last.place > 0))
      self._moved = now
    patience = max(_STUCK_S, _LONGER * self._longest)
    if not sign.place or sign.place >= _place[0] or now - self._moved < patience:
      return None
    self._moved = now  # asked again later, if the answer is unclear now
    index, behind = self._farthest_behind()
    return index, behind.host, f"it hangs at {behind.name}, while others wait for it"

  def _farthest_behind(self) -> tuple[int, Sign]:
    """The process that all others wait for, and its sign."""
    signs = {int(key.rsplit("/", 1)[1]): Sign.read(text) for key, text in self._client.key_value_dir_get(_ALIVE)}
    index = min(signs, key=lambda index: signs[index].place)
    return index, signs[index]
