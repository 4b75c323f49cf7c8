"""Attention: the one function that computes it, and the transformer that stands in the UNet and the ControlNet."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from anchor_jax.models.layers import Conv, GroupNorm, Initializer, gelu, layer_norm
from anchor_jax.shapes import Array, Bool, Float

_lecun_normal = nn.initializers.lecun_normal()
_CHUNK_LOGITS = 2**26  # logits held at once; longer sequences go through in pieces of the queries


def attention(
  q: Float[Array, "B N heads D"],
  k: Float[Array, "B M heads D"],
  v: Float[Array, "B M heads D"],
  key_mask: Bool[Array, "B M"] | None = None,
  causal: bool = False,
) -> Float[Array, "B N heads D"]:
  """Scaled dot-product attention (Vaswani et al. 2017, equation 1), softmax in float32.

  Args:
    q, k, v: queries, keys, values by head.
    key_mask: False where a key must not be seen; each row of the batch needs one True.
    causal: query n sees keys 0 to n alone (a text of at most some hundred tokens).
  """
  if causal:
    return _attend(q, k, v, jnp.tril(jnp.ones((q.shape[1], k.shape[1]), bool))[None, None])
  key_mask = None if key_mask is None else key_mask[:, None, None]
  batch, length, heads, _ = q.shape
  pieces = -(-batch * heads * length * k.shape[1] // _CHUNK_LOGITS)
  while length % pieces:
    pieces += 1
  if pieces == 1:
    return _attend(q, k, v, key_mask)
  parts = jnp.moveaxis(q.reshape(batch, pieces, length // pieces, heads, -1), 1, 0)
  # Recomputed in the backward pass: else every piece's logits would be kept, and nothing gained.
  out = jax.lax.map(jax.checkpoint(lambda part: _attend(part, k, v, key_mask)), parts)
  return jnp.moveaxis(out, 0, 1).reshape(q.shape)


def _attend(q: Array, k: Array, v: Array, mask: Array | None) -> Array:
  logits = jnp.einsum("bnhd,bmhd->bhnm", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
  if mask is not None:
    logits = jnp.where(mask, logits, jnp.finfo(jnp.float32).min)
  weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
  return jnp.einsum("bhnm,bmhd->bnhd", weights, v)


def projected_attention(
  x: Float[Array, "B N D"],
  context: Float[Array, "B M E"],
  key_mask: Bool[Array, "B M"] | None,
  heads: int,
  qkv_bias: bool,
  dtype: DTypeLike,
  out_init: Initializer = _lecun_normal,
) -> Float[Array, "B N D"]:
  """Multi-head attention whose four projections become submodules of the (compact) module that calls it."""
  features = x.shape[-1]

  def project(name: str, y: Array) -> Array:
    y = nn.Dense(features, use_bias=qkv_bias, dtype=dtype, name=name)(y)
    return y.reshape(*y.shape[:2], heads, -1)

  out = attention(project("to_q", x), project("to_k", context), project("to_v", context), key_mask)
  return nn.Dense(features, kernel_init=out_init, dtype=dtype, name="to_out_0")(out.reshape(x.shape))


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
    key_mask: Bool[Array, "B M"] | None = None,
  ) -> Float[Array, "B N D"]:
    """Attends to `context`, or without one to `x` itself."""
    return projected_attention(x, x if context is None else context, key_mask, self.heads, False, self.dtype)


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
    x, gate = jnp.split(nn.Dense(2 * self.features, dtype=self.dtype, name="proj")(x), 2, axis=-1)
    return x * gelu(gate)


class FeedForward(nn.Module):
  """GEGLU of four times the width, and back."""

  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
    h = GEGLU(4 * x.shape[-1], dtype=self.dtype, name="net_0")(x)
    return nn.Dense(x.shape[-1], dtype=self.dtype, name="net_2")(h)


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
    key_mask = None
    if self.all_frames:
      sequence = (batch, frames * tokens, features)
      if frame_mask is not None and frames > 1:
        key_mask = jnp.repeat(frame_mask, tokens, axis=1)
    else:
      sequence = (batch * frames, tokens, features)
    clip = (batch, frames * tokens, features)

    h = layer_norm(1e-5, self.dtype, "norm1")(x).reshape(sequence)
    x = x + Attention(self.heads, dtype=self.dtype, name="attn1")(h, key_mask=key_mask).reshape(x.shape)
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
        return nn.Dense(features, dtype=self.dtype, name=name)(y)
      return Conv(features, 1, padding=(0, 0), dtype=self.dtype, name=name)(y)

    h = project("proj_in", GroupNorm(self.groups, 1e-6, pool_frames=False, dtype=self.dtype, name="norm")(x))
    h = h.reshape(batch, frames, height * width, features)
    for i in range(self.depth):
      block = TransformerBlock(self.heads, self.all_frames, dtype=self.dtype, name=f"transformer_blocks_{i}")
      h = block(h, context, frame_mask)
    return x + project("proj_out", h.reshape(x.shape))
