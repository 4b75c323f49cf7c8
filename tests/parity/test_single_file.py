"""Single files and kohya's adapters: converted weights equal those of diffusers, bit for bit."""

import dataclasses

import ldm
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
  convert_controlnet_checkpoint,
  convert_ldm_clip_checkpoint,
  convert_ldm_unet_checkpoint,
  convert_ldm_vae_checkpoint,
)
from safetensors.numpy import save_file
from safetensors.torch import load_file

from anchor_jax.config.networks import ControlNetConfig, UNetConfig, VAEConfig
from anchor_jax.formats.diffusers import write_json
from anchor_jax.formats.ldm_names import unet_names, vae_names
from anchor_jax.formats.names import torch_name
from anchor_jax.formats.registry import parameter_shapes
from anchor_jax.store import convert as conversion
from anchor_jax.store.convert import FileChoice

HEAD = dataclasses.replace(ldm.UNET, in_channels=9)
LINEAR = dataclasses.replace(ldm.UNET, use_linear_projection=True, attention_head_dim=(1, 1, 1))


def assert_same(expected, folder):
  (file,) = folder.glob("*.safetensors")
  found = load_file(file)
  assert found.keys() == expected.keys()
  for name, tensor in expected.items():
    assert torch.equal(found[name], tensor), name


def diffusers_state(kind, file, config, folder):
  """The state that diffusers' class loads: sizes from a folder, numbers from the single file."""
  write_json(folder / "config.json", config.to_json())
  return kind.from_single_file(str(file), config=str(folder), local_files_only=True).state_dict()


@pytest.mark.parametrize("unet", [ldm.UNET, HEAD, LINEAR], ids=("1.5", "inpainting", "2"))
def test_models_in_single_files(unet, tmp_path):
  file = tmp_path / "model.safetensors"
  ldm.write_checkpoint(file, unet)
  conversion.from_diffusers(file, tmp_path / "out", make_controlnet=False, choice=FileChoice(prediction="epsilon"))
  place = "head/unet" if unet is HEAD else "unet"
  assert_same(diffusers_state(UNet2DConditionModel, file, unet, tmp_path / "sizes"), tmp_path / "out" / place)
  assert_same(diffusers_state(AutoencoderKL, file, ldm.VAE, tmp_path / "vae_sizes"), tmp_path / "out/vae")
  text = convert_ldm_clip_checkpoint(load_file(file))
  text = {name: tensor for name, tensor in text.items() if "position_ids" not in name}
  assert_same(text, tmp_path / "out/text_encoder")


def test_averaged_weights(tmp_path):
  file = tmp_path / "model.safetensors"
  keys = ldm.ldm_tensors(ldm.UNET, ldm.drawn(ldm.UNET, 5), "diffusion_model.")
  ldm.write_checkpoint(file, **{f"model_ema.{key.replace('.', '')}": array for key, array in keys.items()})
  for averaged in (False, True):
    out = tmp_path / str(averaged)
    conversion.from_diffusers(file, out, make_controlnet=False, choice=FileChoice(averaged=averaged))
    fields = {"layers_per_block": 1, "class_embed_type": None, "addition_embed_type": None}
    assert_same(convert_ldm_unet_checkpoint(load_file(file), fields, extract_ema=averaged), out / "unet")


def test_controlnets(tmp_path):
  # diffusers' table of names covers only the published size of the stem: eight convolutions.
  file = tmp_path / "control.safetensors"
  save_file(ldm.ldm_tensors(ldm.CONTROLNET, ldm.drawn(ldm.CONTROLNET, 3), "control_model."), file)
  conversion.from_diffusers(file, tmp_path / "out")
  assert_same(diffusers_state(ControlNetModel, file, ldm.CONTROLNET, tmp_path / "sizes"), tmp_path / "out")


FIELDS = {"layers_per_block": 2, "class_embed_type": None, "addition_embed_type": None}
FULL_SIZE = {
  "unet": (UNetConfig(), "model.diffusion_model.", convert_ldm_unet_checkpoint),
  "controlnet": (ControlNetConfig.from_unet(UNetConfig()), "control_model.", convert_controlnet_checkpoint),
  "vae": (VAEConfig(), "first_stage_model.", convert_ldm_vae_checkpoint),
}


