import dataclasses
import json
import os

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

from anchor_jax.config.networks import ControlNetConfig, UNetConfig, VAEConfig
from anchor_jax.config.stored import read_settings
from anchor_jax.core.errors import UserError
from anchor_jax.formats.diffusers import load_model, load_network_config, load_schedule, save_model, save_schedule
from anchor_jax.formats.tensors import read_metadata, read_safetensors
from tests.helpers.strange import strange_files

WEIGHTS = "diffusion_pytorch_model.safetensors"
MODELS = ("body/unet", "body/controlnet", "body/vae", "body/image_encoder", "body/text_encoder", "head/unet")


def assert_same(one, other):
  assert one.keys() == other.keys()
  for name, array in one.items():
    assert array.dtype == other[name].dtype, name
    np.testing.assert_array_equal(array, other[name], err_msg=name)


@pytest.mark.parametrize("name", MODELS)
def test_saved_models_are_loaded_bit_for_bit(name, reference, tmp_path):
  model = load_model(reference / name)
  save_model(tmp_path, model.config, model.params)
  (file,) = (reference / name).glob("*.safetensors")
  assert_same(load_file(file), load_file(tmp_path / file.name))
  assert load_network_config(tmp_path) == model.config


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_weights_are_written_in_the_requested_type(dtype, reference, tmp_path):
  model = load_model(reference / "body/vae", dtype=np.float32)
  save_model(tmp_path, model.config, model.params, dtype)
  read = load_model(tmp_path)
  assert {str(leaf.dtype) for leaf in jax.tree.leaves(read.params)} == {dtype}
  wide = load_model(tmp_path, dtype=np.float32).params
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2**-8), wide, model.params)


def test_unknown_types_and_too_large_values_are_refused(reference, tmp_path):
  model = load_model(reference / "body/vae", dtype=np.float32)
  with pytest.raises(UserError, match='Did you mean "float16"'):
    save_model(tmp_path, model.config, model.params, "flot16")
  model.params["quant_conv"]["bias"][0] = 1e6
  with pytest.raises(UserError, match="do not fit float16"):
    save_model(tmp_path, model.config, model.params, "float16")
  assert not list(tmp_path.glob("*.safetensors"))


def test_every_missing_unexpected_and_mis_shaped_key_is_listed(vae_folder):
  tensors = load_file(vae_folder / WEIGHTS)
  for name in ("decoder.conv_in.bias", "quant_conv.weight"):
    del tensors[name]
  tensors["decoder.extra.weight"] = np.zeros(3, np.float32)
  tensors["encoder.conv_in.bias"] = np.zeros(5, np.float32)
  save_file(tensors, vae_folder / WEIGHTS)
  with pytest.raises(UserError) as caught:
    load_model(vae_folder)
  message = str(caught.value)
  assert "missing: decoder.conv_in.bias, quant_conv.weight;" in message
  assert "unexpected: decoder.extra.weight;" in message
  assert message.endswith("mis-shaped: encoder.conv_in.bias is [5] and not [16]")
  assert "\n" not in message


