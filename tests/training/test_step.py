"""The training step: skipped steps, averaging, clipping, learning rates, accumulation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anchor_jax.config.run import OptimizerConfig, RunConfig
from anchor_jax.training.accumulation import Loss
from anchor_jax.training.step import learning_rate, make_optimizer, make_state, make_step


def objective(weights, frozen, batch, key):
  return jnp.mean((weights["w"] * batch["x"] - frozen["target"]) ** 2), {}


def run(values, ema=0.9, **settings):
  config = OptimizerConfig(learning_rate=0.1, warmup_steps=0, ema=ema, **settings)
  optimizer = make_optimizer(config, 100)
  state = make_state({"w": jnp.ones(3)}, optimizer, RunConfig(optimizer=config))
  step = jax.jit(make_step(objective, optimizer, config.ema))
  states = [state]
  for value in values:
    state, _ = step(state, {"target": jnp.zeros(3)}, {"x": jnp.full(3, value)}, jax.random.key(0))
    states.append(state)
  return states


def test_a_non_finite_step_changes_only_the_counters():
  states = run([1.0, np.nan, 1.0])
  before, bad = states[1:3]
  for name in ("weights", "optimizer", "ema"):
    jax.tree.map(np.testing.assert_array_equal, getattr(before, name), getattr(bad, name))
  assert int(bad.skipped) == 1 and int(bad.step) == 2 and int(states[3].skipped) == 1
  assert float(states[3].weights["w"][0]) < float(bad.weights["w"][0])


def test_the_average_follows_the_weights_and_is_none_without_a_decay():
  state = run([1.0] * 5)[-1]
  assert float(state.weights["w"][0]) < float(state.ema["w"][0]) < 1
  assert run([1.0], ema=0.0)[-1].ema is None


def test_one_norm_clips_all_gradients_together():
  gradients = {"a": jnp.full(4, 3.0), "b": jnp.full(4, 4.0)}
  optimizer = make_optimizer(OptimizerConfig(clip=1.0, warmup_steps=0), 10)
  _, state = optimizer.update(gradients, optimizer.init(gradients), gradients)
  first_moment = state[1][0].mu
  norm = np.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(first_moment))) / (1 - 0.9)
  assert norm == pytest.approx(1.0, rel=1e-5)
  assert float(first_moment["b"][0] / first_moment["a"][0]) == pytest.approx(4 / 3, rel=1e-5)


def test_learning_rates_warm_up_then_stay_or_decay():
  constant = learning_rate(OptimizerConfig(learning_rate=1.0, warmup_steps=10), 100)
  for steps in (1, 2):  # shorter than the warm-up
    assert learning_rate(OptimizerConfig(learning_rate=1.0, warmup_steps=10, schedule="cosine"), steps)(0) == 0
  cosine = learning_rate(OptimizerConfig(learning_rate=1.0, warmup_steps=10, schedule="cosine"), 100)
  for schedule in (constant, cosine):
    assert float(schedule(0)) == 0 and float(schedule(5)) == pytest.approx(0.5) and float(schedule(10)) == 1
  assert float(constant(99)) == 1 and float(cosine(100)) == pytest.approx(0, abs=1e-6)


def test_a_batch_in_parts_gives_the_step_of_the_full_batch():
  config = OptimizerConfig(learning_rate=0.1, warmup_steps=0)
  optimizer = make_optimizer(config, 10)
  value = lambda weights, frozen, batch, *_: (jnp.mean((batch["x"] @ weights["w"]) ** 2), {"mean": batch["x"].mean()})
  loss = Loss(lambda batch, key: {}, value)
  batch = {"x": jax.random.normal(jax.random.key(0), (8, 3))}
  results = []
  for parts in (1, 2, 4):
    state = make_state({"w": jnp.ones(3)}, optimizer, RunConfig(optimizer=config))
    results.append(jax.jit(make_step(loss, optimizer, 0.0, parts))(state, {}, batch, jax.random.key(0)))
  for other in results[1:]:
    compare = lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)
    jax.tree.map(compare, results[0][0].weights, other[0].weights)
    compare(results[0][1]["loss"], other[1]["loss"])
    compare(results[0][1]["mean"], other[1]["mean"])


def test_clipping_as_in_the_reference_leaves_other_networks_unclipped():
  gradients = {"unet": jnp.full(4, 30.0), "controlnet": jnp.full(4, 40.0)}
  optimizer = make_optimizer(OptimizerConfig(clip=1.0, clip_networks=("controlnet",), warmup_steps=0), 10)
  _, state = optimizer.update(gradients, optimizer.init(gradients), gradients)
  moment = state[1][0].mu
  assert float(moment["unet"][0]) == pytest.approx(3.0) and float(moment["controlnet"][0]) == pytest.approx(0.05)


def test_skipped_steps_are_counted_in_a_row():
  states = run([1.0, np.nan, np.nan, 1.0])
  assert [int(state.skipped_in_a_row) for state in states] == [0, 0, 1, 2, 0]
