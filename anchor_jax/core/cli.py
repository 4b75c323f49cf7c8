"""Code that all commands share: flags, one-line errors with exit code 2, interrupts, callable modules."""

import argparse
import contextlib
import functools
import logging
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from anchor_jax.core.errors import Stopped, UserError, printable
from anchor_jax.files.outputs import FULL, check_name
from anchor_jax.files.shipped import path_or_word

COMPILING = "compile"  # name prefix of threads that may be killed at exit
_leaving = threading.Event()


def leave_at_once() -> None:
  """Makes `run` exit as soon as its command has ended, without the exit handlers of libraries."""
  _leaving.set()


class Parser(argparse.ArgumentParser):
  """A parser of flags whose help is the module's docstring and whose errors are one line."""

  def __init__(self, module: str, doc: str | None):
    """Creates a parser for a module, from its name in `python -m NAME` and its docstring."""
    formatter = argparse.RawDescriptionHelpFormatter
    super().__init__(prog=f"python -m {module}", description=doc, formatter_class=formatter, allow_abbrev=False)

  def error(self, message: str) -> NoReturn:
    """Raises UserError, where argparse prints the usage and exits."""
    raise UserError(f"{message} ({self.prog} --help shows an example)")


def person_flags(parser: argparse.ArgumentParser) -> None:
  """Adds the flags that select a person: --checkpoint, --checkpoint-step, --base."""
  parser.add_argument(
    "--checkpoint",
    type=path_or_word,
    required=True,
    metavar="DIR",
    help="the --workdir of training, other weights, or studio",
  )
  parser.add_argument(
    "--checkpoint-step", default="newest", metavar="STEP", help="newest, best (lowest validation loss) or a number"
  )
  parser.add_argument(
    "--base", default="", metavar="DIR", help="the weights that adapters change (default: as trained)"
  )


def mesh_shape(text: str) -> tuple[int, int] | None:
  """Returns (devices for windows, devices for the frames of a window) from a flag such as "4x2"; None for "".

  Raises:
    UserError: not two integers of at least 1.
  """
  windows, x, frames = text.lower().partition("x")
  if not text:
    return None
  if not (x and windows.isdecimal() and frames.isdecimal() and int(windows) and int(frames)):
    raise UserError(f"--mesh={text}: give two numbers of devices, such as 4x2")
  return int(windows), int(frames)


def say(text: object, **options: Any) -> None:
  """Prints a command's output, with control characters (as in file names) escaped."""
  print("\n".join(printable(line) for line in str(text).split("\n")), **options)


class _PrintableRecord(logging.LogRecord):
  """A log record whose message has no control characters."""

  def getMessage(self) -> str:
    return "\n".join(printable(line) for line in super().getMessage().split("\n"))


def _is_full(error: BaseException | None) -> bool:
  """Whether an error was caused by a full disk; libraries put the system's message inside their own."""
  while error is not None:
    if (isinstance(error, OSError) and error.errno in FULL) or any(os.strerror(code) in str(error) for code in FULL):
      return True
    error = error.__cause__ or error.__context__
  return False


