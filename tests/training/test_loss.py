"""The losses: dropped and shifted channels, pixel weights, loss terms, and examples that start from pure noise."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import drawn_weights

from anchor_jax.body.charts import chart
from anchor_jax.config.networks import ScheduleConfig
from anchor_jax.config.pixels import RefinerConfig
from anchor_jax.diffusion.loss import denoising_loss
from anchor_jax.diffusion.schedule import make_schedule
from anchor_jax.models.networks import Networks
from anchor_jax.texture.channels import channel_groups
from anchor_jax.training.draws import (
  draw_group_mask,
  draw_shifts,
  drop_groups,
  pixel_weights,
  shift_groups,
  starts_from_noise,
)
from anchor_jax.training.loss import PICTURE_TERMS, batch_fields, contrast_error, make_loss

SIZE = 32


def drop(conditions, groups, rate, key):
  return drop_groups(conditions, groups, draw_group_mask(len(conditions), len(groups), rate, key))


def jitter(conditions, groups, most, rate, key):
  return shift_groups(conditions, groups, most, draw_shifts(len(conditions), len(groups), most, rate, key))


def test_groups_of_channels_are_dropped_together():
  groups = channel_groups("full")
  kept = np.asarray(drop(jnp.ones((400, 2, 3, 3, sum(groups))), groups, 0.3, jax.random.key(0)))
  assert (kept == kept[:, :1, :1, :1]).all()
  of_group = kept[:, 0, 0, 0].reshape(400, len(groups), 4)
  assert (of_group == of_group[..., :1]).all()
  assert abs(of_group.mean() - 0.49) < 0.05  # 0.7 squared: neither all groups nor this one dropped
  assert 0.25 < (of_group.sum(axis=(1, 2)) == 0).mean() < 0.4
  np.testing.assert_array_equal(drop(jnp.ones((4, 1, 2, 2, 6)), (6,), 0.0, jax.random.key(0)), 1)


def test_jitter_shifts_groups_of_channels_by_few_pixels():
  groups, most = (4, 2), 2
  conditions = jnp.asarray(np.random.default_rng(0).random((300, 2, 9, 8, sum(groups)), np.float32))
  found = np.asarray(jitter(conditions, groups, most, 0.5, jax.random.key(0)))
  shifted = []
  for before, after in zip(np.asarray(conditions), found, strict=True):
    padded = np.pad(before, ((0, 0), (most, most), (most, most), (0, 0)), mode="edge")
    ways = [(y, x) for y in range(2 * most + 1) for x in range(2 * most + 1)]
    for channels in (slice(0, 4), slice(4, 6)):
      equal = [
        way for way in ways if (padded[:, way[0] :, way[1] :][:, :9, :8, channels] == after[..., channels]).all()
      ]
      assert len(equal) == 1
      shifted.append(equal[0] != (most, most))
  assert 0.4 < np.mean(shifted) < 0.56  # half, of which one in 25 draws a shift of 0
  for unchanged in (
    jitter(conditions, groups, 0, 0.5, jax.random.key(0)),
    jitter(conditions, groups, 1, 0.0, jax.random.key(0)),
  ):
    np.testing.assert_array_equal(unchanged, conditions)


def test_face_and_hands_have_more_weight():
  charts = np.array([[chart("none"), chart("chest")], [chart("nose"), chart("palm", "left")]])
  surface = jnp.zeros((1, 1, 2, 2, 3), jnp.uint8).at[0, 0, ..., 0].set(charts)
  np.testing.assert_array_equal(pixel_weights(surface, 4.0)[0, 0], [[1, 1], [4, 4]])
  weights = jnp.asarray([[[[1.0, 3.0]]]])
  error = jnp.asarray([[[[[2.0], [1.0]]]]])
  schedule = make_schedule(ScheduleConfig())
  clean, noise = jnp.zeros_like(error), jnp.zeros_like(error)
  loss, _ = denoising_loss(
    lambda *_: error, schedule, clean, noise, jnp.array([500]), jnp.zeros((1, 1, 1)), {}, 0.0, weights
  )
  np.testing.assert_allclose(loss, [(1 * 4 + 3 * 1) / 4], rtol=1e-6)


@pytest.mark.parametrize("share,rows", [(0, []), (0.25, [0, 4]), (0.5, [0, 2, 4, 6]), (1, list(range(8)))])
def test_a_share_of_a_batch_starts_from_pure_noise(share, rows):
  assert np.flatnonzero(starts_from_noise(8, share)).tolist() == rows


def refined_run(tiny_run, **settings):
  """(config, networks, weights, batch of 8) of a tiny body with a refiner and black target frames."""
  config = tiny_run("body", **settings)
  branch = dataclasses.replace(config.model.controlnet, conditioning_channels=23)
  networks = Networks(dataclasses.replace(config.model, controlnet=branch, refiner=RefinerConfig(23, 2, (8, 8), 4)))
  weights = jax.tree.map(jnp.asarray, drawn_weights(networks))
  config = dataclasses.replace(config, data=dataclasses.replace(config.data, pose_channels="full", cache=True))
  shape, vae = (8, SIZE, SIZE), networks.model.vae
  latent = jnp.zeros((8, SIZE // vae.stride, SIZE // vae.stride, vae.latent_channels))
  target = {"pose": jnp.zeros((*shape, 3), jnp.uint8), "frame": jnp.zeros((*shape, 3), jnp.uint8), "latent": latent}
  target |= {"conditions": jnp.zeros((*shape, 20), jnp.uint8), "surface": jnp.zeros((*shape, 3), jnp.uint8)}
  context = jnp.zeros((8, *weights["null_context"].shape[-2:]))
  return config, networks, weights, {"target": target, "reference": {"context": context}}


def plain_pictures(networks, weights, latents):
  """Pictures of a single color, that of the first cell."""
  return jnp.ones((len(latents), SIZE, SIZE, 3)) * latents[:, :1, :1, :1]


def test_the_refiner_is_trained_on_examples_that_start_from_pure_noise(tiny_run, monkeypatch):
  config, networks, weights, batch = refined_run(tiny_run, last_step=0.25, refined=2)
  seen, refine = [], Networks.refine

  def denoise(self, weights, latents, timesteps, *rest):
    seen.append(timesteps)
    # the decoded color is the example's number
    return jnp.zeros_like(latents) + jnp.arange(8.0)[:, None, None, None, None]

  def refined(self, weights, pictures, *rest):
    seen.append(pictures)
    return refine(self, weights, pictures, *rest)

  monkeypatch.setattr(Networks, "denoise", denoise)
  monkeypatch.setattr(Networks, "refine", refined)
  monkeypatch.setattr(Networks, "decode", plain_pictures)

  @jax.jit
  def run(weights):
    make_loss(config, networks)(weights, {}, batch, jax.random.key(0))
    return seen

  timesteps, pictures = run(weights)
  last = len(make_schedule(networks.model.schedule)) - 1
  assert np.flatnonzero(np.asarray(timesteps) == last).tolist() == [0, 4]
  assert len(pictures) == 2 and np.abs(pictures[0] - pictures[1]).min() > 0


def test_sharpness_is_the_weight_of_the_contrast_error(tiny_run, monkeypatch):
  drawn = jax.random.uniform(jax.random.key(1), (2, SIZE, SIZE, 3))
  monkeypatch.setattr(Networks, "refine", lambda *_: drawn)
  monkeypatch.setattr(Networks, "decode", plain_pictures)
  monkeypatch.setattr(Networks, "denoise", lambda self, weights, latents, *_: jnp.zeros_like(latents))
  config, networks, weights, batch = refined_run(tiny_run, refined=2)
  plain, sharp = (
    make_loss(dataclasses.replace(config, sharpness=value), networks)(weights, {}, batch, jax.random.key(0))[1]
    for value in (0.0, 0.5)
  )
  expected = contrast_error(2 * drawn - 1, -jnp.ones_like(drawn))
  np.testing.assert_allclose(sharp["refining"] - plain["refining"], 0.5 * expected, rtol=1e-4)


@dataclasses.dataclass(frozen=True)
class Brightness:
  """Mean brightness of the pictures."""

  weight: float

  def __call__(self, painted):
    return painted.pictures.mean()


def test_a_new_loss_term_is_one_class_and_one_line(tiny_run, monkeypatch):
  drawn = jax.random.uniform(jax.random.key(1), (2, SIZE, SIZE, 3))
  monkeypatch.setattr(Networks, "refine", lambda *_: drawn)
  monkeypatch.setattr(Networks, "decode", plain_pictures)
  monkeypatch.setattr(Networks, "denoise", lambda self, weights, latents, *_: jnp.zeros_like(latents))
  config, networks, weights, batch = refined_run(tiny_run, refined=2)
  pictures = lambda: make_loss(config, networks)(weights, {}, batch, jax.random.key(0))[1]["refining"]
  before = pictures()
  monkeypatch.setitem(PICTURE_TERMS, "brightness", lambda config: Brightness(weight=0.1))
  np.testing.assert_allclose(pictures() - before, 0.1 * (2 * drawn - 1).mean(), rtol=1e-4)


def test_the_denoiser_gets_a_gradient_from_refined_pictures(tiny_run, monkeypatch):
  config, networks, weights, batch = refined_run(tiny_run, last_step=1.0, refined=1)
  monkeypatch.setattr(Networks, "decode", plain_pictures)
  monkeypatch.setattr(Networks, "refine", lambda self, weights, pictures, *_: pictures)
  monkeypatch.setattr(
    Networks, "denoise", lambda self, weights, latents, *_: 0 * latents + weights["null_context"].mean()
  )
  refining = lambda trained: make_loss(config, networks)(trained, {}, batch, jax.random.key(0))[1]["refining"]
  assert np.abs(jax.jit(jax.grad(refining))(weights)["null_context"]).min() > 0


def test_pixels_is_the_weight_of_decoded_pictures_without_a_refiner(tiny_run, monkeypatch):
  config, networks, weights, batch = refined_run(tiny_run, last_step=1.0, refined=8)
  networks = dataclasses.replace(networks, model=dataclasses.replace(networks.model, refiner=None))
  config = dataclasses.replace(config, model=networks.model)
  weights = {name: tree for name, tree in weights.items() if name != "refiner"}
  monkeypatch.setattr(
    Networks, "decode", lambda self, weights, latents: 0.25 + plain_pictures(self, weights, 0 * latents)
  )
  monkeypatch.setattr(Networks, "denoise", lambda self, weights, latents, *_: jnp.ones_like(latents))
  losses = []
  for weight in (0.0, 1.0, 3.0):
    weighted = dataclasses.replace(config, pixels=weight)
    assert ("frame" in batch_fields(weighted)[0]) == (weight > 0)
    loss, metrics = make_loss(weighted, networks)(weights, {}, batch, jax.random.key(0))
    assert ("refining" in metrics) == (weight > 0)
    losses.append(float(loss))
  # The truth is black, -1: pixels are off by 0.5 and edges by 0. At pure noise the velocity is the negative latent, and
  # the latent is 0.
  np.testing.assert_allclose(np.diff(losses), [0.5, 1.0], rtol=1e-5)
  np.testing.assert_allclose(losses[0], 1.0, rtol=0.02)


def test_a_picture_term_without_pictures_is_named(tiny_run, caplog):
  config, networks, *_ = refined_run(tiny_run)
  make_loss(dataclasses.replace(config, sharpness=1.0), networks)
  assert not caplog.messages, "the refiner's pictures are compared"
  networks = dataclasses.replace(networks, model=dataclasses.replace(networks.model, refiner=None))
  without = dataclasses.replace(config, model=networks.model, sharpness=1.0)
  make_loss(dataclasses.replace(without, pixels=0.5), networks)
  assert not caplog.messages
  make_loss(without, networks)
  assert "config.sharpness has no effect" in caplog.text


def test_contrast_is_compared_per_square_wherever_details_lie():
  stripes = jnp.tile(jnp.asarray([0.0, 0.0, 1.0, 1.0]), 4)[None, None, :, None] * jnp.ones((1, 17, 1, 3))
  flat = jnp.zeros_like(stripes)
  np.testing.assert_allclose(contrast_error(1 - stripes, stripes), 0, atol=1e-6)
  # Means of neighbors change by 1/2 in three channels: in all 8 columns of the left squares, in 6 of the right ones.
  np.testing.assert_allclose(contrast_error(flat, stripes), (0.75**0.5 + (0.75 * 6 / 8) ** 0.5) / 2, rtol=0.01)
  checkered = jnp.asarray(np.indices((17, 17)).sum(axis=0) % 2, jnp.float32)[None, ..., None] * jnp.ones(3)
  np.testing.assert_allclose(contrast_error(checkered, 0 * checkered), 0, atol=1e-6)
  right = stripes.at[:, :, :8].set(0)
  weights = jnp.ones((1, 17, 16)).at[:, :, :8].set(3.0) / 2
  np.testing.assert_allclose(contrast_error(right, stripes, weights) / contrast_error(right, stripes), 1.5, rtol=0.01)
  assert np.isfinite(jax.grad(contrast_error)(flat, flat)).all()
