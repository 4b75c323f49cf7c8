"""The denoising UNet, and the down path that the pose branch copies.

The same modules serve frames and clips, body and head: a frame is a clip with T = 1.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from anchor_jax.config.networks import ControlNetConfig, UNetConfig
from anchor_jax.core.shapes import Array, Bool, Float, Shaped
from anchor_jax.models.layers import (
  Conv,
  Downsample,
  GroupNorm,
  ResBlock,
  TimestepEmbedding,
  Upsample,
  rematerialized,
  timestep_features,
)
from anchor_jax.models.temporal import TemporalAttention
from anchor_jax.models.transformer import Transformer


class Stage(nn.Module):
  """One resolution level: residual blocks, each followed by a transformer if the level has attention.

  Attributes:
    config: the architecture.
    features: output channels.
    layers: number of residual blocks.
    heads: number of attention heads; 0 for a level without attention.
    depth: transformer blocks in each transformer.
    resample: "down", "up" or "" (none), after the blocks.
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
    block = rematerialized(ResBlock, config.remat)
    self.resnets = [
      block(
        features=self.features,
        groups=config.norm_num_groups,
        epsilon=config.norm_eps,
        temporal_kernel=config.temporal_kernel,
        dtype=self.dtype,
      )
      for _ in range(self.layers)
    ]
    if self.heads:
      self.attentions = _transformers(config, heads=self.heads, depth=self.depth, count=self.layers, dtype=self.dtype)
      if config.temporal_attention:
        self.temporal_attentions = _temporal_attentions(config, heads=self.heads, count=self.layers, dtype=self.dtype)
    if self.resample == "down":
      padding = (config.downsample_padding, config.downsample_padding)
      self.downsamplers = [Downsample(self.features, padding=padding, dtype=self.dtype)]
    elif self.resample == "up":
      self.upsamplers = [Upsample(self.features, dtype=self.dtype)]

  def _layer(self, i: int, x: Array, *, time_embedding: Array, context: Array, frame_mask: Array | None) -> Array:
    x = self.resnets[i](x, time_embedding=time_embedding, frame_mask=frame_mask)
    if self.heads:
      x = self.attentions[i](x, context=context, frame_mask=frame_mask)
      if self.config.temporal_attention:
        x = self.temporal_attentions[i](x, frame_mask=frame_mask)
    return x

  def down(
    self,
    x: Float[Array, "B T H W C"],
    *,
    time_embedding: Float[Array, "B D"],
    context: Float[Array, "B N E"],
    frame_mask: Bool[Array, "B T"] | None,
  ) -> tuple[Array, list[Array]]:
    """(output of a down-path level, skip features): the outputs of its layers and of the downsampling, if any."""
    features = []
    for i in range(self.layers):
      x = self._layer(i, x, time_embedding=time_embedding, context=context, frame_mask=frame_mask)
      features.append(x)
    if self.resample:
      x = self.downsamplers[0](x)
      features.append(x)
    return x, features

  def up(
    self,
    x: Float[Array, "B T H W C"],
    *,
    skips: Sequence[Array],
    time_embedding: Float[Array, "B D"],
    context: Float[Array, "B N E"],
    frame_mask: Bool[Array, "B T"] | None,
    size: tuple[int, int] | None,
  ) -> Array:
    """The output of an up-path level.

    Args:
      x: output of the level below.
      skips: skip features, one per layer; layer i concatenates the i-th from the end to its input.
      time_embedding: features of the timestep, one vector per clip.
      context, frame_mask: as in `UNet`.
      size: (height, width) to upsample to, if the level upsamples.
    """
    for i in range(self.layers):
      x = jnp.concatenate([x, skips[-1 - i]], axis=-1)
      x = self._layer(i, x, time_embedding=time_embedding, context=context, frame_mask=frame_mask)
    return self.upsamplers[0](x, size) if self.resample else x


