"""The refiner: corrects decoded pictures with the person's texture at full resolution.

The autoencoder loses detail and the denoiser blurs where it is uncertain, but the key frames of the film show most of
that detail. Diffusion works on latents, where a warped photograph is as coarse as everything else; the refiner sees its
pixels. It is one pass, frame by frame, so it keeps streams exact and adds little time.

For each pixel it predicts how far to move from the decoded color toward each looked-up color, and what to add. Copying
a known pixel then takes a single number, which is learned in a few hundred steps and generalizes to people it never
saw. These numbers change slowly over a picture, colors do not: with `decide_at` they are decided in a smaller picture.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from anchor_jax.config.pixels import RefinerConfig
from anchor_jax.core.shapes import Array, Float
from anchor_jax.models.controlnet import RENDER_CHANNELS
from anchor_jax.models.layers import Conv, Downsample, GroupNorm, ResBlock, Upsample, from_patches, to_patches
from anchor_jax.models.pictures import enlarge, shrink, shrink_looked_up

_EPSILON = 1e-6


class Refiner(nn.Module):
  """A small UNet over patches of pixels; at initialization it is the identity.

  Attributes:
    config: the architecture.
    dtype: of the computation.
  """

  config: RefinerConfig
  dtype: DTypeLike = jnp.float32

  def setup(self) -> None:
    config, dtype, widths = self.config, self.dtype, self.config.block_out_channels
    block = lambda width: ResBlock(width, config.norm_num_groups, _EPSILON, dtype=dtype)
    self.conv_in = Conv(widths[0], dtype=dtype)
    self.down_blocks = [block(width) for width in widths]
    self.downsamplers = [Downsample(width, dtype=dtype) for width in widths[1:]]
    self.mid_block = block(widths[-1])
    self.upsamplers = [Upsample(width, dtype) for width in widths[:-1]]
    self.up_blocks = [block(width) for width in widths[:-1]]
    self.conv_norm_out = GroupNorm(config.norm_num_groups, _EPSILON, dtype=dtype)
    outputs = (3 + config.candidates) * config.patch_size**2
    self.conv_out = Conv(outputs, kernel_init=nn.initializers.zeros_init(), dtype=dtype)

  def __call__(self, pictures: Float[Array, "B H W 3"], channels: Float[Array, "B H W C"]) -> Float[Array, "B H W 3"]:
    """Improved pictures, float32, nominally in [0, 1], not clipped.

    Args:
      pictures: in [0, 1]; height and width are multiples of `config.stride`.
      channels: pose render and looked-up channels, in [0, 1]: RGB of each candidate, then its coverage (0: unknown).

    Raises:
      ValueError: the number of channels or the size of the pictures does not fit the config.
    """
    config = self.config
    if channels.shape[-1] != config.conditioning_channels:
      raise ValueError(f"the refiner takes {config.conditioning_channels} channels, not {channels.shape[-1]}")
    if any(side % config.stride for side in pictures.shape[1:3]):
      raise ValueError(f"pictures of {pictures.shape[1:3]} pixels: the refiner takes multiples of {config.stride}")
    small = self._shrunk(channels)
    x = jnp.concatenate([2 * shrink(pictures, config.decide_at) - 1, small], axis=-1)
    x = self.conv_in(to_patches(x, config.patch_size)[:, None])
    skips = []
    for level, block in enumerate(self.down_blocks):
      if level:
        x = self.downsamplers[level - 1](x)
      x = block(x)
      skips.append(x)
    x = self.mid_block(x)
    for level in range(len(self.up_blocks) - 1, -1, -1):
      x = self.up_blocks[level](self.upsamplers[level](x) + skips[level])
    x = self.conv_out(nn.silu(self.conv_norm_out(x)))
    x = from_patches(x[:, 0].astype(jnp.float32), config.patch_size)
    added, weights = enlarge(x[..., :3], config.decide_at), x[..., 3:]
    if config.decide_at > 1:  # between known and unknown cells, the known ones alone decide
      known = (small[..., RENDER_CHANNELS + 3 :: 4] > 0).astype(jnp.float32)
      share = enlarge(known, config.decide_at)
      weights = enlarge(weights * known, config.decide_at) / jnp.where(share > 0, share, 1)
    moved = jnp.zeros_like(pictures)
    for number in range(config.candidates):  # one sum over arrays of all candidates takes ten times as long on CPUs
      candidate = channels[..., RENDER_CHANNELS + 4 * number :][..., :4]
      weight = jnp.where(candidate[..., 3:] > 0, weights[..., number : number + 1], 0)
      moved += weight * (candidate[..., :3] - pictures)
    return pictures + moved + added

  def _shrunk(self, channels: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    """Pose render and looked-up channels at the size at which the refiner decides."""
    render, looked_up = channels[..., :RENDER_CHANNELS], channels[..., RENDER_CHANNELS:]
    scale = self.config.decide_at
    return jnp.concatenate([shrink(render, scale), shrink_looked_up(looked_up, scale)], axis=-1)
