"""Accumulation parts: loss, gradient and step equal those of the full batch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shipped import SHIPPED, drawn_run, shipped_config, shrunk

from anchor_jax.models.networks import Networks
from anchor_jax.store.weights import frozen_names, trained_keys
from anchor_jax.training.accumulation import in_parts, part_order
from anchor_jax.training.loss import make_loss
from anchor_jax.training.step import make_state, make_step


def split_run(file, part, **changes):
  """(config, loss, trained, frozen, batch) of a shipped config, shrunk."""
  config = dataclasses.replace(shrunk(shipped_config(file, part)), **changes)
  networks, weights, batch = drawn_run(config)
  trained = {name: weights[name] for name in trained_keys(config)}
  return config, make_loss(config, networks), trained, {name: weights[name] for name in frozen_names(config)}, batch


def assert_close(one, other, rtol=1e-4):
  # relative to the largest entry of each array, since sums of both signs cancel
  close = lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=rtol * max(np.abs(x).max(), 1e-3))
  jax.tree.map(close, one, other)


@pytest.mark.parametrize("parts", [2, 4, 8])
@pytest.mark.parametrize("decoded", [0, 1, 2, 3, 4, 8])
def test_every_example_is_in_one_part_and_costly_ones_are_balanced(parts, decoded):
  costly = np.arange(16) % -(-16 // decoded) == 0 if decoded else np.zeros(16, bool)
  order = part_order(costly, parts)
  assert (np.sort(order, axis=1) == np.arange(parts)).all()  # one example of each group for each part
  counts = np.take_along_axis(costly.reshape(-1, parts), order, axis=1).sum(axis=0)
  assert counts.sum() == costly.sum() and np.ptp(counts) <= 1
  assert decoded or (order == np.arange(parts)).all()


def test_the_loss_of_a_batch_in_parts_is_that_of_the_full_batch():
  *_, loss, trained, frozen, batch = split_run("studio_finetune", "body", refined=3, last_step=0.25)
  run = lambda parts: jax.jit(in_parts(loss, parts))(trained, frozen, batch, jax.random.key(3))
  assert_close(run(1), run(2))


@pytest.mark.parametrize("refined,split", [(2, (2, 4, 8)), (3, (2,))])
def test_parts_decode_no_more_pictures_than_the_batch_has(refined, split, monkeypatch):
  _, loss, trained, frozen, batch = split_run("studio_finetune", "body", refined=refined, last_step=0.25)
  decoded, timesteps = [], []
  blank = jnp.zeros((1, 8, 8, 3))

  def decode(self, weights, latents):
    jax.debug.callback(lambda count: decoded.append(int(count)), len(latents))
    return jnp.broadcast_to(blank, (len(latents), *blank.shape[1:]))

  def denoise(self, weights, latents, steps, *rest):
    jax.debug.callback(lambda steps: timesteps.extend(steps.tolist()), steps)
    return latents

  monkeypatch.setattr(Networks, "decode", decode)
  monkeypatch.setattr(Networks, "denoise", denoise)
  monkeypatch.setattr(Networks, "embed_pose", lambda self, weights, pose, *_: pose)
  monkeypatch.setattr(Networks, "refine", lambda self, weights, pictures, *_: pictures)
  seen = {}
  for parts in (1, *split):
    decoded.clear()
    timesteps.clear()
    value = jax.jit(in_parts(loss, parts))(trained, frozen, batch, jax.random.key(3))[0]
    jax.effects_barrier()
    seen[parts] = (float(value), sum(decoded), sorted(timesteps))
    if seen[1][1] % parts == 0 or seen[1][1] < parts:
      assert sum(decoded) == seen[1][1]
    assert max(decoded) == -(-seen[1][1] // parts)
    assert seen[parts][2] == seen[1][2]
    np.testing.assert_allclose(value, seen[1][0], rtol=1e-5)
  assert sum(step == 999 for step in seen[1][2]) >= 2  # a quarter of eight starts from pure noise


@pytest.mark.slow
@pytest.mark.parametrize("file,part", SHIPPED)
def test_a_step_in_parts_is_that_of_the_full_batch(file, part):
  config, loss, trained, frozen, batch = split_run(file, part)
  optimizer = optax.sgd(1.0)  # the change is the gradient; AdamW would also normalize rounding errors
  rng, results = np.random.default_rng(0), {}
  # The precision of these gradients in float32: networks of eight channels, which normalize two values, are badly
  # conditioned, so that the last bit of the weights changes more than the order of sums does.
  last_bit = lambda leaf: leaf * (1 + np.float32(6e-8) * rng.choice([-1, 0, 1], leaf.shape)).astype(np.float32)
  noisy = [jax.tree.map(last_bit, trained) for _ in range(6)]
  for parts in (1, 2, 4):
    step = jax.jit(make_step(loss, optimizer, 0.0, parts))
    run = lambda weights, step=step: step(make_state(weights, optimizer, config), frozen, batch, jax.random.key(3))
    results[parts] = run(trained)
    if parts == 1:
      changes = [jax.tree.map(np.subtract, run(weights)[0].weights, weights) for weights in noisy]
  change = lambda parts: jax.tree.map(np.subtract, results[parts][0].weights, trained)
  most = lambda tree: max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(tree))
  apart = lambda other: most(jax.tree.map(np.subtract, change(1), other))
  precision = max(2e-6 * most(change(1)), *(apart(other) for other in changes))
  assert 4 * precision < 0.05 * most(change(1))
  other = jax.jit(make_step(loss, optimizer, 0.0))(
    make_state(trained, optimizer, config), frozen, batch, jax.random.key(4)
  )
  assert apart(jax.tree.map(np.subtract, other[0].weights, trained)) > 0.05 * most(change(1))  # other draws change more
  for parts in (2, 4):
    assert apart(change(parts)) < 4 * precision
    assert_close(results[1][1], results[parts][1], rtol=1e-3)
