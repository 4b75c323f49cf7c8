"""The loss of held-out records, with the same noise and timesteps each time so that values can be compared."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.config import RunConfig
from anchor_jax.models.networks import Networks
from anchor_jax.shapes import PyTree
from anchor_jax.training.draws import Batch
from anchor_jax.training.loss import make_loss

DRAWS = 4  # of noise and timesteps for each batch: with fewer, their variance hides the difference between weights


def make_validation(
  config: RunConfig, networks: Networks, batches: Sequence[dict[str, Any]], to_mesh: Callable[[dict[str, Any]], Batch]
) -> Callable[[PyTree, PyTree], float]:
  """loss(trained, frozen): the mean over batches, with no condition dropped.

  Args:
    config, networks: of the run.
    batches: this process's share of each batch.
    to_mesh: makes global arrays of a share.
  """
  loss = make_loss(dataclasses.replace(config, condition_dropout=0.0), networks)

  @jax.jit
  def mean_loss(trained, frozen, batch, key):
    return jnp.mean(jax.lax.map(lambda key: loss(trained, frozen, batch, key)[0], jax.random.split(key, DRAWS)))

  def validate(trained: PyTree, frozen: PyTree) -> float:
    losses = [
      mean_loss(trained, frozen, to_mesh(batch), jax.random.key(number)) for number, batch in enumerate(batches)
    ]
    return float(np.mean(jax.device_get(losses)))

  return validate
