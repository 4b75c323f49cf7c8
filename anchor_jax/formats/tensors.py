"""Reads and writes tensors one at a time, so that converting a full-size model takes the memory of one tensor.

Reads safetensors, single or in shards, and the Flax msgpack of diffusers up to 0.39.0, which has to be read at once.
Writes safetensors. Refuses pickled files.
"""

import dataclasses
import functools
import json
import math
import mmap
import typing
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from flax import serialization
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from anchor_jax.core.errors import UserError, printable
from anchor_jax.core.shapes import NdArray
from anchor_jax.files.inputs import open_input, read_json, regular_file
from anchor_jax.files.outputs import new_file
from anchor_jax.formats.damage import root_reason

_STEMS = ("diffusion_pytorch_model", "model")  # what diffusers and transformers call their weight files
_FLAX_FILES = ("diffusion_flax_model.msgpack", "flax_model.msgpack")
_PICKLED = (".bin", ".ckpt", ".pt", ".pth")
_DTYPES = {
  "F64": np.float64,
  "F32": np.float32,
  "F16": np.float16,
  "BF16": ml_dtypes.bfloat16,
  "I64": np.int64,
  "I32": np.int32,
  "I16": np.int16,
  "I8": np.int8,
  "U8": np.uint8,
  "BOOL": np.bool_,
}
_CODES = {np.dtype(kind): code for code, kind in _DTYPES.items()}
_HEADER_ALIGNMENT = 8
# In the metadata of a file: the CRC-32 of every tensor, eight hexadecimal digits each, in the order of `_in_file`.
# Files of other programs have none, and are read unchecked.
_CHECKSUMS = "crc32"


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A tensor that is read from its file only when `read` is called.

  Attributes:
    shape: sizes of its axes.
    dtype: of numpy or ml_dtypes.
    read: returns the array, from the file each time.
  """

  shape: tuple[int, ...]
  dtype: np.dtype
  read: Callable[[], NdArray]

  @classmethod
  def of(cls, array: Any) -> "Tensor":
    """A tensor already in memory."""
    return cls(tuple(array.shape), np.dtype(array.dtype), lambda: np.asarray(array))

  def then(self, shape: tuple[int, ...], change: Callable[[NdArray], NdArray]) -> "Tensor":
    """This tensor with `change` applied when it is read, which gives `shape`."""
    return Tensor(shape, self.dtype, lambda: change(self.read()))

  def astype(self, dtype: Any) -> "Tensor":
    """This tensor, cast to `dtype` when it is read.

    Raises:
      UserError: (when it is read) a finite number is too large for the type.
    """
    dtype = np.dtype(dtype)
    return self if dtype == self.dtype else Tensor(self.shape, dtype, lambda: _cast(self.read(), dtype))


def _cast(array: NdArray, dtype: np.dtype) -> NdArray:
  with np.errstate(over="ignore"):
    cast = array.astype(dtype)
  if dtype.itemsize < array.dtype.itemsize and np.isfinite(array).all() and not np.isfinite(cast).all():
    raise UserError(f"weights as large as {np.abs(array).max():.3g} do not fit {dtype}; write bfloat16 or float32")
  return cast


def read_tensors(folder: Path) -> dict[str, Tensor]:
  """The tensors in a model's folder by the names in the file; msgpack's paths are joined by "/".

  Raises:
    UserError: there are none, they are damaged, or only pickled ones are there.
  """
  files = weight_files(folder)
  if files:
    tensors: dict[str, Tensor] = {}
    for file in files:
      tensors |= read_safetensors(file)
    return tensors
  for name in _FLAX_FILES:
    if (folder / name).exists():
      return _read_msgpack(folder / name)
  for path in sorted(folder.glob("*")):
    refuse_pickled(path, folder / _safe_name(path))
  raise UserError(f"{folder} has no diffusion_pytorch_model.safetensors, model.safetensors or Flax msgpack")


def refuse_pickled(file: Path, safe: Path) -> None:
  """Raises UserError where a file is pickled; it says how to make the file `safe` of it."""
  if file.suffix in _PICKLED:
    raise UserError(
      f"{file} is pickled and may run code when opened, so it is never opened here; make it safe once with: "
      'python -c "import sys, torch, safetensors.torch as s; '
      "d = torch.load(sys.argv[1], weights_only=True, map_location='cpu'); s.save_file({k: v.contiguous().clone() "
      "for k, v in d.get('state_dict', d).items() if torch.is_tensor(v)}, sys.argv[2])\" "
      f"{file} {safe}"
    )


def _safe_name(pickled: Path) -> str:
  stem = "diffusion_pytorch_model" if pickled.name.startswith("diffusion") else "model"
  return f"{stem}.safetensors"


def weight_files(folder: Path) -> list[Path]:
  """The safetensors files that `read_tensors` reads of a folder."""
  for stem in _STEMS:
    for variant in ("", ".fp16", ".bf16", ".non_ema"):
      single = folder / f"{stem}{variant}.safetensors"
      if single.exists():
        return [single]
      index = folder / f"{stem}.safetensors.index{variant}.json"
      if index.exists():
        return _shards(index)
  return []


def _shards(index: Path) -> list[Path]:
  try:
    names = sorted(set(read_json(index, remedy="fetch it again")["weight_map"].values()))
  except (KeyError, AttributeError, TypeError) as error:
    raise UserError(f"{index} is no index of shards ({error}); fetch it again") from None
  shards = [index.parent / Path(str(name)).name for name in names]
  missing = [shard.name for shard in shards if not shard.exists()]
  if missing:
    raise UserError(f"{index.parent} lacks the shards {', '.join(missing)}; fetch them")
  return shards


def read_safetensors(file: Path) -> dict[str, Tensor]:
  """The tensors of one safetensors file.

  Raises:
    UserError: it is damaged, or holds a type that is not read here.
  """
  regular_file(file, "file of weights")
  try:
    opened = safe_open(file, "numpy")
    kinds = {}
    for name in opened.keys():  # noqa: SIM118 - it is no dictionary
      entry = opened.get_slice(name)
      code = entry.get_dtype()
      if code not in _DTYPES:
        raise UserError(f"{file}: {name} is of type {code}, which is not read here; save it as F16, BF16 or F32")
      kinds[name] = (tuple(entry.get_shape()), np.dtype(_DTYPES[code]))
    listed = (opened.metadata() or {}).get(_CHECKSUMS, "")
    checksums = [listed[start : start + 8] for start in range(0, len(listed), 8)]
    order = _in_file({name: dtype for name, (_, dtype) in kinds.items()})
    known = dict(zip(order, checksums)) if len(order) == len(checksums) else {}  # else somebody added tensors
    read = lambda name: functools.partial(_get, file, name, known.get(name))
    return {name: Tensor(shape, dtype, read(name)) for name, (shape, dtype) in kinds.items()}
  except (SafetensorError, OSError) as error:
    raise UserError(f"{file} is damaged or truncated ({error}); fetch it again") from None


def read_metadata(file: Path) -> dict[str, str]:
  """The metadata in a safetensors file's header. Raises UserError where the file is damaged."""
  regular_file(file, "file of weights")
  try:
    with safe_open(file, "numpy") as opened:
      return opened.metadata() or {}
  except (SafetensorError, OSError) as error:
    raise UserError(f"{file} is damaged or truncated ({error}); fetch it again") from None


