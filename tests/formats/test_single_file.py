import dataclasses
import json
import os
from pathlib import Path

import ldm
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

from anchor_jax.config.networks import ControlNetConfig, ScheduleConfig, UNetConfig, VAEConfig
from anchor_jax.core.errors import UserError
from anchor_jax.formats.diffusers import load_model
from anchor_jax.formats.ldm_names import unet_names, vae_names
from anchor_jax.formats.single_file import open_network, open_single_file
from anchor_jax.formats.sizes import config_of
from anchor_jax.store import convert
from anchor_jax.store.convert import FileChoice

PARAMETERS = Path(__file__).parents[1] / "golden" / "parameters"
HEAD = dataclasses.replace(ldm.UNET, in_channels=9)
LINEAR = dataclasses.replace(ldm.UNET, use_linear_projection=True, attention_head_dim=(1, 1, 1))


def full_size(role):
  """Returns {torch name: shape} of a network of Stable Diffusion 1.5."""
  lines = (line.split() for line in (PARAMETERS / f"{role}.txt").read_text().splitlines())
  return {name: tuple(int(size) for size in shape.split("x")) for name, shape in lines}


@pytest.mark.parametrize(
  ("role", "config"),
  [
    ("unet", UNetConfig()),
    ("head_unet", UNetConfig(in_channels=9)),
    ("controlnet", ControlNetConfig.from_unet(UNetConfig())),
    ("vae", VAEConfig()),
  ],
)
def test_names_and_sizes_of_published_models(role, config):
  shapes = full_size(role)
  ldm_names = ldm.ldm_names(config, shapes)
  restored = (vae_names if role == "vae" else unet_names)(ldm_names.values())
  assert {name: restored[ldm_names[name]] for name in shapes} == {name: name for name in shapes}
  assert config_of(shapes) == config


@pytest.mark.parametrize(
  ("rename", "key", "name"),
  [
    (unet_names, "input_blocks.4.0.skip_connection.weight", "down_blocks.1.resnets.0.conv_shortcut.weight"),
    (unet_names, "input_blocks.11.0.out_layers.3.bias", "down_blocks.3.resnets.1.conv2.bias"),
    (unet_names, "input_blocks.9.0.op.weight", "down_blocks.2.downsamplers.0.conv.weight"),
    (unet_names, "output_blocks.2.1.conv.weight", "up_blocks.0.upsamplers.0.conv.weight"),
    (unet_names, "output_blocks.5.2.conv.weight", "up_blocks.1.upsamplers.0.conv.weight"),
    (unet_names, "output_blocks.11.1.proj_out.bias", "up_blocks.3.attentions.2.proj_out.bias"),
    (unet_names, "middle_block.2.emb_layers.1.weight", "mid_block.resnets.1.time_emb_proj.weight"),
    (vae_names, "encoder.down.1.block.0.nin_shortcut.weight", "encoder.down_blocks.1.resnets.0.conv_shortcut.weight"),
    (vae_names, "decoder.up.0.block.0.nin_shortcut.bias", "decoder.up_blocks.3.resnets.0.conv_shortcut.bias"),
    (vae_names, "decoder.up.3.upsample.conv.weight", "decoder.up_blocks.0.upsamplers.0.conv.weight"),
    (vae_names, "encoder.mid.attn_1.proj_out.weight", "encoder.mid_block.attentions.0.to_out.0.weight"),
  ],
)
def test_keys_of_published_files(rename, key, name):
  """Copied from the files of Stable Diffusion 1.5, since the other tests compare our tables with themselves."""
  role, config = ("vae", VAEConfig()) if rename is vae_names else ("unet", UNetConfig())
  assert rename(ldm.ldm_names(config, full_size(role)).values())[key] == name


def assert_params(model, expected):
  read = {path: tensor.read() for path, tensor in model.tensors.items()}
  assert read.keys() == expected.keys()
  for path, array in expected.items():
    assert read[path].dtype == array.dtype
    np.testing.assert_array_equal(read[path], array, err_msg="/".join(path))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(
  ("unet", "place"), [(ldm.UNET, "unet"), (HEAD, "head/unet"), (LINEAR, "unet")], ids=("1.5", "inpainting", "2")
)
def test_a_complete_model(unet, place, dtype, tmp_path):
  file = tmp_path / "model.safetensors"
  params = ldm.write_checkpoint(file, unet, dtype)
  folder = open_single_file(file, prediction="v_prediction")
  found = {str(at): model for at, model in folder.models.items()}
  assert found.keys() == {place, "vae", "text_encoder", "scheduler"}
  for role, config in ((place, unet), ("vae", ldm.VAE), ("text_encoder", ldm.TEXT)):
    assert found[role].config == config
    assert_params(found[role], params[role.removeprefix("head/")])
  assert found["scheduler"].config == ScheduleConfig(prediction_type="v_prediction")
  assert folder.ignored == ("betas", "model_ema")


