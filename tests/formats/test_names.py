import numpy as np
import pytest

from anchor_jax.formats import names


@pytest.mark.parametrize(
  ("path", "name"),
  [
    (("down_blocks_0", "resnets_1", "conv1", "kernel"), "down_blocks.0.resnets.1.conv1.weight"),
    (("time_embedding", "linear_1", "bias"), "time_embedding.linear_1.bias"),
    (("transformer_blocks_0", "ff", "net_2", "kernel"), "transformer_blocks.0.ff.net.2.weight"),
    (("attn1", "to_out_0", "kernel"), "attn1.to_out.0.weight"),
    (("norm1", "scale"), "norm1.weight"),
    (("vision_model", "embeddings", "class_embedding"), "vision_model.embeddings.class_embedding"),
    (("token_embedding", "embedding"), "token_embedding.weight"),
    (("resnets_0", "conv1", "taps"), "resnets.0.conv1.taps"),
  ],
)
def test_torch_s_names(path, name):
  assert names.torch_name(path) == name


@pytest.mark.parametrize("shape", [(3, 3, 4, 5), (4, 5)])
def test_axes_are_permuted_and_restored(shape):
  array = np.arange(np.prod(shape)).reshape(shape)
  turned = names.to_torch(("kernel",), array)
  assert turned.shape == names.torch_shape(("kernel",), shape)
  np.testing.assert_array_equal(names.from_torch(("kernel",), turned), array)
  assert turned[2, 1, *(0,) * (len(shape) - 2)] == array[*(0,) * (len(shape) - 2), 1, 2]
