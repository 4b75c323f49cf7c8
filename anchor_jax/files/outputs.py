"""Writing outputs: under another name first, renamed when they are complete; never over an input."""

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
# Words in the names under which outputs are written before they are complete, see `partial_path`.
_UNFINISHED = ("partial", "preview", "resuming", "finishing", "looks")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space, quota used up, larger than a file may be


def partial_path(path: str | os.PathLike, word: str = "partial") -> Path:
  """Returns where an output is written until it is complete: `a/clip.mp4` -> `a/clip.partial.mp4`.

  The suffix stays, since writers choose the format by it.
  """
  path = _named(path)
  return path.with_name(f"{path.stem}.{word}{path.suffix}")


def refuse(path: str | os.PathLike, error: OSError) -> UserError:
  """Returns the error to raise when the operating system does not let us write `path`."""
  if error.errno in FULL:
    return UserError(f"the disk is full while writing {path}: free some space or choose another output")
  return UserError(f"cannot write {path}: {(error.strerror or str(error)).lower()}; choose another output")


def check_name(path: str | os.PathLike) -> None:
  """Checks that a path is text: other programs, JSON and terminals do not take names of other bytes.

  Raises:
    UserError: a part of the path is not UTF-8, or is the null character.
  """
  text = str(path)
  if "\0" in text:
    raise UserError(f"the name {text} holds the null character: use another")
  try:
    text.encode()
  except UnicodeEncodeError:
    shown = os.fsencode(text).decode(errors="backslashreplace")
    raise UserError(f"the name {shown} holds bytes that are not UTF-8: rename it, or use another") from None


def refuse_overwriting(output: str | os.PathLike, inputs: Iterable[str | os.PathLike]) -> None:
  """Checks that writing `output` replaces none of `inputs`.

  Files are compared by identity, so symbolic and hard links are found. An input folder counts with everything in it:
  pass the folders that are read (such as WORKDIR/body), not a folder in which people also keep results. The names
  that an output has before it is complete (`partial_path`) count as outputs too, and the sidecar of an input video
  (NAME.anchor beside NAME.mp4) as an input.

  Args:
    output: the file or folder to be written; need not exist.
    inputs: files and folders that are read; those that do not exist are ignored.

  Raises:
    UserError: `output` is an input, contains one, or lies in an input folder.
  """
  output = Path(output)
  places = [output, *_unfinished_paths(output)]
  for given in inputs:
    sidecar = os.path.splitext(os.path.abspath(given))[0] + SIDECAR
    for source in (Path(given), Path(sidecar)):
      if not os.path.exists(source):
        continue
      for place in places:
        if os.path.exists(place) and os.path.samefile(place, source):
          what = f"{place} is the input {source}" if place != source else f"{source} is an input"
        elif _contains(place, source):
          what = f"the input {source} lies in {place}"
        elif _contains(source, place):
          what = f"{place} lies in the input {source}"
        else:
          continue
        raise UserError(f"writing {output} would overwrite an input, since {what}: choose another output")


def check_output_file(flag: str, path: Path, suffixes: Sequence[str], is_ours: Callable[[Path], bool]) -> None:
  """Checks that an output has a name of its kind, and that it replaces at most an earlier output of that kind.

  Args:
    flag: that names it, for messages.
    path: the file; an empty one may be replaced.
    suffixes: with one of which its name has to end.
    is_ours: whether a file was written by the command.

  Raises:
    UserError: another suffix, or another file is there.
  """
  if path.suffix.lower() not in suffixes:
    raise UserError(f"{flag}={path}: name a file that ends in {' or '.join(suffixes)}")
  if path.is_file() and path.stat().st_size and not is_ours(path):
    raise UserError(f"{flag}={path}: that file was not written by this command; choose another name, or remove it")


def _contains(folder: Path, path: Path) -> bool:
  """Whether `path`, its symbolic links resolved or its own place, lies below `folder`."""
  real = os.path.realpath(folder)
  own = os.path.join(os.path.realpath(path.absolute().parent), path.name)
  return any(real != place and os.path.commonpath((real, place)) == real for place in (own, os.path.realpath(path)))


def _unfinished_paths(path: Path) -> list[Path]:
  """All other names that an output may have before it is complete."""
  return [*(partial_path(path, word) for word in _UNFINISHED), _old_path(path)]


