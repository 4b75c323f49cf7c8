"""What all commands share: flags with the docstring as help, errors as one line with exit code 2, callable modules."""

import argparse
import errno
import functools
import os
import sys
import types
from collections.abc import Callable
from typing import Any, NoReturn

from anchor_jax.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space, quota used up, larger than a file may be


class Parser(argparse.ArgumentParser):
  """A command's flags: the module's docstring is the help, and a wrong flag is one line."""

  def __init__(self, module: str, doc: str | None):
    """Takes the module's name, as in `python -m NAME`, and its docstring."""
    formatter = argparse.RawDescriptionHelpFormatter
    super().__init__(prog=f"python -m {module}", description=doc, formatter_class=formatter, allow_abbrev=False)

  def error(self, message: str) -> NoReturn:
    """Raises instead of printing the usage and leaving."""
    raise UserError(f"{message} ({self.prog} --help shows an example)")


def command(main: Callable[..., None]) -> Callable[..., None]:
  """Decorates a command's main function: a UserError ends it with one line on stderr and exit code 2."""

  @functools.wraps(main)
  def wrapped(*args, **kwargs):
    try:
      main(*args, **kwargs)
    except UserError as error:
      print(f"error: {error}", file=sys.stderr)
      sys.exit(2)
    except BrokenPipeError:  # the reader of our output went away (`... | head`): not our error
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
      sys.exit(141)
    except OSError as error:
      if error.errno not in _FULL:
        raise
      print(f"error: the disk is full ({error}): free some space and start again", file=sys.stderr)
      sys.exit(2)
    except KeyboardInterrupt:
      print("interrupted", file=sys.stderr)
      sys.exit(130)

  return wrapped


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
