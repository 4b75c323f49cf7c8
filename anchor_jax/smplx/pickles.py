"""Reads arrays out of pickle files without unpickling: no code from the file is run, and nothing it names is imported.

A pickle is a program for a small stack machine (`pickletools` documents every opcode). Here the instructions are
followed for plain values, and of all names that a file may mention only the few are known with which numpy and torch
write arrays: each stands for a function of this file. Whatever else a file asks for is refused.
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
_MOST, _ROOM = 5 * 10**8, 50  # numbers in arrays, counted as often as they occur; as how many another value counts
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C  # with which torch's older file format begins


class _Refused(Exception):
  """The file asks for something that is not a plain value or an array."""


class _Name(str):
  """A name of a function or class, as the file mentions it."""


class _Marker:
  """Where a collection begins on the stack."""


_MARK = _Marker()


class _Array:
  """A numpy array that is built in two steps: the file makes an empty one first, then tells what it holds."""

  def __init__(self):
    self.value: NdArray | None = None

  def fill(self, state: Any) -> None:
    _, shape, dtype, columns_first, data = state
    if not isinstance(data, bytes | bytearray):
      raise _Refused("an array of Python objects")
    order = "F" if columns_first else "C"
    self.value = np.frombuffer(data, _type_of(dtype)).reshape(shape, order=order)


class _Type:
  """A numpy type of numbers, likewise built in two steps."""

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
  """A torch tensor from its storage: `size` numbers along each axis, `stride` numbers apart.

  It is a view of the storage, which takes no room however often a stride of 0 shows a number.
  """
  last = offset + sum((count - 1) * step for count, step in zip(size, stride, strict=True))
  if min([offset, *size, *stride]) < 0 or (0 not in size and last >= len(storage)):
    raise _Refused("a tensor beyond its storage")
  if 0 in size:
    return storage[:0].reshape(size)
  strides = [step * storage.itemsize for step in stride]
  return np.lib.stride_tricks.as_strided(storage[offset:], size, strides, writeable=False)


def _torch_file(data: bytes) -> NdArray:
  """The storage in a file of torch's older format: five pickles, then the numbers of each storage."""
  file = io.BytesIO(data)
  magic, _, _ = (_run(file) for _ in range(3))
  if magic != _TORCH_MAGIC:
    raise _Refused("a torch file of an unknown format")
  storage, keys = _run(file, persistent=_Storage), _run(file)
  if not isinstance(storage, _Storage) or keys != [storage.key]:
    raise _Refused("a torch file of something else than one storage")
  (count,) = struct.unpack("<q", file.read(8))
  return np.frombuffer(file.read(), storage.dtype, count)


class _Storage:
  """What a torch file says of a storage before its numbers come."""

  def __init__(self, facts: Any):
    kind, name, self.key = facts[:3]
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
for _module in ("numpy.core", "numpy._core"):  # the second since numpy 2
  _CALLS |= {
    f"{_module}.multiarray._reconstruct": lambda *_: _Array(),
    f"{_module}.multiarray.scalar": lambda dtype, data: np.frombuffer(data, _type_of(dtype), 1)[0],
    f"{_module}.numeric._frombuffer": _frombuffer,
  }
_CLASSES = {"numpy.ndarray", *(f"torch.{name}" for name in _STORAGES)}  # mentioned, never called


def read_pickle(path: str | os.PathLike) -> Any:
  """Returns what a pickle file holds: dicts, lists, tuples, texts, numbers, and arrays of numbers.

  Arrays are those of numpy, and torch's tensors, which become numpy arrays wherever they were.

  Raises:
    UserError: there is no such file, it is damaged, or it holds anything else.
  """
  path = Path(path)
  try:
    return _plain(_run(io.BytesIO(read_bytes(path, "file", _LARGEST))), {})[0]
  except UserError:
    raise
  except _Refused as error:
    raise UserError(
      f"{path} holds {one_line(error)}, which is not read since running it could do anything: save its arrays with"
      " numpy.savez"
    ) from None
  except Exception as error:  # noqa: BLE001 - whatever a damaged program does to the stack
    raise UserError(f"{path} is no pickle file, or is damaged ({one_line(error)})") from None


def _plain(value: Any, made: dict[int, tuple[Any, int]]) -> tuple[Any, int]:
  """The value with finished arrays in place of those that were built in two steps, and the room of what is in it.

  A collection can be named many times, also within others that are: each is made once, and counts every time. So do
  arrays, which may be views that show a number more than once.
  """
  if isinstance(value, _Array):
    if value.value is None:
      raise _Refused("an unfinished array")
    value = value.value
  if isinstance(value, np.ndarray):
    return value, value.size
  if isinstance(value, _Name | _Marker | _Type | _Storage):
    raise _Refused(f"the name {value}" if isinstance(value, _Name) else "half of an array")
  if not isinstance(value, dict | list | tuple):
    return value, _ROOM
  if id(value) not in made:
    if isinstance(value, dict):
      parts = [(_plain(key, made)[0], *_plain(item, made)) for key, item in value.items()]
      plain, count = {key: item for key, item, _ in parts}, sum(part[-1] for part in parts)
    else:
      parts = [_plain(item, made) for item in value]
      plain, count = type(value)(item for item, _ in parts), sum(part[-1] for part in parts)
    if count > _MOST:
      raise _Refused("values that are millions of times in one another")
    made[id(value)] = plain, count + _ROOM
  return made[id(value)]


def _run(file: io.BytesIO, persistent: Callable[[Any], Any] | None = None) -> Any:
  """The value of one pickle program, read from where `file` is, with arrays half built; see `_plain`."""
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
  """The stack machine that a pickle is a program for."""

  def __init__(self, persistent: Callable[[Any], Any] | None):
    self.stack: list[Any] = []
    self.memo: dict[int, Any] = {}
    self._persistent = persistent

  def step(self, name: str, argument: Any) -> None:
    """Follows one instruction."""
    stack = self.stack
    if name in _ARGUMENTS:
      # protocol 2 of Python 2 has bytes as text; numpy's raw data among them
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
      self._make(name)
    elif name == "POP":
      stack.pop()
    else:
      raise _Refused(f"the instruction {name}")

  def _container(self, kind: type, above: int) -> Any:
    place = self.stack[-1 - above]
    if type(place) is not kind:
      raise _Refused(f"a {kind.__name__} that is none")
    return place

  def _collect(self, name: str) -> None:
    """Takes what lies on the stack since the last mark."""
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

  def _make(self, name: str) -> None:
    if name == "BINPERSID":
      if self._persistent is None:
        raise _Refused("a reference to another file")
      self.stack.append(self._persistent(self.stack.pop()))
      return
    argument, target = self.stack.pop(), self.stack[-1]
    if name == "BUILD":
      if not isinstance(target, _Array | _Type):
        raise _Refused("an object with a state of its own")
      target.fill(argument)
    elif isinstance(target, _Name) and target in _CALLS:
      self.stack[-1] = _CALLS[target](*[_text(value) if target == "numpy.dtype" else value for value in argument])
    else:
      raise _Refused("a call of something that is no function")


def _text(value: Any) -> Any:
  """Bytes as text, which Python 2 did not tell apart; everything else as it is."""
  return value.decode("latin1") if isinstance(value, bytes) else value
