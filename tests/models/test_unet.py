import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anchor_jax.models.controlnet import ControlNet, Denoiser, FrameInputs
from anchor_jax.models.unet import UNet


def normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


@pytest.fixture(scope="module")
def clip():
  """Two clips of four frames, the last of the second one padding."""
  return normal(0, 2, 4, 6, 8, 4), jnp.array([500, 20]), normal(1, 2, 5, 6)


POSE, MASK = normal(2, 2, 4, 6, 8, 8), jnp.array([[True] * 4, [True] * 3 + [False]])


@pytest.fixture(scope="module")
def denoiser(unet_config, controlnet_config, clip, random_params):
  module = Denoiser(unet_config, controlnet_config)
  return module, random_params(module, *clip, FrameInputs(POSE), MASK)


@pytest.fixture(scope="module")
def predict(denoiser, clip, jit):
  """The denoiser, compiled once for all tests that change only its inputs."""
  module, params = denoiser
  run = jit(lambda sample, pose, mask, scale: module.apply(params, sample, *clip[1:], FrameInputs(pose), mask, scale))
  return lambda sample=clip[0], pose=POSE, mask=MASK, scale=1.0: run(sample, pose, mask, scale)


def test_padded_frames_do_not_change_the_others(denoiser, clip, predict, jit):
  module, params = denoiser
  plain = predict()
  short = jax.tree.map(lambda x: x[1:, :3], (clip[0], POSE))
  alone = jit(module.apply)(params, short[0], clip[1][1:], clip[2][1:], FrameInputs(short[1]))
  np.testing.assert_allclose(plain[1:, :3], alone, atol=1e-5 * float(jnp.abs(plain).max()))
  sample, pose = clip[0].at[1, 3].add(7), POSE.at[1, 3].add(5)
  np.testing.assert_array_equal(predict(sample, pose)[1, :3], plain[1, :3])
  assert jnp.abs(predict(sample, pose, mask=jnp.ones_like(MASK))[1, :3] - plain[1, :3]).max() > 1e-2


def test_frames_of_a_clip_interact_and_clips_do_not(clip, predict):
  plain, changed = predict(), predict(clip[0].at[0, 2].add(1))
  assert jnp.abs(changed - plain)[0, 0].max() > 1e-4
  np.testing.assert_array_equal(changed[1], plain[1])


def test_conditioning_scale_zero_leaves_the_unet_alone(denoiser, clip, predict, jit):
  module, params = denoiser
  alone = jit(UNet(module.unet_config).apply)({"params": params["params"]["unet"]}, *clip, MASK)
  np.testing.assert_allclose(predict(scale=0.0), alone, atol=1e-5 * float(jnp.abs(alone).max()))
  assert jnp.abs(predict(scale=2.0) - alone).max() > 1e-2


def test_bfloat16_is_close_to_float32(denoiser, clip, predict, jit):
  module, params = denoiser
  half = Denoiser(module.unet_config, module.controlnet_config, jnp.bfloat16)
  got = jit(half.apply)(params, *clip, FrameInputs(POSE), MASK)
  assert got.dtype == jnp.float32
  assert jnp.abs(got - predict()).max() < 0.1 * jnp.abs(predict()).max()


def test_a_new_pose_branch_changes_nothing(unet_config, controlnet_config, clip, jit):
  branch = ControlNet(controlnet_config)
  params = jit(branch.init)(jax.random.key(0), *clip, POSE)
  down, middle = jit(branch.apply)(params, *clip, POSE)
  assert [x.shape[-1] for x in down] == list(controlnet_config.skip_channels)
  assert not any(np.any(x) for x in (*down, middle))
  features = jit(lambda p, x: branch.apply(p, x, method="embed_pose"))(params, jnp.ones((1, 3, 24, 32, 3)))
  assert features.shape == (1, 3, 6, 8, unet_config.block_out_channels[0])
  assert not np.any(features)


def test_the_last_residual_reaches_the_middle_block_only_if_configured(unet_config, clip, jit, random_params):
  residuals = [normal(4, 2, 4, *size, width) for size, width in (((6, 8), 8), ((6, 8), 8), ((3, 4), 8), ((3, 4), 16))]
  outputs = []
  for leak in (False, True):
    unet = UNet(dataclasses.replace(unet_config, mid_gets_last_residual=leak))
    outputs.append(jit(unet.apply)(random_params(unet, *clip), *clip, None, residuals, None))
  assert jnp.abs(outputs[0] - outputs[1]).max() > 1e-3


def test_odd_sizes_and_more_input_channels(unet_config, jit, random_params):
  unet = UNet(dataclasses.replace(unet_config, in_channels=9, use_linear_projection=True, attention_head_dim=(2, 4)))
  inputs = normal(0, 1, 1, 5, 7, 9), jnp.array([3]), normal(1, 1, 5, 6)
  params = random_params(unet, *inputs)
  assert jit(unet.apply)(params, *inputs).shape == (1, 1, 5, 7, 4)
  assert params["params"]["down_blocks_1"]["attentions_0"]["proj_in"]["kernel"].shape == (16, 16)
