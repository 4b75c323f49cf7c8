"""One optimizer step as a pure function, the state that it changes, and the optimizer."""

import dataclasses
import typing
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from anchor_jax.config.run import OptimizerConfig, RunConfig
from anchor_jax.core import sharding
from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Array, Key, PyTree
from anchor_jax.models.networks import Networks
from anchor_jax.models.temporal import is_temporal
from anchor_jax.store.weights import trained_keys
from anchor_jax.training.accumulation import gradient_in_parts
from anchor_jax.training.draws import Batch
from anchor_jax.training.loss import make_loss


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
  """Everything that a step changes and a checkpoint holds.

  Attributes:
    step: number of optimizer steps done, int32.
    weights: the trained networks, float32.
    optimizer: optax state.
    ema: averaged weights, or None if config.optimizer.ema is 0.
    skipped: number of steps skipped because their loss or gradient was not finite, int32.
    skipped_in_a_row: number of consecutive skipped steps up to now, int32.
  """

  # jax.tree.map may put shardings or shapes into the fields, hence the loose types.
  step: PyTree
  weights: PyTree
  optimizer: PyTree
  ema: PyTree
  skipped: PyTree
  skipped_in_a_row: PyTree

  def best_weights(self) -> PyTree:
    """The averaged weights, or the weights of a run without an average."""
    return self.weights if self.ema is None else self.ema


Step = Callable[[State, PyTree, Batch, Key[Array, ""]], tuple[State, dict[str, Array]]]


def make_state(weights: PyTree, optimizer: optax.GradientTransformation, config: RunConfig) -> State:
  """The state before the first step."""
  ema = jax.tree.map(jnp.copy, weights) if config.optimizer.ema else None  # a copy, since the step donates both
  zero = lambda: jnp.zeros((), jnp.int32)
  return State(zero(), weights, optimizer.init(weights), ema, zero(), zero())


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
  """The learning rate over `steps` optimizer steps."""
  warmup = min(config.warmup_steps, max(steps - 1, 0))
  if config.schedule == "cosine":
    warmup = max(warmup, 1)
    return optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, warmup, max(steps, warmup + 1))
  return optax.join_schedules(
    [optax.linear_schedule(0.0, config.learning_rate, max(warmup, 1)), optax.constant_schedule(config.learning_rate)],
    [warmup],
  )


def make_optimizer(
  config: OptimizerConfig, steps: int, only: Callable[[tuple[str, ...]], bool] | None = None
) -> optax.GradientTransformation:
  """AdamW after clipping the gradients of all trained networks by one global norm.

  The reference clips the pose branch only, though it also trains the UNet: `config.clip_networks` reproduces that.

  Args:
    config: rates, decays and clipping.
    steps: length of the learning rate schedule.
    only: (path of a parameter) -> whether to train it; other parameters stay fixed and have no optimizer state.
  """
  clip = optax.clip_by_global_norm(config.clip)
  if config.clip_networks:
    mask = lambda tree: {name: name in config.clip_networks for name in typing.cast(dict, tree)}
    clip = optax.masked(clip, mask)
  rate = learning_rate(config, steps)
  adam = optax.chain(clip, optax.adamw(rate, config.b1, config.b2, config.eps, weight_decay=config.weight_decay))
  if only is None:
    return adam
  names = lambda path: tuple(str(getattr(key, "key", key)) for key in path)
  label = lambda path, _: "train" if only(names(path)) else "keep"
  labels = lambda tree: jax.tree_util.tree_map_with_path(label, tree)
  return optax.multi_transform({"train": adam, "keep": optax.set_to_zero()}, labels)


def training_mesh(config: RunConfig, devices: Sequence[Any] | None = None) -> Mesh:
  """The mesh of a run. Raises UserError if config.mesh does not fit the devices or the batch does not fit the mesh."""
  sharding.check_processes(jax.devices() if devices is None else devices)
  mesh = sharding.make_mesh(config.mesh.sizes, devices)
  sharding.check_batch(mesh, config.data.batch_size)
  parts, rows = config.optimizer.accumulate, sharding.batch_divisor(mesh)
  if config.data.batch_size % (parts * rows):
    raise UserError(
      f"config.data.batch_size {config.data.batch_size} must be a multiple of {parts * rows}: each of"
      f" config.optimizer.accumulate {parts} parts is sharded over {rows} devices on the data and fsdp axes"
    )
  return mesh


def make_run_step(config: RunConfig, networks: Networks) -> tuple[optax.GradientTransformation, Step]:
  """The optimizer and the step of a run.

  Raises:
    UserError: config.optimizer.clip_networks names a network that the run does not train.
  """
  if unknown := set(config.optimizer.clip_networks) - set(trained_keys(config)):
    raise UserError(
      f"config.optimizer.clip_networks has {', '.join(sorted(unknown))}, which this run does not train: choose from"
      f" {', '.join(trained_keys(config))}"
    )
  optimizer = make_optimizer(config.optimizer, config.steps, only=is_temporal if config.only_temporal else None)
  return optimizer, make_step(make_loss(config, networks), optimizer, config.optimizer.ema, config.optimizer.accumulate)


def make_step(loss: Any, optimizer: optax.GradientTransformation, ema: float, accumulate: int = 1) -> Step:
  """step(state, frozen, batch, key) -> (state, metrics).

  A step whose loss or gradient is not finite changes the counters only. (optax.apply_if_finite would nest the optimizer
  state, so that checkpoints of existing runs could not be restored, and would not cover the average.)

  Args:
    loss: an `accumulation.Loss`; without accumulation, any function of its arguments.
    optimizer: from `make_optimizer`.
    ema: decay of the averaged weights, if the state has them.
    accumulate: number of accumulation parts of a batch.

  Returns:
    The step. Its `key` is that of the run: the step number is folded in, so that a resumed run draws the same numbers.
  """

  def step(state, frozen, batch, key):
    key = jax.random.fold_in(key, state.step)
    (value, metrics), gradients = gradient_in_parts(loss, accumulate)(state.weights, frozen, batch, key)
    norm = optax.global_norm(gradients)
    finite = jnp.isfinite(value) & jnp.isfinite(norm)

    updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.weights)
    weights = optax.apply_updates(state.weights, updates)
    average = None
    if state.ema is not None:
      # The decay rises to `ema` over the first steps: the average forgets the initial weights sooner.
      decay = jnp.minimum(ema, (1 + state.step) / (10 + state.step)).astype(jnp.float32)
      average = jax.tree.map(lambda old, new: old + (1 - decay) * (new - old), state.ema, weights)
    if_finite = lambda new, old: jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)
    state = State(
      step=state.step + 1,
      weights=if_finite(weights, state.weights),
      optimizer=if_finite(optimizer_state, state.optimizer),
      ema=None if average is None else if_finite(average, state.ema),
      skipped=state.skipped + (~finite).astype(jnp.int32),
      skipped_in_a_row=jnp.where(finite, 0, state.skipped_in_a_row + 1),
    )
    counters = {"skipped": state.skipped, "skipped_in_a_row": state.skipped_in_a_row}
    return state, {"loss": value, "gradient_norm": norm, **counters, **metrics}

  return step


def jit_step(step: Step, state: State) -> Any:
  """The jitted step, which donates its state and returns one with the shardings of `state` (arrays or their shapes)."""
  shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
  return jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))
