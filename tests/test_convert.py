import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path

import cv2
import jax
import ldm
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file, save_file
from tiny import drawn_weights, tiny_model

from anchor_jax import convert
from anchor_jax.config.run import RunConfig
from anchor_jax.config.stored import write_settings
from anchor_jax.core.errors import UserError
from anchor_jax.files.manifest import LIST
from anchor_jax.formats.diffusers import load_model, save_model
from anchor_jax.formats.folders import read_models
from anchor_jax.models.networks import Networks
from anchor_jax.store import convert as conversion
from anchor_jax.store.weights import write_folder
from anchor_jax.training.checkpoint import Checkpoints
from anchor_jax.training.step import State

REFERENCE = Path(__file__).parent / "golden" / "reference"


@pytest.fixture
def source(tmp_path):
  """A pipeline's folder as it is downloaded: no pose branch, PNDM, unneeded subfolders."""
  folder = tmp_path / "sd"
  for role in ("unet", "vae", "image_encoder", "text_encoder", "scheduler"):
    shutil.copytree(REFERENCE / "body" / role, folder / role)
  for extra in ("tokenizer", "safety_checker"):
    (folder / extra).mkdir()
  file = folder / "scheduler" / "scheduler_config.json"
  fields = json.loads(file.read_text())
  del fields["timestep_spacing"]
  file.write_text(json.dumps({**fields, "_class_name": "PNDMScheduler", "skip_prk_steps": True}))
  (folder / "model_index.json").write_text("{}")
  return folder


def run(capsys, monkeypatch, *arguments):
  monkeypatch.setattr(sys, "argv", ["convert", *map(str, arguments)])
  code = 0
  try:
    convert.main()
  except SystemExit as exit_:
    code = exit_.code
  return code, capsys.readouterr()


def test_a_pipeline_converted_back_and_forth_is_bit_identical(source, tmp_path, capsys, monkeypatch):
  code, printed = run(capsys, monkeypatch, "from-diffusers", source, tmp_path / "in", "--make-head", "--stem=4,4,8,8")
  assert code == 0, printed.err
  assert "not needed, left out: safety_checker, tokenizer" in printed.out
  places = {str(p.parent.relative_to(tmp_path / "in")) for p in (tmp_path / "in").rglob("*.safetensors")}
  assert places == {
    *("unet", "vae", "image_encoder", "text_encoder", "controlnet", "head/unet", "head/controlnet", "."),
  }
  null = load_file(tmp_path / "in" / "null_context.safetensors")["null_context"]
  with np.load(REFERENCE / "golden.npz") as golden:
    np.testing.assert_allclose(null, golden["null_context"][0], atol=2e-5)
  schedule = json.loads((tmp_path / "in/scheduler/scheduler_config.json").read_text())
  assert (schedule["_class_name"], schedule["steps_offset"]) == ("DDIMScheduler", 1)

  code, printed = run(capsys, monkeypatch, "to-diffusers", tmp_path / "in", tmp_path / "out")
  assert code == 0, printed.err
  for role in ("unet", "vae", "image_encoder", "text_encoder"):
    (file,) = (source / role).glob("*.safetensors")
    before, after = load_file(file), load_file(tmp_path / "out" / role / file.name)
    assert before.keys() == after.keys()
    for name, array in before.items():
      assert array.dtype == after[name].dtype
      np.testing.assert_array_equal(array, after[name], err_msg=name)


