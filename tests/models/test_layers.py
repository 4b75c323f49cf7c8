import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anchor_jax.core.errors import UserError
from anchor_jax.models.layers import (
  Conv,
  GroupNorm,
  ResBlock,
  Upsample,
  gelu,
  layer_norm,
  rematerialized,
  timestep_features,
)


def normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def test_group_norm_pools_over_real_frames(jit):
  x, mask = 3 + normal(0, 2, 4, 3, 5, 6), np.array([[1, 1, 1, 1], [1, 1, 0, 0]], bool)
  norm = GroupNorm(3, 1e-5)
  got = jit(norm.apply)({"params": {"scale": jnp.arange(6.0), "bias": jnp.ones(6)}}, x, jnp.asarray(mask))
  for clip in range(2):
    groups = np.asarray(x[clip][mask[clip]], np.float64).reshape(-1, 3, 2)
    mean, deviation = groups.mean((0, 2)), np.sqrt(groups.var((0, 2)) + 1e-5)
    expected = (np.asarray(x[clip]).reshape(4, 3, 5, 3, 2) - mean[:, None]) / deviation[:, None]
    expected = expected.reshape(4, 3, 5, 6) * np.arange(6) + 1
    np.testing.assert_allclose(np.asarray(got[clip])[mask[clip]], expected[mask[clip]], atol=1e-5)


def test_per_frame_group_norm_ignores_other_frames():
  x = normal(0, 1, 3, 2, 2, 4)
  norm = GroupNorm(2, 1e-6, pool_frames=False)
  params = norm.init(jax.random.key(0), x)
  each = jnp.concatenate([norm.apply(params, x[:, i : i + 1]) for i in range(3)], axis=1)
  np.testing.assert_allclose(norm.apply(params, x), each, atol=1e-6)


def test_timestep_features_at_known_angles():
  got = timestep_features(jnp.array([0, 999]), 4)
  angles = 999 * np.array([1, 0.01])
  np.testing.assert_allclose(got[0], [1, 1, 0, 0], atol=1e-7)
  np.testing.assert_allclose(got[1], np.concatenate([np.cos(angles), np.sin(angles)]), atol=1e-5)
  flipped = timestep_features(jnp.array([5]), 4, flip_sin_to_cos=False)
  np.testing.assert_allclose(flipped[0], np.sin([5, 0.05, 5 + np.pi / 2, 0.05 + np.pi / 2]), atol=1e-6)


def test_upsampling_to_odd_sizes_follows_torchs_nearest_rule():
  x = normal(0, 1, 1, 3, 3, 1)
  conv = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1)
  params = {"params": {"conv": {"kernel": conv, "bias": jnp.zeros(1)}}}
  got = Upsample(1).apply(params, x, (5, 6))
  rows, columns = np.arange(5) * 3 // 5, np.arange(6) * 3 // 6
  np.testing.assert_array_equal(got[0, 0, :, :, 0], np.asarray(x)[0, 0, :, :, 0][rows][:, columns])


def test_upsampling_on_the_cpu_equals_a_convolution_of_the_doubled_input_with_fewer_operations(jit):
  x, expected_gradient = normal(0, 2, 3, 5, 4, 6), normal(1, 2, 3, 10, 8, 7)
  params = {"conv": {"kernel": normal(2, 3, 3, 6, 7), "bias": normal(3, 7)}}

  def doubled_first(params, x):
    doubled = jnp.repeat(jnp.repeat(x, 2, axis=2), 2, axis=3)
    return Conv(7).apply({"params": params["conv"]}, doubled)

  def run(upsample):
    function = jit(
      lambda *given: jax.value_and_grad(lambda *a: jnp.vdot(upsample(*a), expected_gradient), (0, 1))(*given)
    )
    return jax.tree.leaves((jit(upsample)(params, x), function(params, x)[1]))

  upsample = lambda params, x: Upsample(7).apply({"params": params}, x)
  for got, expected in zip(run(upsample), run(doubled_first), strict=True):
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6 * float(jnp.abs(expected).max()))
  flops = lambda function: jax.jit(function).lower(params, x).cost_analysis()["flops"]
  assert flops(upsample) < 0.6 * flops(doubled_first)
  np.testing.assert_array_equal(
    Upsample(7, jnp.bfloat16).apply({"params": params}, x),
    Conv(7, dtype=jnp.bfloat16).apply({"params": params["conv"]}, jnp.repeat(jnp.repeat(x, 2, axis=2), 2, axis=3)),
  )


def test_convolution_runs_frame_by_frame():
  x = normal(0, 2, 3, 5, 5, 2)
  conv = Conv(4, stride=2)
  params = conv.init(jax.random.key(0), x)
  assert conv.apply(params, x).shape == (2, 3, 3, 3, 4)
  np.testing.assert_allclose(conv.apply(params, x)[1, 2], conv.apply(params, x[1, 2]), atol=1e-6)


def test_gelu_is_exact():
  assert float(gelu(jnp.array(1.0))) == pytest.approx(0.8413447, abs=1e-6)  # the tanh form gives 0.8411920


@pytest.mark.parametrize("remat", [True, "attention", "products"])
def test_remat_changes_neither_names_nor_gradients(remat, random_params, jit):
  inputs = normal(0, 1, 2, 4, 4, 4), normal(1, 1, 6)
  plain, saving = (rematerialized(ResBlock, kind)(8, 2) for kind in (False, remat))
  params = random_params(plain, *inputs)
  assert jax.tree.structure(params) == jax.tree.structure(random_params(saving, *inputs))
  slopes = [jit(jax.grad(lambda p, m=m: jnp.sum(m.apply(p, *inputs) ** 2)))(params) for m in (plain, saving)]
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), *slopes)


def test_unknown_remat_policies_are_refused_with_a_suggestion():
  with pytest.raises(UserError, match='Did you mean "dots_saveable"'):
    rematerialized(ResBlock, "dots_savable")
  with pytest.raises(UserError, match='Did you mean "products"'):
    rematerialized(ResBlock, "product")


def test_one_pass_in_16_bits_is_as_accurate_as_two_passes():
  exact, half = GroupNorm(4, 1e-5), GroupNorm(4, 1e-5, dtype=jnp.bfloat16)
  x = (30 + jax.random.normal(jax.random.key(0), (2, 1, 16, 16, 8))).astype(
    jnp.bfloat16
  )  # the mean is 30 standard deviations
  params = exact.init(jax.random.key(1), x)
  expected = exact.apply(params, x.astype(jnp.float32)).astype(jnp.bfloat16).astype(jnp.float32)
  got = half.apply(params, x).astype(jnp.float32)
  assert jnp.abs(got - expected).max() <= 2**-6  # one step of the type at values up to 4
  rows = x.reshape(-1, 8)
  rounded = lambda dtype: layer_norm(1e-5, dtype).apply({"params": {"scale": jnp.ones(8), "bias": jnp.zeros(8)}}, rows)
  assert jnp.abs(rounded(jnp.bfloat16) - rounded(jnp.float32)).max() <= 2**-6


def test_parameters_stay_float32_when_computing_in_bfloat16():
  x = normal(0, 1, 1, 4, 4, 4)
  block = ResBlock(4, 2, dtype=jnp.bfloat16)
  params = block.init(jax.random.key(0), x)
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
  assert GroupNorm(2, 1e-5, dtype=jnp.bfloat16).init_with_output(jax.random.key(0), x)[0].dtype == jnp.bfloat16
