"""Files of adapters: those of others, merged into a model, and those written here."""

import ldm
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from anchor_jax import convert
from anchor_jax.core.errors import UserError
from anchor_jax.formats import names
from anchor_jax.formats.lora import Adapters, holds_lora, load_adapters, read_lora, save_adapters
from anchor_jax.formats.tensors import read_safetensors, weights_hash
from anchor_jax.store import convert as conversion
from anchor_jax.store.convert import FileChoice

RANK = 4
# {layer in kohya's files: torch's shape}
LAYERS = {
  "unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q": (32, 32),
  "unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k": (64, 64),
  "unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0": (64, 64),
  "unet_up_blocks_2_attentions_1_transformer_blocks_0_ff_net_0_proj": (256, 32),
  "unet_up_blocks_2_attentions_1_proj_in": (32, 32, 1, 1),
  "unet_down_blocks_1_resnets_0_conv1": (64, 32, 3, 3),
  "unet_down_blocks_1_resnets_0_conv_shortcut": (64, 32, 1, 1),
  "unet_down_blocks_0_downsamplers_0_conv": (32, 32, 3, 3),
  "unet_mid_block_resnets_1_time_emb_proj": (64, 128),
  "te_text_model_encoder_layers_1_self_attn_q_proj": (64, 64),
  "te_text_model_encoder_layers_0_mlp_fc1": (48, 64),
}
DOTTED = {
  "te_text_model_encoder_layers_0_mlp_fc1": "text_encoder.text_model.encoder.layers.0.mlp.fc1",
  "te_text_model_encoder_layers_1_self_attn_q_proj": "text_encoder.text_model.encoder.layers.1.self_attn.q_proj",
  "unet_down_blocks_1_resnets_0_conv_shortcut": "unet.down_blocks.1.resnets.0.conv_shortcut",
  "unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0": (
    "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"
  ),
  "unet_up_blocks_2_attentions_1_transformer_blocks_0_ff_net_0_proj": (
    "unet.up_blocks.2.attentions.1.transformer_blocks.0.ff.net.0.proj"
  ),
}


def kohya(seed=0, alpha=2.0):
  rng = np.random.default_rng(seed)
  tensors = {}
  for layer, shape in LAYERS.items():
    ones = (1,) * (len(shape) - 2)
    tensors[f"lora_{layer}.lora_down.weight"] = rng.normal(size=(RANK, *shape[1:])).astype("f4")
    tensors[f"lora_{layer}.lora_up.weight"] = rng.normal(size=(shape[0], RANK, *ones)).astype("f4")
    if alpha is not None:
      tensors[f"lora_{layer}.alpha"] = np.array(alpha, "f4")
  return tensors


def change(tensors, layer, factor):
  """up @ down of one layer, by einsum."""
  down, up = (tensors[f"lora_{layer}.lora_{side}.weight"] for side in ("down", "up"))
  return factor * np.einsum("or,r...->o...", up.reshape(len(up), RANK), down)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  file = tmp_path_factory.mktemp("lora") / "model.safetensors"
  return file, ldm.write_checkpoint(file)


@pytest.mark.parametrize(("alpha", "strength", "factor"), [(2.0, 1.0, 0.5), (None, 0.5, 0.5)])
def test_kohya_s_adapters_are_merged(alpha, strength, factor, model, tmp_path):
  file, before = model
  tensors = kohya(alpha=alpha)
  save_file(tensors, tmp_path / "style.safetensors", {"ss_network_dim": "4"})
  choice = FileChoice(loras=[(tmp_path / "style.safetensors", strength)])
  conversion.from_diffusers(file, tmp_path / "out", make_controlnet=False, choice=choice)
  changed = {f"lora_{layer}" for layer in LAYERS}
  for network, short in (("unet", "unet"), ("text_encoder", "te")):
    (weights,) = (tmp_path / "out" / network).glob("*.safetensors")
    after = load_file(weights)
    for path, array in before[network].items():
      name = names.torch_name(path)
      expected, layer = names.to_torch(path, array), f"{short}_{name.removesuffix('.weight').replace('.', '_')}"
      if layer in LAYERS and name.endswith(".weight"):
        changed.discard(f"lora_{layer}")
        expected = expected + change(tensors, layer, factor)
      np.testing.assert_allclose(after[name], expected, rtol=1e-5, atol=1e-5, err_msg=name)
  assert not changed


def test_the_pose_branch_and_the_head_are_derived_from_the_merged_weights(model, tmp_path):
  save_file(kohya(), tmp_path / "style.safetensors")
  choice = FileChoice(loras=[(tmp_path / "style.safetensors", 1.0)])
  conversion.from_diffusers(
    model[0], tmp_path / "out", make_head=True, stem_widths=(4, 8, 8, 12), dtype="bfloat16", choice=choice
  )
  name = "down_blocks.1.resnets.0.conv1.weight"
  kernels = [
    load_file(tmp_path / "out" / role / "diffusion_pytorch_model.safetensors")[name].astype("f4")
    for role in ("unet", "controlnet", "head/unet")
  ]
  for kernel in kernels:
    np.testing.assert_array_equal(kernel, kernels[0])
  before = names.to_torch(("kernel",), model[1]["unet"]["down_blocks_1", "resnets_0", "conv1", "kernel"])
  assert not np.allclose(kernels[0], before, atol=0.1)


