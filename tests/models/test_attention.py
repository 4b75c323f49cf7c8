import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.models import attention as module
from anchor_jax.models.attention import TransformerBlock, attention


def heads(seed, length):
  return jax.random.normal(jax.random.key(seed), (2, length, 3, 4))


def test_attention_is_the_formula():
  q, k, v = heads(0, 5), heads(1, 7), heads(2, 7)
  logits = np.einsum("bnhd,bmhd->bhnm", q, k) / 2
  weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  np.testing.assert_allclose(attention(q, k, v), np.einsum("bhnm,bmhd->bnhd", weights, v), atol=1e-5)


def test_hidden_keys_are_not_seen():
  q, k, v = heads(0, 5), heads(1, 7), heads(2, 7)
  mask = jnp.arange(7)[None] < jnp.array([[4], [7]])
  got = attention(q, k, v, mask)
  np.testing.assert_allclose(got[0], attention(q[:1], k[:1, :4], v[:1, :4])[0], atol=1e-6)
  np.testing.assert_allclose(got[1], attention(q[1:], k[1:], v[1:])[0], atol=1e-6)


def test_causal_queries_see_what_is_before_them():
  q, k, v = heads(0, 6), heads(1, 6), heads(2, 6)
  got = attention(q, k, v, causal=True)
  for n in range(6):
    np.testing.assert_allclose(got[:, n], attention(q[:, n : n + 1], k[:, : n + 1], v[:, : n + 1])[:, 0], atol=1e-6)


def test_long_sequences_go_through_in_pieces(monkeypatch, jit):
  q, k, v = heads(0, 12), heads(1, 9), heads(2, 9)
  mask = jnp.arange(9)[None].repeat(2, 0) < 8

  def loss(q, k, v):
    return (attention(q, k, v, mask) ** 2).sum()

  whole = jit(jax.value_and_grad(lambda *x: loss(*x), (0, 1, 2)))(q, k, v)
  monkeypatch.setattr(module, "_CHUNK_LOGITS", 200)
  assert "scan" in str(jax.make_jaxpr(loss)(q, k, v))
  pieces = jit(jax.value_and_grad(lambda *x: loss(*x), (0, 1, 2)))(q, k, v)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), whole, pieces)


def test_all_frames_are_one_sequence_or_each_its_own(random_params, jit):
  x = jax.random.normal(jax.random.key(0), (2, 3, 4, 6))
  context = jax.random.normal(jax.random.key(1), (2, 5, 7))
  together, apart = TransformerBlock(2, all_frames=True), TransformerBlock(2, all_frames=False)
  params = random_params(together, x, context)
  each = jnp.concatenate([jit(together.apply)(params, x[:, i : i + 1], context) for i in range(3)], axis=1)
  np.testing.assert_allclose(jit(apart.apply)(params, x, context), each, atol=1e-5)
  assert jnp.abs(jit(together.apply)(params, x, context) - each).max() > 1e-3
