"""Reads arrays from pickle files without unpickling: runs no code from the file and imports none of its names.

A pickle is a program for a small stack machine (`pickletools` documents every opcode). The interpreter here supports
plain values, and maps the few names with which NumPy and torch store arrays to functions of this file. Everything else
is refused.
"""

import io
import os
import pickletools
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from anchor_jax.core.errors import UserError, one_line
from anchor_jax.core.shapes import NdArray
from anchor_jax.files.inputs import read_bytes

# The kinds of numbers of torch's storages.
_STORAGES = {
  "FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "LongStorage": "<i8", "IntStorage": "<i4",
  "ShortStorage": "<i2", "CharStorage": "<i1", "ByteStorage": "<u1", "BoolStorage": "?",
}  # fmt: skip
_LARGEST = 2**31  # bytes of a file
_MOST_NUMBERS = 5 * 10**8  # in all arrays, which count once per reference
_VALUE_SIZE = 50  # any other value counts as this many numbers
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C  # the start of torch's older file format


class _Refused(Exception):
  """The file contains something other than plain values and arrays."""


class _Name(str):
  """The name of a function or class in the file."""


class _Marker:
  """The start of a collection on the stack."""


_MARK = _Marker()


class _Array:
  """A NumPy array that is built in two steps: the file creates an empty one, then fills it."""

  def __init__(self):
    self.value: NdArray | None = None

  def fill(self, state: Any) -> None:
    _, shape, dtype, columns_first, data = state
    if not isinstance(data, bytes | bytearray):
      raise _Refused("an array of Python objects")
    order = "F" if columns_first else "C"
    self.value = np.frombuffer(data, _type_of(dtype)).reshape(shape, order=order)


class _Type:
  """A NumPy dtype, also built in two steps."""

  def __init__(self, code: str):
    self.code = code

  def fill(self, state: Any) -> None:
    if state[1] in ("<", ">"):
      self.code = state[1] + self.code.lstrip("<>=|")


def _type_of(value: Any) -> np.dtype:
  if not isinstance(value, _Type):
    raise _Refused("an array without a type")
  dtype = np.dtype(value.code)
  if dtype.kind not in "fiub":
    raise _Refused(f"an array of type {dtype}")
  return dtype


def _frombuffer(data: bytes | bytearray, dtype: Any, shape: Any, order: str) -> NdArray:
  return np.frombuffer(data, _type_of(dtype)).reshape(shape, order="F" if order == "F" else "C")


def _tensor(storage: NdArray, offset: int, size: Any, stride: Any, *_: Any) -> NdArray:
  """A torch tensor as a view of its storage: `size` numbers along each axis, `stride` numbers apart.

  A view takes no memory even if a stride of 0 repeats numbers.
  """
  last = offset + sum((count - 1) * step for count, step in zip(size, stride, strict=True))
  if min([offset, *size, *stride]) < 0 or (0 not in size and last >= len(storage)):
    raise _Refused("a tensor beyond its storage")
  if 0 in size:
    return storage[:0].reshape(size)
  strides = [step * storage.itemsize for step in stride]
  return np.lib.stride_tricks.as_strided(storage[offset:], size, strides, writeable=False)


def _torch_file(data: bytes) -> NdArray:
  """The storage in a file of torch's older format: five pickles, then the numbers of the storage."""
  file = io.BytesIO(data)
  magic, _, _ = (_run(file) for _ in range(3))
  if magic != _TORCH_MAGIC:
    raise _Refused("a torch file of an unknown format")
  storage, keys = _run(file, persistent=_Storage), _run(file)
  if not isinstance(storage, _Storage) or keys != [storage.key]:
    raise _Refused("a torch file with anything but one storage")
  (count,) = struct.unpack("<q", file.read(8))
  return np.frombuffer(file.read(), storage.dtype, count)


