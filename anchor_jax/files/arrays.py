"""Reading numpy's files: what an array's header claims is compared with the bytes that are there before room is made.

A header of a few bytes can claim any size, and numpy makes room for it first.
"""

import contextlib
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator
from typing import Any, BinaryIO

import numpy as np

from anchor_jax.core.errors import UserError, one_line
from anchor_jax.core.shapes import NdArray
from anchor_jax.files.inputs import open_input

_MOST_UNPACKED = 2**32  # bytes of all compressed arrays of a file
_DENSEST = 1032  # bytes that one byte of deflate's can stand for
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_KINDS = "fiubUS"  # of arrays: numbers, truth values and texts
# zipfile raises RuntimeError for encrypted members, NotImplementedError for what it cannot unpack.
_DAMAGE = (
  *(OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError, NotImplementedError, MemoryError, struct.error),
  *(zipfile.BadZipFile, zlib.error),
)


def read_arrays(
  path: str | os.PathLike, what: str = "file", remedy: str = "make it again", names: Collection[str] | None = None
) -> dict[str, NdArray]:
  """Returns the arrays in an .npz file by name; the one of an .npy file is called "".

  Args:
    path: the file.
    what: what it is for messages.
    remedy: what the user can do where it is damaged.
    names: read only these, as far as they are there.

  Raises:
    UserError: there is no such regular file, it holds no arrays, or an array is not of the size that its header claims.
  """
  with _opened(path, what, remedy) as (file, size):
    if file.read(4) != b"PK\x03\x04":
      file.seek(0)
      return {"": _array(file, size)}
    with zipfile.ZipFile(file) as archive:
      arrays = {}
      for entry in _checked(archive, size, names):
        with archive.open(entry) as member:
          arrays[_name(entry)] = _array(member, entry.file_size)
      return arrays


def array_shapes(
  path: str | os.PathLike, what: str = "file", remedy: str = "make it again"
) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
  """Returns shape and type of the arrays in an .npz file by name; no array is read. Raises as `read_arrays`."""
  with _opened(path, what, remedy) as (file, size), zipfile.ZipFile(file) as archive:
    found = {}
    for entry in _checked(archive, size, None):
      with archive.open(entry) as member:
        found[_name(entry)] = _header(member, entry.file_size)
    return found


@contextlib.contextmanager
def _opened(path: str | os.PathLike, what: str, remedy: str) -> Iterator[tuple[BinaryIO, int]]:
  """The file and its size; what is wrong with it takes one line."""
  with open_input(path, what) as file:
    try:
      yield file, os.fstat(file.fileno()).st_size
    except _DAMAGE as error:
      raise UserError(f"{path} is no {what} of numpy arrays, or is damaged ({one_line(error)}): {remedy}") from None


def _checked(archive: zipfile.ZipFile, size: int, names: Collection[str] | None) -> list[zipfile.ZipInfo]:
  """The members of an archive of `size` bytes that are read, once they can be what they claim."""
  entries = [entry for entry in archive.infolist() if names is None or _name(entry) in names]
  if sum(entry.compress_size for entry in entries) > size:
    raise ValueError("its members are larger than the file")
  unpacked = 0
  for entry in entries:
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
      raise ValueError(f"{_name(entry)} is compressed in an unknown way")
    packed = entry.compress_type == zipfile.ZIP_DEFLATED
    if entry.file_size > (_DENSEST if packed else 1) * entry.compress_size:
      raise ValueError(f"{_name(entry)} claims {entry.file_size} bytes and has {entry.compress_size}")
    unpacked += entry.file_size if packed else 0
  if unpacked > _MOST_UNPACKED:
    raise ValueError(f"{unpacked} bytes in {size}")
  return entries


def _name(entry: zipfile.ZipInfo) -> str:
  return entry.filename.removesuffix(".npy")


def _header(file: Any, size: int) -> tuple[tuple[int, ...], np.dtype]:
  """Shape and type of the array in `size` bytes, which it fills."""
  version = np.lib.format.read_magic(file)
  if version not in _HEADERS:
    raise ValueError(f"an array of format {version}")
  shape, _, dtype = _HEADERS[version](file)
  if dtype.kind not in _KINDS:
    raise ValueError(f"an array of type {one_line(dtype, 40)}")
  claimed, there = math.prod(shape) * dtype.itemsize, size - file.tell()
  if min(shape, default=0) < 0 or claimed != there:
    raise ValueError(f"an array of shape {one_line(shape, 40)} claims {claimed} bytes, and {there} are there")
  return shape, dtype


def _array(file: Any, size: int) -> NdArray:
  _header(file, size)
  file.seek(0)
  return np.lib.format.read_array(file, allow_pickle=False)