def test_single_models_and_models_beside_a_pipeline_are_converted(source, tmp_path):
  shutil.move(source / "image_encoder", tmp_path / "clip")
  conversion.from_diffusers(
    source, tmp_path / "in", tmp_path / "clip", REFERENCE / "body/controlnet", REFERENCE / "head", dtype="bfloat16"
  )
  assert (tmp_path / "in/null_context.safetensors").exists()
  assert json.loads((tmp_path / "in/head/unet/config.json").read_text())["in_channels"] == 9
  before = load_file(REFERENCE / "body/controlnet/diffusion_pytorch_model.safetensors")
  after = load_file(tmp_path / "in/controlnet/diffusion_pytorch_model.safetensors")
  assert before.keys() == after.keys()
  assert {str(array.dtype) for array in after.values()} == {"bfloat16"}
  conversion.from_diffusers(source / "vae", tmp_path / "vae")
  assert (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").exists()


def test_errors_in_all_models_are_reported_and_nothing_is_written(source, tmp_path, capsys, monkeypatch):
  for role, name in (("unet", "conv_in.bias"), ("vae", "quant_conv.bias")):
    file = source / role / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors[name]
    save_file(tensors, file)
  code, printed = run(capsys, monkeypatch, "from-diffusers", source, tmp_path / "in")
  assert code == 2
  assert printed.err.count("\n") == 1
  assert "missing: conv_in.bias" in printed.err
  assert "missing: quant_conv.bias" in printed.err
  assert not (tmp_path / "in").exists()


def test_targets_whose_replacement_would_delete_files_are_refused(source, tmp_path):
  with pytest.raises(UserError, match="no folder"):
    conversion.from_diffusers(tmp_path / "none", tmp_path / "in")
  with pytest.raises(UserError, match="holds an input of the conversion"):
    conversion.from_diffusers(source, source)
  with pytest.raises(UserError, match="holds an input of the conversion"):
    conversion.from_diffusers(source, tmp_path)
  (tmp_path / "mine").mkdir()
  (tmp_path / "mine" / "letter.txt").write_text("dear")
  with pytest.raises(UserError, match=r"letter\.txt"):
    conversion.from_diffusers(source, tmp_path / "mine")
  assert (tmp_path / "mine" / "letter.txt").exists()
  with pytest.raises(UserError, match="holds no model"):
    conversion.from_diffusers(tmp_path / "mine", tmp_path / "in")


def test_files_of_a_user_in_a_folder_of_models_are_not_deleted(source, tmp_path):
  """Their names look like those of roles and weights."""
  target = tmp_path / "in"
  conversion.from_diffusers(source, target)
  for name in ("body/thesis.txt", "dreamshaper_8.safetensors", "vae/kl-f8.ckpt"):
    (target / name).parent.mkdir(exist_ok=True)
    (target / name).write_text("years")
    for function in (conversion.from_diffusers, conversion.to_diffusers):
      with pytest.raises(UserError, match=rf"holds {name}, which was not written by this command"):
        function(source, target)
    assert (target / name).read_text() == "years"
    (target / name).unlink()
  conversion.from_diffusers(source, target, make_controlnet=False)
  assert not (target / "controlnet").exists()  # replaced, not merged
  with pytest.raises(UserError, match="holds an input of the conversion"):
    conversion.from_diffusers(source, target, image_encoder=target / "image_encoder")


def test_downloaded_models_are_not_replaced_and_those_of_earlier_versions_are(source, tmp_path):
  shutil.copytree(source / "vae", tmp_path / "downloaded/vae")
  for place in ("downloaded", "downloaded/vae"):
    with pytest.raises(
      UserError, match=r"config\.json, which was not written by this command or by an earlier version"
    ):
      conversion.from_diffusers(source, tmp_path / place)
  for path, target in ((source, tmp_path / "in"), (source / "vae", tmp_path / "vae")):
    conversion.from_diffusers(path, target)
    (target / LIST).unlink()  # earlier versions wrote none
    conversion.from_diffusers(path, target)
    (target / LIST).unlink()
    weights = next(target.rglob("diffusion_pytorch_model.safetensors"))
    os.utime(weights, ns=(2**62, 2**62))  # replaced by other weights since
    with pytest.raises(UserError, match=r"diffusion_pytorch_model\.safetensors, which was not written"):
      conversion.from_diffusers(path, target)


def write_workdir(workdir, part, config, trained, frozen, ema=None):
  """Writes a part as a run of three steps leaves it."""
  number, folder = jax.numpy.zeros((), jax.numpy.int32), workdir / part
  trained = jax.tree.map(jax.numpy.asarray, trained)
  with Checkpoints(folder) as checkpoints:
    state = State(number + 3, trained, optax.sgd(1.0).init(trained), ema, number, number)
    checkpoints.save(3, state, {"position": 0})
  write_settings(folder, config)
  write_folder(folder / "base", Networks(config.model), frozen, tuple(frozen), "float32")
  cv2.imwrite(str(folder / "appearance.png"), np.full((8, 8, 3), len(part), np.uint8))


@pytest.fixture(scope="module")
def body():
  """(config, trained, frozen) of a body."""
  config = RunConfig(part="body", model=tiny_model())
  weights = drawn_weights(Networks(config.model))
  split = lambda names: {name: weights[name] for name in names}
  return config, split(("unet", "controlnet", "null_context")), split(("vae", "image_encoder"))


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_a_trained_person_is_converted_to_diffusers(weights, body, tmp_path):
  config, trained, frozen = body
  write_workdir(tmp_path / "ana", "body", config, trained, frozen, jax.tree.map(lambda x: x + 1, trained))
  conversion.to_diffusers(tmp_path / "ana", tmp_path / "out", weights, "float32")
  places = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("config.json")}
  assert places == {f"{place}/config.json" for place in ("body/unet", "body/controlnet", "vae", "image_encoder")}
  read = load_model(tmp_path / "out/body/unet").params["conv_in"]["bias"]
  np.testing.assert_allclose(read, trained["unet"]["conv_in"]["bias"] + (weights == "ema"))
  assert (tmp_path / "out/scheduler/scheduler_config.json").exists()
  assert (tmp_path / "out/null_context.safetensors").exists()


def test_leaving_out_the_texture_is_reported(body, tmp_path, capsys, monkeypatch):
  write_workdir(tmp_path / "ana", "body", *body)
  for reported in (False, True):
    code, printed = run(capsys, monkeypatch, "to-diffusers", tmp_path / "ana", tmp_path / "out")
    assert code == 0 and ("--appearance=PREPARED_FOLDER" in printed.out) is reported
    (tmp_path / "ana/body/appearance.safetensors").touch()


