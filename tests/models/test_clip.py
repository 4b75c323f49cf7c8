from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anchor_jax.config.networks import CLIPTextConfig, CLIPVisionConfig
from anchor_jax.models.clip import DEVIATION, MEAN, CLIPText, CLIPVision, preprocess

TINY = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


def test_later_tokens_do_not_change_earlier_ones(random_params, jit):
  tower = CLIPText(CLIPTextConfig(**TINY, vocab_size=20, max_position_embeddings=9))
  ids = jnp.array([[3, 4, 5, 6, 7]])
  params = random_params(tower, ids)
  apply = jit(tower.apply)
  one, other = apply(params, ids), apply(params, ids.at[0, 3].set(9))
  np.testing.assert_allclose(one[:, :3], other[:, :3], atol=1e-6)
  assert jnp.abs(one[:, 3:] - other[:, 3:]).max() > 1e-3


def test_image_tokens_have_the_configured_shape_and_no_final_norm(random_params, jit):
  config = CLIPVisionConfig(**TINY, image_size=16, patch_size=4)
  tower = CLIPVision(config)
  pixels = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
  params = random_params(tower, pixels)
  got = jit(tower.apply)(params, pixels)
  assert got.shape == (2, config.tokens, 8) == (2, 17, 8)
  # The final layer norm belongs to the files and not to these hidden states.
  params["params"]["vision_model"]["post_layernorm"]["scale"] *= 2
  np.testing.assert_array_equal(jit(tower.apply)(params, pixels), got)


@pytest.mark.parametrize("name", ["wide", "tall", "small"])
def test_preprocessing_matches_transformers_within_a_gray_level(name):
  with np.load(Path(__file__).parents[1] / "golden" / "clip_preprocess.npz") as golden:
    image, expected = golden[f"{name}_image"], golden[f"{name}_grey"]
  got = preprocess(jnp.asarray(image, jnp.float32)[None] / 255, expected.shape[0])[0]
  gray = np.asarray(got) * DEVIATION + np.asarray(MEAN)
  assert np.abs(gray * 255 - expected).max() < 1.01


def test_preprocessing_crops_the_center():
  image = jnp.zeros((1, 20, 60, 3)).at[:, :, 20:40].set(1)
  got = preprocess(image, 8)[0] * jnp.array(DEVIATION) + jnp.array(MEAN)
  assert got.shape == (8, 8, 3)
  np.testing.assert_allclose(got[:, 2:6], 1, atol=0.02)


def test_embeddings_are_normalized_and_use_the_final_norm(random_params, jit):
  config = CLIPVisionConfig(**TINY, image_size=8, patch_size=4)
  tower, pixels = CLIPVision(config), jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
  params = random_params(tower, pixels)
  projection = jax.random.normal(jax.random.key(2), (5, 8))
  found = jit(lambda *x: tower.apply(*x, method="embed"))(params, pixels, projection)
  token = np.asarray(jit(tower.apply)(params, pixels))[:, 0]
  norm = params["params"]["vision_model"]["post_layernorm"]
  centered = token - token.mean(axis=-1, keepdims=True)
  token = centered / np.sqrt(token.var(axis=-1, keepdims=True) + config.layer_norm_eps) * norm["scale"] + norm["bias"]
  expected = token @ projection.T
  np.testing.assert_allclose(found, expected / np.linalg.norm(expected, axis=-1, keepdims=True), atol=1e-5)
