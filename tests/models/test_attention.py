import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from anchor_jax.config.run import MeshConfig
from anchor_jax.core import sharding
from anchor_jax.core.errors import UserError
from anchor_jax.models.attention import attention
from anchor_jax.models.transformer import TransformerBlock, attended


def heads(seed, length):
  return jax.random.normal(jax.random.key(seed), (2, length, 3, 4))


def roundings(keys, v):
  """Tolerance for sums in another order: over the keys, and over the 4 numbers of a head for each weight."""
  return 2 * (keys + 4) * np.finfo(np.float32).eps * float(jnp.abs(v).max())


def test_attention_follows_the_formula():
  q, k, v = heads(0, 5), heads(1, 7), heads(2, 7)
  logits = np.einsum("bnhd,bmhd->bhnm", q, k) / 2
  weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  np.testing.assert_allclose(attention(q, k, v), np.einsum("bhnm,bmhd->bnhd", weights, v), atol=1e-5)


def test_keys_beyond_the_count_are_masked():
  q, k, v = heads(0, 5), heads(1, 7), heads(2, 7)
  got = attention(q, k, v, jnp.array([4, 7]))
  np.testing.assert_allclose(got[0], attention(q[:1], k[:1, :4], v[:1, :4])[0], atol=roundings(7, v))
  np.testing.assert_allclose(got[1], attention(q[1:], k[1:], v[1:])[0], atol=roundings(7, v))


def test_causal_queries_attend_to_earlier_keys_only():
  q, k, v = heads(0, 6), heads(1, 6), heads(2, 6)
  got = attention(q, k, v, causal=True)
  for n in range(6):
    alone = attention(q[:, n : n + 1], k[:, : n + 1], v[:, : n + 1])[:, 0]
    np.testing.assert_allclose(got[:, n], alone, atol=roundings(6, v))


def long_heads(width, length=640, keys=640):
  shapes = [(2, length, 2, width), (2, keys, 2, width), (2, keys, 2, width), (2, length, 2, width)]
  parts = jax.random.split(jax.random.key(width), 4)
  return [jax.random.normal(key, shape) for key, shape in zip(parts, shapes, strict=True)]


def with_gradients(implementation, arrays, counts, jit):
  *qkv, weight = arrays

  def loss(q, k, v):
    out = attention(q, k, v, counts, implementation=implementation)
    return (out * weight).sum(), out

  gradients, out = jit(jax.grad(loss, (0, 1, 2), has_aux=True))(*qkv)
  return out, *gradients


@functools.cache
def plain_attention(width, counts, length, jit):
  """(arrays, their counts of keys, plain attention and its gradients), for all implementations."""
  arrays, counts = long_heads(width, length, length), counts and jnp.minimum(jnp.array(counts), length)
  return arrays, counts, with_gradients("plain", arrays, counts, jit)


@pytest.mark.parametrize("implementation", ["pieces", "chunked", "flash"])
@pytest.mark.parametrize("width,counts", [(40, None), (40, (130, 640)), (160, (64, 500))])
def test_kernels_and_their_gradients_equal_plain_attention(implementation, width, counts, jit, monkeypatch):
  from anchor_jax.models import attention as module

  monkeypatch.setattr(module, "_QUERIES", 100)
  monkeypatch.setattr(module, "_KEYS", 150)
  monkeypatch.setattr(module, "_PIECE_LOGITS", 300 * 640)  # 640 queries in three pieces, the last one padded
  length = 384 if implementation == "flash" else 640  # three blocks; the kernel is interpreted, which is slow
  arrays, counts, plain = plain_attention(width, counts, length, jit)
  with pltpu.force_tpu_interpret_mode():
    kernel = with_gradients(implementation, arrays, counts, jit)
    if counts is not None and width == 40:  # without gradients the forward kernel saves no residuals
      alone = jit(lambda q, k, v: attention(q, k, v, counts, implementation=implementation))(*arrays[:3])
      np.testing.assert_allclose(alone, plain[0], atol=1e-5 * max(1, float(jnp.abs(plain[0]).max())))
  for got, expected in zip(kernel, plain, strict=True):
    np.testing.assert_allclose(got, expected, atol=1e-5 * max(1, float(jnp.abs(expected).max())))


