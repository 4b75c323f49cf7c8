"""Reads numpy's files: an array is allocated only if the file has as many bytes as its header claims.

numpy allocates first, and a header of a few bytes can claim any size.
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

_MAX_UNPACKED = 2**32  # bytes of all compressed arrays in a file
_MAX_DEFLATE_RATIO = 1032
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_KINDS = "fiubUS"  # numbers, booleans and text
# zipfile raises RuntimeError for encrypted members and NotImplementedError for unsupported compression.
_DAMAGE = (
  *(OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError, NotImplementedError, MemoryError, struct.error),
  *(zipfile.BadZipFile, zlib.error),
)


def read_arrays(
  path: str | os.PathLike, noun: str = "file", remedy: str = "make it again", names: Collection[str] | None = None
) -> dict[str, NdArray]:
  """Returns the arrays in an .npz file by name; the array in an .npy file has the name "".

  Args:
    path: the file.
    noun: what messages call it.
    remedy: what the user can do if it is damaged.
    names: the arrays to read, if present; None reads all.

  Raises:
    UserError: there is no such regular file, it holds no arrays, or an array does not have the size its header claims.
  """
  with _opened(path, noun, remedy) as (file, size):
    if file.read(4) != b"PK\x03\x04":
      file.seek(0)
      return {"": _array(file, size)}
    with zipfile.ZipFile(file) as archive:
      arrays = {}
      for entry in _checked(archive, size, names):
        with archive.open(entry) as member:
          arrays[_name(entry)] = _array(member, entry.file_size)
      return arrays


@contextlib.contextmanager
def _opened(path: str | os.PathLike, noun: str, remedy: str) -> Iterator[tuple[BinaryIO, int]]:
  """Yields the file and its size; errors in the block become one UserError."""
  with open_input(path, noun) as file:
    try:
      yield file, os.fstat(file.fileno()).st_size
    except _DAMAGE as error:
      raise UserError(f"{path} is not a {noun} of numpy arrays, or is damaged ({one_line(error)}): {remedy}") from None


def _checked(archive: zipfile.ZipFile, size: int, names: Collection[str] | None) -> list[zipfile.ZipInfo]:
  """Returns the members to read from an archive of `size` bytes. Raises ValueError for impossible sizes."""
  entries = [entry for entry in archive.infolist() if names is None or _name(entry) in names]
  if sum(entry.compress_size for entry in entries) > size:
    raise ValueError("its members are larger than the file")
  unpacked = 0
  for entry in entries:
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
      raise ValueError(f"{_name(entry)} has an unknown compression")
    packed = entry.compress_type == zipfile.ZIP_DEFLATED
    if entry.file_size > (_MAX_DEFLATE_RATIO if packed else 1) * entry.compress_size:
      raise ValueError(f"{_name(entry)} claims {entry.file_size} bytes and has {entry.compress_size}")
    unpacked += entry.file_size if packed else 0
  if unpacked > _MAX_UNPACKED:
    raise ValueError(f"{unpacked} bytes in {size}")
  return entries


def _name(entry: zipfile.ZipInfo) -> str:
  return entry.filename.removesuffix(".npy")


def _header(file: Any, size: int) -> tuple[tuple[int, ...], np.dtype]:
  """Returns shape and type of the array in `size` bytes. Raises ValueError if it has another size."""
  version = np.lib.format.read_magic(file)
  if version not in _HEADERS:
    raise ValueError(f"an array of format {version}")
  shape, _, dtype = _HEADERS[version](file)
  if dtype.kind not in _KINDS:
    raise ValueError(f"an array of type {one_line(dtype, 40)}")
  claimed, present = math.prod(shape) * dtype.itemsize, size - file.tell()
  if min(shape, default=0) < 0 or claimed != present:
    raise ValueError(f"an array of shape {one_line(shape, 40)} claims {claimed} bytes, the file has {present}")
  return shape, dtype


def _array(file: Any, size: int) -> NdArray:
  _header(file, size)
  file.seek(0)
  return np.lib.format.read_array(file, allow_pickle=False)