def _old_path(path: Path) -> Path:
  """Where `new_folder` moves an earlier folder for the moment in which it is replaced."""
  path = _named(path)
  return path.with_name(f"{path.name}.partial-old")


def _named(path: str | os.PathLike) -> Path:
  """The path, made absolute where it has no name of its own to derive others from, such as `.` and `..`."""
  path = Path(path)
  if path.name in ("", ".."):
    path = Path(os.path.abspath(path))
  if not path.name:
    raise UserError(f"{path} cannot be an output: name a file or folder in it")
  return path


def prepare_parent(path: str | os.PathLike) -> None:
  """Makes the folder that an output goes into, and checks that it can be written to.

  Raises:
    UserError: the folder cannot be made or written to, or the name is too long or not UTF-8.
  """
  check_name(path)
  parent = Path(path).absolute().parent
  try:
    parent.mkdir(parents=True, exist_ok=True)
    for place in _unfinished_paths(Path(path)):  # longer names than `path`, which the system may not allow
      with contextlib.suppress(FileNotFoundError):
        os.lstat(place)
    if not os.access(parent, os.W_OK | os.X_OK):
      raise PermissionError(errno.EACCES, "permission denied")
  except OSError as error:
    raise refuse(path, error) from None


@contextlib.contextmanager
def new_file(path: str | os.PathLike, word: str = "partial", lock: bool = False) -> Iterator[Path]:
  """Yields a path to write a file to; it is renamed to `path` when the block ends, and removed if the block fails.

  Args:
    path: the file.
    word: part of its name until then, see `partial_path`.
    lock: hold the lock of `path` meanwhile, see `locks`: for what a user names as an output.

  Raises:
    UserError: `path` cannot be written, is a folder or a device, or is being written; the disk is full.
  """
  path = Path(path)
  if os.path.isdir(path):
    raise UserError(f"{path} is a folder: name a file for the output")
  if os.path.exists(path) and not os.path.isfile(path):
    raise UserError(f"{path} is no regular file, which an output would replace: name another file for the output")
  prepare_parent(path)
  partial = partial_path(path, word)
  with locked(path) if lock else contextlib.nullcontext():
    try:
      with contextlib.suppress(FileNotFoundError):
        partial.unlink()  # of an earlier run, or a link or pipe, through which a writer would write
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

  An earlier folder at `path` stays until then and is then replaced, never merged: only if a writer of this kind made
  everything in it (`check_folder`). A list of the files is written at the end, by which the next one knows that.

  Args:
    path: the folder; where it is a link, the folder that it leads to.
    kind: what is written.

  Raises:
    UserError: `path` cannot be written, is a file, holds something else, or is being written; the disk is full.
  """
  path = _beyond_link(path)
  check_folder(path, kind)
  prepare_parent(path)
  with locked(path):
    yield from _new_folder(path, kind)


def _new_folder(path: Path, kind: FolderKind) -> Iterator[Path]:
  partial, old, own = partial_path(path), _old_path(path), False
  try:
    if partial.is_dir():
      shutil.rmtree(partial)
    partial.mkdir()
    own = True
    write_list(partial, UNFINISHED)
    yield partial
    write_list(partial, kind.name)
    try:
      check_folder(path, kind)  # again: hours may have passed
    except UserError as error:
      own = False
      raise UserError(f"{error}; what was written now is in {partial}") from None
    if old.exists():
      shutil.rmtree(old)
    if path.exists():
      os.replace(path, old)  # a folder that is not empty cannot be replaced in one go
    os.replace(partial, path)
    shutil.rmtree(old, ignore_errors=True)
  except OSError as error:
    raise refuse(path, error) from error
  finally:
    if own:
      shutil.rmtree(partial, ignore_errors=True)


def check_folder(path: str | os.PathLike, kind: FolderKind) -> None:
  """Checks that replacing a folder loses nothing but what a writer of this kind made, before any long work.

  The names that the folder has before it is complete count too: those that are left of an interrupted writer may go.

  Raises:
    UserError: `path` is a file, or one of these folders holds something else; the first such file is named.
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
  """Removes the files of a folder whose names match a pattern, and the folder where that leaves nothing in it."""
  with contextlib.suppress(OSError):
    for name in os.listdir(folder):
      if re.fullmatch(names, name):
        os.unlink(folder / name)
    folder.rmdir()


def _beyond_link(path: str | os.PathLike) -> Path:
  """The folder that is written where `path` is a link; replacing the link would leave that one as it is."""
  return Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)
