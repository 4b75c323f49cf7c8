import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anchor_jax.config.networks import ControlNetConfig, UNetConfig


@pytest.fixture(scope="session")
def jit():
  """jax.jit with quick compilation, for programs that run once or twice."""
  return functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(scope="session")
def unet_config():
  """Two levels, the first without attention."""
  return UNetConfig(
    block_out_channels=(8, 16),
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    layers_per_block=1,
    norm_num_groups=4,
    attention_head_dim=2,
    cross_attention_dim=6,
  )


@pytest.fixture(scope="session")
def controlnet_config(unet_config):
  return ControlNetConfig.from_unet(unet_config, (4, 8, 8))


@pytest.fixture(scope="session")
def random_params():
  """Parameters for module(*inputs) without zeros, so that every layer matters; drawn on the host to avoid compiling."""

  def make(module, *inputs, seed=0):
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
      noise = rng.normal(size=leaf.shape).astype(np.float32)
      if path[-1].key == "kernel":
        return jnp.asarray(noise * np.prod(leaf.shape[:-1]) ** -0.5, jnp.float32)
      return jnp.asarray(0.1 * noise + (path[-1].key == "scale"), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(module.init, jax.random.key(0), *inputs))

  return make
