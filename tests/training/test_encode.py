"""Encoded records of a run: computed once by all processes, and again only if networks or records change."""

import dataclasses
import pathlib
import shutil

import jax
import numpy as np
import pytest

from anchor_jax.config.run import MeshConfig
from anchor_jax.core import sharding
from anchor_jax.data import encoded
from anchor_jax.data.encoded import EncodedSource
from anchor_jax.data.faces import head_source
from anchor_jax.data.records import open_prepared
from anchor_jax.models.pictures import to_signed
from anchor_jax.store.weights import initial_weights
from anchor_jax.training import precompute
from anchor_jax.training.precompute import cache_key, encode_records, encoded_names


@pytest.fixture(scope="module")
def initial(initialized_runs):
  return initial_weights(initialized_runs("head"))


@pytest.fixture
def networks(initial):
  return initial[0]


@pytest.fixture
def weights(initial):
  return initial[1]


@pytest.fixture
def records(prepared, tmp_path):
  return open_prepared(shutil.copytree(prepared, tmp_path / "data", ignore=shutil.ignore_patterns("cache-*")))


@pytest.fixture
def written(monkeypatch):
  """Numbers of the blocks that get written."""
  numbers = []
  write = precompute.write_block
  monkeypatch.setattr(
    precompute, "write_block", lambda folder, block, arrays: numbers.append(block) or write(folder, block, arrays)
  )
  monkeypatch.setattr(encoded, "BLOCK", 4)
  return numbers


def encode(records, networks, weights, workdir, share=(0, 1), crop=16, mesh=None):
  key = cache_key(records, networks, weights, True, crop)
  source = head_source(records, crop)
  folder = encode_records(source, networks, weights, (records.folder, workdir), key, True, share, mesh)
  return EncodedSource(source, folder, encoded_names(networks, True)), folder


def values(source):
  return [source.read(index, ("latent", "inpaint", "context")) for index in range(len(source))]


def test_records_are_encoded_once_as_the_networks_encode_them(
  records, networks, weights, tmp_path, written, monkeypatch
):
  devices = set()
  host = precompute._host
  monkeypatch.setattr(precompute, "_host", lambda values: devices.add(len(values.sharding.device_set)) or host(values))
  mesh = sharding.own_devices(sharding.make_mesh(MeshConfig().sizes, jax.devices()[:2]))
  source, folder = encode(records, networks, weights, tmp_path, mesh=mesh)
  assert written == [0, 1, 2] and folder.parent == records.folder and devices == {2}
  frames = np.stack([source.read(index, ("frame",))["frame"] for index in range(10)])
  latents = jax.jit(lambda weights, frames: networks.encode(weights, to_signed(frames)))(weights, frames)
  np.testing.assert_allclose(np.stack([one["latent"] for one in values(source)]), latents, atol=1e-5)

  expected = values(source)
  reused, reused_folder = encode(records, networks, weights, tmp_path, mesh=mesh)
  assert written == [0, 1, 2] and reused_folder == folder
  jax.tree.map(np.testing.assert_array_equal, values(reused), expected)

  path = folder / "context-00001.npy"
  path.write_bytes(path.read_bytes()[:-8])
  repaired, _ = encode(records, networks, weights, tmp_path, mesh=mesh)
  assert written == [0, 1, 2, 1]
  jax.tree.map(np.testing.assert_array_equal, values(repaired), expected)


def test_other_networks_records_or_crops_have_another_key(records, networks, weights):
  key = lambda *changed, crop=16: cache_key(*changed, True, crop)
  first = key(records, networks, weights)
  assert first == key(open_prepared(records.folder), networks, weights)
  more = lambda name: {**weights, name: jax.tree.map(lambda leaf: leaf + 1, weights[name])}
  others = [key(records, networks, more(name)) for name in ("vae", "image_encoder")]
  others.append(key(records, dataclasses.replace(networks, dtype="bfloat16"), weights))
  others.append(key(records, networks, weights, crop=32))
  others.append(cache_key(records, networks, weights, False, 16))
  file = next(path for path in records.folder.iterdir() if "array_record" in path.name)
  data = bytearray(file.read_bytes())
  data[-100] ^= 1
  file.write_bytes(data)
  others.append(key(records, networks, weights))
  assert len({first, *others}) == 7
  assert key(records, networks, {**weights, "unet": {}}) == others[-1]  # the UNet does not encode


def test_two_processes_encode_what_one_does_each_its_shard(records, networks, weights, tmp_path, written, monkeypatch):
  alone, _ = encode(records, networks, weights, tmp_path)
  expected = values(alone)
  shutil.rmtree(next(records.folder.glob("cache-*")))
  written.clear()

  def other_process(name):  # while the first process waits
    monkeypatch.setattr(precompute.multihost_utils, "sync_global_devices", lambda name: None)
    jax.tree.map(
      np.testing.assert_array_equal, values(encode(records, networks, weights, tmp_path, (1, 2))[0]), expected
    )
    assert written == [0, 2, 1]

  monkeypatch.setattr(precompute.multihost_utils, "sync_global_devices", other_process)
  shared, _ = encode(records, networks, weights, tmp_path, (0, 2))
  assert written == [0, 2, 1]
  jax.tree.map(np.testing.assert_array_equal, values(shared), expected)


def test_a_process_without_a_shared_disk_encodes_everything(records, networks, weights, tmp_path, written, monkeypatch):
  monkeypatch.setattr(precompute.multihost_utils, "sync_global_devices", lambda name: None)
  source, _ = encode(records, networks, weights, tmp_path, (1, 2))
  assert written == [1, 0, 2] and len(values(source)) == 10


def test_without_write_access_to_the_prepared_folder_the_workdir_is_used(
  records, networks, weights, tmp_path, written, monkeypatch
):
  mkdir = pathlib.Path.mkdir

  def refuse(path, *arguments, **more):
    if records.folder in path.parents:
      raise PermissionError(13, "Permission denied")
    mkdir(path, *arguments, **more)

  monkeypatch.setattr(pathlib.Path, "mkdir", refuse)
  for _ in range(2):
    source, folder = encode(records, networks, weights, tmp_path / "run/head")
    assert folder.parent == tmp_path / "run/head" and written == [0, 1, 2]
  assert values(source)
