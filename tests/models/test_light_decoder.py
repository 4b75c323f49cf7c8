"""The light decoder: its receptive field, distillation from the autoencoder, and the autoencoder it belongs to."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import drawn_weights, tiny_model

from anchor_jax.config.pixels import LightDecoderConfig
from anchor_jax.core.errors import UserError
from anchor_jax.data.sources import ArraySource
from anchor_jax.evaluation import metrics
from anchor_jax.files.shipped import shipped
from anchor_jax.formats.diffusers import load_model
from anchor_jax.models.light_decoder import LightDecoder
from anchor_jax.models.networks import Networks
from anchor_jax.store.light import StoredLightDecoder, autoencoder_hash, read_light_decoder, write_light_decoder
from anchor_jax.training.distil import DistillationData, distil, distillation_loss, fit_decoder

CONFIG = LightDecoderConfig(latent_channels=2, block_out_channels=(8, 12), layers_per_block=(0, 1), patch_size=2)
FLAT = LightDecoderConfig(latent_channels=2, block_out_channels=(16,), layers_per_block=(1,), patch_size=8)
LATENTS = jnp.asarray(np.random.default_rng(0).normal(size=(2, 9, 9, 2)), jnp.float32)
NETWORKS = Networks(tiny_model())


@pytest.fixture(scope="module")
def params():
  rng, shapes = (
    np.random.default_rng(0),
    jax.eval_shape(LightDecoder(CONFIG).init, jax.random.key(0), LATENTS)["params"],
  )
  return jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32), shapes)


def test_a_pixel_depends_on_the_cells_around_it(params):
  decode = lambda latents: LightDecoder(CONFIG).apply({"params": params}, latents)
  pictures = decode(LATENTS)
  assert pictures.shape == (2, 36, 36, 3) and pictures.dtype == jnp.float32
  changed = np.abs(decode(LATENTS.at[0, 8, 8].add(1)) - pictures).max(axis=-1) > 0
  assert changed[0, 32:, 32:].all() and not changed[0, :12].any() and not changed[1].any()


def test_networks_decode_with_it_instead_of_the_autoencoder(params):
  light = dataclasses.replace(NETWORKS, light=CONFIG)
  decoded = light.decode({"light_decoder": params}, LATENTS)
  np.testing.assert_array_equal(decoded, jnp.clip(LightDecoder(CONFIG).apply({"params": params}, LATENTS), 0, 1))


def test_the_loss_weights_decoded_pixels_more_than_true_ones():
  black, white = jnp.zeros((1, 4, 4, 3)), jnp.ones((1, 4, 4, 3))
  assert distillation_loss(black, black, black) == 0
  assert distillation_loss(white, black, white) > distillation_loss(white, white, black) > 0
  edges = black.at[:, :, ::2].set(0.5)
  assert distillation_loss(edges, black, black) > distillation_loss(black + 0.25, black, black)


def test_distillation_fits_pictures_of_latents():
  rng = np.random.default_rng(1)
  latents = rng.normal(size=(24, 8, 8, 2)).astype(np.float32)
  colors = 1 / (1 + np.exp(-np.stack([latents[..., 0], latents[..., 1], -latents[..., 0]], axis=-1)))
  pictures = np.rint(255 * np.repeat(np.repeat(colors, 8, axis=1), 8, axis=2)).astype(np.uint8)
  params = fit_decoder(FLAT, DistillationData(latents, pictures, pictures), steps=100, batch_size=8, seed=0)
  decoded = LightDecoder(FLAT).apply({"params": params}, jnp.asarray(latents))
  decoded = np.rint(255 * np.clip(decoded, 0, 1)).astype(np.uint8)
  mean = np.broadcast_to(pictures.mean(axis=(0, 1, 2)).astype(np.uint8), pictures.shape)
  assert metrics.psnr(decoded, pictures) > metrics.psnr(mean, pictures) + 6


@pytest.mark.slow
def test_distilled_from_an_autoencoder():
  weights, rng = drawn_weights(NETWORKS), np.random.default_rng(1)
  source = ArraySource({"frame": rng.integers(0, 256, (24, 32, 32, 3), np.uint8)}, np.zeros(24, int))
  light, measured = distil(NETWORKS, weights, source, CONFIG, steps=2, batch_size=2)
  assert light.config == dataclasses.replace(CONFIG, autoencoder=autoencoder_hash(weights["vae"]))
  assert set(measured) == {"against_decoded", "against_truth", "autoencoder"}
  weights["light_decoder"] = light.params
  weights = jax.tree.map(jnp.asarray, weights)
  networks = dataclasses.replace(NETWORKS, light=light.config)
  assert networks.decode(weights, LATENTS).shape == (2, 36, 36, 3)


def test_too_few_frames_or_too_many_levels_are_refused():
  weights = {"vae": {}}
  source = lambda count: ArraySource({"frame": np.zeros((count, 32, 32, 3), np.uint8)}, np.zeros(count, int))
  with pytest.raises(UserError, match="at least 20"):
    distil(NETWORKS, weights, source(4), CONFIG)
  deep = LightDecoderConfig(block_out_channels=(8,) * 4, layers_per_block=(0,) * 4)
  with pytest.raises(UserError, match="fewer widths"):
    distil(NETWORKS, weights, source(30), deep)


def test_a_folder_round_trip_keeps_it_and_ties_it_to_its_autoencoder(params, tmp_path):
  vae = drawn_weights(NETWORKS)["vae"]
  light = StoredLightDecoder(dataclasses.replace(CONFIG, autoencoder=autoencoder_hash(vae)), params)
  write_light_decoder(tmp_path, light, "float32")
  read = read_light_decoder(tmp_path)
  assert read.config == light.config
  jax.tree.map(np.testing.assert_array_equal, read.params, params)
  read.check(vae)
  with pytest.raises(UserError, match="another autoencoder"):
    read.check(jax.tree.map(lambda leaf: leaf + 1, vae))
  with pytest.raises(UserError, match="no light decoder in"):
    read_light_decoder(tmp_path / "nowhere")


def test_the_shipped_one_fits_the_shipped_autoencoder_and_all_weights_fit_in_16_megabytes():
  read_light_decoder("light").check(load_model(shipped() / "vae", dtype=np.float32).params)
  assert sum(path.stat().st_size for path in shipped().rglob("*.safetensors")) < 16e6
