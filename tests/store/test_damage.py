"""A bit that flips in a file of weights is noticed when it is read, wherever it is."""

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


def test_every_flipped_byte_of_the_data_is_noticed(tmp_path):
  file = tmp_path / "weights.safetensors"
  write_safetensors(file, {name: Tensor.of(array) for name, array in ARRAYS.items()}, {"format": "pt"})
  jax.tree.map(np.testing.assert_array_equal, read(file), ARRAYS)
  jax.tree.map(np.testing.assert_array_equal, load_file(file), ARRAYS)  # for other programs a file like any
  assert read_metadata(file)["format"] == "pt"
  content = file.read_bytes()
  start = 8 + int.from_bytes(content[:8], "little")
  for place in range(start, len(content)):
    hurt = bytearray(content)
    hurt[place] ^= 4
    file.write_bytes(hurt)
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
  save_file(more, file, read_metadata(file))  # one that keeps the metadata, whatever it says
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
  "name,harm,reason",
  [
    ("vae/diffusion_pytorch_model.safetensors", flip, "body/base is damaged .*safetensors has changed"),
    ("vae/config.json", edit, r"body/base is damaged \(vae/config.json has changed\)"),
    ("vae", shutil.rmtree, r"body/base is damaged \(vae/config.json is missing\)"),
    ("", shutil.rmtree, "body/base is missing"),
  ],
)
@pytest.mark.parametrize("earlier", [False, True], ids=["with a list", "of an earlier version"])
def test_a_damaged_or_missing_network_of_a_workdir_ends_in_one_line(workdir, tmp_path, name, harm, reason, earlier):
  folder, config = workdir
  shutil.copytree(folder, tmp_path / "ana")
  base = tmp_path / "ana/body/base"
  if earlier:
    (base / LIST).unlink()
    reason = {flip: "is not as it was written", shutil.rmtree: "base (lacks vae|is missing)"}.get(harm, "")
  assert read_part(tmp_path / "ana", "body").weights.keys() == read_part(folder, "body").weights.keys()
  harm(base / name)
  if not reason:
    return  # nobody knows what stood in such a file
  with pytest.raises(UserError, match=reason) as caught:
    read_part(tmp_path / "ana", "body")
  assert "\n" not in str(caught.value)
  if base.exists():  # a run that goes on does not take another network instead
    with pytest.raises(UserError, match=reason):
      resumed_weights(tmp_path / "ana/body", config)
