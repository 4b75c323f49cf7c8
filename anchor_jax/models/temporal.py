"""Layers that look along time, trainable and off by default: what they hold before training changes nothing.

UNetConfig.temporal_kernel     the residual blocks' 3x3 kernels inflated to (t, 3, 3): the 2D kernel is the middle
                               tap, as in the frame network, and the other taps start at zero
UNetConfig.temporal_attention  attention along time at each cell, behind each transformer; its output starts at zero
"""

import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from anchor_jax import parallel
from anchor_jax.models.layers import convolve, layer_norm, timestep_features
from anchor_jax.models.transformer import projected_attention
from anchor_jax.shapes import Array, Bool, Float, NdArray

_zeros = nn.initializers.zeros_init()


class InflatedConv(nn.Module):
  """A (t, 3, 3) convolution as a 2D one, `kernel`, and the taps before and after it, `taps`.

  Kept apart, the weights of the frame network load under their own names. Frames beyond a clip's ends are zero, and so
  are padded ones.

  Attributes:
    features: output channels.
    frames: t, odd.
    dtype: of the computation.
  """

  features: int
  frames: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "B T H W C"], frame_mask: Bool[Array, "B T"] | None = None
  ) -> Float[Array, "B T H W {self.features}"]:
    shape = (3, 3, x.shape[-1], self.features)
    kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
    taps = self.param("taps", _zeros, (self.frames - 1, *shape), jnp.float32)
    bias = self.param("bias", _zeros, (self.features,), jnp.float32)
    kernel = parallel.all_gather_kernel(kernel.astype(self.dtype), (*self.path, "kernel"))
    taps = parallel.all_gather_kernel(taps.astype(self.dtype), (*self.path, "taps"))
    y = convolve(x, kernel, bias, 1, (1, 1), self.dtype)
    if x.shape[1] == 1:  # a frame has no neighbours
      return y
    seen = x if frame_mask is None else jnp.where(frame_mask[:, :, None, None, None], x, 0)
    half = self.frames // 2
    padded = jnp.pad(seen, ((0, 0), (half, half), (0, 0), (0, 0), (0, 0)))
    shifted = [padded[:, i : i + x.shape[1]] for i in range(self.frames) if i != half]
    # A sum of its own, so that taps of zero leave the 2D result as it is, to the last bit.
    return y + convolve(
      jnp.concatenate(shifted, axis=-1), jnp.concatenate([*taps], axis=2), None, 1, (1, 1), self.dtype
    )


class TemporalAttention(nn.Module):
  """Attention of each cell to itself at the other frames, behind a layer norm and with the frame's position.

  Attributes:
    heads: how many.
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
    seen = None if frame_mask is None else jnp.repeat(frame_mask.sum(axis=1), height * width)
    h = projected_attention(h, h, seen, self.heads, False, self.dtype, out_init=_zeros)
    return x + jnp.moveaxis(h.reshape(batch, height, width, frames, features), 3, 1)


def is_temporal(path: tuple[str, ...]) -> bool:
  """Whether a parameter belongs to these layers, and so to no network of the other libraries."""
  return path[-1] == "taps" or any(name.startswith("temporal_attentions") for name in path)


def initial_temporal_parameter(path: tuple[str, ...], shape: tuple[int, ...], seed: int = 0) -> NdArray:
  """A temporal parameter as it is before training, for weights that came without it; float32."""
  if path[-1] == "kernel" and path[-2] != "to_out_0":
    key = np.random.default_rng([seed, *"/".join(path).encode()])
    return (key.normal(size=shape) / math.sqrt(shape[0])).astype(np.float32)
  return np.full(shape, 1.0 if path[-1] == "scale" else 0.0, np.float32)
