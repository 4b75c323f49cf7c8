"""The parts of a person that a folder holds, and how they are read and saved."""

import dataclasses
import shutil
import struct
import sys
import zlib

import jax
import numpy as np
import pytest
from tiny import tiny_model, weight_shapes

from anchor_jax.config.run import DataConfig, ModelConfig, RunConfig, SampleConfig
from anchor_jax.config.stored import write_settings
from anchor_jax.core.errors import UserError
from anchor_jax.files.manifest import LIST
from anchor_jax.files.shipped import shipped
from anchor_jax.inference.flags import parse_flags, sampling_changes
from anchor_jax.models.networks import Networks
from anchor_jax.store.part import Part
from anchor_jax.store.saving import write_person
from anchor_jax.store.weights import CheckpointChoice, initial_weights, parts_in, read_part, trained_keys
from anchor_jax.training.batches import initial_model
from anchor_jax.video.picture import read_picture


def test_the_package_s_weights_are_read_as_a_person():
  assert parts_in("studio") == ("vae", "body", "head")
  head = read_part("studio", "head")
  assert (head.step, head.reference_image) == (0, None) and head.config.part == "head"
  assert head.networks.inpaints and head.config.model.unet.in_channels == 17
  assert all(type(leaf) is np.ndarray for leaf in head.weights["unet"]["conv_in"].values())


def test_studio_means_the_package_s_weights_even_beside_a_folder_of_that_name(tmp_path, monkeypatch, caplog):
  """Reading weights, settings and sizes all follow the same rule."""
  monkeypatch.chdir(tmp_path)
  folder = tmp_path / "studio"
  config = RunConfig(sample=SampleConfig(window=3, overlap=2))
  write_settings(folder / "body", config)
  (folder / "body" / "checkpoints" / "1").mkdir(parents=True)
  flags = ["--motion=m.mp4", "--output=o.mp4", "--overlap=4"]
  monkeypatch.setattr(sys, "argv", ["generate", "--checkpoint=studio", *flags])
  args = parse_flags(None)
  assert sampling_changes(args) == {"overlap": 4}  # more than in the folder's windows
  assert parts_in(args.checkpoint) == parts_in("studio") == ("vae", "body", "head")
  assert initial_model(RunConfig(init="studio", model=tiny_model())).unet.in_channels == 8
  assert "name the folder studio of this directory ./studio" in caplog.text
  monkeypatch.setattr(sys, "argv", ["generate", "--checkpoint=./studio", *flags])
  args = parse_flags(None)
  assert parts_in(args.checkpoint) == parts_in("./studio") == ("body",)
  with pytest.raises(UserError, match="below the window, 3"):
    sampling_changes(args)


def test_a_run_can_omit_the_refiner_of_its_init():
  config = RunConfig(init="studio", data=DataConfig(pose_channels="full"))
  networks, weights = initial_weights(config)
  assert networks.model.refiner is not None and "refiner" in weights
  for none in (None, "None"):  # from a file and the command line
    without = dataclasses.replace(config, model=ModelConfig(refiner=none))
    networks, weights = initial_weights(without)
    assert networks.refiner is networks.model.refiner is None and "refiner" not in weights
    assert "refiner" not in trained_keys(dataclasses.replace(without, model=networks.model))
  assert ModelConfig().own_refiner is None and ModelConfig().scale == 1
  with pytest.raises(UserError, match="sizes, None or init"):
    ModelConfig(refiner="some")


def test_a_folder_of_models_has_the_parts_whose_models_are_complete(tmp_path):
  shutil.copytree(shipped(), tmp_path / "sd")
  shutil.rmtree(tmp_path / "sd" / "head" / "unet")
  shutil.copytree(tmp_path / "sd" / "body" / "unet", tmp_path / "sd" / "unet")
  assert parts_in(tmp_path / "sd") == ("vae", "body")  # the shared UNet has too few channels for a head
  with pytest.raises(UserError, match="holds no head, it lacks unet"):
    read_part(tmp_path / "sd", "head")
  shutil.rmtree(tmp_path / "sd" / "image_encoder")
  assert parts_in(str(tmp_path / "sd")) == ("vae",)
  with pytest.raises(UserError, match="omit --checkpoint-step"):
    read_part(tmp_path / "sd", "vae", CheckpointChoice(step="3"))
  with pytest.raises(UserError, match="no folder"):
    parts_in(tmp_path / "nobody")
  (tmp_path / "empty").mkdir()
  assert parts_in(tmp_path / "empty") == ()