@pytest.mark.parametrize("shape", [(5, 33, 7, 3), (3, 64, 640, 2), (1, 129, 65, 4)])
def test_pieces_of_several_heads_of_short_sequences_equal_plain_attention(shape, jit, monkeypatch):
  from anchor_jax.models import attention as module

  monkeypatch.setattr(module, "_PIECE_LOGITS", 1000)
  batch, length, keys, count = shape
  arrays = [
    jax.random.normal(jax.random.key(i), (batch, n, count, 4)) for i, n in enumerate((length, keys, keys, length))
  ]
  for counts in (None, 1 + jnp.arange(batch) * 2):
    pieces, plain = (with_gradients(name, arrays, counts, jit) for name in ("pieces", "plain"))
    for got, expected in zip(pieces, plain, strict=True):
      np.testing.assert_allclose(got, expected, atol=1e-5 * max(1, float(jnp.abs(expected).max())))


@pytest.mark.parametrize("platform,tokens,kernel", [
  ("cpu", 256, "plain"), ("cpu", 2048, "pieces"), ("gpu", 2048, "plain"), ("tpu", 2048, "plain"),
  ("gpu", 8192, "chunked"), ("tpu", 8192, "flash"),
])  # fmt: skip
def test_only_cpus_compute_in_pieces(platform, tokens, kernel, monkeypatch):
  from anchor_jax.models import attention as module

  taken = []
  pick = lambda name: lambda q, *_: taken.append(name) or q
  monkeypatch.setattr(sharding, "platform", lambda: platform)
  monkeypatch.setattr(module, "_plain", pick("plain"))
  monkeypatch.setattr(module, "_KERNELS", {name: pick(name) for name in module.IMPLEMENTATIONS})
  q = jax.ShapeDtypeStruct((1, tokens, 2, 16), jnp.float32)
  jax.eval_shape(lambda *x: attention(*x), q, q, q)  # a new function: traces are cached by function
  assert taken == [kernel]


@pytest.mark.parametrize("masked", [False, True])
def test_an_exported_program_chooses_by_the_platform_that_runs_it(masked, monkeypatch):
  from anchor_jax.models import attention as module

  q, k, v = (jax.random.normal(jax.random.key(i), (2, 192, 2, 4)) for i in range(3))
  counts = jnp.array([5, 192]) if masked else None
  expected, taken = attention(q, k, v, counts, implementation="plain"), []
  for name in ("pieces", "chunked"):
    kernel = module._KERNELS[name]
    monkeypatch.setitem(module._KERNELS, name, lambda *x, name=name, kernel=kernel: taken.append(name) or kernel(*x))
  for logits in ("_CPU_PLAIN_LOGITS", "_PLAIN_LOGITS"):
    monkeypatch.setattr(module, logits, 100)
  with sharding.export_mode():
    exported = {
      platforms: jax.export.export(jax.jit(lambda *x: attention(*x, counts)), platforms=platforms)(q, k, v)
      for platforms in (("cpu", "cuda", "tpu"), ("cpu",), ("tpu",))
    }
  assert {"pieces", "chunked"} <= set(taken)
  np.testing.assert_allclose(exported["cpu", "cuda", "tpu"].call(q, k, v), expected, atol=1e-5)
  alone = [exported[name,].mlir_module() for name in ("cpu", "tpu")]
  assert alone[0] != alone[1] and len(exported["cpu", "cuda", "tpu"].mlir_module()) > max(map(len, alone))


def test_the_limit_of_plain_attention_counts_logits_per_device(monkeypatch):
  from anchor_jax.models import attention as module

  taken = []
  pick = lambda name: lambda q, *_: taken.append(name) or q
  monkeypatch.setattr(sharding, "platform", lambda: "tpu")
  monkeypatch.setattr(module, "_plain", pick("plain"))
  monkeypatch.setattr(module, "_KERNELS", {name: pick(name) for name in module.IMPLEMENTATIONS})
  for examples, mesh in ((8, MeshConfig(2, 4)), (8, MeshConfig(2, 1, 4)), (6, MeshConfig(1, 4, 2))):
    q = jax.ShapeDtypeStruct((examples, 2048, 2, 16), jnp.float32)  # 2**23 logits an example
    with sharding.use_mesh(sharding.make_mesh(mesh.sizes)):
      jax.eval_shape(lambda *x: attention(*x), q, q, q)
  assert taken == ["plain", "flash", "flash"]  # 8 shards; 2, since heads are not counted; 1, since 4 doesn't divide 6


