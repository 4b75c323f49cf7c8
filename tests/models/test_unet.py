import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anchor_jax.models.controlnet import ControlNet
from anchor_jax.models.denoiser import Denoiser
from anchor_jax.models.unet import UNet


def normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


@pytest.fixture(scope="module")
def clip():
  return normal(0, 1, 3, 6, 8, 4), jnp.array([500]), normal(1, 1, 5, 6)


@pytest.fixture(scope="module")
def denoiser(unet_config, controlnet_config, clip, random_params):
  module = Denoiser(unet_config, controlnet_config)
  condition = {"pose": normal(2, 1, 3, 6, 8, 8)}
  return module, random_params(module, *clip, condition), condition


def test_padded_frames_change_nothing(denoiser, clip, jit):
  module, params, condition = denoiser
  sample, timesteps, context = clip
  plain = jit(module.apply)(params, sample, timesteps, context, condition)
  longer = jnp.concatenate([sample, 7 + sample[:, :2]], axis=1)
  pose = jnp.concatenate([condition["pose"], 5 + condition["pose"][:, :2]], axis=1)
  mask = jnp.arange(5)[None] < 3
  padded = jit(module.apply)(params, longer, timesteps, context, {"pose": pose}, mask)
  np.testing.assert_allclose(padded[:, :3], plain, atol=1e-5 * float(jnp.abs(plain).max()))
  unmasked = jit(module.apply)(params, longer, timesteps, context, {"pose": pose}, None)
  assert jnp.abs(unmasked[:, :3] - plain).max() > 1e-2


def test_frames_of_a_clip_see_each_other_and_clips_do_not(denoiser, clip, jit):
  module, params, condition = denoiser
  sample, timesteps, context = clip
  apply = jit(module.apply)
  plain = apply(params, sample, timesteps, context, condition)
  assert jnp.abs(apply(params, sample.at[:, 2].add(1), timesteps, context, condition)[:, 0] - plain[:, 0]).max() > 1e-4
  two = jax.tree.map(lambda x: jnp.concatenate([x, x + 1 if x.dtype == float else x]), (sample, timesteps, context))
  pose = jnp.concatenate([condition["pose"], condition["pose"] + 1])
  np.testing.assert_allclose(apply(params, *two, {"pose": pose})[:1], plain, atol=2e-5)


def test_scale_zero_is_the_unet_alone(denoiser, clip, jit):
  module, params, condition = denoiser
  sample, timesteps, context = clip
  unet = UNet(module.unet_config)
  alone = jit(unet.apply)({"params": params["params"]["unet"]}, sample, timesteps, context)
  apply = jit(lambda p, scale: module.apply(p, *clip, condition, conditioning_scale=scale))
  np.testing.assert_allclose(apply(params, 0.0), alone, atol=1e-6)
  assert jnp.abs(apply(params, 2.0) - alone).max() > 1e-2


def test_a_new_pose_branch_changes_nothing(unet_config, controlnet_config, clip, jit):
  sample, timesteps, context = clip
  branch = ControlNet(controlnet_config)
  params = jit(branch.init)(jax.random.key(0), sample, timesteps, context, normal(2, 1, 3, 6, 8, 8))
  down, middle = jit(branch.apply)(params, sample, timesteps, context, normal(2, 1, 3, 6, 8, 8))
  assert [x.shape[-1] for x in down] == list(controlnet_config.skip_channels)
  assert not any(np.any(x) for x in (*down, middle))
  features = branch.apply(params, jnp.ones((1, 3, 24, 32, 3)), method="embed_pose")
  assert features.shape == (1, 3, 6, 8, unet_config.block_out_channels[0])
  assert not np.any(features)


def test_the_leak_into_the_middle_block_is_a_choice(unet_config, clip, jit, random_params):
  sample, timesteps, context = clip
  residuals = [normal(4, 1, 3, *size, width) for size, width in (((6, 8), 8), ((6, 8), 8), ((3, 4), 8), ((3, 4), 16))]
  outputs = []
  for leak in (False, True):
    unet = UNet(dataclasses.replace(unet_config, mid_gets_last_residual=leak))
    params = random_params(unet, *clip)
    outputs.append(jit(unet.apply)(params, sample, timesteps, context, None, residuals, None))
  assert jnp.abs(outputs[0] - outputs[1]).max() > 1e-3


def test_odd_sizes_and_more_input_channels(unet_config, jit, random_params):
  unet = UNet(dataclasses.replace(unet_config, in_channels=9, use_linear_projection=True, attention_head_dim=(2, 4)))
  inputs = normal(0, 1, 1, 5, 7, 9), jnp.array([3]), normal(1, 1, 5, 6)
  params = random_params(unet, *inputs)
  assert jit(unet.apply)(params, *inputs).shape == (1, 1, 5, 7, 4)
  assert params["params"]["down_blocks_1"]["attentions_0"]["proj_in"]["kernel"].shape == (16, 16)


def test_bfloat16_stays_near_float32(denoiser, clip, jit):
  module, params, condition = denoiser
  plain = jit(module.apply)(params, *clip, condition)
  half = jit(Denoiser(module.unet_config, module.controlnet_config, jnp.bfloat16).apply)(params, *clip, condition)
  assert half.dtype == jnp.float32
  assert jnp.abs(half - plain).max() < 0.1 * jnp.abs(plain).max()