class MiddleBlock(nn.Module):
  """Residual block, transformer, residual block at the coarsest resolution."""

  config: UNetConfig | ControlNetConfig
  dtype: DTypeLike = jnp.float32

  def setup(self) -> None:
    config, block = self.config, rematerialized(ResBlock, self.config.remat)
    features, heads = config.block_out_channels[-1], config.heads[-1]
    self.resnets = [
      block(
        features=features,
        groups=config.norm_num_groups,
        epsilon=config.norm_eps,
        temporal_kernel=config.temporal_kernel,
        dtype=self.dtype,
      )
      for _ in range(2)
    ]
    self.attentions = _transformers(config, heads=heads, depth=config.depths[-1], count=1, dtype=self.dtype)
    if config.temporal_attention:
      self.temporal_attentions = _temporal_attentions(config, heads=heads, count=1, dtype=self.dtype)

  def __call__(
    self,
    x: Float[Array, "B T H W C"],
    *,
    time_embedding: Float[Array, "B D"],
    context: Float[Array, "B N E"],
    frame_mask: Bool[Array, "B T"] | None,
  ) -> Float[Array, "B T H W C"]:
    x = self.resnets[0](x, time_embedding=time_embedding, frame_mask=frame_mask)
    x = self.attentions[0](x, context=context, frame_mask=frame_mask)
    if self.config.temporal_attention:
      x = self.temporal_attentions[0](x, frame_mask=frame_mask)
    return self.resnets[1](x, time_embedding=time_embedding, frame_mask=frame_mask)


def _transformers(
  config: UNetConfig | ControlNetConfig, *, heads: int, depth: int, count: int, dtype: DTypeLike
) -> list[nn.Module]:
  transformer = rematerialized(Transformer, config.remat)
  return [
    transformer(
      heads=heads,
      groups=config.norm_num_groups,
      depth=depth,
      linear_projection=config.use_linear_projection,
      all_frames=config.all_frame_attention,
      attended_frames=config.attended_frames,
      dtype=dtype,
    )
    for _ in range(count)
  ]


def _temporal_attentions(
  config: UNetConfig | ControlNetConfig, *, heads: int, count: int, dtype: DTypeLike
) -> list[nn.Module]:
  attention = rematerialized(TemporalAttention, config.remat)
  return [attention(heads=heads, dtype=dtype) for _ in range(count)]


def down_stages(config: UNetConfig | ControlNetConfig, dtype: DTypeLike) -> list[Stage]:
  """The levels of the down path, finest first."""
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
  """Predicts noise or velocity from noisy latents: the UNet of latent diffusion (Rombach et al. 2022) for clips.

  Convolutions run per frame; self-attention runs over all frames of a clip; GroupNorm in residual blocks and before
  the output pools over frames. `frame_mask` masks attention keys and the pooled statistics.

  Attributes:
    config: the architecture.
    dtype: of the computation; parameters, normalization statistics and softmax are float32.
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
    """The prediction, float32, with O = `config.out_channels`.

    Args:
      sample: noisy latents; for the head, followed by the inpainting channels.
      timesteps: one per clip, 0 to num_train_timesteps - 1.
      context: image tokens.
      frame_mask: False for padded frames, which do not influence the others. None: no padding.
      down_residuals: from the pose branch, one per skip feature, added to it.
      mid_residual: from the pose branch, added to the middle block's output.
    """
    config = self.config
    emb = timestep_features(timesteps, config.block_out_channels[0], config.flip_sin_to_cos, config.freq_shift)
    emb = self.time_embedding(emb)
    x = self.conv_in(sample)
    skips = [x]
    for block in self.down_blocks:
      x, features = block.down(x, time_embedding=emb, context=context, frame_mask=frame_mask)
      skips += features
    if down_residuals is not None:
      skips = [skip + residual for skip, residual in zip(skips, down_residuals, strict=True)]
      if config.mid_gets_last_residual:
        x = skips[-1]
    x = self.mid_block(x, time_embedding=emb, context=context, frame_mask=frame_mask)
    if mid_residual is not None:
      x = x + mid_residual
    for block in self.up_blocks:
      own, skips = skips[-block.layers :], skips[: -block.layers]
      size = (skips[-1].shape[2], skips[-1].shape[3]) if skips else None
      x = block.up(x, skips=own, time_embedding=emb, context=context, frame_mask=frame_mask, size=size)
    x = nn.silu(self.conv_norm_out(x, frame_mask))
    return self.conv_out(x).astype(jnp.float32)
