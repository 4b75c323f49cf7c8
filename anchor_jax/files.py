"""Outputs appear whole or not at all: they are written beside their place and renamed when they are finished."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from anchor_jax.errors import UserError


def partial_path(path: str | os.PathLike, word: str = "partial") -> Path:
  """Where an output is written until it is whole: `a/clip.mp4` -> `a/clip.partial.mp4` (suffixes name formats)."""
  path = Path(path)
  return path.with_name(f"{path.stem}.{word}{path.suffix}")


def refuse(path: str | os.PathLike, error: OSError) -> UserError:
  """The one line for an output that the system will not let us write."""
  if error.errno == errno.ENOSPC:
    return UserError(f"the disk is full while writing {path}: free some space or choose another output")
  return UserError(f"cannot write {path}: {(error.strerror or str(error)).lower()}; choose another output")


def prepare_parent(path: str | os.PathLike) -> None:
  """Makes the folder an output goes into and tries that it can be written to.

  Raises:
    UserError: the folder cannot be made or written to.
  """
  parent = Path(path).absolute().parent
  try:
    parent.mkdir(parents=True, exist_ok=True)
    if not os.access(parent, os.W_OK | os.X_OK):
      raise PermissionError(errno.EACCES, "permission denied")
  except OSError as error:
    raise refuse(path, error) from None


@contextlib.contextmanager
def new_file(path: str | os.PathLike, word: str = "partial") -> Iterator[Path]:
  """Yields a path to write a file to; it takes its name `path` when the block ends, and is removed if the block fails.

  `word` is what its name says until then, for outputs that keep a partial file of their own.

  Raises:
    UserError: `path` cannot be written, is a folder, or the disk is full.
  """
  path = Path(path)
  if path.is_dir():
    raise UserError(f"{path} is a folder: name a file for the output")
  prepare_parent(path)
  partial = partial_path(path, word)
  try:
    yield partial
    os.replace(partial, path)
  except OSError as error:
    raise refuse(path, error) from error
  finally:
    partial.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: str | os.PathLike) -> Iterator[Path]:
  """Yields an empty folder to fill; it takes the name `path` when the block ends, and is removed if the block fails.

  What was at `path` before is kept until then and then replaced as a whole.

  Raises:
    UserError: `path` cannot be written, is a file, or the disk is full.
  """
  path = Path(path)
  if path.exists() and not path.is_dir():
    raise UserError(f"{path} is a file: name a folder for the output")
  prepare_parent(path)
  partial, old = partial_path(path), path.with_name(f"{path.name}.partial-old")
  try:
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    yield partial
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
      os.replace(path, old)  # a folder that is not empty cannot be replaced in one go
    os.replace(partial, path)
    shutil.rmtree(old, ignore_errors=True)
  except OSError as error:
    raise refuse(path, error) from error
  finally:
    shutil.rmtree(partial, ignore_errors=True)
