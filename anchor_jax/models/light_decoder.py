"""The light decoder: replaces the autoencoder's decoder for live video.

Convolutions without attention or normalization, so that each pixel depends on a few latent cells around it and one pass
over memory is enough (as in madebyollin's TAESD). Most of its work is at the latents' resolution, where a convolution
with many channels is a large matrix product; pixels come out as patches.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from anchor_jax.config.pixels import LightDecoderConfig
from anchor_jax.core.shapes import Array, Float
from anchor_jax.models.layers import Conv, Upsample, from_patches

_LARGEST_LATENT = 3.0  # standard deviations; tanh bounds the latents there


class LightDecoderLevel(nn.Module):
  """One resolution level: an upsampling convolution (not at the coarsest level), then `layers` residual blocks."""

  features: int
  layers: int
  upsamples: bool
  dtype: DTypeLike = jnp.float32

  def setup(self) -> None:
    if self.upsamples:
      self.upsampler = Upsample(self.features, self.dtype)
    self.convs = [Conv(self.features, dtype=self.dtype) for _ in range(2 * self.layers)]

  def __call__(self, x: Float[Array, "B 1 h w C"]) -> Float[Array, "B 1 H W {self.features}"]:
    if self.upsamples:
      x = nn.relu(self.upsampler(x))
    for first, second in zip(self.convs[::2], self.convs[1::2], strict=True):
      x = nn.relu(x + second(nn.relu(first(x))))
    return x


class LightDecoder(nn.Module):
  """Scaled latents to pictures in [0, 1].

  Attributes:
    config: the architecture.
    dtype: of the computation.
  """

  config: LightDecoderConfig
  dtype: DTypeLike = jnp.float32

  def setup(self) -> None:
    config, dtype = self.config, self.dtype
    widths = config.block_out_channels[::-1]
    self.conv_in = Conv(widths[0], dtype=dtype)
    self.up_blocks = [
      LightDecoderLevel(width, layers=layers, upsamples=level > 0, dtype=dtype)
      for level, (width, layers) in enumerate(zip(widths, config.layers_per_block[::-1], strict=True))
    ]
    # Starts as mid-gray: large initial errors of both signs could silence all units for good.
    self.conv_out = Conv(3 * config.patch_size**2, kernel_init=nn.initializers.zeros_init(), dtype=dtype)

  def __call__(self, latents: Float[Array, "B h w D"]) -> Float[Array, "B H W 3"]:
    """Pictures, float32, nominally in [0, 1], not clipped.

    Args:
      latents: scaled, as the denoiser predicts them.
    """
    bounded = _LARGEST_LATENT * jnp.tanh(latents / _LARGEST_LATENT)
    x = nn.relu(self.conv_in(bounded[:, None]))
    for block in self.up_blocks:
      x = block(x)
    return 0.5 + from_patches(self.conv_out(x)[:, 0].astype(jnp.float32), self.config.patch_size)
