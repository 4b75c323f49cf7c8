"""Encoded records on disk: round trip, detection of damage, and reader processes."""

import os
import pickle

import numpy as np
import pytest

from anchor_jax.core.errors import UserError
from anchor_jax.data import encoded
from anchor_jax.data.encoded import EncodedSource, block_count, block_records, read_block, write_block
from anchor_jax.data.loader import make_loader
from anchor_jax.data.sources import ArraySource

COUNT = 10
LATENTS = np.arange(COUNT * 3, dtype=np.float32).reshape(COUNT, 3)


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """Ten records in blocks of four."""
  monkeypatch.setattr(encoded, "BLOCK", 4)
  for block in range(block_count(COUNT)):
    write_block(
      tmp_path,
      block,
      {"latent": LATENTS[block * 4 : block * 4 + 4], "mask": np.ones(len(block_records(block, COUNT)), bool)},
    )
  return tmp_path


def test_an_encoded_source_adds_fields_to_a_source(folder):
  source = EncodedSource(ArraySource({"frame": np.arange(COUNT)}, np.zeros(COUNT, int)), folder, ("latent", "mask"))
  assert len(source) == COUNT
  for index in (0, 3, 4, 9):
    record = source.read(index, ("latent", "frame"))
    np.testing.assert_array_equal(record["latent"], LATENTS[index])
    assert record["frame"] == index and set(record) == {"latent", "frame"}
  assert list(source.read(9, ("mask",))) == ["mask"]


def test_pickling_a_source_copies_no_array(tmp_path):
  large = np.zeros((4, 2**20), np.float32)
  write_block(tmp_path, 0, {"latent": large})
  source = EncodedSource(ArraySource({"frame": np.arange(4)}, np.zeros(4, int)), tmp_path, ("latent",))
  source.read(2, ("latent",))  # opens the file
  text = pickle.dumps(source)
  assert len(text) < 10_000 < large.nbytes
  np.testing.assert_array_equal(pickle.loads(text).read(2, ("latent",))["latent"], large[2])


@pytest.mark.slow
def test_reader_processes_read_the_same(tmp_path):
  values, count = np.arange(300), 300
  for block in range(block_count(count)):
    write_block(tmp_path, block, {"latent": values[block_records(block, count)]})
  source = EncodedSource(ArraySource({"frame": values}, np.zeros(count, int)), tmp_path, ("latent",))
  options = {"batch_size": 100, "seed": 0, "target": ("latent",), "reference": ()}
  alone, several = make_loader(source, **options), make_loader(source, workers=2, **options)
  for _ in range(3):
    np.testing.assert_array_equal(next(several)["target"]["latent"], next(alone)["target"]["latent"])
  several.close()


@pytest.mark.parametrize(
  "damage", ["shorter", "changed", "foreign", "gone", "no headers", "odd headers", "text", "pipe", "other count"]
)
def test_a_damaged_block_is_detected(folder, damage):
  path, headers = folder / "latent-00001.npy", folder / "00001.json"
  assert read_block(folder, 1, ("latent", "mask"), 4, checksums=True) is not None
  data = bytearray(path.read_bytes())
  if damage == "shorter":
    path.write_bytes(data[:-4])
  elif damage == "changed":
    data[-1] ^= 1
    path.write_bytes(data)
  elif damage == "foreign":
    path.write_bytes(b"something else")
  elif damage == "gone":
    path.unlink()
  elif damage == "no headers":
    headers.unlink()
  elif damage == "odd headers":
    headers.write_text("[]")
  elif damage == "text":
    headers.write_text(headers.read_text().replace('"shape": [', '"shape": ["4", '))
  elif damage == "pipe":
    path.unlink()
    os.mkfifo(path)
  assert read_block(folder, 1, ("latent", "mask"), 3 if damage == "other count" else 4, checksums=True) is None
  assert read_block(folder, 0, ("latent", "mask"), 4, checksums=True) is not None


def test_an_object_array_is_not_unpickled(folder):
  np.save(folder / "latent-00001.npy", np.array([{}] * 4), allow_pickle=True)
  assert read_block(folder, 1, ("latent",), 4) is None


def test_missing_files_are_reported_in_one_line(folder):
  source = EncodedSource(ArraySource({"frame": np.arange(COUNT)}, np.zeros(COUNT, int)), folder, ("latent",))
  (folder / "latent-00002.npy").unlink()
  with pytest.raises(UserError, match="gone or damaged: start the training again"):
    source.read(9, ("latent",))
