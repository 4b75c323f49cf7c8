"""Attention: the one function that computes it, and never holds the matrix of all queries by all keys where it is big.

Which code runs is chosen by platform, type and size (`attention`'s `implementation` forces one):

    "plain"    one matrix; for short sequences
    "chunked"  a scan over pieces of the keys inside one over pieces of the queries, with a running maximum and sum
               (Milakov & Gimelshein 2018; Rabe & Staats 2021); anywhere
    "cudnn"    NVIDIA's flash attention through jax.nn; 16-bit types
    "flash"    JAX's flash attention for TPU, in Pallas
"""

import math

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import flash_attention as tpu

from anchor_jax import parallel
from anchor_jax.errors import UserError, suggestion
from anchor_jax.shapes import Array, Float, Int

IMPLEMENTATIONS = ("plain", "chunked", "cudnn", "flash")
_PLAIN_LOGITS = 2**24  # up to so many logits a plain matrix is faster, and small
_QUERIES, _KEYS = 1024, 2048  # of a piece
_FLASH_BLOCK = 512
_NEVER = -0.7 * float(jnp.finfo(jnp.float32).max)  # a logit that no key reaches; halves of it can still be subtracted


def attention(
  q: Float[Array, "B N heads D"],
  k: Float[Array, "B M heads D"],
  v: Float[Array, "B M heads D"],
  key_count: Int[Array, "B"] | None = None,
  causal: bool = False,
  implementation: str | None = None,
) -> Float[Array, "B N heads D"]:
  """Scaled dot-product attention (Vaswani et al. 2017, equation 1), softmax in float32.

  Args:
    q, k, v: queries, keys, values by head.
    key_count: keys 0 to key_count - 1 are seen, at least one; by default all.
    causal: query n sees keys 0 to n alone (a text of at most some hundred tokens).
    implementation: one of `IMPLEMENTATIONS`; by default the best for the platform, the types and the size.
  """
  if implementation is not None and implementation not in IMPLEMENTATIONS:
    hint = suggestion(implementation, IMPLEMENTATIONS)
    raise UserError(f'unknown attention "{implementation}": use one of {", ".join(IMPLEMENTATIONS)}.{hint}')
  batch, length, heads, _ = q.shape
  if causal or implementation == "plain":
    return _plain(q, k, v, key_count, causal)
  if implementation is None and batch * heads * length * k.shape[1] <= _PLAIN_LOGITS:
    return _plain(q, k, v, key_count, causal)
  if implementation is None:
    implementation = _best(q, k)
  return parallel.shard_map_attention(_KERNELS[implementation], q, k, v, key_count)


def _best(q: Array, k: Array) -> str:
  platform = parallel.platform()
  sixteen_bits = q.dtype in (jnp.bfloat16, jnp.float16)
  if platform == "gpu" and sixteen_bits and q.shape[-1] % 8 == 0 and q.shape[-1] <= 128:
    return "cudnn"
  if platform == "tpu" and q.shape[1] % 128 == 0 and k.shape[1] % 128 == 0:
    return "flash"
  return "chunked"


