"""Writes outputs under a temporary name and renames them when complete; never overwrites an input."""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from anchor_jax.core.errors import UserError
from anchor_jax.files.locks import locked
from anchor_jax.files.manifest import UNFINISHED, FolderKind, find_foreign, is_unfinished, write_list

SIDECAR = ".anchor"  # suffix of the folder with a video's poses, see `landmarks.sidecar`
# Words in the names of incomplete outputs, see `partial_path`.
_UNFINISHED = ("partial", "preview", "resuming", "finishing", "looks")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space, quota exceeded, file too large


def partial_path(path: str | os.PathLike, word: str = "partial") -> Path:
  """Returns the path of an output until it is complete: `a/clip.mp4` -> `a/clip.partial.mp4`.

  It keeps the suffix, by which writers choose the format.
  """
  path = _named(path)
  return path.with_name(f"{path.stem}.{word}{path.suffix}")


def refuse(path: str | os.PathLike, error: OSError) -> UserError:
  """Returns the UserError for an operating-system error in writing `path`."""
  if error.errno in FULL:
    return UserError(f"the disk is full while writing {path}: free some space or choose another output")
  return UserError(f"cannot write {path}: {(error.strerror or str(error)).lower()}; choose another output")


def check_name(path: str | os.PathLike) -> None:
  """Checks that a path is UTF-8: other programs, JSON and terminals do not accept other names.

  Raises:
    UserError: the path is not UTF-8, or has a null character.
  """
  text = str(path)
  if "\0" in text:
    raise UserError(f"the name {text} has a null character: use another")
  try:
    text.encode()
  except UnicodeEncodeError:
    escaped = os.fsencode(text).decode(errors="backslashreplace")
    raise UserError(f"the name {escaped} has bytes that are not UTF-8: rename it, or use another") from None


def refuse_overwriting(output: str | os.PathLike, inputs: Iterable[str | os.PathLike]) -> None:
  """Checks that writing `output` replaces none of `inputs`.

  Files are compared by identity, so symbolic and hard links are found. An input folder includes everything in it: pass
  the folders that are read (such as WORKDIR/body), not a folder where users also save results. Temporary names of the
  output (`partial_path`) are checked as well, and the sidecar of an input video (NAME.anchor beside NAME.mp4) is an
  input.

  Args:
    output: the file or folder to write; may not exist yet.
    inputs: files and folders that are read; nonexistent ones are ignored.

  Raises:
    UserError: `output` is an input, contains one, or lies in an input folder.
  """
  output = Path(output)
  places = [output, *_unfinished_paths(output)]
  for path in inputs:
    sidecar = os.path.splitext(os.path.abspath(path))[0] + SIDECAR
    for source in (Path(path), Path(sidecar)):
      if not os.path.exists(source):
        continue
      for place in places:
        if os.path.exists(place) and os.path.samefile(place, source):
          reason = f"{place} is the input {source}" if place != source else f"{source} is an input"
        elif _contains(place, source):
          reason = f"the input {source} lies in {place}"
        elif _contains(source, place):
          reason = f"{place} lies in the input {source}"
        else:
          continue
        raise UserError(f"writing {output} would overwrite an input, since {reason}: choose another output")


def check_output_file(flag: str, path: Path, suffixes: Sequence[str], is_ours: Callable[[Path], bool]) -> None:
  """Checks that an output has a valid suffix and replaces only an earlier output of the same command.

  Args:
    flag: the flag with the path, for messages.
    path: the file; empty files may be replaced.
    suffixes: valid endings of its name.
    is_ours: whether a file was written by the command.

  Raises:
    UserError: another suffix, or the file was written by something else.
  """
  if path.suffix.lower() not in suffixes:
    raise UserError(f"{flag}={path}: name a file that ends in {' or '.join(suffixes)}")
  if path.is_file() and path.stat().st_size and not is_ours(path):
    raise UserError(f"{flag}={path}: that file was not written by this command; choose another name, or remove it")


def _contains(folder: Path, path: Path) -> bool:
  """Whether `path` lies below `folder`, with its last symbolic link resolved or not."""
  real = os.path.realpath(folder)
  own = os.path.join(os.path.realpath(path.absolute().parent), path.name)
  return any(real != place and os.path.commonpath((real, place)) == real for place in (own, os.path.realpath(path)))


def _unfinished_paths(path: Path) -> list[Path]:
  """Returns the temporary names of an output."""
  return [*(partial_path(path, word) for word in _UNFINISHED), _old_path(path)]


def _old_path(path: Path) -> Path:
  """Returns where `new_folder` moves an existing folder while replacing it."""
  path = _named(path)
  return path.with_name(f"{path.name}.partial-old")


def _named(path: str | os.PathLike) -> Path:
  """Returns the path, made absolute if its last component is no name, as in `.` and `..`."""
  path = Path(path)
  if path.name in ("", ".."):
    path = Path(os.path.abspath(path))
  if not path.name:
    raise UserError(f"{path} cannot be an output: name a file or folder in it")
  return path


