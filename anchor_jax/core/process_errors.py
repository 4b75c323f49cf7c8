"""An error in one process of a run ends all of them, each with that process's line.

Without this the others would wait in a collective for a process that is gone, until JAX's coordination service misses
it. The line goes through that service's store of keys, which every process watches in a thread.
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
_STORE_S = 5.0  # that process 0 stays for the others: without its store JAX ends them before they say a word


@contextlib.contextmanager
def end_together() -> Iterator[None]:
  """While the block runs, an error in it ends all processes of the run, with exit code 2 where it is another's."""
  client = _client() if jax.process_count() > 1 else None
  if client is None:
    yield
    return
  ended = threading.Event()
  threading.Thread(target=_watch, args=(client, ended), daemon=True, name="errors of other processes").start()
  try:
    yield
  except (Exception, KeyboardInterrupt) as error:
    _tell(client, "interrupted" if isinstance(error, KeyboardInterrupt) else one_line(error, 1000))
    cli.leave_at_once()  # JAX would wait at the end for processes that are gone
    raise
  finally:
    ended.set()


def _client() -> Any:
  """The client of JAX's coordination service, which has no public name; None if this JAX keeps it elsewhere."""
  try:
    from jax._src import distributed

    return distributed.global_state.client
  except (ImportError, AttributeError):
    return None


def _tell(client: Any, line: str) -> None:
  """Sends the line to the other processes and waits briefly for them to read it: process 0 holds the store."""
  with contextlib.suppress(Exception):  # another process was first, or the service is gone
    client.key_value_set(_FAILED, f"{jax.process_index()}\n{socket.gethostname()}\n{line}")
  deadline = time.monotonic() + _GRACE_S
  with contextlib.suppress(Exception):
    while len(client.key_value_dir_get(_READ)) < jax.process_count() - 1 and time.monotonic() < deadline:
      time.sleep(_POLL_S / 5)


def _watch(client: Any, ended: threading.Event) -> None:
  while not ended.wait(_POLL_S):
    try:
      index, host, line = client.key_value_try_get(_FAILED).split("\n", 2)
    except Exception:  # noqa: BLE001 - nobody has failed: the client raises the same type for this and all else
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