def _plain(q: Array, k: Array, v: Array, key_count: Array | None, causal: bool = False) -> Array:
  logits = jnp.einsum("bnhd,bmhd->bhnm", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
  if causal:
    logits = jnp.where(jnp.tril(jnp.ones(logits.shape[-2:], bool)), logits, _NEVER)
  if key_count is not None:
    logits = jnp.where(jnp.arange(k.shape[1]) < key_count[:, None, None, None], logits, _NEVER)
  weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
  return jnp.einsum("bhnm,bmhd->bnhd", weights, v)


def _chunked(q: Array, k: Array, v: Array, key_count: Array | None) -> Array:
  batch, length = q.shape[:2]
  counts = jnp.full((batch,), k.shape[1]) if key_count is None else key_count
  keys, values = _pieces(k, _KEYS), _pieces(v, _KEYS)
  firsts = jnp.arange(keys.shape[0]) * keys.shape[2]

  # Recomputed in the backward pass, piece by piece: else every piece's logits would be kept, and nothing gained.
  @jax.checkpoint
  def some_queries(queries):
    def some_keys(carry, piece):
      highest, total, mixed = carry
      key, value, first = piece
      logits = jnp.einsum("bnhd,bmhd->bhnm", queries, key, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
      seen = first + jnp.arange(key.shape[1]) < counts[:, None, None, None]
      logits = jnp.where(seen, logits, _NEVER)
      top = jnp.maximum(highest, jax.lax.stop_gradient(logits.max(axis=-1)))
      weights = jnp.where(seen, jnp.exp(logits - top[..., None]), 0)
      fade = jnp.exp(highest - top)
      added = jnp.einsum("bhnm,bmhd->bhnd", weights.astype(v.dtype), value, preferred_element_type=jnp.float32)
      return (top, total * fade + weights.sum(axis=-1), mixed * fade[..., None] + added), None

    shape = (batch, q.shape[2], queries.shape[1])
    start = (jnp.full(shape, _NEVER), jnp.zeros(shape), jnp.zeros((*shape, v.shape[-1])))
    (_, total, mixed), _ = jax.lax.scan(jax.checkpoint(some_keys), start, (keys, values, firsts))
    return jnp.moveaxis(mixed / total[..., None], 1, 2).astype(v.dtype)

  out = jax.lax.map(some_queries, _pieces(q, _QUERIES))
  return jnp.moveaxis(out, 0, 1).reshape(batch, -1, *q.shape[2:])[:, :length]


def _pieces(x: Array, most: int) -> Array:
  """[B N heads D] -> [pieces B n heads D], zeros behind the last; pieces of one size, at most `most`."""
  count = math.ceil(x.shape[1] / most)
  size = math.ceil(x.shape[1] / count)
  padded = jnp.pad(x, ((0, 0), (0, count * size - x.shape[1]), (0, 0), (0, 0)))
  return jnp.moveaxis(padded.reshape(x.shape[0], count, size, *x.shape[2:]), 1, 0)


def _cudnn(q: Array, k: Array, v: Array, key_count: Array | None) -> Array:
  counts = None if key_count is None else key_count.astype(jnp.int32)
  return jax.nn.dot_product_attention(q, k, v, key_value_seq_lengths=counts, implementation="cudnn")


def _flash(q: Array, k: Array, v: Array, key_count: Array | None) -> Array:
  if q.shape[1] % 128 or k.shape[1] % 128:  # a device's share of the queries may be too short for the kernel
    return _chunked(q, k, v, key_count)
  segments = None
  if key_count is not None:  # a query sees the keys of its own segment
    seen = (jnp.arange(k.shape[1]) < key_count[:, None]).astype(jnp.int32)
    segments = tpu.SegmentIds(jnp.ones(q.shape[:2], jnp.int32), seen)
  block = lambda length: next(size for size in (_FLASH_BLOCK, 256, 128) if length % size == 0)
  queries, keys = block(q.shape[1]), block(k.shape[1])
  sizes = tpu.BlockSizes(
    block_q=queries, block_k_major=keys, block_k=keys, block_b=1,
    block_q_major_dkv=queries, block_k_major_dkv=keys, block_k_dkv=keys, block_q_dkv=queries,
    block_k_major_dq=keys, block_k_dq=keys, block_q_dq=queries,
  )  # fmt: skip
  width, scale = q.shape[-1], q.shape[-1] ** -0.5
  wider = 0 if width <= 128 else -width % 128  # the kernel wants lanes full beyond the first 128; zeros add nothing
  by_head = lambda x: jnp.pad(jnp.moveaxis(x, 2, 1), ((0, 0), (0, 0), (0, 0), (0, wider)))
  out = tpu.flash_attention(by_head(q), by_head(k), by_head(v), segment_ids=segments, sm_scale=scale, block_sizes=sizes)
  return jnp.moveaxis(out[..., :width], 1, 2)


_KERNELS = {"chunked": _chunked, "cudnn": _cudnn, "flash": _flash}
