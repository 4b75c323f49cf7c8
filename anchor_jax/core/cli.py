"""What all commands share: flags with the docstring as help, errors as one line with exit code 2, callable modules."""

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

COMPILING = "compile"  # the name of threads whose work nobody misses begins so


_leaving = threading.Event()


def leave_at_once() -> None:
  """Makes `run` end the process as soon as its command has, without waiting for what libraries do at the end."""
  _leaving.set()


class Parser(argparse.ArgumentParser):
  """A command's flags: the module's docstring is the help, and a wrong flag is one line."""

  def __init__(self, module: str, doc: str | None):
    """Takes the module's name, as in `python -m NAME`, and its docstring."""
    formatter = argparse.RawDescriptionHelpFormatter
    super().__init__(prog=f"python -m {module}", description=doc, formatter_class=formatter, allow_abbrev=False)

  def error(self, message: str) -> NoReturn:
    """Raises instead of printing the usage and leaving."""
    raise UserError(f"{message} ({self.prog} --help shows an example)")


def person_flags(parser: argparse.ArgumentParser) -> None:
  """Adds the flags that say which person: --checkpoint, --checkpoint-step, --base."""
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
  """Returns (devices for windows, devices for the frames of a window) of a flag such as "4x2"; None for "".

  Raises:
    UserError: these are not two whole numbers of at least 1.
  """
  windows, x, frames = text.lower().partition("x")
  if not text:
    return None
  if not (x and windows.isdecimal() and frames.isdecimal() and int(windows) and int(frames)):
    raise UserError(f"--mesh={text}: give two numbers of devices, such as 4x2")
  return int(windows), int(frames)


def say(text: object, **options: Any) -> None:
  """Prints what commands tell, line by line; control characters, as names of files may hold, are shown as escapes."""
  print("\n".join(printable(line) for line in str(text).split("\n")), **options)


class _PrintableRecord(logging.LogRecord):
  """A record of a log whose message is printable."""

  def getMessage(self) -> str:
    return "\n".join(printable(line) for line in super().getMessage().split("\n"))


def _is_full(error: BaseException | None) -> bool:
  """Whether the disk being full is why an error was raised; libraries wrap the system's words in their own."""
  while error is not None:
    if (isinstance(error, OSError) and error.errno in FULL) or any(os.strerror(code) in str(error) for code in FULL):
      return True
    error = error.__cause__ or error.__context__
  return False


def _silence_full_disks() -> None:
  """Prints no traceback of threads and clean-ups that find the disk full: the command says so in one line.

  Checkpoints and logs are written by threads of libraries, and closed at exit. What fails after that, fails for it.
  """
  reports, full = (threading.excepthook, sys.unraisablehook), []

  def known(error: BaseException | None) -> bool:
    full.extend([True] if _is_full(error) else [])
    return bool(full) and isinstance(error, OSError | ValueError)

  threading.excepthook = lambda what: None if known(what.exc_value) else reports[0](what)
  sys.unraisablehook = lambda what: None if known(what.exc_value) else reports[1](what)


def command(main: Callable[..., None]) -> Callable[..., None]:
  """Decorates a command's main function: a UserError ends it with one line on stderr and exit code 2."""

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
    except BrokenPipeError:  # the reader of our output went away (`... | head`): not our error
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
  """Within it the first Ctrl-C raises KeyboardInterrupt, wherever it arrives, and the second ends the process at once.

  Python drops what is raised in a callback of the garbage collector, and JAX has one: it is raised once more then.
  """
  main = threading.main_thread()
  if threading.current_thread() is not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
    yield  # signals come to the main thread alone; a process in the background ignores this one
    return
  report = sys.unraisablehook

  def interrupt(*_: Any) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    raise KeyboardInterrupt

  def dropped(what: Any) -> None:
    if not issubclass(what.exc_type, KeyboardInterrupt):
      report(what)
      return
    signal.signal(signal.SIGINT, interrupt)
    threading.Timer(0.02, signal.pthread_kill, (main.ident, signal.SIGINT)).start()

  sys.unraisablehook = dropped
  signal.signal(signal.SIGINT, interrupt)
  try:
    yield
  finally:
    sys.unraisablehook = report
    if signal.getsignal(signal.SIGINT) in (interrupt, signal.SIG_DFL):
      signal.signal(signal.SIGINT, signal.default_int_handler)


def run(main: Callable[[], None]) -> None:
  """Runs a command as all that this process does, and ends the process with it.

  Python waits for threads that are still at work. One that compiles (`COMPILING`) may take minutes after the line that
  says what was wrong, and nothing can stop it.
  """
  _silence_full_disks()
  try:
    main()
  except SystemExit as end:
    if _leaving.is_set() or any(thread.name.startswith(COMPILING) for thread in threading.enumerate()):
      sys.stdout.flush()
      sys.stderr.flush()
      os._exit(end.code if isinstance(end.code, int) else 1)
    raise


class _CallableModule(types.ModuleType):
  """A module that is also the function of its own name: `anchor_jax.train` is both a command and a library call."""

  def __call__(self, *args: Any, **kwargs: Any) -> Any:
    return getattr(self, self.__name__.rpartition(".")[2])(*args, **kwargs)


def make_callable(module: str) -> None:
  """Lets a module of this name be called as the function of the same name in it.

  Importing `anchor_jax.train` binds the module to the attribute `anchor_jax.train`, over any function of that name.
  """
  if module != "__main__":
    sys.modules[module].__class__ = _CallableModule


@contextlib.contextmanager
def quiet_stderr():
  """Sends what C++ code writes to stderr to nowhere; not for long stretches, since bars are shown there too."""
  saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
  try:
    os.dup2(nowhere, 2)
    yield
  finally:
    os.dup2(saved, 2)
    os.close(saved)
    os.close(nowhere)
