"""All that changes while training, as one tree."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from anchor_jax.config import RunConfig
from anchor_jax.shapes import PyTree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
  """What a checkpoint holds.

  Attributes:
    step: optimiser steps done, int32.
    weights: the trained networks, float32.
    optimizer: optax state.
    ema: averaged weights, or None where config.optimizer.ema is 0.
    skipped: steps left out because their loss or gradient was not finite, int32.
    skipped_in_a_row: how many of them are the latest ones, int32.
  """

  # The fields are trees to jax.tree.map, which may put anything (shardings, shapes) into them: hence the loose types.
  step: PyTree
  weights: PyTree
  optimizer: PyTree
  ema: PyTree
  skipped: PyTree
  skipped_in_a_row: PyTree

  def best_weights(self) -> PyTree:
    """The averaged weights where there are any."""
    return self.weights if self.ema is None else self.ema


def make_state(weights: PyTree, optimizer: optax.GradientTransformation, config: RunConfig) -> State:
  """The state before the first step."""
  ema = jax.tree.map(jnp.copy, weights) if config.optimizer.ema else None  # a copy: both are donated to the step
  zero = lambda: jnp.zeros((), jnp.int32)
  return State(zero(), weights, optimizer.init(weights), ema, zero(), zero())