@pytest.fixture(scope="module")
def person():
  """Body and head of tiny networks, with different null contexts, and settings that are not the defaults."""
  parts, rng = {}, np.random.default_rng(0)
  for part, size in (("body", 32), ("head", 16)):
    model = tiny_model(inpaint=part == "head")
    sample = SampleConfig("dpm++2m", 3, window=4, overlap=1, guidance=1.5, guidance_interval=(0.1, 0.9))
    model = dataclasses.replace(model, refiner=None)  # as for weights without one
    config = RunConfig(part, model=model, sample=sample, dtype="bfloat16")
    networks = Networks(config.model, config.dtype)
    shapes = weight_shapes(networks)
    weights = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    weights |= {name: parts["body"].weights[name] for name in ("vae", "image_encoder") if parts}
    picture = rng.integers(0, 256, (size, size, 3), np.uint8)
    parts[part] = Part(config, networks, weights, 7, picture)
  return parts


def test_a_saved_person_is_loaded_bit_for_bit(person, tmp_path):
  write_person(tmp_path / "ana", person)
  assert parts_in(tmp_path / "ana") == ("vae", "body", "head")
  assert (tmp_path / "ana/vae/config.json").exists() and not (tmp_path / "ana/body/vae").exists()
  for name, part in person.items():
    read = read_part(tmp_path / "ana", name)
    assert (read.config, read.networks, read.step) == (part.config, part.networks, part.step)
    np.testing.assert_array_equal(read.reference_image, part.reference_image)
    jax.tree.map(np.testing.assert_array_equal, read.weights, part.weights)
    assert {leaf.dtype for leaf in jax.tree.leaves(read.weights)} == {np.dtype(np.float32)}
  write_person(tmp_path / "ana", {"body": person["body"]})  # a saved person may be replaced
  assert parts_in(tmp_path / "ana") == ("vae", "body")
  (tmp_path / "ana" / LIST).unlink()  # even if an earlier version saved it
  write_person(tmp_path / "ana", person)
  (tmp_path / "ana" / "letter.txt").write_text("dear")
  with pytest.raises(UserError, match=r"letter\.txt"):
    write_person(tmp_path / "ana", person)


def test_damaged_files_of_a_saved_person_are_reported_in_one_line(person, tmp_path):
  write_person(tmp_path / "ana", person)
  for name, content in (
    ("body/step.json", b'{"step": "7"}'),
    ("body/config.json", b"[" * 100_000),
    ("body/appearance.png", b"GIF89a"),
    ("body/null_context.safetensors", b"\xff" * 16),
    ("vae/config.json", b'{"_class_name": "AutoencoderKL", "layers_per_block": -1}'),
    ("scheduler/scheduler_config.json", b"[" * 100_000),
  ):
    shutil.copytree(tmp_path / "ana", tmp_path / "copy")
    (tmp_path / "copy" / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
      read_part(tmp_path / "copy", "body")
    assert "\n" not in str(caught.value), name
    shutil.rmtree(tmp_path / "copy")


def png(width, height):
  """Returns a PNG of few bytes that claims a size."""
  chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
  header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
  rows = zlib.compress(b"\0" * (1 + 3 * width) * min(height, 4))
  return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
  "content,reason",
  [
    (png(60000, 60000), "pixels: give a smaller picture"),
    (png(4, 4)[:40], "not a readable picture"),
    (b"\x89PNG\r\n\x1a\n", "not a readable picture"),
    (b"", "not a readable picture"),
  ],
  ids=("bomb", "truncated", "header", "empty"),
)
def test_damaged_and_oversized_pictures_are_reported_in_one_line(tmp_path, content, reason):
  (tmp_path / "ana.png").write_bytes(content)
  with pytest.raises(UserError, match=reason) as caught:
    read_picture(tmp_path / "ana.png")
  assert "\n" not in str(caught.value)
  (tmp_path / "ana.png").write_bytes(png(4, 4))
  assert read_picture(tmp_path / "ana.png").shape == (4, 4, 3)
