import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import drawn_weights, tiny_model

from anchor_jax.config.pixels import RefinerConfig
from anchor_jax.core.errors import UserError
from anchor_jax.models.networks import Networks
from anchor_jax.models.pictures import enlarge, require_finite, shrink, shrink_looked_up, to_bytes
from anchor_jax.training.held_out import _bytes

MODEL, RNG = tiny_model(), np.random.default_rng(0)


def test_to_bytes_reports_which_pictures_are_finite():
  pictures = jnp.full((4, 2, 2, 3), 0.5).at[1, 0, 0, 0].set(jnp.nan)
  latents = jnp.zeros((4, 1, 1, 2)).at[3, 0, 0, 1].set(jnp.inf)
  images, finite = jax.jit(to_bytes)(pictures, latents)
  assert images.dtype == np.uint8 and (np.asarray(images)[[0, 2]] == 128).all()
  assert finite.tolist() == [True, False, True, False]
  require_finite(np.asarray(finite)[[0, 2]], "frame")
  with pytest.raises(UserError, match=r"^frame 7 has values"):
    require_finite(np.asarray(finite), "frame", 6)


def test_a_preview_that_is_not_finite_is_logged(caplog):
  _bytes(np.full((2, 2, 2, 3), 0.25, np.float32))
  assert not caplog.text
  _bytes(np.full((2, 2, 2, 3), np.nan, np.float32))
  assert "2 of 2 previews" in caplog.text


def test_shrink_averages_squares_of_pixels():
  pixels = jnp.asarray(RNG.random((2, 3, 4, 6, 3), np.float32))
  shrunk = shrink(pixels, 2)
  assert shrunk.shape == (2, 3, 2, 3, 3)
  np.testing.assert_allclose(shrunk[1, 2, 1, 0], np.asarray(pixels[1, 2, 2:4, 0:2]).mean(axis=(0, 1)), rtol=1e-6)
  np.testing.assert_array_equal(shrink(pixels, 1), pixels)


def test_unknown_pixels_do_not_darken_their_neighbors():
  known, unknown = jnp.array([0.8, 0.4, 0.2, 1.0]), jnp.zeros(4)
  square = jnp.stack([jnp.stack([known, unknown]), jnp.stack([unknown, unknown])])[None]
  np.testing.assert_allclose(shrink_looked_up(square, 2)[0, 0, 0], [0.8, 0.4, 0.2, 0.25], rtol=1e-6)
  np.testing.assert_array_equal(shrink_looked_up(jnp.zeros((1, 2, 2, 8)), 2), 0)
  both = jnp.concatenate([square, jnp.ones_like(square)], axis=-1)  # groups do not mix
  np.testing.assert_allclose(shrink_looked_up(both, 2)[0, 0, 0], [0.8, 0.4, 0.2, 0.25, 1, 1, 1, 1], rtol=1e-6)


def test_enlarge_interpolates():
  even = jnp.full((1, 3, 2, 3), 0.3)
  enlarged = enlarge(even, 2)
  assert enlarged.shape == (1, 6, 4, 3)
  np.testing.assert_allclose(enlarged, 0.3, rtol=1e-6)
  ramp = jnp.arange(4.0)[None, None, :, None] * jnp.ones((1, 4, 1, 3))
  np.testing.assert_allclose(np.diff(enlarge(ramp, 2)[0, 4, 1:-1, 0]), 0.5, rtol=1e-6)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_enlarge_is_bilinear_resizing(scale):
  pictures = jnp.asarray(RNG.random((2, 5, 3, 3), np.float32))
  expected = jax.image.resize(pictures, (2, 5 * scale, 3 * scale, 3), "linear")
  np.testing.assert_allclose(enlarge(pictures, scale), expected, rtol=0, atol=4 * np.finfo(np.float32).eps)


@pytest.mark.parametrize("kind", ["encode", "embed_pose", "paint"])
def test_networks_see_shrunk_frames_and_paint_at_full_size(kind):
  """The networks get the same from a frame of twice the side as from that frame shrunk beforehand."""
  refiner = RefinerConfig(7, 2, (8, 8), 4, scale=2)
  branch = dataclasses.replace(MODEL.controlnet, conditioning_channels=7)
  large = Networks(dataclasses.replace(MODEL, refiner=refiner, controlnet=branch))
  small = Networks(dataclasses.replace(large.model, refiner=dataclasses.replace(refiner, scale=1)))
  weights = jax.tree.map(jnp.asarray, drawn_weights(large))
  side = 2 * large.model.stride * 2
  pixels = jnp.asarray(RNG.random((1, side, side, 3), np.float32)) * 2 - 1
  pose = jnp.asarray(RNG.integers(0, 256, (1, 1, side // 2, side // 2, 3), np.uint8)).repeat(2, 2).repeat(2, 3)
  seen = jnp.asarray(RNG.random((1, 1, side, side, 4), np.float32))
  if kind == "encode":
    found, expected = large.encode(weights, pixels), small.encode(weights, shrink(pixels, 2))
  elif kind == "embed_pose":
    found = large.embed_pose(weights, pose, seen)
    expected = small.embed_pose(weights, pose[:, :, ::2, ::2], shrink_looked_up(seen, 2))
  else:
    latents = jax.random.normal(jax.random.key(1), (1, *large.encode(weights, pixels).shape[1:]))
    found = large.paint(weights, latents, pose[0], seen[0])
    assert found.shape == (1, side, side, 3)
    decoded = enlarge(large.decode(weights, latents), 2)
    expected = jnp.clip(small.refine(weights, decoded, pose[0], seen[0]), 0, 1)
    assert np.abs(found - decoded).max() > 0.01
  np.testing.assert_allclose(found, expected, atol=1e-5)
