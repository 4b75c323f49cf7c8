"""The networks against diffusers' Flax classes.

The Flax classes differ from the torch classes, which this package follows, in three ways: the GELU in the transformers
is the tanh form, the GroupNorm before the transformers has epsilon 1e-5 instead of 1e-6, and every GroupNorm has 32
groups. With the first two patched in and 32 groups configured, results agree as closely as with torch; without them
they differ, as asserted here.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from diffusers import (
  FlaxAutoencoderKL,
  FlaxControlNetModel,
  FlaxDDIMScheduler,
  FlaxUNet2DConditionModel,
)
from flax.traverse_util import flatten_dict, unflatten_dict

from anchor_jax.config.networks import ScheduleConfig
from anchor_jax.diffusion.solvers import advance, make_solver
from anchor_jax.formats.diffusers import Model, load_network_config
from anchor_jax.formats.registry import make_module, parameter_shapes
from anchor_jax.models import transformer

FIELDS = {
  "block_out_channels": (32, 64),
  "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
  "layers_per_block": 1,
  "attention_head_dim": 4,
  "cross_attention_dim": 16,
}
UP = {"up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}


def arrays(seed=0):
  normal = lambda i, *shape: jax.random.normal(jax.random.key(seed + i), shape)
  return normal(0, 2, 4, 8, 8), jnp.array([3, 700]), normal(1, 2, 5, 16)


def random_weights(module, seed=1):
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    noise = rng.normal(size=leaf.shape)
    if leaf.ndim > 1:
      return jnp.asarray(noise * np.prod(leaf.shape[:-1]) ** -0.5, jnp.float32)
    return jnp.asarray(0.1 * noise + (path[-1].key == "scale"), jnp.float32)

  return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(module.init_weights, jax.random.key(0)))


@pytest.fixture
def like_flax(monkeypatch):
  """Patches the two constants of the transformers to those of the Flax classes."""

  def switch():
    monkeypatch.setattr(transformer, "gelu", lambda x: jax.nn.gelu(x, approximate=True))
    norm = transformer.GroupNorm

    def with_flax_epsilon(groups, epsilon, **options):
      return norm(groups, 1e-5 if options.get("name") == "norm" else epsilon, **options)

    monkeypatch.setattr(transformer, "GroupNorm", with_flax_epsilon)

  return switch


VAE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out_0"}


def converted(module, params, folder):
  """The configuration and parameters of a Flax module as a model of this package."""
  module.save_config(folder)
  paths = {}
  for path, leaf in flatten_dict(params).items():
    name = re.sub(r"/(\d+)(?=/)", r"_\1", "/".join(VAE_ATTENTION.get(key, key) for key in path))
    paths[name] = leaf
  config = load_network_config(folder)
  assert {path: leaf.shape for path, leaf in paths.items()} == {
    "/".join(path): shape for path, shape in parameter_shapes(config).items()
  }
  return Model(config, unflatten_dict({tuple(path.split("/")): leaf for path, leaf in paths.items()}))


def clips(x):
  return jnp.moveaxis(x, 1, -1)[:, None]


def difference(found, expected):
  found, expected = np.asarray(found), np.asarray(expected)
  return float(np.abs(found - expected).max() / max(1, np.abs(expected).max()))


@pytest.mark.parametrize("linear", [False, True])
def test_unet(linear, tmp_path, jit, like_flax):
  module = FlaxUNet2DConditionModel(**FIELDS, **UP, use_linear_projection=linear, sample_size=8)
  params = random_weights(module)
  model = converted(module, params, tmp_path)
  x, timesteps, context = arrays()
  expected = jit(module.apply)({"params": params}, x, timesteps, context).sample
  network = make_module(model.config)

  def error():
    got = jit(lambda *x: network.apply(*x))({"params": model.params}, clips(x), timesteps, context)
    return difference(jnp.moveaxis(got[:, 0], -1, 1), expected)

  assert error() > 5e-5  # the two constants matter
  like_flax()
  assert error() <= 2e-5


def test_controlnet(tmp_path, jit, like_flax):
  module = FlaxControlNetModel(**FIELDS, conditioning_embedding_out_channels=(4, 8, 8, 8), sample_size=8)
  params = random_weights(module)
  model = converted(module, params, tmp_path)
  x, timesteps, context = arrays()
  pose = jax.random.uniform(jax.random.key(5), (2, 3, 64, 64))
  down, middle = jit(functools.partial(module.apply, return_dict=False))(
    {"params": params}, x, timesteps, context, pose
  )
  network = make_module(model.config)
  like_flax()
  weights = {"params": model.params}
  features = jit(lambda p, x: network.apply(p, x, method="embed_pose"))(weights, clips(pose))
  got_down, got_middle = jit(network.apply)(weights, clips(x), timesteps, context, features)
  # The Flax class returns its features channel-last.
  for got, want in zip((*got_down, got_middle), (*down, middle), strict=True):
    want = want if want.shape == got[:, 0].shape else jnp.moveaxis(want, 1, -1)
    assert difference(got[:, 0], want) <= 2e-5


def test_autoencoder(tmp_path, jit):
  module = FlaxAutoencoderKL(
    block_out_channels=(32, 64),
    down_block_types=("DownEncoderBlock2D",) * 2,
    up_block_types=("UpDecoderBlock2D",) * 2,
  )
  params = random_weights(module)
  model = converted(module, params, tmp_path)
  image = jax.random.uniform(jax.random.key(2), (2, 3, 16, 16), minval=-1)
  posterior = module.apply({"params": params}, image, method=module.encode).latent_dist
  decoded = module.apply({"params": params}, posterior.mean, method=module.decode).sample
  network, weights = make_module(model.config), {"params": model.params}
  mean, log_variance = jit(lambda p, x: network.apply(p, x, method="encode"))(weights, jnp.moveaxis(image, 1, -1))
  assert difference(mean, posterior.mean) <= 2e-5
  assert difference(log_variance, posterior.logvar) <= 2e-5
  got = jit(lambda p, z: network.apply(p, z, method="decode"))(weights, mean)
  assert difference(jnp.moveaxis(got, -1, 1), decoded) <= 2e-5


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("to_one", [False, True])
def test_ddim(prediction, to_one):
  fields = {"prediction_type": prediction, "set_alpha_to_one": to_one, "steps_offset": 1}
  betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
  scheduler = FlaxDDIMScheduler(**fields, **betas, clip_sample=False)
  state = scheduler.set_timesteps(scheduler.create_state(), 7, (1, 4, 4, 2))
  solver = make_solver("ddim", ScheduleConfig(**fields, **betas), 7)
  np.testing.assert_array_equal(solver.timesteps, state.timesteps)
  sample = own = jax.random.normal(jax.random.key(0), (1, 4, 4, 2))
  clean = jnp.zeros_like(sample)
  for i, timestep in enumerate(state.timesteps):
    predicted = jnp.tanh(sample) + 0.1 * i
    sample = scheduler.step(state, predicted, timestep, sample).prev_sample
    own, clean = advance(solver, jnp.array(i), own, jnp.tanh(own) + 0.1 * i, clean)
    assert difference(own, sample) <= 2e-5
