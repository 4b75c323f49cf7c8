"""The denoising UNet, and the downward half it shares with the pose branch.

One class serves frame and clip, body and head: a frame is a clip of length one through the same parameters.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from anchor_jax.architecture import ControlNetConfig, UNetConfig
from anchor_jax.models.layers import (
  Conv,
  Downsample,
  GroupNorm,
  TimestepEmbedding,
  Upsample,
  rematerialised,
  timestep_features,
)
from anchor_jax.models.resnet import ResBlock
from anchor_jax.models.temporal import TemporalAttention
from anchor_jax.models.transformer import Transformer
from anchor_jax.shapes import Array, Bool, Float, Shaped


class Stage(nn.Module):
  """One level of the network: residual blocks, each followed by a transformer if the level has attention.

  Attributes:
    config: of the whole network.
    features: output channels.
    layers: residual blocks.
    heads: of the attentions; 0 for a level without.
    depth: transformer blocks of each attention.
    resample: "down", "up" or "" after the blocks.
    dtype: of the computation.
  """

  config: UNetConfig | ControlNetConfig
  features: int
  layers: int
  heads: int
  depth: int
  resample: str = ""
  dtype: DTypeLike = jnp.float32

  def setup(self) -> None:
    config = self.config
    block = rematerialised(ResBlock, config.remat)
    self.resnets = [
      block(self.features, config.norm_num_groups, config.norm_eps, config.temporal_kernel, self.dtype)
      for _ in range(self.layers)
    ]
    if self.heads:
      self.attentions = _transformers(config, self.heads, self.depth, self.layers, self.dtype)
      if config.temporal_attention:
        self.temporal_attentions = _temporal_attentions(config, self.heads, self.layers, self.dtype)
    if self.resample == "down":
      padding = (config.downsample_padding, config.downsample_padding)
      self.downsamplers = [Downsample(self.features, padding, self.dtype)]
    elif self.resample == "up":
      self.upsamplers = [Upsample(self.features, self.dtype)]

  def _layer(self, i: int, x: Array, time_embedding: Array, context: Array, frame_mask: Array | None) -> Array:
    x = self.resnets[i](x, time_embedding, frame_mask)
    if self.heads:
      x = self.attentions[i](x, context, frame_mask)
      if self.config.temporal_attention:
        x = self.temporal_attentions[i](x, frame_mask)
    return x

  def down(
    self,
    x: Float[Array, "B T H W C"],
    time_embedding: Float[Array, "B D"],
    context: Float[Array, "B N E"],
    frame_mask: Bool[Array, "B T"] | None,
  ) -> tuple[Array, list[Array]]:
    """The level's output and every feature map the upward half will want."""
    features = []
    for i in range(self.layers):
      x = self._layer(i, x, time_embedding, context, frame_mask)
      features.append(x)
    if self.resample:
      x = self.downsamplers[0](x)
      features.append(x)
    return x, features

  def up(
    self,
    x: Float[Array, "B T H W C"],
    skips: Sequence[Array],
    time_embedding: Float[Array, "B D"],
    context: Float[Array, "B N E"],
    frame_mask: Bool[Array, "B T"] | None,
    size: tuple[int, int] | None,
  ) -> Array:
    """Joins `skips`, the last first, and goes up to `size` (height, width) if the level resamples."""
    for i in range(self.layers):
      x = jnp.concatenate([x, skips[-1 - i]], axis=-1)
      x = self._layer(i, x, time_embedding, context, frame_mask)
    return self.upsamplers[0](x, size) if self.resample else x


class MiddleBlock(nn.Module):
  """Residual block, transformer, residual block at the coarsest level."""

  config: UNetConfig | ControlNetConfig
  dtype: DTypeLike = jnp.float32

  def setup(self) -> None:
    config, block = self.config, rematerialised(ResBlock, self.config.remat)
    features, heads = config.block_out_channels[-1], config.heads[-1]
    self.resnets = [
      block(features, config.norm_num_groups, config.norm_eps, config.temporal_kernel, self.dtype) for _ in range(2)
    ]
    self.attentions = _transformers(config, heads, config.depths[-1], 1, self.dtype)
    if config.temporal_attention:
      self.temporal_attentions = _temporal_attentions(config, heads, 1, self.dtype)

  def __call__(
    self,
    x: Float[Array, "B T H W C"],
    time_embedding: Float[Array, "B D"],
    context: Float[Array, "B N E"],
    frame_mask: Bool[Array, "B T"] | None,
  ) -> Float[Array, "B T H W C"]:
    x = self.resnets[0](x, time_embedding, frame_mask)
    x = self.attentions[0](x, context, frame_mask)
    if self.config.temporal_attention:
      x = self.temporal_attentions[0](x, frame_mask)
    return self.resnets[1](x, time_embedding, frame_mask)


