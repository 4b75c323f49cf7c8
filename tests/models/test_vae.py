import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anchor_jax.config.networks import VAEConfig
from anchor_jax.models.vae import AutoencoderKL


@pytest.fixture(scope="module")
def vae(random_params):
  module = AutoencoderKL(VAEConfig.from_widths((4, 8, 8), layers_per_block=1, norm_num_groups=2))
  return module, random_params(module, jnp.zeros((1, 8, 8, 3)))


def images(count=2):
  return jax.random.uniform(jax.random.key(0), (count, 16, 12, 3), minval=-1)


def test_shapes_of_latents_and_decoded_images(vae, jit):
  module, params = vae
  mean, log_variance = jit(lambda p, x: module.apply(p, x, method="encode"))(params, images())
  assert mean.shape == log_variance.shape == (2, 4, 3, 4)
  assert jit(lambda p, z: module.apply(p, z, method="decode"))(params, mean).shape == (2, 16, 12, 3)


def test_log_variance_is_clipped(vae, jit):
  module, params = vae
  kernel = params["params"]["quant_conv"]["kernel"]
  loud = jax.tree.map(lambda x: x, params)
  loud["params"]["quant_conv"]["kernel"] = 1e4 * kernel
  _, log_variance = jit(lambda p, x: module.apply(p, x, method="encode"))(loud, images())
  assert (float(log_variance.min()), float(log_variance.max())) == (-30, 20)


def test_images_of_a_batch_do_not_mix_and_every_parameter_gets_a_gradient(random_params, jit):
  module = AutoencoderKL(VAEConfig.from_widths((4, 8), layers_per_block=1, norm_num_groups=2))
  params = random_params(module, jnp.zeros((1, 8, 8, 3)))

  def loss(params, images, key):
    mean, log_variance = module.apply(params, images, method="encode")
    latents = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape)
    decoded = module.apply(params, latents, method="decode")
    divergence = jnp.exp(log_variance) + mean**2 - log_variance
    return jnp.mean((decoded - images) ** 2) + 1e-4 * divergence.mean()

  slope = jit(jax.grad(loss))(params, images(), jax.random.key(1))
  assert all(np.isfinite(leaf).all() and np.any(leaf) for leaf in jax.tree.leaves(slope))
  other, _ = jit(lambda p, x: module.apply(p, x, method="encode"))(params, images().at[1].set(0))
  mean, _ = jit(lambda p, x: module.apply(p, x, method="encode"))(params, images())
  np.testing.assert_allclose(other[0], mean[0], atol=1e-6)


def test_layers_that_newer_autoencoders_leave_out():
  config = VAEConfig.from_widths((4,), norm_num_groups=2, use_quant_conv=False, use_post_quant_conv=False,
                               mid_block_add_attention=False)  # fmt: skip
  params = jax.eval_shape(AutoencoderKL(config).init, jax.random.key(0), jnp.zeros((1, 4, 4, 3)))["params"]
  assert set(params) == {"encoder", "decoder"}
  assert "attentions_0" not in params["encoder"]["mid_block"]