@pytest.mark.parametrize("role", FULL_SIZE)
def test_every_name_of_the_published_sizes(role):
  config, prefix, convert = FULL_SIZE[role]
  names = [torch_name(path) for path in parameter_shapes(config)]
  keys = list(ldm.ldm_names(config, names).values())
  fields = {**config.to_json(), **FIELDS} if role != "vae" else config.to_json()
  converted = convert({f"{prefix}{key}": torch.tensor(number) for number, key in enumerate(keys)}, config=fields)
  own = (vae_names if role == "vae" else unet_names)(keys)
  assert {name: keys[int(number)] for name, number in converted.items()} == {name: key for key, name in own.items()}
  assert sorted(converted) == sorted(names)


def kohya(layers):
  rng = np.random.default_rng(4)
  tensors = {}
  for layer, (out, *rest) in layers.items():
    tensors[f"lora_unet_{layer}.lora_down.weight"] = rng.normal(size=(3, *rest)).astype("f4")
    ones = (1,) * (len(rest) - 1)
    tensors[f"lora_unet_{layer}.lora_up.weight"] = rng.normal(size=(out, 3, *ones)).astype("f4")
    tensors[f"lora_unet_{layer}.alpha"] = np.array(2.0, "f4")
  return tensors


ATTENTIONS = {
  "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q": (32, 32),
  "down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_v": (64, 64),
  "mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0": (64, 64),
  "up_blocks_2_attentions_1_transformer_blocks_0_ff_net_0_proj": (256, 32),
  "up_blocks_2_attentions_1_proj_in": (32, 32, 1, 1),
}
CONVOLUTIONS = {
  "down_blocks_1_resnets_0_conv1": (64, 32, 3, 3),
  "mid_block_resnets_1_time_emb_proj": (64, 128),
  "up_blocks_0_upsamplers_0_conv": (64, 64, 3, 3),
}


@pytest.mark.parametrize("layers", [ATTENTIONS, CONVOLUTIONS], ids=("linear", "convolutions"))
def test_kohyas_adapters(layers, tmp_path):
  file, style = tmp_path / "model.safetensors", tmp_path / "style.safetensors"
  ldm.write_checkpoint(file)
  save_file(kohya(layers), style)
  conversion.from_diffusers(file, tmp_path / "out", make_controlnet=False, choice=FileChoice(loras=[(style, 0.7)]))
  write_json(tmp_path / "sizes/config.json", ldm.UNET.to_json())
  unet = UNet2DConditionModel.from_single_file(str(file), config=str(tmp_path / "sizes"), local_files_only=True)
  before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
  state, alphas = StableDiffusionPipeline.lora_state_dict(str(tmp_path), weight_name=style.name)
  StableDiffusionPipeline.load_lora_into_unet(state, network_alphas=alphas, unet=unet)
  unet.fuse_lora(lora_scale=0.7)
  fused = {name.replace(".base_layer", ""): t for name, t in unet.state_dict().items() if "lora_" not in name}
  found = load_file(tmp_path / "out/unet/diffusion_pytorch_model.safetensors")
  assert found.keys() == fused.keys()
  changed = [name for name, tensor in fused.items() if not torch.equal(tensor, before[name])]
  assert len(changed) == len(layers)
  for name, tensor in fused.items():
    torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-5, msg=name)

  # Converted without a model, under diffusers' names.
  conversion.from_diffusers(style, tmp_path / "alone")
  plain = UNet2DConditionModel.from_single_file(str(file), config=str(tmp_path / "sizes"), local_files_only=True)
  state, alphas = StableDiffusionPipeline.lora_state_dict(str(tmp_path / "alone"), weight_name="lora.safetensors")
  StableDiffusionPipeline.load_lora_into_unet(state, network_alphas=alphas, unet=plain)
  plain.fuse_lora(lora_scale=0.7)
  for name, tensor in plain.state_dict().items():
    if "lora_" not in name:
      torch.testing.assert_close(tensor, fused[name.replace(".base_layer", "")], rtol=1e-6, atol=1e-5, msg=name)
