"""One writer an output: the second is refused instead of writing into the same files.

The lock of OUTPUT is a lock of the operating system on an empty file `.OUTPUT.lock` beside it, which ends with the
process that holds it, however that ends. The file is removed at the end; one that a crash left keeps nobody out. Where
a file system has no such locks nothing is locked.
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
  """Holds the lock of an output; within it, the same thread may take it again.

  Args:
    path: a file or folder, in a folder that exists; neither is made.

  Raises:
    UserError: another process holds the lock, or another thread.
  """
  file = lock_path(path)
  key = str(file), threading.get_ident()
  if key in _held:
    yield
    return
  lock = filelock.FileLock(file, timeout=0, thread_local=False)  # what another thread closes must be released too
  with contextlib.ExitStack() as stack:
    try:
      lock.acquire()
    except filelock.Timeout:
      raise UserError(
        f"{path} is being written by another process: wait until that has ended, or choose another output"
      ) from None
    except (OSError, NotImplementedError):  # no such locks here, or a file that belongs to somebody else
      pass
    else:
      stack.callback(_release, lock, file)
    _held.add(key)
    stack.callback(_held.discard, key)
    yield


def lock_path(path: str | os.PathLike) -> Path:
  """Returns the file that stands for an output's lock; links to its folder make no difference."""
  whole = os.path.abspath(path)
  return Path(os.path.realpath(os.path.dirname(whole)), f".{os.path.basename(whole)}.lock")


def _release(lock: filelock.BaseFileLock, file: Path) -> None:
  with contextlib.suppress(OSError):
    file.unlink()  # while it is held: whoever opened it meanwhile sees that it has no name any more, and tries again
  lock.release()
