"""Batch-overlapped temporal denoising of a whole clip (paper, section 3.3, algorithm 1), as loops in one program.

At every step all windows predict; a frame's prediction is the mean over the windows that hold it, for the conditional
and the null branch apart; then guidance, then one solver step for all frames. The sampler knows no network: it takes

    denoise(latents [B T H W C], timesteps [B], context [B N D], condition [B T ...], frame_mask [B T]) -> [B T H W C]

The head is the same sampler with windows of one frame. `stream.py` gives the same frames in constant memory.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from anchor_jax.diffusion.guidance import Branches, guide
from anchor_jax.diffusion.solvers import Solver, advance
from anchor_jax.diffusion.windows import WindowPlan
from anchor_jax.shapes import Array, Float, Int, PyTree

Denoise = Callable[..., Float[Array, "B T H W C"]]


def sample_clip(
  denoise: Denoise,
  solver: Solver,
  plan: WindowPlan,
  noise: Float[Array, "T H W C"],
  branches: Branches,
  condition: PyTree,
  windows_per_batch: int = 1,
  on_step: Callable[[], object] | None = None,
) -> Float[Array, "T H W C"]:
  """Denoises a clip from `noise`.

  A jitted caller may pass the plan as an argument: its number of windows is then read at run time, and clips whose
  arrays were padded to one size (`windows.pad_windows`, `windows.capacity`) share a compiled program.

  Args:
    denoise: the network, see above.
    solver: tables of the sampling steps.
    plan: which frames each window holds.
    noise: the starting latents; the reference gives all frames the same. Frames beyond `plan.length` come back as
      they happen to be.
    branches: contexts and guidance.
    condition: arrays whose leading axis is frames (pose features, and for the head the inpainting channels).
    windows_per_batch: windows denoised in one call.
    on_step: called on the host after each sampling step, for a progress bar.

  Returns:
    Clean latents.
  """
  step = make_step(denoise, solver, plan, branches, condition, windows_per_batch)

  def body(carry, i):
    carry = step(carry, i)
    if on_step is not None:
      # The second argument makes it wait for the step.
      jax.debug.callback(functools.partial(_tell, on_step), carry[0].ravel()[0])
    return carry, None

  (latents, _), _ = jax.lax.scan(body, (noise, jnp.zeros_like(noise)), jnp.arange(len(solver)))
  return latents


def make_step(
  denoise: Denoise, solver: Solver, plan: WindowPlan, branches: Branches, condition: PyTree, windows_per_batch: int = 1
):
  """One sampling step for all frames: step((latents, previous clean latents), i) -> the same pair, less noisy."""
  tables = _fill_last_batch(plan, windows_per_batch)

  def predict(latents, timestep):
    """The averaged prediction of each branch, [branch T H W C]."""

    def window_batch(number, total):
      rows = lambda table: jax.lax.dynamic_slice_in_dim(table, number * windows_per_batch, windows_per_batch)
      frames = rows(tables.frames)
      return predict_windows(
        denoise, latents, timestep, branches, condition, total, frames, rows(tables.mask), rows(tables.weights)
      )

    batches = -(-plan.count // windows_per_batch)
    total = jnp.zeros((len(branches), *latents.shape), latents.dtype)
    return jax.lax.fori_loop(0, batches, window_batch, total)

  def step(carry, i):
    latents, previous_clean = carry
    prediction = guide(predict(latents, solver.timesteps[i]), branches.scale_at(solver, i))
    return advance(solver, i, latents, prediction, previous_clean)

  return step


def predict_windows(
  denoise: Denoise,
  latents: Float[Array, "F H W C"],
  timestep: Int[Array, ""],
  branches: Branches,
  condition: PyTree,
  total: Float[Array, "branch F H W C"],
  frames: Int[Array, "K T"],
  mask: Array,
  weights: Float[Array, "K T"],
) -> Float[Array, "branch F H W C"]:
  """Adds to `total` what K windows say of their frames, all at one timestep and for all branches in one call."""
  count, each_branch = frames.shape[0], lambda leaf: jnp.tile(leaf, (len(branches),) + (1,) * (leaf.ndim - 1))
  inputs, conditions = jax.tree.map(lambda leaf: each_branch(leaf[frames]), (latents, condition))
  timesteps = jnp.full((inputs.shape[0],), timestep)
  contexts = jnp.repeat(branches.contexts, count, axis=0)
  prediction = denoise(inputs, timesteps, contexts, conditions, each_branch(mask))
  prediction = prediction.reshape(len(branches), -1, *latents.shape[1:])
  weighted = prediction * weights.reshape(1, -1, *(1,) * (latents.ndim - 1))
  return total.at[:, frames.reshape(-1)].add(weighted)


def _fill_last_batch(plan: WindowPlan, windows_per_batch: int) -> WindowPlan:
  """The plan with idle rows until the last batch is full, also where its tables are traced."""
  extra = -plan.frames.shape[0] % windows_per_batch
  repeat = lambda table: jnp.concatenate([jnp.asarray(table)] + [jnp.asarray(table[:1])] * extra)
  rows = jnp.arange(plan.frames.shape[0] + extra) < plan.count
  weights = jnp.where(rows[:, None], repeat(plan.weights), 0)
  return dataclasses.replace(plan, frames=repeat(plan.frames), mask=repeat(plan.mask), weights=weights)


def _tell(on_step: Callable[[], object], _) -> None:
  on_step()
