"""The transformer that stands in the UNet and the ControlNet, and the attention layers it is made of."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from anchor_jax.models.attention import attention
from anchor_jax.models.layers import Conv, Dense, GroupNorm, Initializer, SplitDense, gelu, layer_norm
from anchor_jax.shapes import Array, Bool, Float, Int

_lecun_normal = nn.initializers.lecun_normal()


def projected_attention(
  x: Float[Array, "B N D"],
  context: Float[Array, "B M E"],
  key_count: Int[Array, "B"] | None,
  heads: int,
  qkv_bias: bool,
  dtype: DTypeLike,
  out_init: Initializer = _lecun_normal,
) -> Float[Array, "B N D"]:
  """Multi-head attention whose four projections become submodules of the (compact) module that calls it."""
  features = x.shape[-1]

  def project(name: str, y: Array) -> Array:
    y = Dense(features, use_bias=qkv_bias, dtype=dtype, name=name)(y)
    return y.reshape(*y.shape[:2], heads, -1)

  out = attention(project("to_q", x), project("to_k", context), project("to_v", context), key_count)
  return Dense(features, kernel_init=out_init, dtype=dtype, name="to_out_0")(out.reshape(x.shape))


class Attention(nn.Module):
  """Attention of the transformer: no bias on queries, keys and values.

  Attributes:
    heads: how many.
    dtype: of the computation.
  """

  heads: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "B N D"],
    context: Float[Array, "B M E"] | None = None,
    key_count: Int[Array, "B"] | None = None,
  ) -> Float[Array, "B N D"]:
    """Attends to `context`, or without one to `x` itself."""
    return projected_attention(x, x if context is None else context, key_count, self.heads, False, self.dtype)


class SpatialAttention(nn.Module):
  """The autoencoder's: one head over the cells of each image, behind a GroupNorm, added to its input.

  Attributes:
    groups, epsilon: of the normalisation.
    dtype: of the computation.
  """

  groups: int
  epsilon: float = 1e-6
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "B T H W C"]) -> Float[Array, "B T H W C"]:
    batch, frames, height, width, features = x.shape
    h = GroupNorm(self.groups, self.epsilon, pool_frames=False, dtype=self.dtype, name="group_norm")(x)
    h = h.reshape(batch * frames, height * width, features)
    return x + projected_attention(h, h, None, 1, True, self.dtype).reshape(x.shape)


class GEGLU(nn.Module):
  """Gated linear unit with the exact GELU (Shazeer 2020)."""

  features: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N {self.features}"]:
    x, gate = SplitDense(2 * self.features, dtype=self.dtype, name="proj")(x)
    return x * gelu(gate)


class FeedForward(nn.Module):
  """GEGLU of four times the width, and back."""

  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
    h = GEGLU(4 * x.shape[-1], dtype=self.dtype, name="net_0")(x)
    return Dense(x.shape[-1], dtype=self.dtype, name="net_2")(h)


class TransformerBlock(nn.Module):
  """Self-attention, cross-attention to the context, feed-forward; each after a layer norm, each added.

  Attributes:
    heads: of both attentions.
    all_frames: self-attention over all frames of a clip as one sequence of T*H*W tokens; else frame by frame.
    dtype: of the computation.
  """

  heads: int
  all_frames: bool
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "B T N D"],
    context: Float[Array, "B M E"],
    frame_mask: Bool[Array, "B T"] | None = None,
  ) -> Float[Array, "B T N D"]:
    batch, frames, tokens, features = x.shape
    key_count = None
    if self.all_frames:
      sequence = (batch, frames * tokens, features)
      if frame_mask is not None and frames > 1:
        key_count = tokens * frame_mask.sum(axis=1)
    else:
      sequence = (batch * frames, tokens, features)
    clip = (batch, frames * tokens, features)

    h = layer_norm(1e-5, self.dtype, "norm1")(x).reshape(sequence)
    x = x + Attention(self.heads, dtype=self.dtype, name="attn1")(h, key_count=key_count).reshape(x.shape)
    # A query sees the context alone, so all frames of a clip can stand in one sequence.
    h = layer_norm(1e-5, self.dtype, "norm2")(x).reshape(clip)
    x = x + Attention(self.heads, dtype=self.dtype, name="attn2")(h, context).reshape(x.shape)
    h = layer_norm(1e-5, self.dtype, "norm3")(x).reshape(clip)
    return x + FeedForward(dtype=self.dtype, name="ff")(h).reshape(x.shape)


class Transformer(nn.Module):
  """Transformer over the cells of a feature map, around it a projection in and out, and the input added.

  Its GroupNorm has each frame's own statistics and epsilon 1e-6, unlike the residual block's.

  Attributes:
    heads: of each attention.
    groups: of the normalisation.
    depth: transformer blocks.
    linear_projection: dense projections in and out (Stable Diffusion 2), else 1x1 convolutions.
    all_frames: self-attention over all frames of a clip.
    dtype: of the computation.
  """

  heads: int
  groups: int
  depth: int = 1
  linear_projection: bool = False
  all_frames: bool = True
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "B T H W C"],
    context: Float[Array, "B M E"],
    frame_mask: Bool[Array, "B T"] | None = None,
  ) -> Float[Array, "B T H W C"]:
    batch, frames, height, width, features = x.shape

    def project(name: str, y: Array) -> Array:
      if self.linear_projection:
        return Dense(features, dtype=self.dtype, name=name)(y)
      return Conv(features, 1, padding=(0, 0), dtype=self.dtype, name=name)(y)

    h = project("proj_in", GroupNorm(self.groups, 1e-6, pool_frames=False, dtype=self.dtype, name="norm")(x))
    h = h.reshape(batch, frames, height * width, features)
    for i in range(self.depth):
      block = TransformerBlock(self.heads, self.all_frames, dtype=self.dtype, name=f"transformer_blocks_{i}")
      h = block(h, context, frame_mask)
    return x + project("proj_out", h.reshape(x.shape))
