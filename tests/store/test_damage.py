"""Damage to files of weights is detected when they are read."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny import drawn_weights, tiny_model, write_untrained

from anchor_jax.config.run import RunConfig
from anchor_jax.core.errors import UserError
from anchor_jax.files.manifest import LIST
from anchor_jax.formats.tensors import Tensor, read_metadata, read_safetensors, write_safetensors
from anchor_jax.models.networks import Networks
from anchor_jax.store.weights import read_part, resumed_weights

ARRAYS = {
  "wide": np.arange(24, dtype=np.float32).reshape(4, 6),
  "narrow": np.arange(10).astype(np.float16),
  "none": np.zeros((0, 3), np.float32),
  "one": np.array(3, np.float32),
}


def read(file):
  return {name: tensor.read() for name, tensor in read_safetensors(file).items()}


def test_every_flipped_byte_of_the_data_is_detected(tmp_path):
  file = tmp_path / "weights.safetensors"
  write_safetensors(file, {name: Tensor.of(array) for name, array in ARRAYS.items()}, {"format": "pt"})
  jax.tree.map(np.testing.assert_array_equal, read(file), ARRAYS)
  jax.tree.map(np.testing.assert_array_equal, load_file(file), ARRAYS)  # other programs read it too
  assert read_metadata(file)["format"] == "pt"
  content = file.read_bytes()
  start = 8 + int.from_bytes(content[:8], "little")
  for place in range(start, len(content)):
    damaged = bytearray(content)
    damaged[place] ^= 4
    file.write_bytes(damaged)
    with pytest.raises(UserError, match=r"is damaged .* is not as it was written"):
      read(file)
  for before, after in ((b'"F32"', b'"I32"'), (b"[4,6]", b"[6,4]"), (b'"wide"', b'"wild"')):
    file.write_bytes(content.replace(before, after))
    with pytest.raises(UserError, match="is damaged"):
      read(file)


def test_files_of_other_programs_are_read_without_checksums(tmp_path):
  file = tmp_path / "weights.safetensors"
  write_safetensors(file, {name: Tensor.of(array) for name, array in ARRAYS.items()})
  more = {**ARRAYS, "more": np.ones(3, np.float32)}
  save_file(more, file, read_metadata(file))  # with outdated checksums in its metadata
  jax.tree.map(np.testing.assert_array_equal, read(file), more)
  save_file(ARRAYS, file)
  jax.tree.map(np.testing.assert_array_equal, read(file), ARRAYS)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  folder = tmp_path_factory.mktemp("runs") / "ana"
  config = dataclasses.replace(RunConfig(part="body"), model=tiny_model())
  write_untrained(folder / "body", config, drawn_weights(Networks(config.model)), np.zeros((32, 32, 3), np.uint8))
  return folder, config


def flip(file):
  content = bytearray(file.read_bytes())
  content[-5] ^= 1
  file.write_bytes(content)


def edit(file):
  config = json.loads(file.read_text())
  file.write_text(json.dumps({**config, "norm_num_groups": 2}, indent=2, sort_keys=True) + "\n")


@pytest.mark.parametrize(
  "name,damage,reason",
  [
    ("vae/diffusion_pytorch_model.safetensors", flip, "body/base is damaged .*safetensors has changed"),
    ("vae/config.json", edit, r"body/base is damaged \(vae/config.json has changed\)"),
    ("vae", shutil.rmtree, r"body/base is damaged \(vae/config.json is missing\)"),
    ("", shutil.rmtree, "body/base is missing"),
  ],
)
@pytest.mark.parametrize("legacy", [False, True], ids=["with a list", "of an earlier version"])
def test_damaged_or_missing_networks_of_a_workdir_are_reported(workdir, tmp_path, name, damage, reason, legacy):
  folder, config = workdir
  shutil.copytree(folder, tmp_path / "ana")
  base = tmp_path / "ana/body/base"
  if legacy:
    (base / LIST).unlink()
    reason = {flip: "is not as it was written", shutil.rmtree: "base (lacks vae|is missing)"}.get(damage, "")
  assert read_part(tmp_path / "ana", "body").weights.keys() == read_part(folder, "body").weights.keys()
  damage(base / name)
  if not reason:
    return  # without a list, config.json has no checksum
  with pytest.raises(UserError, match=reason) as caught:
    read_part(tmp_path / "ana", "body")
  assert "\n" not in str(caught.value)
  if base.exists():  # a resumed run does not use other weights instead
    with pytest.raises(UserError, match=reason):
      resumed_weights(tmp_path / "ana/body", config)