class _Storage:
  """The header of a storage in a torch file."""

  def __init__(self, header: Any):
    kind, name, self.key = header[:3]
    if kind != "storage" or not isinstance(name, _Name) or name.rpartition(".")[2] not in _STORAGES:
      raise _Refused(f"a torch storage of type {name}")
    self.dtype = np.dtype(_STORAGES[name.rpartition(".")[2]])


_CALLS: dict[str, Callable[..., Any]] = {
  "_codecs.encode": lambda text, coding="utf-8": text.encode("latin1" if coding == "latin1" else "utf-8"),
  "collections.OrderedDict": lambda pairs=(): dict(pairs),
  "torch._utils._rebuild_tensor_v2": _tensor,
  "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
  "torch.storage._load_from_bytes": _torch_file,
  "numpy.dtype": lambda code, *_: _Type(code),
}
for _module in ("numpy.core", "numpy._core"):  # before and since NumPy 2
  _CALLS |= {
    f"{_module}.multiarray._reconstruct": lambda *_: _Array(),
    f"{_module}.multiarray.scalar": lambda dtype, data: np.frombuffer(data, _type_of(dtype), 1)[0],
    f"{_module}.numeric._frombuffer": _frombuffer,
  }
_CLASSES = {"numpy.ndarray", *(f"torch.{name}" for name in _STORAGES)}  # named in files, never called


def read_pickle(path: str | os.PathLike) -> Any:
  """Returns the value in a pickle file: dicts, lists, tuples, strings, numbers, and arrays of numbers.

  Torch tensors of any device become NumPy arrays.

  Raises:
    UserError: the file is missing or damaged, or contains anything else.
  """
  return pickled_value(read_bytes(Path(path), "file", _LARGEST), Path(path))


def pickled_value(data: bytes, path: str | os.PathLike) -> Any:
  """As `read_pickle`, of the bytes of a file, which messages call `path`."""
  try:
    return _plain(_run(io.BytesIO(data)), {})[0]
  except UserError:
    raise
  except _Refused as error:
    raise UserError(
      f"{path} contains {one_line(error)}, which is refused because it could run any code: save its arrays with"
      " numpy.savez"
    ) from None
  except Exception as error:  # noqa: BLE001 - a damaged program can fail in any way
    raise UserError(f"{path} is not a pickle file, or is damaged ({one_line(error)})") from None


def _plain(value: Any, done: dict[int, tuple[Any, int]]) -> tuple[Any, int]:
  """The value with finished arrays in place of those that were built in two steps, and its size in numbers.

  A collection can be referenced many times, also by other such collections: it is converted once and counts every time.
  So does an array, which may be a view that repeats numbers.
  """
  if isinstance(value, _Array):
    if value.value is None:
      raise _Refused("an unfinished array")
    value = value.value
  if isinstance(value, np.ndarray):
    return value, value.size
  if isinstance(value, _Name | _Marker | _Type | _Storage):
    raise _Refused(f"the name {value}" if isinstance(value, _Name) else "an incomplete array")
  if not isinstance(value, dict | list | tuple):
    return value, _VALUE_SIZE
  if id(value) not in done:
    if isinstance(value, dict):
      parts = [(_plain(key, done)[0], *_plain(item, done)) for key, item in value.items()]
      plain, count = {key: item for key, item, _ in parts}, sum(part[-1] for part in parts)
    else:
      parts = [_plain(item, done) for item in value]
      plain, count = type(value)(item for item, _ in parts), sum(part[-1] for part in parts)
    if count > _MOST_NUMBERS:
      raise _Refused("values that are nested in each other millions of times")
    done[id(value)] = plain, count + _VALUE_SIZE
  return done[id(value)]


