"""Low-rank adapters as pure functions on a tree of weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anchor_jax.config.run import LoRAConfig
from anchor_jax.core.errors import UserError
from anchor_jax.models.lora import init_lora, merge_weights

CONFIG = LoRAConfig(rank=2, alpha=6.0, networks=("unet",), targets=("to_q", "conv1"))


@pytest.fixture
def weights():
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  return {
    "unet": {
      "block": {"to_q": {"kernel": draw(5, 7)}, "to_k": {"kernel": draw(5, 7)}},
      "resnet": {"conv1": {"kernel": draw(3, 3, 5, 6), "bias": draw(6)}, "norm": {"scale": draw(5)}},
    },
    "vae": {"to_q": {"kernel": draw(5, 7)}},
  }


def test_new_adapters_match_the_targets_and_change_nothing(weights):
  adapters = init_lora(jax.random.key(1), weights, CONFIG)
  shapes = jax.tree.map(jnp.shape, adapters)
  assert shapes == {
    "unet": {
      "block": {"to_q": {"down": (5, 2), "up": (2, 7)}},
      "resnet": {"conv1": {"down": (3, 3, 5, 2), "up": (2, 6)}},
    }
  }
  same = merge_weights(weights, {"lora": adapters}, CONFIG)
  jax.tree.map(np.testing.assert_array_equal, same, weights)
  assert float(jnp.abs(adapters["unet"]["block"]["to_q"]["down"]).min()) > 0


def test_a_merged_layer_is_the_layer_plus_its_scaled_low_rank_path(weights):
  adapters = init_lora(jax.random.key(1), weights, CONFIG)
  adapters = jax.tree.map(lambda leaf: leaf + 0.1, adapters)
  merged = merge_weights(weights, {"lora": adapters}, CONFIG)["unet"]
  x = jnp.ones((1, 4, 4, 5)) * jnp.arange(5)
  to_q, own = weights["unet"]["block"]["to_q"]["kernel"], adapters["unet"]["block"]["to_q"]
  np.testing.assert_allclose(
    x @ merged["block"]["to_q"]["kernel"], x @ to_q + 3.0 * (x @ own["down"]) @ own["up"], rtol=1e-5
  )
  convolve = lambda kernel: jax.lax.conv_general_dilated(
    x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
  )
  conv, own = weights["unet"]["resnet"]["conv1"], adapters["unet"]["resnet"]["conv1"]
  np.testing.assert_allclose(
    convolve(merged["resnet"]["conv1"]["kernel"]),
    convolve(conv["kernel"]) + 3.0 * convolve(own["down"]) @ own["up"],
    rtol=1e-4,
    atol=1e-4,
  )
  np.testing.assert_array_equal(merged["resnet"]["conv1"]["bias"], conv["bias"])
  np.testing.assert_array_equal(merged["block"]["to_k"]["kernel"], weights["unet"]["block"]["to_k"]["kernel"])


def test_gradients_reach_the_adapters_of_the_layer(weights):
  adapters = jax.tree.map(lambda leaf: leaf + 0.1, init_lora(jax.random.key(1), weights, CONFIG))

  def loss(lora):
    return jnp.sum(jnp.square(merge_weights(weights, {"lora": lora}, CONFIG)["unet"]["block"]["to_q"]["kernel"]))

  gradient = jax.grad(loss)(adapters)
  assert float(jnp.abs(gradient["unet"]["block"]["to_q"]["up"]).min()) > 0
  assert float(jnp.abs(gradient["unet"]["resnet"]["conv1"]["up"]).max()) == 0


def test_a_target_that_matches_no_layer_is_refused(weights):
  with pytest.raises(UserError, match=r'named to_qu .*Did you mean "to_q"'):
    init_lora(jax.random.key(0), weights, LoRAConfig(rank=1, networks=("unet",), targets=("to_qu",)))
