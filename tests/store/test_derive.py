import dataclasses

import numpy as np
import pytest

from anchor_jax.config.networks import UNetConfig
from anchor_jax.core.errors import UserError
from anchor_jax.formats.diffusers import load_network_config, load_tensors
from anchor_jax.formats.registry import parameter_shapes
from anchor_jax.store.derive import controlnet_from_unet, head_unet_from_unet


@pytest.fixture(scope="module", params=["body", "head"])
def unet(request, reference):
  config = load_network_config(reference / request.param / "unet")
  return config, load_tensors(reference / request.param / "unet", config)


def test_a_pose_branch_has_the_unet_s_encoder(unet):
  config, tensors = unet
  derived, params = controlnet_from_unet(config, tensors, (4, 8, 8, 8))
  assert {path: tensor.shape for path, tensor in params.items()} == parameter_shapes(derived)
  assert derived.in_channels == 4
  read = {path: tensor.read() for path, tensor in params.items()}
  np.testing.assert_array_equal(read["conv_in", "kernel"], tensors["conv_in", "kernel"].read()[:, :, :4])
  for path, array in read.items():
    if path[0].startswith(("down_blocks", "mid_block", "time_embedding")):
      np.testing.assert_array_equal(array, tensors[path].read())
    elif path[0].startswith(("controlnet_down_blocks", "controlnet_mid")):
      assert not array.any()
  stem = "controlnet_cond_embedding"
  assert read[stem, "blocks_3", "kernel"].any()
  assert not read[stem, "conv_out", "kernel"].any()
  same_seed = controlnet_from_unet(config, tensors, (4, 8, 8, 8))[1][stem, "blocks_3", "kernel"].read()
  np.testing.assert_array_equal(same_seed, read[stem, "blocks_3", "kernel"])
  other_seed = controlnet_from_unet(config, tensors, (4, 8, 8, 8), seed=1)[1][stem, "blocks_3", "kernel"].read()
  assert not np.array_equal(same_seed, other_seed)


def test_a_head_unet_has_five_more_channels_with_zero_weights(reference):
  config = load_network_config(reference / "body/unet", UNetConfig)
  tensors = load_tensors(reference / "body/unet", config)
  derived, params = head_unet_from_unet(config, tensors)
  assert derived == dataclasses.replace(config, in_channels=9)
  assert {path: tensor.shape for path, tensor in params.items()} == parameter_shapes(derived)
  kernel = params["conv_in", "kernel"].read()
  np.testing.assert_array_equal(kernel[:, :, :4], tensors["conv_in", "kernel"].read())
  assert not kernel[:, :, 4:].any()
  with pytest.raises(UserError, match="not 9"):
    head_unet_from_unet(derived, params)
