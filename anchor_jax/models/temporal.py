"""Optional temporal layers of the UNet, off by default; at initialization they do not change its output.

UNetConfig.temporal_kernel     inflates the residual blocks' 3x3 kernels to (t, 3, 3) (`layers.InflatedConv`): the 2D
                               network's kernel is the middle tap, and the other taps are initialized to zero
UNetConfig.temporal_attention  adds attention over frames at each cell after each transformer; its output projection is
                               initialized to zero
"""

import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from anchor_jax.core.shapes import Array, Bool, Float, NdArray
from anchor_jax.models.layers import layer_norm, timestep_features
from anchor_jax.models.transformer import projected_attention

_zeros = nn.initializers.zeros_init()


class TemporalAttention(nn.Module):
  """Self-attention over the frames of a clip, separately at each cell, with a residual connection.

  The input is layer-normalized, then sinusoidal features of the frame number are added.

  Attributes:
    heads: number of heads.
    dtype: of the computation.
  """

  heads: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "B T H W C"], frame_mask: Bool[Array, "B T"] | None = None
  ) -> Float[Array, "B T H W C"]:
    batch, frames, height, width, features = x.shape
    h = layer_norm(1e-5, self.dtype, "norm")(x)
    h = h + timestep_features(jnp.arange(frames), features)[:, None, None].astype(self.dtype)
    h = jnp.moveaxis(h, 1, 3).reshape(-1, frames, features)
    key_count = None if frame_mask is None else jnp.repeat(frame_mask.sum(axis=1), height * width)
    h = projected_attention(h, h, key_count, self.heads, False, self.dtype, out_init=_zeros)
    return x + jnp.moveaxis(h.reshape(batch, height, width, frames, features), 3, 1)


def is_temporal(path: tuple[str, ...]) -> bool:
  """Whether the parameter at `path` belongs to a temporal layer; diffusers' networks have none."""
  return path[-1] == "taps" or any(name.startswith("temporal_attentions") for name in path)


def initial_temporal_parameter(path: tuple[str, ...], shape: tuple[int, ...], seed: int = 0) -> NdArray:
  """The initial value of the temporal parameter at `path`, for checkpoints that lack it; float32."""
  if path[-1] == "kernel" and path[-2] != "to_out_0":
    key = np.random.default_rng([seed, *"/".join(path).encode()])
    return (key.normal(size=shape) / math.sqrt(shape[0])).astype(np.float32)
  return np.full(shape, 1.0 if path[-1] == "scale" else 0.0, np.float32)