def test_changes_of_a_missing_text_tower_are_reported_and_ignored(model, tmp_path):
  ldm.write_checkpoint(tmp_path / "model.safetensors", text=False)
  save_file(kohya(), tmp_path / "style.safetensors")
  models = conversion.from_diffusers(
    tmp_path / "model.safetensors", tmp_path / "out", make_controlnet=False,
    choice=FileChoice(loras=[(tmp_path / "style.safetensors", 1.0)]),
  )  # fmt: skip
  assert models is not None and "changes of a text tower in style.safetensors" in models.ignored


def test_a_file_of_adapters_is_written_with_diffusers_names(tmp_path):
  tensors = kohya()
  save_file(tensors, tmp_path / "style.safetensors")
  assert conversion.from_diffusers(tmp_path / "style.safetensors", tmp_path / "out") is None
  written = load_file(tmp_path / "out" / "lora.safetensors")
  assert len(written) == 2 * len(LAYERS)
  for layer, dotted in DOTTED.items():
    np.testing.assert_array_equal(written[f"{dotted}.lora_A.weight"], tensors[f"lora_{layer}.lora_down.weight"])
    np.testing.assert_allclose(written[f"{dotted}.lora_B.weight"], tensors[f"lora_{layer}.lora_up.weight"] / 2)
  again = read_lora(tmp_path / "out/lora.safetensors", read_safetensors(tmp_path / "out/lora.safetensors"))
  assert {f"{network}.{layer}" for network, layers in again.items() for layer in layers} >= set(DOTTED.values())


def test_text_towers_are_read_with_the_names_of_newer_versions(tmp_path):
  layer = "text_encoder.encoder.layers.0.self_attn.q_proj"
  save_file({f"{layer}.lora_{side}.weight": np.ones((4, 4), "f4") for side in "AB"}, tmp_path / "a.safetensors")
  changes = read_lora(tmp_path / "a.safetensors", read_safetensors(tmp_path / "a.safetensors"))
  assert list(changes["text_encoder"]) == ["text_model.encoder.layers.0.self_attn.q_proj"]


A = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.mark.parametrize(
  ("down", "up", "metadata", "factor"),
  [
    (f"{A}.lora_A.weight", f"{A}.lora_B.weight", {}, 1.0),
    (f"{A}.lora.down.weight", f"{A}.lora.up.weight", {}, 1.0),
    (f"{A[:-5]}.processor.to_q_lora.down.weight", f"{A[:-5]}.processor.to_q_lora.up.weight", {}, 1.0),
    (f"{A}.lora_A.weight", f"{A}.lora_B.weight", {"lora_adapter_metadata": '{"unet.lora_alpha": 8, "unet.r": 4}'}, 2.0),
  ],
)
def test_all_names_that_diffusers_has_used_are_read(down, up, metadata, factor, tmp_path):
  save_file({down: np.ones((RANK, 64), "f4"), up: np.ones((64, RANK), "f4")}, tmp_path / "a.safetensors", metadata)
  tensors = read_safetensors(tmp_path / "a.safetensors")
  assert holds_lora(tensors)
  ((network, layers),) = read_lora(tmp_path / "a.safetensors", tensors).items()
  ((layer, found),) = layers.items()
  assert (f"{network}.{layer}", found.scale) == (A, factor)


FLAT = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
DOWN, UP = {f"{FLAT}.lora_down.weight": np.ones((4, 64), "f4")}, {f"{FLAT}.lora_up.weight": np.ones((64, 4), "f4")}


