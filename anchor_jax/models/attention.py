"""Scaled dot-product attention, with memory linear in the sequence length for long sequences.

`attention` picks an implementation by platform, dtype and size; its argument `implementation` forces one:

    "plain"    materializes the full logits matrix; for short sequences
    "pieces"   loops over pieces of the logits matrix that fit in a core's cache; CPU
    "chunked"  scans over chunks of keys inside a scan over chunks of queries, with a running maximum and sum
               (Milakov & Gimelshein 2018; Rabe & Staats 2021); any platform
    "cudnn"    NVIDIA's flash attention through jax.nn; GPU, 16-bit types
    "flash"    JAX's Pallas "splash" kernels, which save one number per query for the backward pass; TPU
"""

import math

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as splash_mask

from anchor_jax.core import sharding
from anchor_jax.core.errors import UserError, suggestion
from anchor_jax.core.shapes import Array, Float, Int

IMPLEMENTATIONS = ("plain", "pieces", "chunked", "cudnn", "flash")
RESIDUALS = "attention"  # checkpoint name of the fused kernels' saved residuals
_PLAIN_LOGITS = 2**24  # up to this many logits per device, "plain" is faster and its matrix small
_CPU_PLAIN_LOGITS = 2**17
_PIECE_LOGITS = 2**17  # of one piece, 0.5 MB; results/attention-chunks.jsonl
_PIECE_ROWS = 64  # fewest queries of a piece
_QUERIES, _KEYS = 1024, 2048  # per chunk
_FLASH_BLOCK = 1024
_MASKED = -0.7 * float(jnp.finfo(jnp.float32).max)  # logit of a masked key; finite, so that differences stay finite


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
    q: queries, N per example.
    k, v: keys and values, M per example.
    key_count: number of unmasked keys of each example, 1 to M; later keys are masked. None: no mask.
    causal: query n attends to keys 0 to n only. Always "plain"; meant for the text tower's 77 tokens.
    implementation: one of `IMPLEMENTATIONS`; None picks by platform, dtype and size.

  Returns:
    The attended values, in v's dtype.

  Raises:
    UserError: `implementation` is unknown.
  """
  if implementation is not None and implementation not in IMPLEMENTATIONS:
    hint = suggestion(implementation, IMPLEMENTATIONS)
    raise UserError(f'unknown attention "{implementation}": use one of {", ".join(IMPLEMENTATIONS)}.{hint}')
  batch, length, heads, _ = q.shape
  if causal or implementation == "plain":
    return _plain(q, k, v, key_count, causal)
  if implementation is None and sharding.exporting():
    return _by_platform_at_run_time(q, k, v, key_count)
  limit = _CPU_PLAIN_LOGITS if sharding.platform() == "cpu" else _PLAIN_LOGITS
  if implementation is None and batch * heads * length * k.shape[1] <= limit * sharding.attention_shards(q):
    return _plain(q, k, v, key_count, causal)
  if implementation is None:
    implementation = _fastest(q, k)
  return sharding.shard_map_attention(_KERNELS[implementation], q, k, v, key_count)


def _by_platform_at_run_time(q: Array, k: Array, v: Array, key_count: Array | None) -> Array:
  """Attention in an exported program, among the portable implementations: fused kernels run on one platform only."""
  batch, length, heads, _ = q.shape
  logits = batch * heads * length * k.shape[1]
  on_cpu, elsewhere = (
    _plain if logits <= limit else _KERNELS[name]
    for limit, name in ((_CPU_PLAIN_LOGITS, "pieces"), (_PLAIN_LOGITS, "chunked"))
  )
  if on_cpu is elsewhere:
    return on_cpu(q, k, v, key_count)
  run = lambda attend: lambda q, k, v, *count: attend(q, k, v, *(count or (None,)))
  return sharding.by_platform(run(on_cpu), run(elsewhere), q, k, v, *(() if key_count is None else (key_count,)))


def _fastest(q: Array, k: Array) -> str:
  platform = sharding.platform()
  if platform == "cpu":
    return "pieces"
  sixteen_bits = q.dtype in (jnp.bfloat16, jnp.float16)
  if platform == "gpu" and sixteen_bits and q.shape[-1] % 8 == 0 and q.shape[-1] <= 128:
    return "cudnn"
  if platform == "tpu" and q.shape[1] % 128 == 0 and k.shape[1] % 128 == 0:
    return "flash"
  return "chunked"


def _plain(q: Array, k: Array, v: Array, key_count: Array | None, causal: bool = False) -> Array:
  logits = jnp.einsum("bnhd,bmhd->bhnm", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
  if causal:
    logits = jnp.where(jnp.tril(jnp.ones(logits.shape[-2:], bool)), logits, _MASKED)
  if key_count is not None:
    logits = jnp.where(jnp.arange(k.shape[1]) < key_count[:, None, None, None], logits, _MASKED)
  weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
  return jnp.einsum("bhnm,bmhd->bnhd", weights, v)


def _pieces(q: Array, k: Array, v: Array, key_count: Array | None) -> Array:
  batch, length, heads, _ = q.shape
  keys, pairs = k.shape[1], batch * heads
  rows = min(length, max(_PIECE_ROWS, _PIECE_LOGITS // keys))

  # Rematerialized: saving the weights would write the full matrix to memory, which is what takes the time.
  @jax.checkpoint
  def attend(queries, key, value, count):
    logits = jnp.einsum("nd,md->nm", queries, key, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    if key_count is not None:
      logits = jnp.where(jnp.arange(keys) < count, logits, _MASKED)
    weights = jnp.exp(logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True)))
    weighted = jnp.einsum("nm,md->nd", weights.astype(v.dtype), value, preferred_element_type=jnp.float32)
    return (weighted / weights.sum(axis=-1, keepdims=True)).astype(v.dtype)

  def attend_pair(pair):
    queries, *rest = pair
    if rows == length:
      return attend(queries, *rest)
    pieces = _chunks(queries[None, :, None], rows)[:, 0, :, 0]
    return jax.lax.map(lambda piece: attend(piece, *rest), pieces).reshape(-1, v.shape[-1])[:length]

  by_pair = lambda x: jnp.moveaxis(x, 2, 1).reshape(pairs, x.shape[1], x.shape[3])
  counts = jnp.full((batch,), keys) if key_count is None else key_count
  batch_size = max(1, _PIECE_LOGITS // (length * keys))  # short sequences: several pairs of example and head per piece
  operands = (by_pair(q), by_pair(k), by_pair(v), jnp.repeat(counts, heads))
  out = jax.lax.map(attend_pair, operands, batch_size=batch_size if batch_size > 1 else None)
  return jnp.moveaxis(out.reshape(batch, heads, length, -1), 1, 2)


def _chunked(q: Array, k: Array, v: Array, key_count: Array | None) -> Array:
  batch, length = q.shape[:2]
  counts = jnp.full((batch,), k.shape[1]) if key_count is None else key_count
  keys, values = _chunks(k, _KEYS), _chunks(v, _KEYS)
  firsts = jnp.arange(keys.shape[0]) * keys.shape[2]

  # Rematerialized: otherwise the logits of all chunks would be saved for the backward pass.
  @jax.checkpoint
  def attend_queries(queries):
    def accumulate_keys(carry, chunk):
      highest, total, weighted = carry
      key, value, first = chunk
      logits = jnp.einsum("bnhd,bmhd->bhnm", queries, key, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
      seen = first + jnp.arange(key.shape[1]) < counts[:, None, None, None]
      logits = jnp.where(seen, logits, _MASKED)
      maximum = jnp.maximum(highest, jax.lax.stop_gradient(logits.max(axis=-1)))
      weights = jnp.where(seen, jnp.exp(logits - maximum[..., None]), 0)
      decay = jnp.exp(highest - maximum)
      added = jnp.einsum("bhnm,bmhd->bhnd", weights.astype(v.dtype), value, preferred_element_type=jnp.float32)
      return (maximum, total * decay + weights.sum(axis=-1), weighted * decay[..., None] + added), None

    shape = (batch, q.shape[2], queries.shape[1])
    start = (jnp.full(shape, _MASKED), jnp.zeros(shape), jnp.zeros((*shape, v.shape[-1])))
    (_, total, weighted), _ = jax.lax.scan(jax.checkpoint(accumulate_keys), start, (keys, values, firsts))
    return jnp.moveaxis(weighted / total[..., None], 1, 2).astype(v.dtype)

  out = jax.lax.map(attend_queries, _chunks(q, _QUERIES))
  return jnp.moveaxis(out, 0, 1).reshape(batch, -1, *q.shape[2:])[:, :length]


def _chunks(x: Array, limit: int) -> Array:
  """[B N heads D] -> [chunks B n heads D]: equal chunks of n <= `limit` tokens, the last one padded with zeros."""
  count = math.ceil(x.shape[1] / limit)
  size = math.ceil(x.shape[1] / count)
  padded = jnp.pad(x, ((0, 0), (0, count * size - x.shape[1]), (0, 0), (0, 0)))
  return jnp.moveaxis(padded.reshape(x.shape[0], count, size, *x.shape[2:]), 1, 0)


def _cudnn(q: Array, k: Array, v: Array, key_count: Array | None) -> Array:
  counts = None if key_count is None else key_count.astype(jnp.int32)
  return jax.nn.dot_product_attention(q, k, v, key_value_seq_lengths=counts, implementation="cudnn")


def _flash(q: Array, k: Array, v: Array, key_count: Array | None) -> Array:
  queries, keys, heads, width = q.shape[1], k.shape[1], q.shape[2], q.shape[3]
  if queries % 128 or keys % 128:  # sharding the queries may leave lengths the kernel does not support
    return _chunked(q, k, v, key_count)
  block = lambda length: next(size for size in (_FLASH_BLOCK, 512, 256, 128) if length % size == 0)
  rows, columns, inner = block(queries), block(keys), min(512, block(keys))
  # Rows of fewer than 128 numbers are padded to 128 in memory. So narrow heads have tokens along the rows, as the
  # preceding projections lay them out: nothing is copied in between.
  layout = splash.QKVLayout.SEQ_MINOR if width < 128 else splash.QKVLayout.HEAD_DIM_MINOR
  sizes = splash.BlockSizes(
    block_q=rows, block_kv=columns, block_kv_compute=inner,
    block_q_dkv=rows, block_kv_dkv=columns, block_kv_dkv_compute=inner,
    block_q_dq=rows, block_kv_dq=columns,
    q_layout=layout, k_layout=layout, v_layout=layout,
  )  # fmt: skip
  full = splash_mask.FullMask((queries, keys))
  attend = lambda count: splash.make_splash_mha_single_device(
    splash_mask.MultiHeadMask([full] * count), block_sizes=sizes, residual_checkpoint_name=RESIDUALS
  )
  by_head = lambda x: jnp.moveaxis(x, 2, 1)
  operands = (by_head(q) * jnp.asarray(width**-0.5, q.dtype), by_head(k), by_head(v))
  if key_count is None:  # without a mask, examples can be folded into heads
    flat = (x.reshape(-1, *x.shape[2:]) for x in operands)
    return by_head(attend(len(q) * heads)(*flat).reshape(*operands[0].shape[:3], -1)).astype(v.dtype)
  # The kernel takes no count of keys, but it masks keys whose segment is not the query's.
  seen = (jnp.arange(keys) < key_count[:, None]).astype(jnp.int32)
  segments = splash.SegmentIds(jnp.ones(q.shape[:2], jnp.int32), seen)
  return by_head(jax.lax.map(lambda one: attend(heads)(*one), (*operands, segments))).astype(v.dtype)


_KERNELS = {"pieces": _pieces, "chunked": _chunked, "cudnn": _cudnn, "flash": _flash}