@pytest.mark.parametrize("same", [pytest.param(True, marks=pytest.mark.slow), False], ids=("same", "different"))
def test_body_and_head_keep_their_null_contexts_and_image_towers(same, body, tmp_path):
  """Bit for bit, to diffusers and back."""
  config, trained, frozen = body
  model = dataclasses.replace(config.model, unet=tiny_model(inpaint=True).unet)
  head_config = dataclasses.replace(config, part="head", model=model)
  head_null = trained["null_context"] if same else trained["null_context"] + 1
  tower = frozen["image_encoder"] if same else jax.tree.map(lambda x: x * 2, frozen["image_encoder"])
  head = {**trained, "unet": drawn_weights(Networks(model))["unet"], "null_context": head_null}
  write_workdir(tmp_path / "ana", "body", config, trained, frozen)
  write_workdir(tmp_path / "ana", "head", head_config, head, {**frozen, "image_encoder": tower})

  conversion.to_diffusers(tmp_path / "ana", tmp_path / "out")
  conversion.from_diffusers(tmp_path / "out", tmp_path / "back")
  for folder in (tmp_path / "out", tmp_path / "back"):
    for part, null, image in (("body", trained["null_context"], frozen["image_encoder"]), ("head", head_null, tower)):
      sizes, read = read_models(folder, part)
      np.testing.assert_array_equal(read["null_context"], null)
      jax.tree.map(np.testing.assert_array_equal, read["image_encoder"], image)
      assert sizes["unet"].in_channels == (5 if part == "head" else 2)
    places = {str(path.relative_to(folder)) for path in folder.rglob("null_context.safetensors")}
    expected = (
      {"null_context.safetensors"} if same else {f"{part}/null_context.safetensors" for part in ("body", "head")}
    )
    assert places == expected and (folder / "vae").exists()


def test_the_command_converts_single_files(tmp_path, capsys, monkeypatch):
  model, inpainting, control, style = (
    tmp_path / f"{name}.safetensors" for name in ("model", "head", "control", "style")
  )
  averages = ldm.ldm_tensors(ldm.UNET, ldm.drawn(ldm.UNET, 5), "diffusion_model.")
  ldm.write_checkpoint(model, **{f"model_ema.{key.replace('.', '')}": array for key, array in averages.items()})
  ldm.write_checkpoint(inpainting, dataclasses.replace(ldm.UNET, in_channels=9), text=False)
  save_file(ldm.ldm_tensors(ldm.CONTROLNET, ldm.drawn(ldm.CONTROLNET, 3), "control_model."), control)
  layer = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
  ones = {"lora_down": np.ones((1, 64), "f4"), "lora_up": np.ones((64, 1), "f4")}
  save_file({f"{layer}.{side}.weight": array for side, array in ones.items()}, style)
  code, printed = run(
    capsys, monkeypatch, "from-diffusers", model, tmp_path / "in", f"--head={inpainting}", f"--controlnet={control}",
    f"--lora={style}:0.5", f"--lora={style}:2", "--ema", "--prediction=v_prediction", "--no-controlnet",
  )  # fmt: skip
  assert code == 0, printed.err
  assert "not needed, left out: betas, model_ema" in printed.out
  after = load_file(tmp_path / "in/unet/diffusion_pytorch_model.safetensors")
  name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"
  np.testing.assert_allclose(
    after[name], averages["diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.weight"] + 2.5, rtol=1e-5
  )
  schedule = json.loads((tmp_path / "in/scheduler/scheduler_config.json").read_text())
  assert schedule["prediction_type"] == "v_prediction"
  code, printed = run(capsys, monkeypatch, "from-diffusers", tmp_path / "in", tmp_path / "again", "--ema")
  assert code == 2 and "omit --ema and --prediction" in printed.err


def test_there_is_no_null_context_if_the_text_tower_has_too_few_positions(source, tmp_path, capsys, monkeypatch):
  tower = load_model(source / "image_encoder")
  finer = dataclasses.replace(tower.config, patch_size=1)
  embeddings = tower.params["vision_model"]["embeddings"]
  embeddings["patch_embedding"]["kernel"] = embeddings["patch_embedding"]["kernel"][:1, :1]
  embeddings["position_embedding"]["embedding"] = np.zeros((finer.tokens, finer.hidden_size), np.float32)
  shutil.rmtree(source / "image_encoder")
  save_model(source / "image_encoder", finer, tower.params)
  code, printed = run(capsys, monkeypatch, "from-diffusers", source, tmp_path / "in", "--stem=4,4,8,8")
  assert code == 0, printed.err
  assert f"{finer.tokens} tokens; training starts from a random one" in printed.out
  assert not (tmp_path / "in" / "null_context.safetensors").exists()
