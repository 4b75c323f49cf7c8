"""Adapters in diffusers: PEFT runs them next to the layers, this package merges them; predictions agree."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
from diffusers import UNet2DConditionModel

from anchor_jax.config.run import LoRAConfig
from anchor_jax.formats.diffusers import load_model
from anchor_jax.formats.lora import Adapters, save_adapters
from anchor_jax.formats.registry import make_module
from anchor_jax.formats.roles import LORA_FILE
from anchor_jax.models.lora import init_lora, merge_weights

CONFIG = LoRAConfig(rank=3, networks=("unet",), targets=("to_q", "to_out_0", "net_0/proj", "conv1"))


def test_diffusers_loads_the_adapters_and_predicts_the_same(tmp_path, jit, agree, randomize):
  module = UNet2DConditionModel(
    block_out_channels=(8, 16),
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    norm_num_groups=4,
    cross_attention_dim=12,
    attention_head_dim=2,
    layers_per_block=1,
    sample_size=8,
  )
  randomize(module, 0).save_pretrained(tmp_path)
  model = load_model(tmp_path)
  keys = iter(jax.random.split(jax.random.key(1), 99))
  adapters = init_lora(jax.random.key(0), {"unet": model.params}, CONFIG)
  adapters = jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(next(keys), leaf.shape), adapters)
  save_adapters(tmp_path / LORA_FILE, Adapters(adapters, None, "", 1))

  rng = np.random.default_rng(2)
  sample, context = (rng.normal(size=size).astype(np.float32) for size in ((2, 4, 8, 8), (2, 5, 12)))
  run = jit(lambda params, *inputs: make_module(model.config).apply({"params": params}, *inputs))
  inputs = (jnp.moveaxis(jnp.asarray(sample), 1, -1)[:, None], jnp.array([3, 800]), jnp.asarray(context))
  own = run(merge_weights({"unet": model.params}, {"lora": adapters}, CONFIG)["unet"], *inputs)
  plain = run(model.params, *inputs)

  module.load_lora_adapter(str(tmp_path), weight_name=LORA_FILE, prefix="unet")
  with torch.no_grad():
    expected = module(torch.from_numpy(sample), torch.tensor([3, 800]), torch.from_numpy(context)).sample
  agree(np.moveaxis(own[:, 0], -1, 1), expected.numpy())
  assert np.abs(np.asarray(own - plain)).max() > 0.1
