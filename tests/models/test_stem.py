"""The pose branch with pose channels besides the pose render's three."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_model, weight_shapes

from anchor_jax.core import sharding
from anchor_jax.formats.diffusers import load_model, save_model
from anchor_jax.models.controlnet import ControlNet, PoseStem, fit_stem
from anchor_jax.models.networks import Networks
from anchor_jax.texture.look_up.plain import texture_channels

MORE = texture_channels(3)


def uniform(seed, *shape):
  return jnp.asarray(np.random.default_rng(seed).random(shape), jnp.float32)


def wide_model():
  model = tiny_model()
  return dataclasses.replace(model, controlnet=dataclasses.replace(model.controlnet, conditioning_channels=3 + MORE))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_new_channels_do_not_change_a_bit_of_the_output(random_params, dtype):
  stem = PoseStem(64, (16, 32), dtype)
  pose, channels = uniform(0, 1, 2, 32, 32, 3), uniform(1, 1, 2, 32, 32, MORE)
  params = random_params(stem, pose)["params"]
  wide = fit_stem({"controlnet_cond_embedding": params}, 3 + MORE)["controlnet_cond_embedding"]
  assert wide["conv_in"]["kernel"].shape == (3, 3, 3 + MORE, 16)
  run = jax.jit(stem.apply)
  narrow, widened = (
    run({"params": weights}, x) for weights, x in ((params, pose), (wide, jnp.concatenate([pose, channels], -1)))
  )
  assert np.abs(narrow.astype(jnp.float32)).max() > 0.1
  assert np.array_equal(narrow, widened)


def test_patches_give_the_results_of_pixels(random_params, monkeypatch):
  stem, pose = PoseStem(8, (4, 6, 6, 8)), uniform(0, 2, 1, 24, 24, 5)
  params = random_params(stem, pose)["params"]

  def run():
    value = lambda params: jnp.sin(stem.apply({"params": params}, pose)).sum()
    return jax.jit(lambda params: (stem.apply({"params": params}, pose), jax.grad(value)(params)))

  pixels = run()(params)
  monkeypatch.setattr(sharding, "platform", lambda: "tpu")
  assert jax.eval_shape(stem.init, jax.random.key(0), pose)["params"]["conv_in"]["kernel"].shape == (3, 3, 5, 4)
  assert "tensor<2x6x6x48xf32>" in run().lower(params).as_text()  # 3 channels of 4 x 4 pixels
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(a).max()), pixels, run()(params))


def test_channels_are_in_the_order_of_the_kernel(random_params):
  stem = PoseStem(8, (4, 4))
  pose = uniform(0, 1, 1, 16, 16, 5)
  params = random_params(stem, pose)["params"]
  order = [0, 1, 2, 4, 3]
  swapped = {**params, "conv_in": {**params["conv_in"], "kernel": params["conv_in"]["kernel"][:, :, np.array(order)]}}
  run = jax.jit(stem.apply)
  np.testing.assert_allclose(
    run({"params": params}, pose), run({"params": swapped}, pose[..., np.array(order)]), atol=1e-5
  )
  assert np.abs(run({"params": params}, pose) - run({"params": swapped}, pose)).max() > 1e-3


def test_numpy_arrays_stay_on_the_host():
  params = {"controlnet_cond_embedding": {"conv_in": {"kernel": np.ones((3, 3, 3, 4), np.float32)}}, "other": 1}
  wide = fit_stem(params, 5)
  kernel = wide["controlnet_cond_embedding"]["conv_in"]["kernel"]
  assert isinstance(kernel, np.ndarray) and kernel.shape == (3, 3, 5, 4) and not kernel[:, :, 3:].any()
  assert params["controlnet_cond_embedding"]["conv_in"]["kernel"].shape[2] == 3 and wide["other"] == 1


def test_gradients_reach_the_weights_of_pose_channels():
  networks = Networks(wide_model())
  shapes = weight_shapes(networks)
  rng = np.random.default_rng(2)
  draw = lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32)
  weights = {name: jax.tree.map(draw, shapes[name]) for name in ("unet", "controlnet")}
  pose = (255 * uniform(0, 1, 1, 16, 16, 3)).astype(jnp.uint8)
  channels = uniform(1, 1, 1, 16, 16, MORE)

  def energy(weights, channels):
    return jnp.square(networks.embed_pose(weights, pose, channels)).sum()

  slopes = jax.grad(energy)(weights, channels)
  kernel = slopes["controlnet"]["controlnet_cond_embedding"]["conv_in"]["kernel"]
  assert kernel.shape[2] == 3 + MORE
  assert (np.abs(np.asarray(kernel)).sum(axis=(0, 1, 3)) > 0).all()
  with pytest.raises(ValueError, match=f"{3 + MORE} channels, not 3"):
    networks.embed_pose(weights, pose)


def test_bgr_order_applies_only_to_the_render(controlnet_config, random_params):
  wide = dataclasses.replace(controlnet_config, conditioning_channels=5)
  pose = uniform(0, 1, 1, 16, 16, 5)
  embed = lambda config, params, x: ControlNet(config).apply(params, x, method="embed_pose")
  shapes = uniform(0, 1, 1, 4, 4, 4), jnp.array([3]), uniform(0, 1, 5, 6), uniform(0, 1, 1, 4, 4, 8)
  params = random_params(ControlNet(wide), *shapes)
  turned = dataclasses.replace(wide, controlnet_conditioning_channel_order="bgr")
  assert np.array_equal(embed(turned, params, pose), embed(wide, params, pose[..., np.array([2, 1, 0, 3, 4])]))


def test_diffusers_folders_keep_the_channels(tmp_path):
  config = wide_model().controlnet
  shapes = weight_shapes(Networks(wide_model()))["controlnet"]
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
  save_model(tmp_path, config, params)
  loaded = load_model(tmp_path)
  assert loaded.config == config and config.conditioning_channels == 3 + MORE
  assert jax.tree.all(jax.tree.map(np.array_equal, params, loaded.params))


def test_a_narrowed_stem_equals_the_wide_one_with_zeros_in_the_dropped_channels(random_params):
  stem = PoseStem(8, (4, 4))
  channels = jnp.concatenate([uniform(0, 1, 1, 16, 16, 7), jnp.zeros((1, 1, 16, 16, MORE - 4))], axis=-1)
  params = random_params(stem, channels)["params"]
  narrow = fit_stem({"controlnet_cond_embedding": params}, 7)["controlnet_cond_embedding"]
  run = jax.jit(stem.apply)
  expected = run({"params": params}, channels)
  assert np.abs(expected).max() > 0.1
  np.testing.assert_allclose(run({"params": narrow}, channels[..., :7]), expected, atol=1e-6)
