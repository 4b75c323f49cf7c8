"""Ends all processes of a run when one fails, each with the error of the failed one.

Otherwise the others would wait in a collective until JAX's coordination service notices the missing process. The error
is sent through that service's key-value store, which every process polls in a thread.
"""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax

from anchor_jax.core import cli
from anchor_jax.core.errors import one_line

_FAILED, _READ = "anchor_jax/failed", "anchor_jax/read"
_POLL_S, _GRACE_S = 0.5, 10.0
_LONGEST_WAIT_S = 3600.0  # larger than differences in compilation time; a process that fails ends the others at once
_STORE_S = 5.0  # for which process 0 stays alive: it has the store, without which JAX ends the others silently


@contextlib.contextmanager
def end_together() -> Iterator[None]:
  """Makes an error in the block end all processes of the run; the others exit with code 2."""
  client = _client() if jax.process_count() > 1 else None
  if client is None:
    yield
    return
  ended = threading.Event()
  threading.Thread(target=_watch, args=(client, ended), daemon=True, name="errors of other processes").start()
  try:
    yield
  except (Exception, KeyboardInterrupt) as error:
    _report(client, "interrupted" if isinstance(error, KeyboardInterrupt) else one_line(error, 1000))
    cli.leave_at_once()  # at exit, JAX would wait for processes that have ended
    raise
  finally:
    ended.set()


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


def _report(client: Any, line: str) -> None:
  """Sends the line to the other processes and briefly waits until they have read it."""
  with contextlib.suppress(Exception):  # another process was first, or the service has ended
    client.key_value_set(_FAILED, f"{jax.process_index()}\n{socket.gethostname()}\n{line}")
  deadline = time.monotonic() + _GRACE_S
  with contextlib.suppress(Exception):
    while len(client.key_value_dir_get(_READ)) < jax.process_count() - 1 and time.monotonic() < deadline:
      time.sleep(_POLL_S / 5)


def _watch(client: Any, ended: threading.Event) -> None:
  while not ended.wait(_POLL_S):
    try:
      index, host, line = client.key_value_try_get(_FAILED).split("\n", 2)
    except Exception:  # noqa: BLE001 - no failure so far; the client has one exception type for everything
      continue
    if int(index) == jax.process_index():
      return
    print(f"error: process {index} on {host} failed: {line}", file=sys.stderr)
    with contextlib.suppress(Exception):
      client.key_value_set(f"{_READ}/{jax.process_index()}", "")
    sys.stdout.flush()
    sys.stderr.flush()
    if jax.process_index() == 0:
      time.sleep(_STORE_S)
    os._exit(2)  # the main thread waits in a collective that will never end
