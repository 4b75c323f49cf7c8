"""Pickle files are read without running anything of what they say."""

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
def test_arrays_numbers_and_texts_come_back(tmp_path, protocol):
  held = {"pose": ARRAY, "again": ARRAY, "columns": np.asfortranarray(ARRAY[0]), "big": np.arange(3, dtype=">i2")}
  held |= {"one": np.float64(3.5), "name": "Zoë", "none": None, "list": [1, -2.5, (True, False), 2**40], "empty": {}}
  read = read_pickle(write(tmp_path / "x.pkl", held, protocol))
  assert list(read) == list(held)
  for name in ("pose", "again", "columns", "big", "one"):
    np.testing.assert_array_equal(read[name], held[name])
    assert read[name].dtype == held[name].dtype
  assert {name: read[name] for name in ("name", "none", "list", "empty")} == {
    name: held[name] for name in ("name", "none", "list", "empty")
  }


class Stored:
  """Pickles as a torch tensor does: by names in torch's modules, with a torch file of the older format inside."""

  def __init__(self, array):
    self.array = array

  def __reduce__(self):
    torch = sys.modules["torch._utils"]
    strides = tuple(step // self.array.itemsize for step in self.array.strides)
    return torch._rebuild_tensor_v2, (Bytes(self.array.base), 1, self.array.shape, strides, False, None)


class Bytes:
  def __init__(self, array):
    self.array = array

  def __reduce__(self):
    file, kind = io.BytesIO(), sys.modules["torch"].FloatStorage
    for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
      pickle.dump(value, file, 2)
    pickler = pickle.Pickler(file, 2)
    facts = ("storage", kind, "7", "cuda:0", self.array.size, None)
    pickler.persistent_id = lambda value: facts if value is self else None
    pickler.dump(self)
    pickle.dump(["7"], file, 2)
    file.write(struct.pack("<q", self.array.size) + self.array.tobytes())
    return sys.modules["torch.storage"]._load_from_bytes, (file.getvalue(),)


def stand_in_for_torch(monkeypatch):
  """The names that torch's pickles mention; torch is not installed."""
  for module, names in (("torch", ["FloatStorage"]), ("torch._utils", ["_rebuild_tensor_v2"]),
                        ("torch.storage", ["_load_from_bytes"])):  # fmt: skip
    made = types.ModuleType(module)
    for name in names:
      value = type(name, (), {}) if name == "FloatStorage" else types.FunctionType((lambda: None).__code__, {})
      value.__module__, value.__qualname__, value.__name__ = module, name, name
      setattr(made, name, value)
    monkeypatch.setitem(sys.modules, module, made)


def test_torch_tensors_come_back_as_arrays_from_wherever_they_were(tmp_path, monkeypatch):
  """The files that SHOW gives out hold tensors of a GPU."""
  stand_in_for_torch(monkeypatch)
  storage = np.arange(13, dtype=np.float32)
  tensor = np.lib.stride_tricks.as_strided(storage[1:], (3, 4), (4, 12))  # transposed, from the second number on
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
  ("value", "told"),
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
def test_everything_else_is_refused_and_nothing_is_run(tmp_path, monkeypatch, value, told):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match=told):
    read_pickle(write(tmp_path / "x.pkl", value))
  assert os.listdir(tmp_path) == ["x.pkl"]


def _laughs(depth=60):
  value = [1.0]
  for _ in range(depth):
    value = [value, value]
  return value


def test_what_takes_little_room_in_the_file_takes_little_in_memory(tmp_path, monkeypatch):
  stand_in_for_torch(monkeypatch)
  claim = Stored(None)
  claim.array = types.SimpleNamespace(base=np.zeros(4, np.float32), shape=(10**6, 4000), strides=(0, 0), itemsize=4)
  pose = {"body_pose": np.zeros((2, 63)), "global_orient": np.zeros((2, 3))}
  tracemalloc.start()
  try:
    for value, said in (
      ({**pose, "betas": claim}, "millions of times"),
      ({**pose, "betas": [claim]}, "millions of times"),
      ({**pose, "betas": _laughs()}, "millions of times"),
      ({**pose, "expression": np.zeros((1, 10**5))}, "100000 numbers a frame"),
      ({**pose, "body_pose": np.zeros((10**6 + 1, 63), np.int8)}, "1000001 frames"),
    ):
      with pytest.raises(UserError, match=said):
        read_parameters(write(tmp_path / "motion.pkl", value))
    assert tracemalloc.get_traced_memory()[1] < 2**30
  finally:
    tracemalloc.stop()


def test_names_that_are_no_files_take_one_line(tmp_path):
  for suffix in (".pkl", ".npz", ".npy"):
    for path, said in strange_files(tmp_path / suffix, suffix).items():
      with pytest.raises(UserError, match=said):
        read_parameters(path)


@pytest.mark.parametrize("damage", [b"", b"no pickle", pickle.dumps({"a": ARRAY})[:-9], b"\x80\x04R.", b"\x80\x04)R."])
def test_damaged_files_are_told(tmp_path, damage):
  (tmp_path / "x.pkl").write_bytes(damage)
  with pytest.raises(UserError, match=r"x\.pkl"):
    read_pickle(tmp_path / "x.pkl")
