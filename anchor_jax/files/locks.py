"""Locks outputs, so that each has one writer: a second one is refused instead of writing into the same files.

The lock of OUTPUT is an operating-system lock on an empty file `.OUTPUT.lock` beside it, which the system releases when
the process ends, even in a crash. The file is removed at the end; one left by a crash blocks nobody. File systems
without such locks are not locked.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import filelock

from anchor_jax.core.errors import UserError

_held: set[tuple[str, int]] = set()  # (file, thread)


@contextlib.contextmanager
def locked(path: str | os.PathLike) -> Iterator[None]:
  """Holds the lock of an output within the block; reentrant within a thread.

  Args:
    path: a file or folder in an existing folder; nothing is created there.

  Raises:
    UserError: another process or thread holds the lock.
  """
  file = lock_path(path)
  key = str(file), threading.get_ident()
  if key in _held:
    yield
    return
  lock = filelock.FileLock(file, timeout=0, thread_local=False)  # another thread may close the output
  with contextlib.ExitStack() as stack:
    try:
      lock.acquire()
    except filelock.Timeout:
      raise UserError(
        f"{path} is being written by another process: wait until it ends, or choose another output"
      ) from None
    except (OSError, NotImplementedError):  # no locks on this file system, or the file belongs to another user
      pass
    else:
      stack.callback(_release, lock, file)
    _held.add(key)
    stack.callback(_held.discard, key)
    yield


def lock_path(path: str | os.PathLike) -> Path:
  """Returns the lock file of an output, the same one through all links to its folder."""
  absolute = os.path.abspath(path)
  return Path(os.path.realpath(os.path.dirname(absolute)), f".{os.path.basename(absolute)}.lock")


def _release(lock: filelock.BaseFileLock, file: Path) -> None:
  with contextlib.suppress(OSError):
    file.unlink()  # while locked: another process that opened it sees that it was unlinked, and retries
  lock.release()
