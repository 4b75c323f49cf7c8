"""One optimiser step, as a pure function."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from anchor_jax.config import RunConfig
from anchor_jax.models.networks import Networks
from anchor_jax.models.temporal import is_temporal
from anchor_jax.shapes import Array, Key, PyTree
from anchor_jax.training.objective import Objective, make_objective
from anchor_jax.training.optimizer import make_optimizer
from anchor_jax.training.state import State

Step = Callable[[State, PyTree, dict[str, Array], Key[Array, ""]], tuple[State, dict[str, Array]]]


def step_of(config: RunConfig, networks: Networks) -> tuple[optax.GradientTransformation, Step]:
  """A run's optimiser, and its step."""
  only = is_temporal if config.only_temporal else None
  optimizer = make_optimizer(config.optimizer, config.steps, only=only)
  objective = make_objective(config, networks)
  return optimizer, make_step(objective, optimizer, config.optimizer.ema, config.optimizer.accumulate)


def make_step(objective: Objective, optimizer: optax.GradientTransformation, ema: float, accumulate: int = 1) -> Step:
  """step(state, frozen, batch, key) -> (state, metrics).

  `key` is the run's; the step's own randomness is folded in from the step number, so a resumed run draws the same.
  A step whose loss or gradient is not finite changes nothing but the counters. With `accumulate`, the batch goes
  through in so many parts, one after another.
  """

  def step(state, frozen, batch, key):
    key = jax.random.fold_in(key, state.step)
    gradient = _gradient(objective, accumulate)
    (loss, metrics), gradients = gradient(state.weights, frozen, batch, key)
    norm = optax.global_norm(gradients)
    good = jnp.isfinite(loss) & jnp.isfinite(norm)

    updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.weights)
    weights = optax.apply_updates(state.weights, updates)
    average = None
    if state.ema is not None:
      # Young averages forget their random start faster: the decay grows to `ema` over the first steps.
      decay = jnp.minimum(ema, (1 + state.step) / (10 + state.step)).astype(jnp.float32)
      average = jax.tree.map(lambda old, new: old + (1 - decay) * (new - old), state.ema, weights)
    keep = lambda new, old: jax.tree.map(lambda n, o: jnp.where(good, n, o), new, old)
    state = State(
      step=state.step + 1,
      weights=keep(weights, state.weights),
      optimizer=keep(optimizer_state, state.optimizer),
      ema=None if average is None else keep(average, state.ema),
      skipped=state.skipped + (~good).astype(jnp.int32),
      skipped_in_a_row=jnp.where(good, 0, state.skipped_in_a_row + 1),
    )
    counters = {"skipped": state.skipped, "skipped_in_a_row": state.skipped_in_a_row}
    return state, {"loss": loss, "gradient_norm": norm, **counters, **metrics}

  return step


def jit_step(step: Step, state: State) -> Any:
  """The step compiled for the shardings of `state` (arrays or their shapes), whose memory it takes for its result."""
  shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
  return jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))


def _gradient(objective: Objective, parts: int):
  """((loss, metrics), gradients) of a batch, averaged over its parts."""
  gradient = jax.value_and_grad(objective, has_aux=True)
  if parts == 1:
    return gradient

  def averaged(weights, frozen, batch, key):
    # Every device's own examples are spread over all parts, so that none has to travel.
    cut = lambda leaf: jnp.swapaxes(leaf.reshape(-1, parts, *leaf.shape[1:]), 0, 1)
    batches, keys = jax.tree.map(cut, batch), jax.random.split(key, parts)
    like = jax.eval_shape(lambda: gradient(weights, frozen, jax.tree.map(lambda leaf: leaf[0], batches), key))

    def add(total, part):
      return jax.tree.map(lambda x, y: x + y / parts, total, gradient(weights, frozen, *part)), None

    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    return jax.lax.scan(add, zeros, (batches, keys))[0]

  return averaged