def test_the_prediction_type_is_found_in_the_file(tmp_path):
  file = tmp_path / "model.safetensors"

  def prediction(unet, **added):
    ldm.write_checkpoint(file, unet, **added)
    (schedule,) = (m.config for m in open_single_file(file).models.values() if isinstance(m.config, ScheduleConfig))
    return schedule.prediction_type, schedule.rescale_betas_zero_snr

  assert prediction(ldm.UNET) == ("epsilon", False)
  assert prediction(ldm.UNET, v_pred=np.ones(1)) == ("v_prediction", False)
  assert prediction(LINEAR, v_pred=np.ones(1), ztsnr=np.ones(1)) == ("v_prediction", True)
  with pytest.raises(UserError, match="--prediction=v_prediction"):
    prediction(LINEAR)
  tensors = load_file(file)
  save_file(tensors, file, {"modelspec.prediction_type": "v"})
  assert open_single_file(file).models  # the metadata has the prediction type
  with pytest.raises(UserError, match="other noise levels"):
    prediction(ldm.UNET, betas=np.linspace(1e-4, 0.02, 1000))


def test_averaged_weights(tmp_path):
  file, plain = tmp_path / "model.safetensors", tmp_path / "plain.safetensors"
  averages = ldm.drawn(ldm.UNET, 5)
  keys = ldm.ldm_tensors(ldm.UNET, averages, "diffusion_model.")
  params = ldm.write_checkpoint(file, **{f"model_ema.{key.replace('.', '')}": array for key, array in keys.items()})
  for averaged, expected in ((False, params["unet"]), (True, averages)):
    (model,) = (m for place, m in open_single_file(file, averaged).models.items() if place.role == "unet")
    assert_params(model, expected)
  ldm.write_checkpoint(plain)
  with pytest.raises(UserError, match="omit --ema"):
    open_single_file(plain, averaged=True)


@pytest.mark.parametrize("prefix", ["control_model.", ""])
def test_a_controlnet_is_read_with_both_kinds_of_names(prefix, tmp_path):
  file = tmp_path / "control.safetensors"
  params = ldm.drawn(ldm.CONTROLNET, 3)
  save_file(ldm.ldm_tensors(ldm.CONTROLNET, params, prefix), file)
  model = open_network(file, ControlNetConfig)
  assert model.config == ldm.CONTROLNET
  assert_params(model, params)
  convert.from_diffusers(file, tmp_path / "out")
  read = load_model(tmp_path / "out", ControlNetConfig)
  assert read.config == ldm.CONTROLNET
  # The same file with diffusers' names.
  renamed = open_network(tmp_path / "out" / "diffusion_pytorch_model.safetensors", ControlNetConfig)
  assert renamed.config == ldm.CONTROLNET
  assert_params(renamed, flatten_dict(read.params))


def test_a_single_autoencoder(tmp_path):
  params = ldm.drawn(ldm.VAE, 1)
  for prefix in ("", "first_stage_model."):
    file = tmp_path / f"vae{len(prefix)}.safetensors"
    save_file({**ldm.ldm_tensors(ldm.VAE, params, prefix), f"{prefix}loss.logvar": np.zeros(1)}, file)
    convert.from_diffusers(file, tmp_path / file.stem, dtype="bfloat16")
    assert load_model(tmp_path / file.stem).config == ldm.VAE


def test_a_text_tower_without_its_name(tmp_path):
  """As written with newer versions of transformers; projections and scales are ignored."""
  file = tmp_path / "model.safetensors"
  params = ldm.write_checkpoint(file)
  tensors = {name.replace(".text_model.", "."): array for name, array in load_file(file).items()}
  tensors["cond_stage_model.transformer.text_projection.weight"] = np.zeros((64, 64), np.float32)
  save_file({**tensors, "cond_stage_model.logit_scale": np.zeros(1)}, file)
  folder = open_single_file(file)
  (model,) = (model for place, model in folder.models.items() if place.role == "text_encoder")
  assert_params(model, params["text_encoder"])
  assert "cond_stage_model" in folder.ignored


def test_files_are_converted_together(tmp_path):
  names = ("model", "inpainting", "control")
  model, inpainting, control = (tmp_path / f"{name}.safetensors" for name in names)
  ldm.write_checkpoint(model)
  ldm.write_checkpoint(inpainting, HEAD, text=False)
  save_file(ldm.ldm_tensors(ldm.CONTROLNET, ldm.drawn(ldm.CONTROLNET, 3), "control_model."), control)
  models = convert.from_diffusers(
    model, tmp_path / "out", controlnet=control, head=inpainting, stem_widths=(4, 8, 8, 12)
  )
  assert models is not None
  assert {str(place) for place in models.models} == {
    *("unet", "vae", "text_encoder", "scheduler", "controlnet", "head/unet", "head/controlnet")
  }
  assert json.loads((tmp_path / "out/head/unet/config.json").read_text())["in_channels"] == 9


