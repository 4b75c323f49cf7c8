import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from anchor_jax.core.errors import UserError
from anchor_jax.files.arrays import read_arrays
from tests.helpers.strange import strange_files


def header(shape, dtype="<f4"):
  """The header of an .npy file."""
  file = io.BytesIO()
  np.lib.format.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": dtype})
  return file.getvalue()


def zipped(path, members, kind=zipfile.ZIP_DEFLATED):
  with zipfile.ZipFile(path, "w", kind) as archive:
    for name, data in members.items():
      archive.writestr(f"{name}.npy", data)
  return path


def test_arrays_of_all_numpy_formats_are_read(tmp_path):
  arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([True, False]), "c": np.zeros((0, 3))}
  arrays["d"] = np.asfortranarray(arrays["a"])
  np.savez(tmp_path / "stored.npz", allow_pickle=False, **arrays)
  np.savez_compressed(tmp_path / "packed.npz", allow_pickle=False, **arrays)
  for path in (tmp_path / "stored.npz", tmp_path / "packed.npz"):
    found = read_arrays(path)
    assert found.keys() == arrays.keys() and read_arrays(path, names=("b", "x")).keys() == {"b"}
    for name, array in arrays.items():
      np.testing.assert_array_equal(found[name], array)
  np.save(tmp_path / "one.npy", arrays["d"])
  np.testing.assert_array_equal(read_arrays(tmp_path / "one.npy")[""], arrays["a"])


def claims(path):
  """A zip whose directory claims 16 GB for an array of 64 bytes."""
  data = bytearray(zipped(path, {"a": header((2**32,)) + bytes(64)}, zipfile.ZIP_STORED).read_bytes())
  place = data.rindex(b"PK\x01\x02") + 24
  data[place : place + 4] = struct.pack("<I", 2**32 - 2)
  return bytes(data)


@pytest.mark.parametrize(
  "name", ["header.npy", "header.npz", "negative.npz", "directory.npz", "bomb.npz", "object.npz"]
)
def test_claimed_sizes_are_not_allocated(tmp_path, name):
  path = tmp_path / name
  if name == "header.npy":
    path.write_bytes(header((2**32,)) + bytes(64))
  elif name == "header.npz":
    zipped(path, {"a": header((2**16, 2**16)) + bytes(64)})
  elif name == "negative.npz":
    zipped(path, {"a": header((-4, -4)) + bytes(64)})
  elif name == "directory.npz":
    path.write_bytes(claims(path))
  elif name == "bomb.npz":  # claims a thousand times its size
    part = zipped(path, {"a": bytes(2**20)}).read_bytes()
    path.write_bytes(part.replace(struct.pack("<I", 2**20), struct.pack("<I", 2**30)))
  else:
    np.savez(path, a=np.array([{}], object))
  tracemalloc.start()
  try:
    with pytest.raises(UserError, match=rf"{name} is not a model of numpy arrays, or is damaged .*: fetch it again$"):
      read_arrays(path, "model", "fetch it again")
    assert tracemalloc.get_traced_memory()[1] < 2**25
  finally:
    tracemalloc.stop()


def test_damage_at_any_position_is_reported_in_one_line(tmp_path):
  np.savez_compressed(tmp_path / "a.npz", a=np.arange(20.0), b=np.zeros((3, 3), np.uint8))
  data, random = (tmp_path / "a.npz").read_bytes(), np.random.default_rng(0)
  for _ in range(300):
    broken = bytearray(data[: random.integers(len(data)) + 1])
    for place in random.integers(len(broken), size=3):
      broken[place] = random.integers(256)
    (tmp_path / "b.npz").write_bytes(bytes(broken))
    try:
      read_arrays(tmp_path / "b.npz")
    except UserError as error:
      assert "\n" not in str(error) and len(str(error)) < 400


def test_paths_that_are_no_regular_files_are_refused(tmp_path):
  for path, message in strange_files(tmp_path, ".npz").items():
    with pytest.raises(UserError, match=message):
      read_arrays(path)