def _get(file: Path, name: str, checksum: str | None) -> NdArray:
  # Opened for each tensor: an open file is mapped, and everything read of it would stay in memory.
  try:
    with safe_open(file, "numpy") as opened:
      array = opened.get_tensor(name)
  except (SafetensorError, OSError) as error:
    raise UserError(f"{file} is damaged ({error}); fetch it again") from None
  if checksum is not None and _checksum(name, array) != checksum:
    raise UserError(f"{file} is damaged ({name} is not as it was written); copy or make it again")
  return array


def _checksum(name: str, array: NdArray) -> str:
  """CRC-32 of a tensor's bytes, after its name, type and shape: no other tensor stands for it."""
  stored = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
  about = zlib.crc32(f"{name} {_CODES[array.dtype]} {list(array.shape)}".encode())
  return f"{zlib.crc32(stored.reshape(-1).view(np.uint8).data, about):08x}"


def _in_file(dtypes: Mapping[str, np.dtype]) -> list[str]:
  """The order of tensors in a file that is written here: wide types first, so that all stay aligned."""
  return sorted(dtypes, key=lambda name: (-dtypes[name].itemsize, name))


def _read_msgpack(file: Path) -> dict[str, Tensor]:
  """The arrays of a Flax file, "/" between the names of their path; all of them are in memory from then on."""
  try:
    # Pure data: msgpack has no way to name code, unlike pickle. Mapped, so that the bytes are not in memory twice.
    with (
      open_input(file, "file of weights") as stream,
      mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
      tree = serialization.msgpack_restore(typing.cast(bytes, content))
    return {"/".join(path): Tensor.of(array) for path, array in _leaves(tree)}
  # msgpack, Flax and numpy raise these, whatever the bytes are.
  except (ValueError, TypeError, KeyError, AttributeError, OSError, RecursionError, MemoryError) as error:
    raise UserError(f"{file} is damaged or truncated ({root_reason(error)}); fetch it again") from None


def _leaves(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], NdArray]]:
  if isinstance(node, np.ndarray | np.generic):
    yield path, np.asarray(node)
  elif isinstance(node, Mapping):
    for name, child in node.items():
      yield from _leaves(child, (*path, str(name)))
  else:
    raise ValueError(f"{'/'.join(path)} is no array")


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
  """Writes a safetensors file, reading one tensor at a time; the file is renamed to `path` once it is complete.

  The metadata also gets a checksum of every tensor, which `read_safetensors` compares.
  """
  order, checksums, offset = _in_file({name: tensor.dtype for name, tensor in tensors.items()}), [], 0
  header: dict[str, Any] = {"__metadata__": {**(metadata or {}), _CHECKSUMS: "0" * 8 * len(order)}}
  for name in order:
    tensor = tensors[name]
    end = offset + math.prod(tensor.shape) * tensor.dtype.itemsize
    header[name] = {"dtype": _CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
    offset = end
  with new_file(path) as partial, partial.open("wb") as out:
    out.write(_header(header))
    for name in tqdm(
      order, desc=f"write {printable(path.parent.name)}", unit="tensor", leave=False, disable=offset < 2**28
    ):
      array = np.ascontiguousarray(tensors[name].read()).reshape(tensors[name].shape)  # makes a number a list of one
      checksums.append(_checksum(name, array))
      out.write(array.astype(array.dtype.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8).data)
    header["__metadata__"][_CHECKSUMS] = "".join(checksums)
    out.seek(0)
    out.write(_header(header))


def _header(fields: Mapping[str, Any]) -> bytes:
  text = json.dumps(fields, separators=(",", ":")).encode()
  text += b" " * (-len(text) % _HEADER_ALIGNMENT)
  return len(text).to_bytes(8, "little") + text