def test_tensors_are_read_one_at_a_time(tmp_path, monkeypatch):
  """Opening reads no weights, and writing reads each tensor once."""
  from anchor_jax.formats import tensors

  file, reads = tmp_path / "model.safetensors", []
  ldm.write_checkpoint(file)
  get = tensors._get
  monkeypatch.setattr(tensors, "_get", lambda path, name, *rest: (reads.append(name), get(path, name, *rest))[1])
  open_single_file(file)
  assert reads == ["betas"]
  reads.clear()
  convert.from_diffusers(file, tmp_path / "out", make_controlnet=False)
  assert len(reads) == len(set(reads)) > 100


@pytest.mark.parametrize(
  ("change", "reason"),
  [
    ({"model.diffusion_model.label_emb.0.0.weight": np.zeros(1)}, "is Stable Diffusion XL"),
    ({"model.diffusion_model.joint_blocks.0.x": np.zeros(1)}, "is Stable Diffusion 3"),
    ({"model.diffusion_model.extra.weight": np.zeros(1)}, r"unexpected: model\.diffusion_model\.extra\.weight"),
    ({"model.diffusion_model.out.2.bias": np.zeros(3)}, r"model\.diffusion_model\.out\.2\.bias is \[3\] and not \[4\]"),
    ({"model.diffusion_model.conv_in.weight": np.zeros(1)}, "twice, under two names"),
    ({"model.diffusion_model.input_blocks.0.0.weight": np.zeros((32, 8, 3, 3))}, "takes 8 channels"),
    ({"model.diffusion_model.input_blocks.0.0.weight": np.zeros(3)}, "do not have the shapes"),
    ({"model.diffusion_model.middle_block.1.proj_in.weight": None}, "it lacks mid_block"),
    ({"first_stage_model.quant_conv.bias": None}, r"missing: quant_conv\.bias"),
  ],
)
def test_misfits_are_reported_in_one_line(change, reason, tmp_path):
  file = tmp_path / "model.safetensors"
  ldm.write_checkpoint(file)
  tensors = load_file(file) | change
  save_file({name: array for name, array in tensors.items() if array is not None}, file)
  with pytest.raises(UserError, match=reason) as caught:
    convert.from_diffusers(file, tmp_path / "out")
  assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
  assert not (tmp_path / "out").exists()


def test_a_model_without_a_unet_is_refused(tmp_path):
  file = tmp_path / "model.safetensors"
  ldm.write_checkpoint(file)
  tensors = load_file(file)
  save_file({name: array for name, array in tensors.items() if not name.startswith("model.diffusion_model.")}, file)
  with pytest.raises(UserError, match=r"holds vae, text_encoder and no UNet below model\.diffusion_model"):
    open_single_file(file)


def test_pipes_and_loops_of_links_are_reported_in_one_line(tmp_path):
  circle, pipe = tmp_path / "circle.safetensors", tmp_path / "pipe.safetensors"
  circle.symlink_to(circle.name)
  os.mkfifo(pipe)
  ldm.write_checkpoint(tmp_path / "model.safetensors")
  for strange, reason in ((circle, "circle"), (pipe, "is a pipe")):
    with pytest.raises(UserError, match=reason):
      convert.from_diffusers(strange, tmp_path / "out")
    for options in ({"head": strange}, {"controlnet": strange}, {"choice": FileChoice(loras=[(strange, 1.0)])}):
      with pytest.raises(UserError, match=reason):
        convert.from_diffusers(tmp_path / "model.safetensors", tmp_path / "out", **options)
  with pytest.raises(UserError):
    convert.from_diffusers(tmp_path / "model.safetensors", circle)


def test_other_files_are_refused(tmp_path):
  for name in ("model.ckpt", "model.pt", "model.bin"):
    (tmp_path / name).write_bytes(b"\x80\x02")
    with pytest.raises(UserError, match=r"weights_only=True.*model\.safetensors"):
      convert.from_diffusers(tmp_path / name, tmp_path / "out")
  (tmp_path / "model.gguf").write_bytes(b"GGUF")
  with pytest.raises(UserError, match=r"is not a \.safetensors"):
    convert.from_diffusers(tmp_path / "model.gguf", tmp_path / "out")
  with pytest.raises(UserError, match=r"no file .*none\.safetensors"):
    convert.from_diffusers(tmp_path / "none.safetensors", tmp_path / "out")
  save_file({"weight": np.zeros(3)}, tmp_path / "other.safetensors")
  with pytest.raises(UserError, match="holds no UNet, ControlNet, autoencoder or text tower"):
    convert.from_diffusers(tmp_path / "other.safetensors", tmp_path / "out")
  ldm.write_checkpoint(tmp_path / "model.safetensors")
  with pytest.raises(UserError, match="and no ControlNetModel"):
    open_network(tmp_path / "model.safetensors", ControlNetConfig)
  with pytest.raises(UserError, match="holds an input of the conversion"):
    convert.from_diffusers(tmp_path / "model.safetensors", tmp_path)