def _run(file: io.BytesIO, persistent: Callable[[Any], Any] | None = None) -> Any:
  """The value of the next pickle program in `file`, with arrays still in two steps; see `_plain`."""
  machine = _Machine(persistent)
  for opcode, argument, _ in pickletools.genops(file):
    machine.step(opcode.name, argument)
  return machine.stack.pop()


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_ARGUMENTS = {
  "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
  "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES",
  "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip


class _Machine:
  """The stack machine that runs pickle programs."""

  def __init__(self, persistent: Callable[[Any], Any] | None):
    self.stack: list[Any] = []
    self.memo: dict[int, Any] = {}
    self._persistent = persistent

  def step(self, name: str, argument: Any) -> None:
    """Runs one instruction."""
    stack = self.stack
    if name in _ARGUMENTS:
      # Python 2 wrote bytes, such as NumPy's raw data, as text
      stack.append(argument.encode("latin1") if name in ("BINSTRING", "SHORT_BINSTRING") else argument)
    elif name in _CONSTANTS:
      stack.append(_CONSTANTS[name])
    elif name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE"):
      stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[name]())
    elif name in ("PROTO", "FRAME", "STOP"):
      pass
    elif name == "MARK":
      stack.append(_MARK)
    elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
      stack[-int(name[-1]) :] = [tuple(stack[-int(name[-1]) :])]
    elif name in ("MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT"):
      self.memo[len(self.memo) if argument is None else int(argument)] = stack[-1]
    elif name in ("BINGET", "LONG_BINGET", "GET"):
      stack.append(self.memo[int(argument)])
    elif name in ("TUPLE", "LIST", "DICT", "APPENDS", "SETITEMS", "POP_MARK"):
      self._collect(name)
    elif name == "APPEND":
      self._container(list, 1).append(stack.pop())
    elif name == "SETITEM":
      value, key = stack.pop(), stack.pop()
      self._container(dict, 0)[_text(key)] = value
    elif name in ("GLOBAL", "STACK_GLOBAL"):
      self._name(argument)
    elif name in ("REDUCE", "NEWOBJ", "BUILD", "BINPERSID"):
      self._build(name)
    elif name == "POP":
      stack.pop()
    else:
      raise _Refused(f"the instruction {name}")

  def _container(self, kind: type, above: int) -> Any:
    place = self.stack[-1 - above]
    if type(place) is not kind:
      raise _Refused(f"something other than a {kind.__name__} in its place")
    return place

  def _collect(self, name: str) -> None:
    """Pops everything above the last mark and builds or extends a collection."""
    start = max(place for place, value in enumerate(self.stack) if value is _MARK)
    items = self.stack[start + 1 :]
    del self.stack[start:]
    if name == "TUPLE":
      self.stack.append(tuple(items))
    elif name == "LIST":
      self.stack.append(items)
    elif name == "DICT":
      self.stack.append({_text(key): value for key, value in zip(items[::2], items[1::2], strict=True)})
    elif name == "APPENDS":
      self._container(list, 0).extend(items)
    elif name == "SETITEMS":
      pairs = zip(items[::2], items[1::2], strict=True)
      self._container(dict, 0).update({_text(key): value for key, value in pairs})

  def _name(self, argument: str | None) -> None:
    if argument is None:
      name, module = (_text(self.stack.pop()) for _ in range(2))
    else:
      module, _, name = argument.partition(" ")
    found = _Name(f"{module}.{name}")
    if found not in _CALLS and found not in _CLASSES:
      raise _Refused(f'an object of "{found}"')
    self.stack.append(found)

  def _build(self, name: str) -> None:
    if name == "BINPERSID":
      if self._persistent is None:
        raise _Refused("a reference to another file")
      self.stack.append(self._persistent(self.stack.pop()))
      return
    argument, target = self.stack.pop(), self.stack[-1]
    if name == "BUILD":
      if not isinstance(target, _Array | _Type):
        raise _Refused("an object with state")
      target.fill(argument)
    elif isinstance(target, _Name) and target in _CALLS:
      self.stack[-1] = _CALLS[target](*[_text(value) if target == "numpy.dtype" else value for value in argument])
    else:
      raise _Refused("a call of something that is not a function")


def _text(value: Any) -> Any:
  """Bytes as text, since Python 2 did not distinguish them; everything else unchanged."""
  return value.decode("latin1") if isinstance(value, bytes) else value
