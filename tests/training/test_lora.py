"""Training adapters: exact resuming, and the same person read from a small adapter file."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from anchor_jax.config.run import LoRAConfig, run_config
from anchor_jax.config.stored import read_settings
from anchor_jax.core.errors import UserError
from anchor_jax.formats.folders import read_models
from anchor_jax.formats.tensors import read_safetensors
from anchor_jax.store.convert import to_adapters, to_diffusers
from anchor_jax.store.weights import CheckpointChoice, initial_weights, read_part, write_folder
from anchor_jax.train import train


@pytest.fixture(scope="module")
def lora_run(initialized_runs):
  """Starts from weights without zeros: newly initialized networks end in zeros, which block the gradient."""
  adapters = LoRAConfig(rank=2, alpha=4.0, targets=("to_q", "to_v", "conv1"))
  return dataclasses.replace(initialized_runs("body"), lora=adapters, steps=3)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, lora_run):
  folder = tmp_path_factory.mktemp("runs") / "ana"
  train(lora_run, folder, jax.devices()[:1])
  return folder


@pytest.fixture(scope="module")
def adapters(workdir, tmp_path_factory):
  folder = tmp_path_factory.mktemp("adapters") / "ana"
  assert to_adapters(workdir, folder) == ["body"]
  return folder


def assert_equal(left, right):
  jax.tree.map(np.testing.assert_array_equal, left, right)


def test_adapters_are_trained_and_the_base_models_stay_fixed(workdir, lora_run):
  before = initial_weights(lora_run)[1]
  frozen = read_models(workdir / "body/base", "body")[1]
  assert_equal(frozen["unet"], jax.tree.map(np.asarray, before["unet"]))
  stored = read_part(workdir, "body")
  after = stored.weights
  assert stored.step == 3 and "lora" not in after
  block = lambda tree: tree["unet"]["down_blocks_1"]["attentions_0"]["transformer_blocks_0"]["attn1"]
  assert np.abs(block(after)["to_q"]["kernel"] - block(frozen)["to_q"]["kernel"]).max() > 0
  assert_equal(block(after)["to_k"], block(frozen)["to_k"])
  assert_equal(after["unet"]["conv_in"], frozen["unet"]["conv_in"])


def test_a_person_read_from_adapters_is_the_trained_one(workdir, adapters):
  trained, adapted = read_part(workdir, "body"), read_part(adapters, "body")
  assert_equal(adapted.weights, trained.weights)
  assert adapted.config == trained.config and adapted.step == trained.step
  names = read_safetensors(adapters / "body/lora.safetensors")
  block = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
  assert names[f"{block}.lora_A.weight"].shape == (2, 8) and names[f"{block}.lora_B.weight"].shape == (8, 2)
  assert names["unet.mid_block.resnets.0.conv1.lora_B.weight"].shape == (8, 2, 1, 1)


def test_adapters_are_exported_to_diffusers_merged(workdir, adapters, tmp_path):
  for source in (workdir, adapters):
    to_diffusers(source, tmp_path / source.parent.name)
    read = read_models(tmp_path / source.parent.name, "body")[1]
    assert_equal(read["unet"], read_part(workdir, "body").weights["unet"])


def test_another_base_or_a_damaged_file_is_refused_in_one_line(workdir, adapters, tmp_path):
  with pytest.raises(UserError, match=r"changes other weights than those in .*--base=DIR"):
    read_part(
      adapters, "body", CheckpointChoice(base=str(workdir))
    )  # the person with adapters merged is not their base
  with pytest.raises(UserError, match="holds all weights: omit it"):
    read_part(workdir, "body", CheckpointChoice(base="studio"))
  shutil.copytree(adapters, tmp_path / "truncated")
  file = tmp_path / "truncated/body/lora.safetensors"
  file.write_bytes(file.read_bytes()[:-8])
  with pytest.raises(UserError, match="damaged or truncated"):
    read_part(tmp_path / "truncated", "body")


def test_a_trained_person_is_never_replaced(workdir, tmp_path):
  shutil.copytree(workdir / "body", tmp_path / "bob/body")
  with pytest.raises(UserError, match="a workdir with a trained body; choose a new folder"):
    to_adapters(workdir, tmp_path / "bob")
  assert read_part(tmp_path / "bob", "body").step == 3


@pytest.mark.slow
def test_a_run_continues_from_its_own_base_models(lora_run, tmp_path):
  """Even if config.init has other weights by then."""
  shutil.copytree(lora_run.init, tmp_path / "init")
  run = dataclasses.replace(lora_run, init=str(tmp_path / "init"))
  train(dataclasses.replace(run, steps=2), tmp_path / "ana", jax.devices()[:1])
  before = read_models(tmp_path / "ana/body/base", "body")[1]
  train(run, tmp_path / "same", jax.devices()[:1])
  other = initial_weights(dataclasses.replace(lora_run, init="", seed=7))
  write_folder(tmp_path / "other", *other, ("unet", "controlnet", "vae", "image_encoder", "null_context"), "float32")
  shutil.rmtree(tmp_path / "init")
  (tmp_path / "other").rename(tmp_path / "init")
  train(run, tmp_path / "ana", jax.devices()[:1])
  assert_equal(read_models(tmp_path / "ana/body/base", "body")[1], before)
  assert_equal(
    read_part(tmp_path / "ana", "body").weights["unet"], read_part(tmp_path / "same", "body").weights["unet"]
  )


def test_settings_that_adapters_exclude_are_refused(workdir, lora_run, tmp_path):
  plain = json.loads((workdir / "body/config.json").read_text())
  assert run_config(plain) == read_settings(workdir / "body")
  for change in ({"part": "vae"}, {"only_temporal": True}, {"train_image_encoder": True}):
    with pytest.raises(UserError, match="trains adapters only"):
      run_config({**plain, **change})
  shutil.copytree(workdir, tmp_path / "full")
  (tmp_path / "full/body/config.json").write_text(json.dumps({**plain, "lora": {"rank": 0}}))
  with pytest.raises(UserError, match="was trained without adapters"):
    to_adapters(tmp_path / "full", tmp_path / "few")
