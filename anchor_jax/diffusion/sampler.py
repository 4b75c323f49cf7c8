"""Batch-overlapped temporal denoising of a whole clip (paper, section 3.3, algorithm 1), as scans in one program.

At every step all windows predict; a frame's prediction is the mean over the windows that hold it, for the conditional
and the null branch apart; then guidance, then one solver step for all frames. The sampler knows no network: it takes

    denoise(latents [B T H W C], timesteps [B], context [B N D], condition [B T ...], frame_mask [B T]) -> [B T H W C]

The head is the same sampler with windows of one frame.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from anchor_jax.diffusion.guidance import guide
from anchor_jax.diffusion.solvers import Solver, advance
from anchor_jax.diffusion.windows import WindowPlan, pad_windows
from anchor_jax.shapes import Array, Float, PyTree

Denoise = Callable[..., Float[Array, "B T H W C"]]


def sample_clip(
  denoise: Denoise,
  solver: Solver,
  plan: WindowPlan,
  noise: Float[Array, "T H W C"],
  context: Float[Array, "N D"],
  null_context: Float[Array, "N D"] | None,
  condition: PyTree,
  guidance: float,
  windows_per_batch: int = 1,
  on_step: Callable[[], object] | None = None,
) -> Float[Array, "T H W C"]:
  """Denoises a clip of `plan.length` frames from `noise`.

  Args:
    denoise: the network, see above.
    solver: tables of the sampling steps.
    plan: which frames each window holds.
    noise: the starting latents; the reference gives all frames the same.
    context: appearance tokens of the conditional branch.
    null_context: tokens of the null branch; unused, and may be None, where `guidance` is 1 or less.
    condition: arrays whose leading axis is frames (pose features, and for the head the inpainting channels).
    guidance: classifier-free guidance scale; 1 or less runs one branch only.
    windows_per_batch: windows denoised in one call.
    on_step: called on the host after each sampling step, for a progress bar.

  Returns:
    Clean latents.
  """
  step = make_step(denoise, solver, plan, context, null_context, condition, guidance, windows_per_batch)

  def body(carry, i):
    carry = step(carry, i)
    if on_step is not None:
      # The second argument makes it wait for the step.
      jax.debug.callback(functools.partial(_tell, on_step), carry[0].ravel()[0])
    return carry, None

  (latents, _), _ = jax.lax.scan(body, (noise, jnp.zeros_like(noise)), jnp.arange(len(solver)))
  return latents


def make_step(
  denoise: Denoise,
  solver: Solver,
  plan: WindowPlan,
  context: Float[Array, "N D"],
  null_context: Float[Array, "N D"] | None,
  condition: PyTree,
  guidance: float,
  windows_per_batch: int = 1,
):
  """One sampling step for all frames: step((latents, previous clean latents), i) -> the same pair, less noisy."""
  branches = [context] if guidance <= 1 or null_context is None else [context, null_context]
  contexts = jnp.stack(branches)
  padded = pad_windows(plan, windows_per_batch)
  grouped = lambda table: jnp.asarray(table).reshape(-1, windows_per_batch, *table.shape[1:])
  tables = (grouped(padded.frames), grouped(padded.mask), grouped(padded.weights))

  def predict(latents, timestep):
    """The averaged prediction of each branch, [branch T H W C]."""

    def window_group(total, table):
      frames, mask, weights = table  # each [windows_per_batch, T]
      both = functools.partial(_for_branches, count=len(branches))
      inputs, conditions = jax.tree.map(lambda leaf: both(leaf[frames]), (latents, condition))
      timesteps = jnp.full((inputs.shape[0],), timestep)
      prediction = denoise(inputs, timesteps, jnp.repeat(contexts, frames.shape[0], axis=0), conditions, both(mask))
      prediction = prediction.reshape(len(branches), -1, *latents.shape[1:])
      weighted = prediction * weights.reshape(1, -1, *(1,) * (latents.ndim - 1))
      return total.at[:, frames.reshape(-1)].add(weighted), None

    total = jnp.zeros((len(branches), *latents.shape), latents.dtype)
    return jax.lax.scan(window_group, total, tables)[0]

  def step(carry, i):
    latents, previous_clean = carry
    predictions = predict(latents, solver.timesteps[i])
    prediction = predictions[0] if len(branches) == 1 else guide(predictions[0], predictions[1], guidance)
    return advance(solver, i, latents, prediction, previous_clean)

  return step


def _for_branches(leaf: Array, count: int) -> Array:
  """Repeats a batch once a branch: [B ...] -> [branch * B ...]."""
  return jnp.tile(leaf, (count,) + (1,) * (leaf.ndim - 1))


def _tell(on_step: Callable[[], object], _) -> None:
  on_step()