def _silence_full_disks() -> None:
  """Suppresses tracebacks of full disks in threads and finalizers, since the command reports a full disk in one line.

  Libraries write checkpoints and logs in threads and close them at exit. Once one has failed, I/O errors that follow
  are consequences.
  """
  hooks, full = (threading.excepthook, sys.unraisablehook, sys.excepthook), []

  def is_reported(error: BaseException | None) -> bool:
    full.extend([True] if _is_full(error) else [])
    if isinstance(error, RuntimeError) and str(error) == "Event loop is closed":
      return True  # a write that ends after the checkpoint failed: whoever waited for it has reported why
    return bool(full) and isinstance(error, OSError | ValueError)

  threading.excepthook = lambda event: None if is_reported(event.exc_value) else hooks[0](event)
  sys.unraisablehook = lambda event: None if is_reported(event.exc_value) else hooks[1](event)

  def print_uncaught(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
    """Also prints what callbacks raise in tensorstore's threads."""
    if threading.current_thread() is threading.main_thread() or not is_reported(error):
      hooks[2](kind, error, trace)

  sys.excepthook = print_uncaught
  # orbax logs what its threads raise before it passes it on, and event loops log callbacks that come after they closed
  for name in ("absl", "asyncio", "concurrent.futures"):
    logging.getLogger(name).addFilter(lambda record: not (record.exc_info and is_reported(record.exc_info[1])))


def command(main: Callable[..., None]) -> Callable[..., None]:
  """Decorates a command's main function: a UserError becomes one line on stderr and exit code 2."""

  @functools.wraps(main)
  def wrapped(*args, **kwargs):
    logging.setLogRecordFactory(_PrintableRecord)
    try:
      for argument in sys.argv[1:]:
        check_name(argument)
      with interruptible():
        main(*args, **kwargs)
    except UserError as error:
      print(f"error: {error}", file=sys.stderr)
      sys.exit(2)
    except Stopped as reason:
      print(reason.message, flush=True)
      raise
    except BrokenPipeError:  # the reader of our output has exited, as in `... | head`
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
      sys.exit(141)
    except OSError as error:
      if error.errno in FULL:
        say(f"error: the disk is full ({error}): free some space and start again", file=sys.stderr)
      elif error.filename is not None:
        say(f"error: cannot use {error.filename}: {(error.strerror or str(error)).lower()}", file=sys.stderr)
      else:
        raise
      sys.exit(2)
    except KeyboardInterrupt:
      print("interrupted", file=sys.stderr)
      sys.exit(130)

  return wrapped


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
  """Within the block, the first Ctrl-C always raises KeyboardInterrupt, and the second kills the process.

  Python drops exceptions raised in callbacks of the garbage collector, and JAX has one; the interrupt is then raised
  again.
  """
  main = threading.main_thread()
  if threading.current_thread() is not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
    yield  # signals arrive in the main thread only, and background processes ignore SIGINT
    return
  unraisable = sys.unraisablehook

  def interrupt(*_: Any) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    raise KeyboardInterrupt

  def on_dropped(event: Any) -> None:
    if not issubclass(event.exc_type, KeyboardInterrupt):
      unraisable(event)
      return
    signal.signal(signal.SIGINT, interrupt)
    threading.Timer(0.02, signal.pthread_kill, (main.ident, signal.SIGINT)).start()

  sys.unraisablehook = on_dropped
  signal.signal(signal.SIGINT, interrupt)
  try:
    yield
  finally:
    sys.unraisablehook = unraisable
    if signal.getsignal(signal.SIGINT) in (interrupt, signal.SIG_DFL):
      signal.signal(signal.SIGINT, signal.default_int_handler)


def run(main: Callable[[], None]) -> None:
  """Runs a command as this process's only work, and ends the process with it.

  Python waits for running threads at exit. A thread that compiles (`COMPILING`) could delay the exit by minutes after
  an error was printed, so the process is then ended without waiting.
  """
  _silence_full_disks()
  try:
    main()
  except (SystemExit, Exception) as end:
    if _leaving.is_set() or any(thread.name.startswith(COMPILING) for thread in threading.enumerate()):
      if not isinstance(end, SystemExit):
        sys.excepthook(type(end), end, end.__traceback__)
      sys.stdout.flush()
      sys.stderr.flush()
      os._exit(end.code if isinstance(end, SystemExit) and isinstance(end.code, int) else 1)
    raise


class _CallableModule(types.ModuleType):
  """A module that can be called as the function of the same name in it: `anchor_jax.train` is a command and a call."""

  def __call__(self, *args: Any, **kwargs: Any) -> Any:
    return getattr(self, self.__name__.rpartition(".")[2])(*args, **kwargs)


def make_callable(module: str) -> None:
  """Makes a module callable as the function of the same name in it.

  Importing the module `anchor_jax.train` rebinds the attribute `anchor_jax.train`, which was the function.
  """
  if module != "__main__":
    sys.modules[module].__class__ = _CallableModule


@contextlib.contextmanager
def quiet_stderr():
  """Discards what C++ code writes to stderr within the block; keep it short, since progress bars go there too."""
  saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
  try:
    os.dup2(null, 2)
    yield
  finally:
    os.dup2(saved, 2)
    os.close(saved)
    os.close(null)
