"""Pickle files are read without running their code."""

import io
import os
import pickle
import struct
import sys
import tracemalloc
import types

import numpy as np
import pytest

from anchor_jax.core.errors import UserError
from anchor_jax.smplx.parameters import read_parameters
from anchor_jax.smplx.pickles import read_pickle
from tests.helpers.strange import strange_files

ARRAY = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def write(path, value, protocol=4):
  path.write_bytes(pickle.dumps(value, protocol))
  return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_numbers_and_strings_are_read_back(tmp_path, protocol):
  values = {"pose": ARRAY, "same": ARRAY, "columns": np.asfortranarray(ARRAY[0]), "big": np.arange(3, dtype=">i2")}
  values |= {"one": np.float64(3.5), "name": "Zoë", "none": None, "list": [1, -2.5, (True, False), 2**40], "empty": {}}
  read = read_pickle(write(tmp_path / "x.pkl", values, protocol))
  assert list(read) == list(values)
  for name in ("pose", "same", "columns", "big", "one"):
    np.testing.assert_array_equal(read[name], values[name])
    assert read[name].dtype == values[name].dtype
  assert {name: read[name] for name in ("name", "none", "list", "empty")} == {
    name: values[name] for name in ("name", "none", "list", "empty")
  }


class Stored:
  """Pickles like a torch tensor: by names in torch's modules, with a torch file of the older format inside."""

  def __init__(self, array):
    self.array = array

  def __reduce__(self):
    torch = sys.modules["torch._utils"]
    strides = tuple(step // self.array.itemsize for step in self.array.strides)
    return torch._rebuild_tensor_v2, (Bytes(self.array.base), 1, self.array.shape, strides, False, None)


class StoragePickler(pickle.Pickler):
  """Writes one object as a persistent one."""

  def __init__(self, file, value, facts):
    super().__init__(file, 2)
    self._value, self._facts = value, facts

  def persistent_id(self, obj):
    return self._facts if obj is self._value else None


class Bytes:
  def __init__(self, array):
    self.array = array

  def __reduce__(self):
    file, kind = io.BytesIO(), sys.modules["torch"].FloatStorage
    for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
      pickle.dump(value, file, 2)
    facts = ("storage", kind, "7", "cuda:0", self.array.size, None)
    StoragePickler(file, self, facts).dump(self)
    pickle.dump(["7"], file, 2)
    file.write(struct.pack("<q", self.array.size) + self.array.tobytes())
    return sys.modules["torch.storage"]._load_from_bytes, (file.getvalue(),)


def stand_in_for_torch(monkeypatch):
  """Registers the names in torch's pickles; torch is not installed."""
  for module, names in (("torch", ["FloatStorage"]), ("torch._utils", ["_rebuild_tensor_v2"]),
                        ("torch.storage", ["_load_from_bytes"])):  # fmt: skip
    fake = types.ModuleType(module)
    for name in names:
      value = type(name, (), {}) if name == "FloatStorage" else types.FunctionType((lambda: None).__code__, {})
      value.__module__, value.__qualname__, value.__name__ = module, name, name
      setattr(fake, name, value)
    monkeypatch.setitem(sys.modules, module, fake)


def test_torch_tensors_of_any_device_are_read_as_arrays(tmp_path, monkeypatch):
  """SHOW's published files contain GPU tensors."""
  stand_in_for_torch(monkeypatch)
  storage = np.arange(13, dtype=np.float32)
  tensor = np.lib.stride_tricks.as_strided(storage[1:], (3, 4), (4, 12))  # transposed, starting at the second number
  view = Stored(tensor)
  view.array = types.SimpleNamespace(base=storage, shape=(3, 4), strides=(4, 12), itemsize=4)
  read = read_pickle(write(tmp_path / "x.pkl", {"betas": view}))
  np.testing.assert_array_equal(read["betas"], tensor)
  view.array.shape = (3, 5)  # reaches beyond the storage
  with pytest.raises(UserError, match="beyond its storage"):
    read_pickle(write(tmp_path / "x.pkl", view))


class Call:
  def __init__(self, function, *arguments):
    self.call = function, arguments

  def __reduce__(self):
    return self.call


@pytest.mark.parametrize(
  ("value", "message"),
  [
    (Call(os.mkdir, "made"), "mkdir"),
    ({"deep": [np.zeros(2), Call(eval, "1")]}, "eval"),
    (np.array([1, None], object), "Python objects"),
    (os.mkdir, "mkdir"),
    ({1, 2}, "EMPTY_SET"),
    (np.array(["text"]), "<U4"),
    (np.float32, "float32"),
  ],
)
def test_everything_else_is_refused_and_no_code_runs(tmp_path, monkeypatch, value, message):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match=message):
    read_pickle(write(tmp_path / "x.pkl", value))
  assert os.listdir(tmp_path) == ["x.pkl"]


def _nested(depth=60):
  value = [1.0]
  for _ in range(depth):
    value = [value, value]
  return value


def test_small_files_cannot_expand_in_memory(tmp_path, monkeypatch):
  stand_in_for_torch(monkeypatch)
  claim = Stored(None)
  claim.array = types.SimpleNamespace(base=np.zeros(4, np.float32), shape=(10**6, 4000), strides=(0, 0), itemsize=4)
  pose = {"body_pose": np.zeros((2, 63)), "global_orient": np.zeros((2, 3))}
  tracemalloc.start()
  try:
    for value, message in (
      ({**pose, "betas": claim}, "millions of times"),
      ({**pose, "betas": [claim]}, "millions of times"),
      ({**pose, "betas": _nested()}, "millions of times"),
      ({**pose, "expression": np.zeros((1, 10**5))}, "100000 numbers a frame"),
      ({**pose, "body_pose": np.zeros((10**6 + 1, 63), np.int8)}, "1000001 frames"),
    ):
      with pytest.raises(UserError, match=message):
        read_parameters(write(tmp_path / "motion.pkl", value))
    assert tracemalloc.get_traced_memory()[1] < 2**30
  finally:
    tracemalloc.stop()


def test_paths_that_are_not_files_are_refused_in_one_line(tmp_path):
  for suffix in (".pkl", ".npz", ".npy"):
    for path, message in strange_files(tmp_path / suffix, suffix).items():
      with pytest.raises(UserError, match=message):
        read_parameters(path)


@pytest.mark.parametrize("damage", [b"", b"no pickle", pickle.dumps({"a": ARRAY})[:-9], b"\x80\x04R.", b"\x80\x04)R."])
def test_damaged_files_are_refused(tmp_path, damage):
  (tmp_path / "x.pkl").write_bytes(damage)
  with pytest.raises(UserError, match=r"x\.pkl"):
    read_pickle(tmp_path / "x.pkl")
