"""The coordination service of a run of several processes, in a process of its own.

JAX runs the service inside process 0. When that process dies, the service dies with it, and JAX ends all other
processes with a stack trace that does not say why. In a process of its own, the service outlives process 0 long enough
for the others to learn which process failed.

  python -m anchor_jax.core.coordinator ADDRESS PROCESSES '{"heartbeat_timeout": 50}'   (started by `service_apart`)
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

_OUTLIVES_S = 30.0  # the others notice a dead process sooner; see process_errors.py
_END = b"end\n"


class _Service:
  """Stands for the service in JAX, which only shuts it down."""

  def __init__(self, process: subprocess.Popen[bytes]):
    self._process = process

  def shutdown(self) -> None:
    """Ends the service's process; JAX calls this after all clients have left."""
    with contextlib.suppress(OSError):
      self._process.communicate(_END, timeout=_OUTLIVES_S)


@contextlib.contextmanager
def service_apart() -> Iterator[None]:
  """Makes `jax.distributed.initialize` in the block start the service in a process of its own.

  The functions involved are private to JAX. If this version has them elsewhere, the service runs in process 0.
  """
  try:
    from jax._src import distributed

    module: Any = distributed._jax
    module.get_distributed_runtime_service  # noqa: B018
  except (ImportError, AttributeError):
    yield
    return
  with mock.patch.object(module, "get_distributed_runtime_service", _start):
    yield


def _start(address: str, processes: int, **options: Any) -> _Service:
  command = [sys.executable, "-m", __name__, address, str(processes), json.dumps(options)]
  child = subprocess.Popen(
    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, env=_environment()
  )
  assert child.stdout is not None
  if not child.stdout.readline():
    child.wait()
    raise RuntimeError(f"the coordination service can't listen on {address}; its error is above")
  return _Service(child)


def _environment() -> dict[str, str]:
  """This process's environment, in which the child finds the same packages."""
  paths = [path for path in sys.path if path]
  return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


def serve(address: str, processes: int, options: dict[str, Any]) -> None:
  """Runs the service until standard input ends: at once if "end" was read, else (the starter died) 30 s later."""
  from jax._src.lib import _jax

  service = _jax.get_distributed_runtime_service(address, processes, **options)
  sys.stdout.write("listening\n")
  sys.stdout.flush()
  with open(os.devnull, "wb") as nowhere:  # whoever reads process 0's output to its end need not wait for this process
    os.dup2(nowhere.fileno(), sys.stderr.fileno())
  if sys.stdin.buffer.read() != _END:
    time.sleep(_OUTLIVES_S)
    os._exit(0)  # shutting down would wait for processes that are gone
  service.shutdown()


if __name__ == "__main__":
  serve(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]))
