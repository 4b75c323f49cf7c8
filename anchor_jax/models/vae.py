"""The image autoencoder: a VAE (Kingma and Welling 2014), the first stage of Rombach et al. 2022."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from anchor_jax.config.networks import VAEConfig
from anchor_jax.core.shapes import Array, Float
from anchor_jax.models.layers import Conv, Downsample, GroupNorm, ResBlock, Upsample
from anchor_jax.models.transformer import SpatialAttention

_EPSILON = 1e-6


class AutoencoderLevel(nn.Module):
  """One resolution level: `layers` residual blocks, then `resample` ("down", "up" or "" for none)."""

  config: VAEConfig
  features: int
  layers: int
  resample: str = ""
  dtype: DTypeLike = jnp.float32

  def setup(self) -> None:
    groups = self.config.norm_num_groups
    self.resnets = [ResBlock(self.features, groups, epsilon=_EPSILON, dtype=self.dtype) for _ in range(self.layers)]
    if self.resample == "down":
      self.downsamplers = [Downsample(self.features, padding=(0, 1), dtype=self.dtype)]
    elif self.resample == "up":
      self.upsamplers = [Upsample(self.features, dtype=self.dtype)]

  def __call__(self, x: Float[Array, "B 1 H W C"]) -> Float[Array, "B 1 h w {self.features}"]:
    for block in self.resnets:
      x = block(x)
    if self.resample == "down":
      return self.downsamplers[0](x)
    return self.upsamplers[0](x) if self.resample == "up" else x


class AutoencoderMiddle(nn.Module):
  """Residual block, attention, residual block at the coarsest resolution."""

  config: VAEConfig
  dtype: DTypeLike = jnp.float32

  def setup(self) -> None:
    features, groups = self.config.block_out_channels[-1], self.config.norm_num_groups
    self.resnets = [ResBlock(features, groups, _EPSILON, dtype=self.dtype) for _ in range(2)]
    if self.config.mid_block_add_attention:
      self.attentions = [SpatialAttention(groups, _EPSILON, self.dtype)]

  def __call__(self, x: Float[Array, "B 1 H W C"]) -> Float[Array, "B 1 H W C"]:
    x = self.resnets[0](x)
    if self.config.mid_block_add_attention:
      x = self.attentions[0](x)
    return self.resnets[1](x)


class AutoencoderEncoder(nn.Module):
  """Images in [-1, 1] to 2 * latent_channels channels, the moments of the latents."""

  config: VAEConfig
  dtype: DTypeLike = jnp.float32

  def setup(self) -> None:
    config, dtype = self.config, self.dtype
    last = len(config.block_out_channels) - 1
    self.conv_in = Conv(config.block_out_channels[0], dtype=dtype)
    self.down_blocks = [
      AutoencoderLevel(
        config,
        features=width,
        layers=config.layers_per_block,
        resample="down" if level < last else "",
        dtype=dtype,
      )
      for level, width in enumerate(config.block_out_channels)
    ]
    self.mid_block = AutoencoderMiddle(config, dtype)
    self.conv_norm_out = GroupNorm(config.norm_num_groups, _EPSILON, dtype=dtype)
    self.conv_out = Conv(2 * config.latent_channels, dtype=dtype)

  def __call__(self, x: Float[Array, "B 1 H W C"]) -> Float[Array, "B 1 h w D"]:
    x = self.conv_in(x)
    for block in self.down_blocks:
      x = block(x)
    return self.conv_out(nn.silu(self.conv_norm_out(self.mid_block(x))))


class AutoencoderDecoder(nn.Module):
  """Latents to images, nominally in [-1, 1]."""

  config: VAEConfig
  dtype: DTypeLike = jnp.float32

  def setup(self) -> None:
    config, dtype = self.config, self.dtype
    widths = config.block_out_channels[::-1]
    self.conv_in = Conv(widths[0], dtype=dtype)
    self.mid_block = AutoencoderMiddle(config, dtype)
    self.up_blocks = [
      AutoencoderLevel(
        config,
        features=width,
        layers=config.layers_per_block + 1,
        resample="up" if level < len(widths) - 1 else "",
        dtype=dtype,
      )
      for level, width in enumerate(widths)
    ]
    self.conv_norm_out = GroupNorm(config.norm_num_groups, _EPSILON, dtype=dtype)
    self.conv_out = Conv(config.out_channels, dtype=dtype)

  def __call__(self, x: Float[Array, "B 1 h w D"]) -> Float[Array, "B 1 H W C"]:
    x = self.mid_block(self.conv_in(x))
    for block in self.up_blocks:
      x = block(x)
    return self.conv_out(nn.silu(self.conv_norm_out(x)))


class AutoencoderKL(nn.Module):
  """Encodes images to latents and decodes them. Latents are unscaled: `scaling_factor` is applied by the caller.

  Attributes:
    config: the architecture.
    dtype: of the computation.
  """

  config: VAEConfig
  dtype: DTypeLike = jnp.float32

  def setup(self) -> None:
    config, dtype = self.config, self.dtype
    self.encoder, self.decoder = AutoencoderEncoder(config, dtype), AutoencoderDecoder(config, dtype)
    if config.use_quant_conv:
      self.quant_conv = Conv(2 * config.latent_channels, 1, padding=(0, 0), dtype=dtype)
    if config.use_post_quant_conv:
      self.post_quant_conv = Conv(config.latent_channels, 1, padding=(0, 0), dtype=dtype)

  def encode(self, images: Float[Array, "B H W C"]) -> tuple[Float[Array, "B h w D"], Float[Array, "B h w D"]]:
    """(mean, log-variance) of the latents, float32; the log-variance is clipped to [-30, 20].

    Args:
      images: in [-1, 1]; height and width are multiples of `config.stride`.
    """
    moments = self.encoder(images[:, None])
    if self.config.use_quant_conv:
      moments = self.quant_conv(moments)
    mean, log_variance = jnp.split(moments[:, 0].astype(jnp.float32), 2, axis=-1)
    return mean, jnp.clip(log_variance, -30, 20)

  def decode(self, latents: Float[Array, "B h w D"]) -> Float[Array, "B H W C"]:
    """Images of unscaled latents, float32, nominally in [-1, 1], not clipped."""
    x = latents[:, None]
    if self.config.use_post_quant_conv:
      x = self.post_quant_conv(x)
    return self.decoder(x)[:, 0].astype(jnp.float32)

  def __call__(self, images: Float[Array, "B H W C"]) -> Float[Array, "B H W O"]:
    """Reconstructed images, from the mean of the latents."""
    return self.decode(self.encode(images)[0])
