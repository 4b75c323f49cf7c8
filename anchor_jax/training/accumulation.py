"""Gradient accumulation: a batch in equal parts, one after another, with the result of the full batch."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.core import sharding
from anchor_jax.core.shapes import Array, Bool, Float, Int, Key, NdArray, PyTree
from anchor_jax.training.draws import Batch, Draws

Metrics = dict[str, Array]
Value = tuple[Float[Array, ""], Metrics]


@dataclasses.dataclass(frozen=True)
class Loss:
  """loss(trained, frozen, batch, key) -> (loss, metrics), split so that a batch can be computed in accumulation parts.

  Attributes:
    draw: (batch, key) -> all random draws and choices for the full batch, by name, each [B ...].
    value: (trained, frozen, batch, draws, parts) -> (loss, metrics) of one of `parts` equal parts; the mean over the
      parts is the value of the full batch.
    costly: (number of examples) -> bool, which examples cost more than the others and are balanced over the parts; None
      if all cost the same.
    finish: metrics averaged over the parts -> metrics to report.
  """

  draw: Callable[[Batch, Key[Array, ""]], Draws]
  value: Callable[[PyTree, PyTree, Batch, Draws, int], Value]
  costly: Callable[[int], Bool[NdArray, " B"]] | None = None
  finish: Callable[[Metrics], Metrics] = lambda metrics: metrics

  def __call__(self, trained: PyTree, frozen: PyTree, batch: Batch, key: Key[Array, ""]) -> Value:
    """The loss and the metrics of a batch."""
    value, metrics = self.value(trained, frozen, batch, self.draw(batch, key), 1)
    return value, self.finish(metrics)


def in_parts(loss: Any, parts: int) -> Callable[[PyTree, PyTree, Batch, Key[Array, ""]], Value]:
  """`loss` as a function that computes its batch in `parts` parts; one part allows any function, not only a `Loss`."""
  return loss if parts == 1 else _over_parts(loss, parts, loss.value)


def gradient_in_parts(loss: Any, parts: int) -> Callable[[PyTree, PyTree, Batch, Key[Array, ""]], tuple[Value, PyTree]]:
  """((loss, metrics), gradients) of a batch, computed in `parts` parts; see `in_parts`."""
  if parts == 1:
    return jax.value_and_grad(loss, has_aux=True)
  gradient = jax.value_and_grad(loss.value, has_aux=True)

  def finish(mean):
    (value, metrics), gradients = mean
    return (value, loss.finish(metrics)), gradients

  return _over_parts(loss, parts, gradient, finish)


def _over_parts(loss: Loss, parts: int, function: Callable, finish: Callable | None = None) -> Callable:
  """The mean over the parts of function(trained, frozen, part, draws, parts)."""
  finish = finish or (lambda mean: (mean[0], loss.finish(mean[1])))

  def mean(trained, frozen, batch, key):
    count = len(jax.tree.leaves(batch)[0])
    order = part_order(np.zeros(count, bool) if loss.costly is None else loss.costly(count), parts)
    draws = sharding.shard_examples(loss.draw(batch, key))
    split = jax.tree.map(lambda leaf: _split(leaf, order), (batch, draws))
    shapes = jax.eval_shape(lambda: function(trained, frozen, *jax.tree.map(lambda leaf: leaf[0], split), parts))

    def add(total, part):
      return jax.tree.map(lambda x, y: x + y / parts, total, function(trained, frozen, *part, parts)), None

    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return finish(jax.lax.scan(add, zeros, split)[0])

  return mean


def part_order(costly: Bool[NdArray, " B"], parts: int) -> Int[NdArray, "G {parts}"]:
  """Which example of each group of `parts` consecutive examples goes to which part.

  Each part gets one example of each group: every device's examples are spread over all parts, and none moves to another
  device. Within a group, costly examples go to the parts that have the fewest so far.
  """
  assigned, order = np.zeros(parts, int), []
  for group in costly.reshape(-1, parts):
    row = np.empty(parts, int)
    row[np.argsort(assigned, kind="stable")] = np.argsort(~group, kind="stable")
    assigned += group[row]
    order.append(row)
  return np.array(order)


def _split(leaf: Array, order: Int[NdArray, "G P"]) -> Array:
  """[B ...] -> [P G ...], parts first."""
  groups = leaf.reshape(*order.shape, *leaf.shape[1:])
  if (order != np.arange(order.shape[1])).any():
    groups = jax.vmap(lambda group, row: group[row])(groups, jnp.asarray(order))
  return jnp.swapaxes(groups, 0, 1)
