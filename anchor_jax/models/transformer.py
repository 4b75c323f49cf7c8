"""The transformer of UNet and pose branch, its layers, and the autoencoder's attention."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from anchor_jax.core.shapes import Array, Bool, Float, Int, NdArray
from anchor_jax.models.attention import attention
from anchor_jax.models.layers import Conv, Dense, GroupNorm, Initializer, SplitDense, gelu, layer_norm

_lecun_normal = nn.initializers.lecun_normal()


def projected_attention(
  x: Float[Array, "B N D"],
  context: Float[Array, "B M E"],
  key_count: Int[Array, "B"] | None,
  heads: int,
  qkv_bias: bool,
  dtype: DTypeLike,
  out_init: Initializer = _lecun_normal,
  select_keys: Callable[[Array], Array] = lambda projected: projected,
) -> Float[Array, "B N D"]:
  """Multi-head attention of `x` to `context`; the four projections become submodules of the calling compact module.

  Args:
    x: queries are projected from it.
    context: keys and values are projected from it.
    key_count: number of unmasked context tokens of each example; None for all.
    heads: number of heads; divides D.
    qkv_bias: whether the query, key and value projections have a bias.
    dtype: of the computation.
    out_init: initializer of the output projection's kernel.
    select_keys: selects the attended keys and values [B M' heads D] from the projected ones [B M heads D].
  """
  features = x.shape[-1]

  def project(name: str, y: Array) -> Array:
    y = Dense(features, use_bias=qkv_bias, dtype=dtype, name=name)(y)
    return y.reshape(*y.shape[:2], heads, -1)

  keys, values = select_keys(project("to_k", context)), select_keys(project("to_v", context))
  out = attention(project("to_q", x), keys, values, key_count)
  return Dense(features, kernel_init=out_init, dtype=dtype, name="to_out_0")(out.reshape(x.shape))


class Attention(nn.Module):
  """Multi-head attention without bias in the query, key and value projections.

  Attributes:
    heads: number of heads.
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
    select_keys: Callable[[Array], Array] = lambda projected: projected,
  ) -> Float[Array, "B N D"]:
    """Attention of `x` to `context`; to `x` itself if `context` is None. See `projected_attention`."""
    context = x if context is None else context
    return projected_attention(x, context, key_count, self.heads, False, self.dtype, select_keys=select_keys)


class SpatialAttention(nn.Module):
  """The autoencoder's attention: GroupNorm, one head over the cells of each image, residual connection.

  Attributes:
    groups, epsilon: of the normalization.
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
  """Gated linear unit of `features` channels with the exact GELU (Shazeer 2020)."""

  features: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N {self.features}"]:
    x, gate = SplitDense(2 * self.features, dtype=self.dtype, name="proj")(x)
    return x * gelu(gate)


class FeedForward(nn.Module):
  """GEGLU of four times the input's width, then a projection back."""

  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
    h = GEGLU(4 * x.shape[-1], dtype=self.dtype, name="net_0")(x)
    return Dense(x.shape[-1], dtype=self.dtype, name="net_2")(h)


class TransformerBlock(nn.Module):
  """Pre-norm self-attention, cross-attention to the context, and feed-forward, each with a residual connection.

  Attributes:
    heads: of both attentions.
    all_frames: whether self-attention runs over all T*N tokens of a clip as one sequence, or over each frame's N.
    attended_frames: with `all_frames`, how many frames a frame attends to, see `attended`; 0: all of the clip.
    dtype: of the computation.
  """

  heads: int
  all_frames: bool
  attended_frames: int = 0
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "B T N D"],
    context: Float[Array, "B M E"],
    frame_mask: Bool[Array, "B T"] | None = None,
  ) -> Float[Array, "B T N D"]:
    batch, frames, tokens, features = x.shape
    key_count, select_keys = None, lambda projected: projected
    if self.all_frames and 0 < self.attended_frames < frames:
      sequence, table = (batch * frames, tokens, features), attended(frames, self.attended_frames)

      def select_keys(projected: Array) -> Array:
        of_frames = projected.reshape(batch, frames, tokens, *projected.shape[2:])[:, table]
        return of_frames.reshape(batch * frames, -1, *projected.shape[2:])

      if frame_mask is not None:  # padded frames come last, also in the rows of the table
        unmasked = jnp.maximum(1, frame_mask[:, table].sum(axis=-1))
        key_count = tokens * unmasked.reshape(-1)
    elif self.all_frames:
      sequence = (batch, frames * tokens, features)
      if frame_mask is not None and frames > 1:
        key_count = tokens * frame_mask.sum(axis=1)
    else:
      sequence = (batch * frames, tokens, features)
    clip = (batch, frames * tokens, features)

    h = layer_norm(1e-5, self.dtype, "norm1")(x).reshape(sequence)
    x = x + Attention(self.heads, dtype=self.dtype, name="attn1")(h, None, key_count, select_keys).reshape(x.shape)
    # Queries of cross-attention do not interact, so all frames of a clip can be one sequence.
    h = layer_norm(1e-5, self.dtype, "norm2")(x).reshape(clip)
    x = x + Attention(self.heads, dtype=self.dtype, name="attn2")(h, context).reshape(x.shape)
    h = layer_norm(1e-5, self.dtype, "norm3")(x).reshape(clip)
    return x + FeedForward(dtype=self.dtype, name="ff")(h).reshape(x.shape)


def attended(frames: int, count: int) -> Int[NdArray, "T K"]:
  """The numbers, ascending, of the `count` frames that each of `frames` frames attends to.

  They are the frame itself, the previous frame (for the first frame, the next), and frames evenly spaced over the clip.
  """
  table = []
  for frame in range(frames):
    spaced = np.round(np.linspace(0, frames - 1, count)).astype(int).tolist()
    by_priority = dict.fromkeys((frame, frame - 1 if frame else 1, *spaced, *range(frames)))
    table.append(sorted(list(by_priority)[:count]))
  return np.array(table)


class Transformer(nn.Module):
  """Transformer over the cells of a feature map, between two projections, with a residual connection.

  Its GroupNorm has per-frame statistics and epsilon 1e-6, unlike those of the residual blocks.

  Attributes:
    heads: of each attention.
    groups: of the normalization.
    depth: number of transformer blocks.
    linear_projection: whether the projections are dense layers (Stable Diffusion 2) or 1x1 convolutions.
    all_frames, attended_frames: see `TransformerBlock`.
    dtype: of the computation.
  """

  heads: int
  groups: int
  depth: int = 1
  linear_projection: bool = False
  all_frames: bool = True
  attended_frames: int = 0
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
      block = TransformerBlock(
        self.heads, self.all_frames, self.attended_frames, dtype=self.dtype, name=f"transformer_blocks_{i}"
      )
      h = block(h, context, frame_mask)
    return x + project("proj_out", h.reshape(x.shape))
