"""Optional temporal layers of the UNet, off by default; at initialisation they do not change its output.

UNetConfig.temporal_kernel     inflates the residual blocks' 3x3 kernels to (t, 3, 3): the 2D network's kernel is the
                               middle tap, and the other taps are initialised to zero
UNetConfig.temporal_attention  adds attention over frames at each cell after each transformer; its output projection is
                               initialised to zero
"""

import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from anchor_jax.core import sharding
from anchor_jax.core.shapes import Array, Bool, Float, NdArray
from anchor_jax.models.layers import convolve, layer_norm, timestep_features
from anchor_jax.models.transformer import projected_attention

_zeros = nn.initializers.zeros_init()


class InflatedConv(nn.Module):
  """A (t, 3, 3) convolution, stored as the middle tap `kernel` (3, 3, C, O) and the others `taps` (t-1, 3, 3, C, O).

  `kernel` has the 2D network's name and shape, so that its checkpoints load. Frames beyond the ends of a clip, and
  frames where `frame_mask` is False, count as zero.

  Attributes:
    features: output channels.
    frames: t, the temporal extent, odd.
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
    kernel = sharding.all_gather_kernel(kernel.astype(self.dtype), (*self.path, "kernel"))
    taps = sharding.all_gather_kernel(taps.astype(self.dtype), (*self.path, "taps"))
    y = convolve(x, kernel, bias, 1, (1, 1), self.dtype)
    if x.shape[1] == 1:  # the other taps would see zeros only
      return y
    seen = x if frame_mask is None else jnp.where(frame_mask[:, :, None, None, None], x, 0)
    half = self.frames // 2
    padded = jnp.pad(seen, ((0, 0), (half, half), (0, 0), (0, 0), (0, 0)))
    shifted = [padded[:, i : i + x.shape[1]] for i in range(self.frames) if i != half]
    # Added after the 2D convolution, so that zero taps leave its result bit for bit.
    return y + convolve(
      jnp.concatenate(shifted, axis=-1), jnp.concatenate([*taps], axis=2), None, 1, (1, 1), self.dtype
    )


class TemporalAttention(nn.Module):
  """Self-attention over the frames of a clip, separately at each cell, with a residual connection.

  The input is layer-normalised, and sinusoidal features of the frame number are added.

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
    seen = None if frame_mask is None else jnp.repeat(frame_mask.sum(axis=1), height * width)
    h = projected_attention(h, h, seen, self.heads, False, self.dtype, out_init=_zeros)
    return x + jnp.moveaxis(h.reshape(batch, height, width, frames, features), 3, 1)


def is_temporal(path: tuple[str, ...]) -> bool:
  """Whether the parameter at `path` belongs to a layer of this file, which diffusers' networks do not have."""
  return path[-1] == "taps" or any(name.startswith("temporal_attentions") for name in path)


def initial_temporal_parameter(path: tuple[str, ...], shape: tuple[int, ...], seed: int = 0) -> NdArray:
  """The initial value of the temporal parameter at `path`, for checkpoints that lack it; float32."""
  if path[-1] == "kernel" and path[-2] != "to_out_0":
    key = np.random.default_rng([seed, *"/".join(path).encode()])
    return (key.normal(size=shape) / math.sqrt(shape[0])).astype(np.float32)
  return np.full(shape, 1.0 if path[-1] == "scale" else 0.0, np.float32)
