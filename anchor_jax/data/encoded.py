"""Encoded records on disk: arrays with one row per record, in blocks of `BLOCK` records.

    FOLDER/latent-00000.npy   rows of the first BLOCK records, memory-mapped by every reader
    FOLDER/00000.json         names, shapes, types and checksums of the block's arrays; written after them

Blocks are independent files, so that processes can share the work and an interrupted run can continue.
"""

import dataclasses
import json
import uuid
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import NdArray, Shaped
from anchor_jax.data.sources import Record, Source
from anchor_jax.files.fields import fields_of
from anchor_jax.files.inputs import read_json, regular_file
from anchor_jax.files.outputs import new_file

BLOCK = 256

Block = dict[str, Shaped[NdArray, "N ..."]]


@dataclasses.dataclass(frozen=True)
class _ArrayHeader:
  """The JSON entry of one array of a block."""

  shape: tuple[int, ...]
  dtype: str
  crc32: int


def block_count(records: int) -> int:
  """Number of blocks that hold `records` records."""
  return -(-records // BLOCK)


def block_records(block: int, records: int) -> range:
  """Numbers of the records in a block."""
  return range(block * BLOCK, min((block + 1) * BLOCK, records))


def write_block(folder: Path, block: int, arrays: Mapping[str, Shaped[NdArray, "N ..."]]) -> None:
  """Writes the arrays of a block.

  Raises:
    UserError: the folder cannot be written, or the disk is full.
  """
  word = f"partial-{uuid.uuid4().hex}"  # another process may be writing the same block
  headers = {}
  for name, array in arrays.items():
    with new_file(_array_path(folder, block, name), word) as path, path.open("wb") as file:
      np.save(file, array)
    headers[name] = {"shape": list(array.shape), "dtype": array.dtype.str, "crc32": _checksum(array)}
  with new_file(_headers_path(folder, block), word) as path:
    path.write_text(json.dumps(headers) + "\n")


def read_block(folder: Path, block: int, names: Sequence[str], count: int, checksums: bool = False) -> Block | None:
  """Memory maps of the named arrays of a block; None if one of them is missing or damaged.

  Args:
    folder: where `write_block` wrote the block.
    block: number of the block.
    names: arrays to open.
    count: number of records that the block must hold.
    checksums: also verify the checksums, which reads all of the data.
  """
  try:
    headers = read_json(_headers_path(folder, block))
    arrays = {}
    for name in names:
      header = fields_of(_ArrayHeader, headers[name], name)
      # A memory map is never larger than the file, whatever the file's own header claims.
      array = np.load(regular_file(_array_path(folder, block, name)), mmap_mode="r", allow_pickle=False)
      if (array.shape, array.dtype.str, len(array)) != (header.shape, header.dtype, count):
        return None
      if checksums and _checksum(array) != header.crc32:
        return None
      arrays[name] = array
    return arrays
  except (UserError, OSError, ValueError, KeyError, TypeError, EOFError):  # missing, or not from write_block
    return None


class EncodedSource:
  """A source with additional fields from a folder of blocks.

  Pickling one for reader processes copies no array: each process maps the files itself.

  Attributes:
    people, videos, has_landmarks: as in `Source`.
  """

  def __init__(self, source: Source, folder: Path, names: Sequence[str]):
    """Adds the arrays `names`, of which `folder` has all blocks, to the fields of `source`."""
    self._source, self._folder, self._names = source, folder, tuple(names)
    self.people, self.videos, self.has_landmarks = source.people, source.videos, source.has_landmarks
    self._open: dict[int, Block] = {}

  def __getstate__(self) -> dict:
    return {**self.__dict__, "_open": {}}

  def __len__(self) -> int:
    return len(self.people)

  def __repr__(self) -> str:  # logged by grain
    return f"EncodedSource({self._source!r}, {self._names})"

  def read(self, index: int, fields: Sequence[str]) -> Record:
    """The named fields of a record."""
    stored = [name for name in fields if name not in self._names]
    record = dict(self._source.read(index, stored)) if stored else {}
    encoded = [name for name in fields if name in self._names]
    if encoded:
      block = self._block(index // BLOCK)
      record |= {name: np.array(block[name][index % BLOCK]) for name in encoded}
    return record

  def _block(self, number: int) -> Block:
    if number not in self._open:
      block = read_block(self._folder, number, self._names, len(block_records(number, len(self))))
      if block is None:
        raise UserError(f"the encoded records in {self._folder} are gone or damaged: start the training again")
      self._open[number] = block
    return self._open[number]


def _array_path(folder: Path, block: int, name: str) -> Path:
  return folder / f"{name}-{block:05d}.npy"


def _headers_path(folder: Path, block: int) -> Path:
  return folder / f"{block:05d}.json"


def _checksum(array: Shaped[NdArray, "N ..."]) -> int:
  return zlib.crc32(np.ascontiguousarray(array).data)
