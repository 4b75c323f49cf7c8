"""Layers of published networks: closed forms."""

import jax.numpy as jnp
import numpy as np

from anchor_jax.evaluation.published import torch_layers


def test_mean_pool_excludes_padding():
  x = jnp.arange(12, dtype=jnp.float32).reshape(1, 3, 4, 1)
  found = torch_layers.mean_pool(x, (3, 3), [(1, 1), (1, 1)])[0, ..., 0]
  assert found[0, 0] == (0 + 1 + 4 + 5) / 4 and found[1, 1] == 5 and found[2, 3] == (6 + 7 + 10 + 11) / 4
  lowest = torch_layers.max_pool(x - 20, (3, 3), (2, 2), [(1, 1), (1, 1)])[0, ..., 0]
  assert lowest.tolist() == [[5 - 20, 7 - 20], [9 - 20, 11 - 20]]


def test_resize_matches_torch():
  # interpolate([0, 10, 20, 30], size=3, mode="linear", align_corners=False): centers at 1/6, 3/2 and 17/6
  ramp = jnp.asarray([0.0, 10, 20, 30])[None, None, :, None]
  found = torch_layers.resize_bilinear(ramp, 1, 3).ravel()
  np.testing.assert_allclose(found, [10 / 6, 15, 170 / 6], rtol=1e-5)
  np.testing.assert_allclose(torch_layers.resize_bilinear(ramp, 2, 8)[0, 0, :2, 0], [0, 2.5], atol=1e-5)
