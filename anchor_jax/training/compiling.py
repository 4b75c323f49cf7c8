"""The program of a run's step, compiled while the run's records are read and encoded.

Compiling takes one core most of the time and lets other threads run Python meanwhile; so does encoding.
"""

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
from jax.sharding import Mesh

from anchor_jax.compiler.shares import shares
from anchor_jax.config.run import RunConfig
from anchor_jax.core import sharding as parallel
from anchor_jax.core.cli import COMPILING
from anchor_jax.core.shapes import PyTree
from anchor_jax.models.networks import Networks
from anchor_jax.store.weights import frozen_names, trained_keys
from anchor_jax.training.batches import batch_shapes
from anchor_jax.training.step import jit_step, make_run_step, make_state

log = logging.getLogger(__name__)


def start_compiling(config: RunConfig, networks: Networks, weights: PyTree, size: int, mesh: Mesh) -> Future:
  """The compiled step and the seconds that it took, as the future of a thread that has begun with it.

  A thread that Python cuts off inside the compiler takes the process down with a crash. So an error before the step is
  needed ends the process once the thread has finished, unless `cli.run` ends it.

  Args:
    config, networks, size, mesh: see `step_shapes`.
    weights: arrays or their shapes; not kept.
  """
  shapes = jax.eval_shape(lambda tree: tree, weights)

  def compile_step() -> tuple[Any, float]:
    started = time.monotonic()
    step, arguments = step_shapes(config, networks, shapes, size, mesh)
    with parallel.use_mesh(mesh):  # each thread has a current mesh of its own
      return step.lower(*arguments).compile(), time.monotonic() - started

  thread = ThreadPoolExecutor(1, COMPILING)
  future = thread.submit(compile_step)
  thread.shutdown(wait=False)
  return future


def step_shapes(config: RunConfig, networks: Networks, weights: PyTree, size: int, mesh: Mesh) -> tuple[Any, tuple]:
  """The jitted step of a run, and the shapes and shardings of its arguments.

  Args:
    config: settings of the run, with the sizes of the networks.
    networks: of the run.
    weights: of all of them, arrays or their shapes.
    size: height and width of the prepared frames, in pixels.
    mesh: of the run.
  """
  optimizer, step = make_run_step(config, networks)
  trained = {name: weights[name] for name in trained_keys(config)}
  frozen = {name: weights[name] for name in frozen_names(config)}
  state = jax.eval_shape(lambda trained: make_state(trained, optimizer, config), trained)
  if jax.process_index() == 0 and (warning := shares(state, mesh).warning()):
    log.warning("%s", warning)
  state, frozen = (_sharded(tree, parallel.parameter_shardings(tree, mesh)) for tree in (state, frozen))
  batch = batch_shapes(config, size, parallel.batch_sharding(mesh))
  key = jax.eval_shape(lambda: jax.random.key(0))
  return jit_step(step, state), (state, frozen, batch, key)


def _sharded(tree: PyTree, shardings: PyTree) -> PyTree:
  return jax.tree.map(lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree, shardings)