def _transformers(
  config: UNetConfig | ControlNetConfig, heads: int, depth: int, count: int, dtype: DTypeLike
) -> list[nn.Module]:
  transformer = rematerialised(Transformer, config.remat)
  settings = (heads, config.norm_num_groups, depth, config.use_linear_projection, config.all_frame_attention, dtype)
  return [transformer(*settings) for _ in range(count)]


def _temporal_attentions(
  config: UNetConfig | ControlNetConfig, heads: int, count: int, dtype: DTypeLike
) -> list[nn.Module]:
  attention = rematerialised(TemporalAttention, config.remat)
  return [attention(heads, dtype) for _ in range(count)]


def down_stages(config: UNetConfig | ControlNetConfig, dtype: DTypeLike) -> list[Stage]:
  """The levels of the downward half, finest first."""
  last = len(config.block_out_channels) - 1
  return [
    Stage(
      config,
      features=config.block_out_channels[level],
      layers=config.layers[level],
      heads=config.heads[level] if kind.startswith("CrossAttn") else 0,
      depth=config.depths[level],
      resample="down" if level < last else "",
      dtype=dtype,
    )
    for level, kind in enumerate(config.down_block_types)
  ]


class UNet(nn.Module):
  """Predicts the noise (or the velocity) in noisy latents (Rombach et al. 2022; LDM's UNet with cross-attention).

  Every 2D convolution runs frame by frame; self-attention sees all frames of a clip; GroupNorm in residual blocks and
  at the end pools over frames, masked as the attention keys are.

  Attributes:
    config: the architecture.
    dtype: of the computation; parameters, norms and softmax stay float32.
  """

  config: UNetConfig
  dtype: DTypeLike = jnp.float32

  def setup(self) -> None:
    config, dtype = self.config, self.dtype
    self.time_embedding = TimestepEmbedding(config.time_embedding_dim, dtype)
    self.conv_in = Conv(config.block_out_channels[0], dtype=dtype)
    self.down_blocks = down_stages(config, dtype)
    self.mid_block = MiddleBlock(config, dtype)
    levels = range(len(config.block_out_channels) - 1, -1, -1)
    self.up_blocks = [
      Stage(
        config,
        features=config.block_out_channels[level],
        layers=config.layers[level] + 1,
        heads=config.heads[level] if kind.startswith("CrossAttn") else 0,
        depth=config.depths[level],
        resample="up" if level > 0 else "",
        dtype=dtype,
      )
      for level, kind in zip(levels, config.up_block_types, strict=True)
    ]
    self.conv_norm_out = GroupNorm(config.norm_num_groups, config.norm_eps, dtype=dtype)
    self.conv_out = Conv(config.out_channels, kernel_init=nn.initializers.zeros_init(), dtype=dtype)

  def __call__(
    self,
    sample: Float[Array, "B T H W C"],
    timesteps: Shaped[Array, " B"],
    context: Float[Array, "B N D"],
    frame_mask: Bool[Array, "B T"] | None = None,
    down_residuals: Sequence[Array] | None = None,
    mid_residual: Array | None = None,
  ) -> Float[Array, "B T H W O"]:
    """Predicts, in float32.

    Args:
      sample: noisy latents (for the head, mask and masked-image latents after them).
      timesteps: 0 to 999, one a clip.
      context: appearance tokens.
      frame_mask: False for padded frames, which then touch no other frame.
      down_residuals: the pose branch's, added to the skip features; one for each.
      mid_residual: the pose branch's, added to the middle block's output.
    """
    config = self.config
    emb = timestep_features(timesteps, config.block_out_channels[0], config.flip_sin_to_cos, config.freq_shift)
    emb = self.time_embedding(emb)
    x = self.conv_in(sample)
    skips = [x]
    for block in self.down_blocks:
      x, features = block.down(x, emb, context, frame_mask)
      skips += features
    if down_residuals is not None:
      skips = [skip + residual for skip, residual in zip(skips, down_residuals, strict=True)]
      if config.mid_gets_last_residual:
        x = skips[-1]
    x = self.mid_block(x, emb, context, frame_mask)
    if mid_residual is not None:
      x = x + mid_residual
    for block in self.up_blocks:
      own, skips = skips[-block.layers :], skips[: -block.layers]
      size = (skips[-1].shape[2], skips[-1].shape[3]) if skips else None
      x = block.up(x, own, emb, context, frame_mask, size)
    x = nn.silu(self.conv_norm_out(x, frame_mask))
    return self.conv_out(x).astype(jnp.float32)