@pytest.mark.parametrize(
  ("tensors", "reason"),
  [
    (DOWN, "half of the adapter of unet.mid_block"),
    (DOWN | {f"{FLAT}.lora_up.weight": np.ones((64, 5), "f4")}, "do not match"),
    (DOWN | UP | {f"{FLAT}.alpha": np.ones(2, "f4")}, "do not match"),
    (DOWN | UP | {f"{FLAT}.alpha": np.array(np.nan, "f4")}, "the alpha nan"),
    (DOWN | UP | {f"{FLAT}.dora_scale": np.ones(4, "f4")}, "dora_scale'.*not a plain low-rank adapter"),
    (DOWN | UP | {f"{FLAT}.lora_mid.weight": np.ones((4, 4), "f4")}, "lora_mid"),
    (DOWN | UP | {"lora_unet_input_blocks_1_1_proj_in.alpha": np.ones((), "f4")}, "input_blocks"),
    ({"lora_te1_text_model_x.lora_down.weight": np.ones((4, 4), "f4")}, "lora_te1"),
    (
      {name.replace("mid_block", "down_blocks_7"): array for name, array in (DOWN | UP).items()},
      "does not fit the unet",
    ),
    (DOWN | {f"{FLAT}.lora_up.weight": np.ones((63, 4), "f4")}, "1 of 1 layers"),
  ],
)
def test_other_kinds_of_adapters_are_refused_in_one_line(tensors, reason, model, tmp_path):
  file = tmp_path / "style.safetensors"
  save_file(tensors, file)
  with pytest.raises(UserError, match=reason) as caught:
    conversion.from_diffusers(model[0], tmp_path / "out", make_controlnet=False, choice=FileChoice(loras=[(file, 1.0)]))
  assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("settings", ['{"unet.use_dora": true}', '{"unet.alpha_pattern": {"a": 1}}', "[1", "[1]"])
def test_unsupported_settings_are_refused(settings, tmp_path):
  save_file(
    {f"{A}.lora_A.weight": np.ones((4, 64), "f4")}, tmp_path / "a.safetensors", {"lora_adapter_metadata": settings}
  )
  with pytest.raises(UserError, match=r"use_dora|alpha_pattern|settings that can't be read"):
    read_lora(tmp_path / "a.safetensors", read_safetensors(tmp_path / "a.safetensors"))


def test_strengths_are_parsed_from_the_command_line(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "a:1").touch()
  assert [convert._lora(text) for text in ("a.safetensors", "a.safetensors:0.5", "a:1", "a:b.safetensors")] == [
    (convert.Path("a.safetensors"), 1.0), (convert.Path("a.safetensors"), 0.5), (convert.Path("a:1"), 1.0),
    (convert.Path("a:b.safetensors"), 1.0),
  ]  # fmt: skip


def test_a_single_network_takes_no_adapters(tmp_path):
  save_file(ldm.ldm_tensors(ldm.VAE, ldm.drawn(ldm.VAE, 1), ""), tmp_path / "vae.safetensors")
  choice = FileChoice(loras=[(tmp_path / "style.safetensors", 1.0)])
  with pytest.raises(UserError, match="a single network"):
    conversion.from_diffusers(tmp_path / "vae.safetensors", tmp_path / "out", choice=choice)


DOWN_KEY, UP_KEY = "unet.a.to_q.lora_A.weight", "unet.a.to_q.lora_B.weight"
GOOD = {DOWN_KEY: np.ones((2, 3), np.float32), UP_KEY: np.ones((4, 2), np.float32)}


def test_saved_adapters_are_loaded(tmp_path):
  rng = np.random.default_rng(0)
  layer = {"down": rng.normal(size=(3, 2)).astype("f4"), "up": rng.normal(size=(2, 4)).astype("f4")}
  save_adapters(tmp_path / "a", Adapters({"unet": {"a": {"to_q": layer}}}, np.ones((5, 8), "f4"), "hash", 7))
  read = load_adapters(tmp_path / "a")
  assert (read.step, read.base_hash) == (7, "hash") and read.null_context is not None
  np.testing.assert_array_equal(read.tree["unet"]["a"]["to_q"]["down"], layer["down"])
  np.testing.assert_array_equal(read.tree["unet"]["a"]["to_q"]["up"], layer["up"])


@pytest.mark.parametrize(
  "tensors,step,reason",
  [
    (GOOD, "²", "no adapters that can be read"),
    (GOOD, "9" * 4000, "no adapters that can be read"),
    ({}, "1", "no adapters that can be read"),
    ({DOWN_KEY: GOOD[DOWN_KEY]}, "1", "half of the adapter"),
    ({**GOOD, DOWN_KEY: np.ones((2, 3, 1), np.float32)}, "1", "which is not an adapter"),
    ({**GOOD, "vae.a.lora_A.weight": GOOD[DOWN_KEY]}, "1", "which is not an adapter"),
    ({**GOOD, "null_context": np.ones(3, np.float32)}, "1", r"null_context of shape \[3\]"),
  ],
)
def test_a_malformed_file_is_reported_in_one_line(tmp_path, tensors, step, reason):
  save_file(tensors, tmp_path / "lora.safetensors", {"step": step})
  with pytest.raises(UserError, match=reason) as caught:
    load_adapters(tmp_path / "lora.safetensors")
  assert "\n" not in str(caught.value)


def test_the_hash_covers_names_and_values():
  weights = {"unet": {"kernel": np.arange(3.0)}}
  assert weights_hash(weights) == weights_hash({"unet": {"kernel": np.arange(3, dtype=np.float32)}})
  assert weights_hash(weights) != weights_hash({"vae": weights["unet"]})
  assert weights_hash(weights) != weights_hash({"unet": {"kernel": np.arange(3.0) + 1e-6}})
