import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from anchor_jax.models.temporal import initial_temporal_parameter, is_temporal
from anchor_jax.models.unet import UNet

SETTINGS = ({"temporal_attention": True}, {"temporal_kernel": 3})


@pytest.fixture(scope="module")
def clip():
  normal = lambda seed, *shape: jax.random.normal(jax.random.key(seed), shape)
  return normal(0, 1, 4, 4, 4, 4), jnp.array([300]), normal(1, 1, 3, 6), jnp.array([[True, True, True, False]])


@pytest.fixture(scope="module")
def plain(unet_config, clip, random_params):
  module = UNet(unet_config)
  return module, random_params(module, *clip)


@pytest.fixture(scope="module")
def one_level(unet_config, clip, random_params):
  """A config with one block of each kind, and its network: running it op by op takes half as long."""
  blocks = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
  config = dataclasses.replace(unet_config, block_out_channels=(8,), **blocks)
  module = UNet(config)
  return config, (module, random_params(module, *clip))


def switched_on(unet_config, plain, clip, settings):
  """The same network with untrained temporal layers."""
  module = UNet(dataclasses.replace(unet_config, **settings))
  shapes = flatten_dict(jax.eval_shape(module.init, jax.random.key(0), *clip)["params"])
  known = flatten_dict(plain[1]["params"])
  added = [path for path in shapes if path not in known]
  assert added
  assert all(is_temporal(path) for path in added)
  assert not any(is_temporal(path) for path in known)
  params = {
    path: known[path] if path in known else jnp.asarray(initial_temporal_parameter(path, leaf.shape))
    for path, leaf in shapes.items()
  }
  return module, {"params": unflatten_dict(params)}


@pytest.mark.parametrize("settings", SETTINGS)
def test_untrained_temporal_layers_change_nothing(one_level, clip, settings, jit):
  config, (module, params) = one_level
  temporal, more = switched_on(config, (module, params), clip, settings)
  if "temporal_attention" in settings:
    np.testing.assert_array_equal(jit(module.apply)(params, *clip), jit(temporal.apply)(more, *clip))
  else:  # op by op, since the compiler rounds two different programs differently (by some 1e-6)
    assert jnp.abs(module.apply(params, *clip) - temporal.apply(more, *clip)).max() <= 1e-6


@pytest.mark.slow
def test_training_makes_temporal_layers_matter_and_padded_frames_stay_masked(unet_config, plain, clip, jit):
  module, params = plain
  temporal, more = switched_on(unet_config, plain, clip, SETTINGS[0] | SETTINGS[1])
  before = jit(module.apply)(params, *clip)
  target = before[:, ::-1]  # needs information from other frames

  @jit
  def step(params):
    def loss(params):
      return jnp.mean((temporal.apply(params, *clip) - target)[:, :3] ** 2)

    value, slope = jax.value_and_grad(loss)(params)
    trained = lambda path, p, g: p - 0.05 * g if is_temporal(tuple(k.key for k in path)) else p
    return jax.tree_util.tree_map_with_path(trained, params, slope), value

  values = []
  for _ in range(4):
    more, value = step(more)
    values.append(float(value))
  assert values[-1] < values[0] - 1e-4
  for path, leaf in flatten_dict(more["params"]).items():  # every temporal parameter has changed
    is_zero_still = not np.any(leaf) if path[-1] == "taps" or path[-2:] == ("to_out_0", "kernel") else False
    assert not (is_temporal(path) and is_zero_still), path
  apply = jit(temporal.apply)
  sample, *rest = clip
  got = apply(more, sample, *rest)
  assert jnp.abs(got - before).max() > 1e-3
  np.testing.assert_allclose(apply(more, sample.at[:, 3].add(5), *rest)[:, :3], got[:, :3], atol=1e-5)