def test_kernels_in_16_bits_are_as_accurate_as_plain_attention(jit):
  arrays = long_heads(40)
  exact = attention(*arrays[:3], implementation="plain")
  half = [array.astype(jnp.bfloat16) for array in arrays[:3]]
  error = lambda name: float(jnp.abs(attention(*half, implementation=name).astype(jnp.float32) - exact).max())
  assert max(error("chunked"), error("pieces")) <= 1.5 * error("plain")


def test_long_sequences_take_little_memory(jit):
  """65,536 tokens, 8 heads of 40: the matrix alone would take 137 GB in float32."""
  shape = jax.ShapeDtypeStruct((1, 65536, 8, 40), jnp.float32)
  chunked = functools.partial(attention, implementation="chunked")
  for function in (attention, *(jax.grad(lambda *x, f=f: f(*x).sum(), (0, 1, 2)) for f in (attention, chunked))):
    memory = jax.jit(function).lower(shape, shape, shape).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 2**30


@pytest.mark.parametrize("implementation", ["pieces", "chunked"])
@pytest.mark.parametrize("mesh", [MeshConfig(8, 1, 1), MeshConfig(2, 1, 4), MeshConfig(1, 2, 4)])
def test_devices_shard_the_batch_and_the_queries(mesh, implementation, jit):
  q, k, v = (jnp.tile(array, (4, 1, 1, 1)) for array in long_heads(8, 64, 64)[:3])
  counts = jnp.arange(1, 9) * 8
  with sharding.use_mesh(sharding.make_mesh(mesh.sizes)):
    shared = jax.jit(lambda *x: attention(*x, implementation=implementation))(q, k, v, counts)
  np.testing.assert_allclose(shared, attention(q, k, v, counts, implementation="plain"), atol=1e-5)


def test_an_unknown_implementation_is_refused_with_a_suggestion():
  q = heads(0, 5)
  with pytest.raises(UserError, match='Did you mean "flash"'):
    attention(q, q, q, implementation="flsh")


def test_frames_attend_as_one_sequence_or_each_on_its_own(random_params, jit):
  x = jax.random.normal(jax.random.key(0), (2, 3, 4, 6))
  context = jax.random.normal(jax.random.key(1), (2, 5, 7))
  together, apart = TransformerBlock(2, all_frames=True), TransformerBlock(2, all_frames=False)
  params = random_params(together, x, context)
  each = jnp.concatenate([jit(together.apply)(params, x[:, i : i + 1], context) for i in range(3)], axis=1)
  np.testing.assert_allclose(jit(apart.apply)(params, x, context), each, atol=1e-5)
  assert jnp.abs(jit(together.apply)(params, x, context) - each).max() > 1e-3


def test_a_frame_attends_to_itself_its_neighbor_and_evenly_spaced_frames():
  assert attended(8, 1).ravel().tolist() == list(range(8))
  assert attended(8, 3).tolist()[0] == [0, 1, 4] and attended(8, 3).tolist()[5] == [0, 4, 5]
  rows = attended(8, 5)
  assert rows.shape == (8, 5) and all(len(set(row)) == 5 and i in row for i, row in enumerate(rows.tolist()))


def test_attention_to_a_subset_of_frames(random_params, jit):
  x = jax.random.normal(jax.random.key(0), (2, 4, 3, 6))
  context = jax.random.normal(jax.random.key(1), (2, 5, 7))
  block = lambda count: TransformerBlock(2, all_frames=True, attended_frames=count)
  params = random_params(block(0), x, context)
  run = lambda count, *inputs: jit(block(count).apply)(params, *inputs)
  np.testing.assert_array_equal(run(4, x, context), run(0, x, context))
  apart = TransformerBlock(2, all_frames=False)
  np.testing.assert_allclose(run(1, x, context), jit(apart.apply)(params, x, context), atol=1e-5)
  # The third frame attends to the first three only, as if the clip had no more.
  np.testing.assert_allclose(run(3, x, context)[:, 2], run(0, x[:, :3], context)[:, 2], atol=1e-5)
  padded = x.at[:, 3:].set(1e3)
  mask = jnp.array([[True, True, True, False]] * 2)
  expected = jnp.concatenate([run(0, x[:, :2], context)[:, :1], run(0, x[:, 1:3], context)[:, 1:]], axis=1)
  got = run(2, padded, context, mask)
  np.testing.assert_allclose(got[:, [0, 2]], expected, atol=1e-5)