def prepare_parent(path: str | os.PathLike) -> None:
  """Creates the parent folder of an output and checks that it is writable.

  Raises:
    UserError: the folder cannot be created or written to, or the name is too long or not UTF-8.
  """
  check_name(path)
  parent = Path(path).absolute().parent
  try:
    parent.mkdir(parents=True, exist_ok=True)
    for place in _unfinished_paths(Path(path)):  # these are longer than `path`, perhaps too long
      with contextlib.suppress(FileNotFoundError):
        os.lstat(place)
    if not os.access(parent, os.W_OK | os.X_OK):
      raise PermissionError(errno.EACCES, "permission denied")
  except OSError as error:
    raise refuse(path, error) from None


@contextlib.contextmanager
def new_file(path: str | os.PathLike, word: str = "partial", lock: bool = False) -> Iterator[Path]:
  """Yields a path to write to; the file is renamed to `path` when the block ends, and removed if it fails.

  Args:
    path: the file.
    word: part of the temporary name, see `partial_path`.
    lock: hold the lock of `path` within the block, see `locks`; for outputs that users name.

  Raises:
    UserError: `path` cannot be written, is a folder or a device, or is being written; or the disk is full.
  """
  path = Path(path)
  if os.path.isdir(path):
    raise UserError(f"{path} is a folder: name a file for the output")
  if os.path.exists(path) and not os.path.isfile(path):
    raise UserError(f"{path} is not a regular file, and is not replaced: name another file for the output")
  prepare_parent(path)
  partial = partial_path(path, word)
  with locked(path) if lock else contextlib.nullcontext():
    try:
      with contextlib.suppress(FileNotFoundError):
        partial.unlink()  # from an earlier run; or a link or pipe, which a writer would follow
      yield partial
      os.replace(partial, path)
    except OSError as error:
      raise refuse(path, error) from error
    finally:
      with contextlib.suppress(OSError):
        partial.unlink()


@contextlib.contextmanager
def new_folder(path: str | os.PathLike, kind: FolderKind) -> Iterator[Path]:
  """Yields a folder to fill; it is renamed to `path` when the block ends, and removed if the block fails.

  An existing folder at `path` is replaced at the end, never merged, and only if a writer of this kind wrote everything
  in it (`check_folder`). A list of the files is saved with the folder for that check.

  Args:
    path: the folder; for a link, the folder it leads to is replaced.
    kind: kind of the folder.

  Raises:
    UserError: `path` cannot be written, is a file, holds something else, or is being written; or the disk is full.
  """
  path = _beyond_link(path)
  check_folder(path, kind)
  prepare_parent(path)
  with locked(path):
    yield from _new_folder(path, kind)


def _new_folder(path: Path, kind: FolderKind) -> Iterator[Path]:
  partial, old, remove = partial_path(path), _old_path(path), False
  try:
    if partial.is_dir():
      shutil.rmtree(partial)
    partial.mkdir()
    remove = True
    write_list(partial, UNFINISHED)
    yield partial
    write_list(partial, kind.name)
    try:
      check_folder(path, kind)  # again, since hours may have passed
    except UserError as error:
      remove = False
      raise UserError(f"{error}; the new files are in {partial}") from None
    if old.exists():
      shutil.rmtree(old)
    if path.exists():
      os.replace(path, old)  # a nonempty folder cannot be replaced atomically
    os.replace(partial, path)
    shutil.rmtree(old, ignore_errors=True)
  except OSError as error:
    raise refuse(path, error) from error
  finally:
    if remove:
      shutil.rmtree(partial, ignore_errors=True)


def check_folder(path: str | os.PathLike, kind: FolderKind) -> None:
  """Checks that replacing a folder deletes only what a writer of this kind wrote; call it before long work.

  The folder's temporary names are checked as well; leftovers of an interrupted writer may be deleted.

  Raises:
    UserError: `path` is a file, or one of these folders holds something else; the message names the first such file.
  """
  path = _beyond_link(path)
  for place in (path, _old_path(path), partial_path(path)):
    if os.path.lexists(place) and not place.is_dir():
      raise UserError(f"{place} is a file: name {'a' if place == path else 'another'} folder for the output")
    try:
      unfinished = place == partial_path(path) and is_unfinished(place)
      foreign = "" if unfinished else find_foreign(place, kind)
    except OSError as error:
      raise refuse(path, error) from error
    if foreign:
      raise UserError(f"{place} holds {foreign}: choose another output, or move that away")


def remove_files(folder: Path, names: str) -> None:
  """Removes the files of a folder whose names match a pattern, and the folder if it is empty then."""
  with contextlib.suppress(OSError):
    for name in os.listdir(folder):
      if re.fullmatch(names, name):
        os.unlink(folder / name)
    folder.rmdir()


def _beyond_link(path: str | os.PathLike) -> Path:
  """Returns the folder to write: for a link, its target, since replacing the link would not change that."""
  return Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)
