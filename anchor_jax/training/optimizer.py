"""AdamW with warm-up and global-norm clipping, from optax."""

import typing
from collections.abc import Callable

import jax
import optax

from anchor_jax.config import OptimizerConfig


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
  """The learning rate over `steps` optimiser steps."""
  warmup = min(config.warmup_steps, max(steps - 1, 0))
  if config.schedule == "cosine":
    return optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, max(warmup, 1), max(steps, warmup + 1))
  return optax.join_schedules(
    [optax.linear_schedule(0.0, config.learning_rate, max(warmup, 1)), optax.constant_schedule(config.learning_rate)],
    [warmup],
  )


def make_optimizer(
  config: OptimizerConfig, steps: int, only: Callable[[tuple[str, ...]], bool] | None = None
) -> optax.GradientTransformation:
  """Clips the gradients of all trained networks by one global norm, then AdamW.

  `only` says of a parameter's path whether it is trained at all; the others stay as they are and have no state.

  The reference clips the pose branch alone, though the UNet trains too: `clip_networks` can say so.
  """
  clip = optax.clip_by_global_norm(config.clip)
  if config.clip_networks:
    chosen = lambda tree: {name: name in config.clip_networks for name in typing.cast(dict, tree)}
    clip = optax.masked(clip, chosen)
  rate = learning_rate(config, steps)
  adam = optax.chain(clip, optax.adamw(rate, config.b1, config.b2, config.eps, weight_decay=config.weight_decay))
  if only is None:
    return adam
  names = lambda path: tuple(str(getattr(key, "key", key)) for key in path)
  label = lambda path, _: "train" if only(names(path)) else "keep"
  labels = lambda tree: jax.tree_util.tree_map_with_path(label, tree)
  return optax.multi_transform({"train": adam, "keep": optax.set_to_zero()}, labels)
