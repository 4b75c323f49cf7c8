"""Reads and writes safetensors one tensor at a time: converting a full-size model takes the memory of one tensor.

Reads single files and shards. Refuses pickled files.
"""

import dataclasses
import functools
import hashlib
import json
import math
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from flax.traverse_util import flatten_dict
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from anchor_jax.core.errors import UserError, printable
from anchor_jax.core.shapes import NdArray, PyTree
from anchor_jax.files.inputs import read_json, regular_file
from anchor_jax.files.outputs import new_file

_STEMS = ("diffusion_pytorch_model", "model")  # names of diffusers' and transformers' weight files
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
# Metadata key: the CRC-32 of every tensor, eight hexadecimal digits each, in the order of `_file_order`. Files of other
# programs have none and are read unchecked.
_CHECKSUMS = "crc32"


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A tensor that is read from its file when `read` is called.

  Attributes:
    shape: sizes of its axes.
    dtype: a type of numpy or ml_dtypes.
    read: returns the array; reads the file on every call.
  """

  shape: tuple[int, ...]
  dtype: np.dtype
  read: Callable[[], NdArray]

  @classmethod
  def of(cls, array: Any) -> "Tensor":
    """A tensor in memory."""
    return cls(tuple(array.shape), np.dtype(array.dtype), lambda: np.asarray(array))

  def then(self, shape: tuple[int, ...], change: Callable[[NdArray], NdArray]) -> "Tensor":
    """This tensor with `change` applied when it is read; the result has `shape`."""
    return Tensor(shape, self.dtype, lambda: change(self.read()))

  def astype(self, dtype: Any) -> "Tensor":
    """This tensor, cast to `dtype` when it is read.

    Raises:
      UserError: (when it is read) a finite value is too large for the type.
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
  """Returns the tensors in a model's folder by name.

  Raises:
    UserError: there are none, they are damaged, or there are only pickled ones.
  """
  files = weight_files(folder)
  if files:
    tensors: dict[str, Tensor] = {}
    for file in files:
      tensors |= read_safetensors(file)
    return tensors
  for path in sorted(folder.glob("*")):
    if path.suffix == ".msgpack":
      raise UserError(f"{path} holds Flax weights, which are not read: fetch the safetensors of this model")
    refuse_pickled(path, folder / _safe_name(path))
  raise UserError(f"{folder} has no diffusion_pytorch_model.safetensors or model.safetensors")


def refuse_pickled(file: Path, safe: Path) -> None:
  """Raises UserError if a file is pickled; the message has the command that converts it to the file `safe`."""
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
  """Returns the safetensors files of a folder that `read_tensors` reads."""
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
    raise UserError(f"{index} is not an index of shards ({error}); fetch it again") from None
  shards = [index.parent / Path(str(name)).name for name in names]
  missing = [shard.name for shard in shards if not shard.exists()]
  if missing:
    raise UserError(f"{index.parent} lacks the shards {', '.join(missing)}; fetch them")
  return shards


def read_safetensors(file: Path) -> dict[str, Tensor]:
  """Returns the tensors of one safetensors file by name.

  Raises:
    UserError: the file is damaged, or a tensor has an unsupported type.
  """
  regular_file(file, "file of weights")
  try:
    opened = safe_open(file, "numpy")
    kinds = {}
    for name in opened.keys():  # noqa: SIM118 - not a dictionary
      entry = opened.get_slice(name)
      code = entry.get_dtype()
      if code not in _DTYPES:
        raise UserError(f"{file}: {name} is of type {code}, which is not read here; save it as F16, BF16 or F32")
      kinds[name] = (tuple(entry.get_shape()), np.dtype(_DTYPES[code]))
    listed = (opened.metadata() or {}).get(_CHECKSUMS, "")
    checksums = [listed[start : start + 8] for start in range(0, len(listed), 8)]
    order = _file_order({name: dtype for name, (_, dtype) in kinds.items()})
    known = dict(zip(order, checksums)) if len(order) == len(checksums) else {}  # tensors were added by another program
    read = lambda name: functools.partial(_get, file, name, known.get(name))
    return {name: Tensor(shape, dtype, read(name)) for name, (shape, dtype) in kinds.items()}
  except (SafetensorError, OSError) as error:
    raise UserError(f"{file} is damaged or truncated ({error}); fetch it again") from None


def read_metadata(file: Path) -> dict[str, str]:
  """Returns the metadata of a safetensors file. Raises UserError if the file is damaged."""
  regular_file(file, "file of weights")
  try:
    with safe_open(file, "numpy") as opened:
      return opened.metadata() or {}
  except (SafetensorError, OSError) as error:
    raise UserError(f"{file} is damaged or truncated ({error}); fetch it again") from None


def _get(file: Path, name: str, checksum: str | None) -> NdArray:
  # Opened for each tensor: an open file is memory-mapped, and all that was read of it would stay in memory.
  try:
    with safe_open(file, "numpy") as opened:
      array = opened.get_tensor(name)
  except (SafetensorError, OSError) as error:
    raise UserError(f"{file} is damaged ({error}); fetch it again") from None
  if checksum is not None and _checksum(name, array) != checksum:
    raise UserError(f"{file} is damaged ({name} is not as it was written); copy or write it again")
  return array


def _checksum(name: str, array: NdArray) -> str:
  """Returns the CRC-32 of a tensor's name, type, shape and bytes, so that no two tensors can be swapped."""
  stored = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
  about = zlib.crc32(f"{name} {_CODES[array.dtype]} {list(array.shape)}".encode())
  return f"{zlib.crc32(stored.reshape(-1).view(np.uint8).data, about):08x}"


def _file_order(dtypes: Mapping[str, np.dtype]) -> list[str]:
  """Returns names in the order of a written file: wide types first, which keeps all tensors aligned."""
  return sorted(dtypes, key=lambda name: (-dtypes[name].itemsize, name))


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
  """Writes a safetensors file, reading one tensor at a time; the file is renamed to `path` once it is complete.

  The metadata also gets a checksum of every tensor, which `read_safetensors` verifies.
  """
  order, checksums, offset = _file_order({name: tensor.dtype for name, tensor in tensors.items()}), [], 0
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
      array = np.ascontiguousarray(tensors[name].read()).reshape(
        tensors[name].shape
      )  # ascontiguousarray makes scalars 1-D
      checksums.append(_checksum(name, array))
      out.write(array.astype(array.dtype.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8).data)
    header["__metadata__"][_CHECKSUMS] = "".join(checksums)
    out.seek(0)
    out.write(_header(header))


def _header(fields: Mapping[str, Any]) -> bytes:
  text = json.dumps(fields, separators=(",", ":")).encode()
  text += b" " * (-len(text) % _HEADER_ALIGNMENT)
  return len(text).to_bytes(8, "little") + text


def weights_hash(weights: PyTree) -> str:
  """Returns the SHA-256 of networks' parameters in float32, with their names."""
  digest = hashlib.sha256()
  for path, leaf in sorted(flatten_dict(weights).items()):
    digest.update("/".join(path).encode())
    digest.update(np.ascontiguousarray(leaf, np.float32).data)
  return digest.hexdigest()
