import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anchor_jax.config.pixels import RefinerConfig
from anchor_jax.models.layers import from_patches, to_patches
from anchor_jax.models.refiner import Refiner

CONFIG = RefinerConfig(conditioning_channels=11, patch_size=2, block_out_channels=(8, 8), norm_num_groups=4)
RNG = np.random.default_rng(0)
PICTURES, CHANNELS = (jnp.asarray(RNG.random((2, 16, 12, count), np.float32)) for count in (3, 11))


@pytest.fixture(scope="module")
def params():
  return jax.jit(Refiner(CONFIG).init)(jax.random.key(0), PICTURES, CHANNELS)["params"]


def apply(params, pictures, channels):
  return Refiner(CONFIG).apply({"params": params}, pictures, channels)


def test_a_new_refiner_changes_nothing(params):
  np.testing.assert_array_equal(apply(params, PICTURES, CHANNELS), PICTURES)


def test_training_uses_its_channels(params):
  def loss(params, channels):
    return jnp.mean(jnp.abs(apply(params, PICTURES, channels) - channels[..., 3:6]))

  gradient = jax.jit(jax.grad(loss))(params, CHANNELS)
  assert np.abs(gradient["conv_out"]["kernel"]).max() > 0
  step = {**params, "conv_out": jax.tree.map(lambda p, g: p - 0.3 * g, params["conv_out"], gradient["conv_out"])}
  assert loss(step, CHANNELS) < loss(params, CHANNELS)
  assert np.abs(apply(step, PICTURES, CHANNELS) - apply(step, PICTURES, 1 - CHANNELS)).max() > 1e-4


def test_colors_of_unknown_candidates_have_no_effect(params):
  live = jax.tree.map(lambda leaf: leaf + 0.1, params)
  unknown = CHANNELS.at[..., 6].set(0)
  colors = unknown.at[..., 3:6].set(5.0)
  weights = {**live, "conv_in": jax.tree.map(jnp.zeros_like, live["conv_in"])}
  np.testing.assert_array_equal(apply(weights, PICTURES, unknown), apply(weights, PICTURES, colors))
  assert np.abs(apply(weights, PICTURES, CHANNELS) - apply(weights, PICTURES, colors)).max() > 1e-3


def test_frames_do_not_mix(params):
  live = jax.tree.map(lambda leaf: leaf + 0.1, params)
  both, alone = (apply(live, PICTURES[:n], CHANNELS[:n]) for n in (2, 1))
  np.testing.assert_allclose(both[:1], alone, atol=1e-5)


def test_large_frames_are_decided_small_and_colored_at_full_size(params):
  live = jax.tree.map(lambda leaf: leaf + 0.05, params)
  double = dataclasses.replace(CONFIG, decide_at=2)
  assert double.stride == 2 * CONFIG.stride and double.to_json() != CONFIG.to_json()
  large = lambda picture: picture.repeat(2, axis=1).repeat(2, axis=2)
  both = Refiner(double).apply({"params": live}, large(PICTURES), large(CHANNELS))
  small = apply(live, PICTURES, CHANNELS)
  inside = slice(4, -4)
  means = both.reshape(2, 16, 2, 12, 2, 3).mean(axis=(2, 4))
  assert np.abs(means - small)[:, inside, inside].mean() < 0.25 * np.abs(small - PICTURES)[:, inside, inside].mean()
  # Detail of a candidate that is finer than the decision reaches the picture.
  fine = large(CHANNELS).at[:, ::2, ::2, 3:6].add(0.2).at[:, 1::2, 1::2, 3:6].add(-0.2)
  changed = Refiner(double).apply({"params": live}, large(PICTURES), fine) - both
  assert np.abs(changed[:, ::2, ::2] - changed[:, 1::2, 1::2]).mean() > 0.01


def test_cells_without_a_candidate_do_not_decide_beside_it(params):
  """What the layers say where a candidate is unknown was never trained."""
  half = dataclasses.replace(CONFIG, decide_at=2)
  large = lambda picture: picture.repeat(2, axis=1).repeat(2, axis=2)
  channels = large(CHANNELS).at[:, :, :12, 6].set(0).at[:, :, :12, 10].set(0)  # both candidates on the left
  alike = {"kernel": jnp.zeros_like(params["conv_out"]["kernel"]), "bias": params["conv_out"]["bias"] + 0.3}
  deaf = {**params, "conv_out": alike}  # all cells decide alike
  both = Refiner(half).apply({"params": deaf}, large(PICTURES), channels)
  known = Refiner(half).apply({"params": deaf}, large(PICTURES), large(CHANNELS))
  np.testing.assert_allclose(both[:, :, 12:], known[:, :, 12:], atol=1e-5)


def test_from_patches_inverts_to_patches():
  np.testing.assert_array_equal(from_patches(to_patches(PICTURES, 2), 2), PICTURES)
  assert to_patches(PICTURES, 2).shape == (2, 8, 6, 12)


def test_inputs_that_do_not_fit_the_config_are_refused(params):
  with pytest.raises(ValueError, match="takes 11 channels"):
    apply(params, PICTURES, CHANNELS[..., :7])
  with pytest.raises(ValueError, match="multiples of 4"):
    apply(params, PICTURES[:, :14], CHANNELS[:, :14])
