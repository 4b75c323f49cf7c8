"""The residual block of UNet, ControlNet and autoencoder."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from anchor_jax.core.shapes import Array, Bool, Float
from anchor_jax.models.layers import Conv, Dense, GroupNorm
from anchor_jax.models.temporal import InflatedConv


class ResBlock(nn.Module):
  """Two GroupNorm-SiLU-Conv layers with a time embedding between them; a frame is a clip with T = 1.

  GroupNorm statistics pool over frames; frames where `frame_mask` is False are excluded from them.

  Attributes:
    features: output channels.
    groups: of the normalisations.
    epsilon: of the normalisations; 1e-5 in the UNet, 1e-6 in the autoencoder.
    temporal_kernel: temporal extent in frames of the 3x3 convolutions, odd; 1 for 2D convolutions.
    dtype: of the computation.
  """

  features: int
  groups: int
  epsilon: float = 1e-5
  temporal_kernel: int = 1
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "B T H W C"],
    time_embedding: Float[Array, "B D"] | None = None,
    frame_mask: Bool[Array, "B T"] | None = None,
  ) -> Float[Array, "B T H W {self.features}"]:
    def convolution(name: str, h: Array) -> Array:
      if self.temporal_kernel == 1:
        return Conv(self.features, dtype=self.dtype, name=name)(h)
      return InflatedConv(self.features, self.temporal_kernel, dtype=self.dtype, name=name)(h, frame_mask)

    h = GroupNorm(self.groups, self.epsilon, dtype=self.dtype, name="norm1")(x, frame_mask)
    h = convolution("conv1", nn.silu(h))
    if time_embedding is not None:
      shift = Dense(self.features, dtype=self.dtype, name="time_emb_proj")(nn.silu(time_embedding))
      h = h + shift[:, None, None, None]
    h = GroupNorm(self.groups, self.epsilon, dtype=self.dtype, name="norm2")(h, frame_mask)
    h = convolution("conv2", nn.silu(h))
    if x.shape[-1] != self.features:
      x = Conv(self.features, 1, padding=(0, 0), dtype=self.dtype, name="conv_shortcut")(x)
    return x + h
