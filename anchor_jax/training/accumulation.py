"""A batch computed in equal parts, one after another: the result of the whole batch in the memory of a part."""

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
  """loss(trained, frozen, batch, key) -> (loss, metrics), in two halves so that a batch can be computed in parts.

  Attributes:
    draw: (batch, key) -> everything that is drawn or chosen for the whole batch, by name, each [B ...].
    value: (trained, frozen, batch, draws, parts) -> (loss, metrics) of one of `parts` equal parts, whose means over the
      parts are those of the whole batch.
    spread: (number of examples) -> which examples cost more than others, bool: each part gets as many of them; None if
      all cost the same.
    finish: the metrics of a batch, of their means over the parts.
  """

  draw: Callable[[Batch, Key[Array, ""]], Draws]
  value: Callable[[PyTree, PyTree, Batch, Draws, int], Value]
  spread: Callable[[int], Bool[NdArray, " B"]] | None = None
  finish: Callable[[Metrics], Metrics] = lambda metrics: metrics

  def __call__(self, trained: PyTree, frozen: PyTree, batch: Batch, key: Key[Array, ""]) -> Value:
    """The loss and the metrics of a batch."""
    value, metrics = self.value(trained, frozen, batch, self.draw(batch, key), 1)
    return value, self.finish(metrics)


def in_parts(loss: Any, parts: int) -> Callable[[PyTree, PyTree, Batch, Key[Array, ""]], Value]:
  """`loss` of a batch, computed in `parts` parts. With one part any function of these arguments will do."""
  return loss if parts == 1 else _over_parts(loss, parts, loss.value)


def gradient_in_parts(loss: Any, parts: int) -> Callable[[PyTree, PyTree, Batch, Key[Array, ""]], tuple[Value, PyTree]]:
  """((loss, metrics), gradients) of a batch, computed in `parts` parts; see `in_parts`."""
  if parts == 1:
    return jax.value_and_grad(loss, has_aux=True)
  gradient = jax.value_and_grad(loss.value, has_aux=True)

  def run(trained, frozen, batch, key):
    return _over_parts(loss, parts, gradient, lambda made: ((made[0][0], loss.finish(made[0][1])), made[1]))(
      trained, frozen, batch, key
    )

  return run


def _over_parts(loss: Loss, parts: int, function: Callable, finish: Callable | None = None) -> Callable:
  """The mean over the parts of function(trained, frozen, part, draws, parts)."""
  finish = finish or (lambda made: (made[0], loss.finish(made[1])))

  def mean(trained, frozen, batch, key):
    count = len(jax.tree.leaves(batch)[0])
    order = part_order(np.zeros(count, bool) if loss.spread is None else loss.spread(count), parts)
    draws = sharding.shard_examples(loss.draw(batch, key))
    split = jax.tree.map(lambda leaf: _split(leaf, order), (batch, draws))
    like = jax.eval_shape(lambda: function(trained, frozen, *jax.tree.map(lambda leaf: leaf[0], split), parts))

    def add(total, part):
      return jax.tree.map(lambda x, y: x + y / parts, total, function(trained, frozen, *part, parts)), None

    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    return finish(jax.lax.scan(add, zeros, split)[0])

  return mean


def part_order(spread: Bool[NdArray, " B"], parts: int) -> Int[NdArray, "G {parts}"]:
  """For each run of `parts` examples that follow one another: which of them goes to which part.

  Each part gets one example of each run, so every device's examples are spread over all parts, and none changes its
  device. Within a run, an example of `spread` goes to the part that has the fewest of them so far.
  """
  given, order = np.zeros(parts, int), []
  for costly in spread.reshape(-1, parts):
    row = np.empty(parts, int)
    row[np.argsort(given, kind="stable")] = np.argsort(~costly, kind="stable")
    given += costly[row]
    order.append(row)
  return np.array(order)


def _split(leaf: Array, order: Int[NdArray, "G P"]) -> Array:
  """[B ...] -> [P G ...], by parts."""
  runs = leaf.reshape(*order.shape, *leaf.shape[1:])
  if (order != np.arange(order.shape[1])).any():
    runs = jax.vmap(lambda run, row: run[row])(runs, jnp.asarray(order))
  return jnp.swapaxes(runs, 0, 1)