def test_shards_are_read(vae_folder):
  before = load_model(vae_folder).params
  tensors = sorted(load_file(vae_folder / WEIGHTS).items())
  (vae_folder / WEIGHTS).unlink()
  index = {}
  for part in range(3):
    shard = f"diffusion_pytorch_model-{part + 1:05}-of-00003.safetensors"
    save_file(dict(tensors[part::3]), vae_folder / shard)
    index |= {name: shard for name, _ in tensors[part::3]}
  (vae_folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
  assert_same(flatten_dict(before), flatten_dict(load_model(vae_folder).params))
  (vae_folder / "diffusion_pytorch_model-00002-of-00003.safetensors").unlink()
  with pytest.raises(UserError, match="lacks the shards diffusion_pytorch_model-00002"):
    load_model(vae_folder)


@pytest.mark.parametrize("convolutions", [False, True])
def test_older_names_of_the_autoencoder_s_attention_are_read(vae_folder, convolutions):
  before = load_model(vae_folder).params
  old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
  tensors = {}
  for name, array in load_file(vae_folder / WEIGHTS).items():
    for new_name, old_name in old.items():
      if f".{new_name}." in name:
        name = name.replace(f".{new_name}.", f".{old_name}.")
        if convolutions and array.ndim == 2:
          array = array[:, :, None, None]
    tensors[name] = array
  assert "decoder.mid_block.attentions.0.proj_attn.weight" in tensors
  save_file(tensors, vae_folder / WEIGHTS)
  assert_same(flatten_dict(before), flatten_dict(load_model(vae_folder).params))


def test_flax_weights_are_refused_with_a_remedy(vae_folder):
  (vae_folder / WEIGHTS).rename(vae_folder / "diffusion_flax_model.msgpack")
  with pytest.raises(UserError, match="holds Flax weights, which are not read: fetch the safetensors of this model"):
    load_model(vae_folder)


def test_pickled_files_are_refused_with_a_remedy(vae_folder):
  (vae_folder / WEIGHTS).rename(vae_folder / "diffusion_pytorch_model.bin")
  with pytest.raises(UserError, match=r"weights_only=True.*diffusion_pytorch_model\.safetensors") as caught:
    load_model(vae_folder)
  assert "\n" not in str(caught.value)


def test_damage_is_reported(vae_folder, tmp_path):
  content = (vae_folder / WEIGHTS).read_bytes()
  (vae_folder / WEIGHTS).write_bytes(content[:-100])
  with pytest.raises(UserError, match="damaged or truncated"):
    load_model(vae_folder)
  (vae_folder / WEIGHTS).write_bytes(b"")
  with pytest.raises(UserError, match="damaged or truncated"):
    load_model(vae_folder)
  (vae_folder / "config.json").write_text("{")
  with pytest.raises(UserError, match="is damaged"):
    load_model(vae_folder)
  with pytest.raises(UserError, match="does not exist"):
    load_model(tmp_path / "none")


def test_a_wrong_class_is_reported(vae_folder):
  with pytest.raises(UserError, match="holds a AutoencoderKL, not a UNet2DConditionModel"):
    load_model(vae_folder, UNetConfig)
  fields = json.loads((vae_folder / "config.json").read_text())
  (vae_folder / "config.json").write_text(json.dumps({**fields, "_class_name": "VQModel"}))
  with pytest.raises(UserError, match="VQModel"):
    load_model(vae_folder)


def test_both_towers_are_read_from_a_clip_model(reference, tmp_path):
  tensors, fields = {"logit_scale": np.ones((), np.float16)}, {"architectures": ["CLIPModel"]}
  for role, key in (("image_encoder", "vision_config"), ("text_encoder", "text_config")):
    tensors |= load_file(reference / "body" / role / "model.safetensors")
    fields[key] = json.loads((reference / "body" / role / "config.json").read_text())
  for role in ("image_encoder", "text_encoder"):
    folder = tmp_path / role
    folder.mkdir()
    save_file({**tensors, "visual_projection.weight": np.zeros((3, 3), np.float16)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(fields))
    tower = load_model(reference / "body" / role)
    read = load_model(folder)
    assert read.config == tower.config
    assert_same(flatten_dict(read.params), flatten_dict(tower.params))


@pytest.mark.parametrize("role", ["image_encoder", "text_encoder"])
def test_towers_are_read_as_newer_versions_of_transformers_write_them(role, reference, tmp_path):
  tensors = load_file(reference / "body" / role / "model.safetensors")
  save_file({name.split(".", 1)[1]: array for name, array in tensors.items()}, tmp_path / "model.safetensors")
  (tmp_path / "config.json").write_text((reference / "body" / role / "config.json").read_text())
  assert_same(flatten_dict(load_model(tmp_path).params), flatten_dict(load_model(reference / "body" / role).params))


def test_saved_schedules_are_loaded(reference, tmp_path):
  schedule = load_schedule(reference / "body/scheduler")
  save_schedule(tmp_path, schedule)
  assert load_schedule(tmp_path) == schedule


def test_parameters_of_another_model_are_refused(reference, tmp_path):
  model = load_model(reference / "body/vae")
  with pytest.raises(UserError, match="do not fit the ControlNetModel"):
    save_model(tmp_path, ControlNetConfig(), model.params)
  wider = dataclasses.replace(model.config, latent_channels=5)
  with pytest.raises(UserError, match="decoder/conv_in/kernel"):
    save_model(tmp_path, wider, model.params)
  assert isinstance(model.config, VAEConfig)


def test_temporal_layers_are_added_and_saved(reference, tmp_path):
  plain = load_model(reference / "body/unet")
  run_as = dataclasses.replace(UNetConfig(), temporal_kernel=3, temporal_attention=True, remat=True)
  model = load_model(reference / "body/unet", run_as=run_as)
  added = flatten_dict(model.params).keys() - flatten_dict(plain.params).keys()
  assert {path[-1] for path in added} >= {"taps", "kernel"}
  assert model.config == dataclasses.replace(plain.config, temporal_kernel=3, temporal_attention=True, remat=True)
  for path in added:
    flatten_dict(model.params)[path][...] = 0.5
  save_model(tmp_path, model.config, model.params)
  assert_same(flatten_dict(load_model(tmp_path, run_as=UNetConfig()).params), flatten_dict(model.params))


def test_paths_that_are_no_regular_files_are_refused(tmp_path):
  for path, message in strange_files(tmp_path / "odd", ".safetensors").items():
    for read in (read_safetensors, read_metadata):
      with pytest.raises(UserError, match=message):
        read(path)
  (tmp_path / "vae").mkdir()
  os.mkfifo(tmp_path / "vae" / "config.json")
  with pytest.raises(UserError, match="is a pipe"):
    load_model(tmp_path / "vae")
  with pytest.raises(UserError, match="is a pipe"):
    read_settings(tmp_path / "vae")
