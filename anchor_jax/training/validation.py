"""The loss of held-out records, with the same noise and timesteps each time so that values can be compared."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.config.run import RunConfig
from anchor_jax.core.shapes import PyTree
from anchor_jax.models.networks import Networks
from anchor_jax.training.accumulation import in_parts
from anchor_jax.training.draws import Batch
from anchor_jax.training.loss import make_loss

DRAWS = 4  # of noise and timesteps for each batch: with fewer, their variance hides the difference between weights


def make_validation(
  config: RunConfig, networks: Networks, batches: Sequence[dict[str, Any]], to_mesh: Callable[[dict[str, Any]], Batch]
) -> Callable[[PyTree, PyTree, Callable[[], bool]], float | None]:
  """loss(trained, frozen, stopped): the mean over batches, with no condition dropped; None if stopped() meanwhile.

  It is computed in the parts that a step of the run uses, so that what fits the step fits here.

  Args:
    config, networks: of the run.
    batches: this process's share of each batch.
    to_mesh: makes global arrays of a share.
  """
  loss = in_parts(make_loss(dataclasses.replace(config, condition_dropout=0.0), networks), config.optimizer.accumulate)

  @jax.jit
  def mean_loss(trained, frozen, batch, key):
    return jnp.mean(jax.lax.map(lambda key: loss(trained, frozen, batch, key)[0], jax.random.split(key, DRAWS)))

  def validate(trained: PyTree, frozen: PyTree, stopped: Callable[[], bool] = lambda: False) -> float | None:
    losses = []
    for number, batch in enumerate(batches):
      if stopped():
        return None
      losses.append(mean_loss(trained, frozen, to_mesh(batch), jax.random.key(number)))
    return float(np.mean(jax.device_get(losses)))

  return validate
