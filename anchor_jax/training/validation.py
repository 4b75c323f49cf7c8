"""Records kept out of training, and their loss: the same draws of noise and time each time, so that it compares."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax import parallel
from anchor_jax.config import RunConfig
from anchor_jax.models.networks import Networks
from anchor_jax.shapes import Int, NdArray, PyTree
from anchor_jax.training.objective import make_objective

DRAWS = 4  # of noise and time for each batch: a loss of few draws says more of them than of the weights


def split_records(count: int, held_out: int) -> tuple[Int[NdArray, " N"], Int[NdArray, " M"]]:
  """Numbers of the records to train on, and of the last `held_out`, at most a fifth of all, which are not."""
  border = count - min(held_out, count // 5)
  return np.arange(border), np.arange(border, count)


def evenly_spaced(records: Int[NdArray, " N"], count: int = 8) -> Int[NdArray, " M"]:
  """At most `count` of the records, from the first to the last: neighbours in a video look alike."""
  return records[np.unique(np.linspace(0, len(records) - 1, count).astype(int))]


def make_validation(
  config: RunConfig, networks: Networks, batches: Sequence[dict[str, NdArray]], mesh: Any
) -> Callable[[PyTree, PyTree], float]:
  """loss(trained, frozen): the mean over held-out batches (each process has its share), no condition dropped."""
  objective = make_objective(dataclasses.replace(config, condition_dropout=0.0), networks)

  @jax.jit
  def mean_loss(trained, frozen, batch, key):
    return jnp.mean(jax.lax.map(lambda key: objective(trained, frozen, batch, key)[0], jax.random.split(key, DRAWS)))

  def validate(trained: PyTree, frozen: PyTree) -> float:
    losses = [
      mean_loss(trained, frozen, parallel.shard_batch(batch, mesh), jax.random.key(number))
      for number, batch in enumerate(batches)
    ]
    return float(np.mean(jax.device_get(losses)))

  return validate
