"""The sampler: batch-overlapped temporal denoising (paper, section 3.3, algorithm 1) of clips and streams.

Each sampling step predicts all windows; a frame's prediction is the mean over the windows that hold it, separately for
the conditional and the null branch; then come guidance and one solver step for all frames. `Sampler.clip` holds the
clip in memory, `Sampler.stream` takes constant memory (see stream.py), with the same result up to rounding. Single
frames, such as the head's, are windows of one frame.

The sampler knows no network; it takes a `Denoise` function (see predict.py). The network's weights should be arguments
of the compiled program, not constants in it: pass `jax.tree_util.Partial(function, weights)`, which is a pytree.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from anchor_jax.config.networks import ScheduleConfig
from anchor_jax.config.run import SampleConfig
from anchor_jax.core import sharding
from anchor_jax.core.shapes import Array, Float, PyTree
from anchor_jax.diffusion import distributed, stream
from anchor_jax.diffusion.guidance import Branches, guide, make_branches
from anchor_jax.diffusion.predict import Denoise, WindowInputs, predict_windows
from anchor_jax.diffusion.solvers import SolverTables, advance, make_solver
from anchor_jax.diffusion.stream import FinishedBlock, PreparedBlock, StreamFrame, StreamLayout, StreamState
from anchor_jax.diffusion.windows import WindowPlan, WindowRule, plan_clip

static = functools.partial(dataclasses.field, metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sampler:
  """Samples clips and streams; everything about sampling except the network. A pytree, for jitted functions.

  Attributes:
    solver: tables of the sampling steps.
    rule: how windows are laid over a clip.
    windows_per_batch: windows in one call of the network; rounded up to a multiple of the devices on a mesh.
    guidance: scale of classifier-free guidance; 1 or less runs one branch.
    guidance_interval: noise levels (sigma, 0 to 1) between which guidance acts.
    mesh: of `sharding.sampling_mesh`: the devices that share the windows; None is one device. Weights, noise and frame
      inputs must be on it (`replicate`), and it must be the current mesh (`sharding.use_mesh`) where `clip` is jitted.
  """

  solver: SolverTables
  rule: WindowRule = static()
  windows_per_batch: int = static(default=1)
  guidance: float = static(default=1.0)
  guidance_interval: tuple[float, ...] = static(default=(0.0, 1.0))
  mesh: Any = static(default=None)

  @classmethod
  def of(cls, sample: SampleConfig, schedule: ScheduleConfig, mesh: Any = None) -> "Sampler":
    """The sampler of a config.

    Raises:
      UserError: a setting is unknown or out of range.
    """
    rule = WindowRule(sample.window, sample.overlap, sample.tail)
    solver = make_solver(sample.solver, schedule, sample.steps)
    return cls(solver, rule, sample.windows_per_batch, sample.guidance, sample.guidance_interval, mesh)

  def branches(self, context: Float[Array, "N D"], null_context: Float[Array, "N D"] | None = None) -> Branches:
    """The conditional branch, and the null branch if the guidance scale needs it."""
    return make_branches(context, null_context, self.guidance, self.guidance_interval)

  def clip(
    self,
    denoise: Denoise,
    noise: Float[Array, "T H W C"],
    frame_inputs: PyTree,
    context: Float[Array, "N D"],
    null_context: Float[Array, "N D"] | None = None,
    *,
    plan: WindowPlan | None = None,
    every_step: bool = False,
  ) -> Float[Array, "T H W C"] | Float[Array, "S T H W C"]:
    """Clean latents of a clip that is held in memory; a pure function, to be jitted by the caller.

    Args:
      denoise: the network.
      noise: the starting latents; the reference starts all frames from the same.
      frame_inputs: what the network takes for each frame; leading axes T.
      context: image tokens.
      null_context: tokens of the null branch, for guidance.
      plan: which frames each window holds; by default the rule's plan for T frames. A jitted caller may take it as an
        argument: its number of windows is read at run time, so that clips whose arrays are padded to one size
        (`windows.pad_windows`, `windows.capacity`) share a compiled program. Frames from `plan.length` on come back
        with meaningless values.
      every_step: return the latents after every step, with a leading axis S.

    Returns:
      Clean latents.
    """
    branches = self.branches(context, null_context)
    plan = plan_clip(self.rule, len(noise)) if plan is None else plan
    step = self._make_step(denoise, plan, branches, frame_inputs)

    def body(carry, i):
      carry = step(carry, i)
      return carry, carry[0] if every_step else None

    final, steps = jax.lax.scan(body, (noise, jnp.zeros_like(noise)), jnp.arange(len(self.solver)))
    return final[0] if steps is None else steps

  def _make_step(self, denoise: Denoise, plan: WindowPlan, branches: Branches, frame_inputs: PyTree):
    """One sampling step for all frames: step((latents, previous clean latents), i) -> the same pair, less noisy."""
    batch, constrain = self.windows_per_batch, None
    if self.mesh is not None:
      batch = distributed.round_up(batch, self.mesh.size)
      constrain = distributed.over_all_devices(self.mesh)
    tables = _fill_last_batch(plan, batch)

    def predict(latents, i):
      """The averaged prediction of each branch at step i, [branch T H W C]."""
      timestep, branches_at_step = self.solver.timesteps[i], branches.at_step(self.solver, i)

      def window_batch(number, total):
        rows = lambda table: jax.lax.dynamic_slice_in_dim(table, number * batch, batch)
        inputs = WindowInputs(
          latents=latents,
          timestep=timestep,
          branches=branches_at_step,
          frame_inputs=frame_inputs,
          frames=rows(tables.frames),
          mask=rows(tables.mask),
          weights=rows(tables.weights),
        )
        return predict_windows(denoise, inputs, total, constrain)

      total = jnp.zeros((len(branches), *latents.shape), latents.dtype)
      return jax.lax.fori_loop(0, -(-plan.count // batch), window_batch, total)

    def step(carry, i):
      latents, previous_clean = carry
      prediction = guide(predict(latents, i), branches.scale_at(self.solver, i))
      return advance(self.solver, i, latents, prediction, previous_clean)

    return step

  @property
  def layout(self) -> StreamLayout:
    """Sizes of a stream. Raises UserError for a loop, which can't be streamed."""
    return distributed.stream_layout(self.rule, len(self.solver), self.windows_per_batch, self.mesh)

  def first_frame_needed(self, start: int) -> int:
    """The frame that a stream must start with to yield the frames from `start` on."""
    return max(0, self.layout.first_frame(self.layout.first_block_needed(start)))

  def stream(
    self,
    denoise: Denoise,
    frames: Iterable[StreamFrame],
    prepare: Callable[[PyTree], PreparedBlock],
    context: Float[Array, "N D"],
    null_context: Float[Array, "N D"] | None = None,
    *,
    length: int | None = None,
    start: int = 0,
  ) -> Iterator[FinishedBlock]:
    """Yields one block of clean latents after another, in order, while the frames come in.

    Args:
      denoise: the network, as a `jax.tree_util.Partial` whose arguments are its weights.
      frames: may be a generator that is still running. Begins with frame `first_frame_needed(start)`.
      prepare: computes a block from the stacked inputs of its frames; jitted.
      context, null_context: as for `clip`.
      length: frames of the clip; needed beforehand only to move the last window back.
      start: frames from here on equal those of a stream from 0, bit for bit; earlier frames may be yielded too, and
        differ.

    Raises:
      UserError: the length is needed and missing, or differs from the number of frames, or there is no frame.
    """
    if not isinstance(denoise, jax.tree_util.Partial):
      denoise = jax.tree_util.Partial(denoise)
    layout = self.layout
    sampler, branches = self.replicate((self, self.branches(context, null_context)))
    state: Any = None

    def prepare_on_mesh(stacked):
      with sharding.use_mesh(self.mesh):
        return self.place_block(prepare(self.place_block(stacked)))

    def tick(block, plans, levels):
      nonlocal state
      with sharding.use_mesh(self.mesh):
        if state is None:
          state = _init_state(sampler, branches, block.noise, block.frame_inputs)
        plans, levels = self.replicate((plans, levels))
        state, finished = _tick(sampler, denoise, branches, state, block.noise, block.frame_inputs, plans, levels)
      return finished

    yield from stream.run_blocks(layout, prepare_on_mesh, tick, frames, length, layout.first_block_needed(start))

  def init_state(self, branches: Branches, noise: Float[Array, "F H W C"], frame_inputs: PyTree) -> StreamState:
    """The state of a stream before its first block; of noise and frame inputs, only shapes and types are used."""
    return self._constrain(stream.init_state(self.layout, len(branches), noise, frame_inputs))

  def tick(
    self,
    denoise: Denoise,
    branches: Branches,
    state: StreamState,
    noise: Float[Array, "F H W C"],
    frame_inputs: PyTree,
    plans: WindowPlan,
    levels: tuple[Any, Any],
  ) -> tuple[StreamState, Float[Array, "F H W C"]]:
    """One tick of a stream, a pure function; `stream.advance_levels` describes the arguments."""
    predict = distributed.make_predict_level(self.layout, self.mesh)
    state, finished = stream.advance_levels(
      denoise, self.solver, self.layout, branches, predict, state, noise, frame_inputs, plans, levels
    )
    return self._constrain(state), finished

  def place_state(self, state: StreamState, place: Callable[[Any, Any], Any]) -> StreamState:
    """The state with `place(leaf, sharding)` applied to every leaf; only for a sampler with a mesh."""
    return distributed.map_state(self.layout, self.mesh, state, place)

  def _constrain(self, state: StreamState) -> StreamState:
    # Every tick takes and returns the state in the same shardings; otherwise the second tick would compile again.
    return state if self.mesh is None else self.place_state(state, jax.lax.with_sharding_constraint)

  def replicate(self, tree: PyTree) -> PyTree:
    """The tree on every device of the mesh; without a mesh, the tree itself."""
    return tree if self.mesh is None else jax.device_put(tree, sharding.replicated(self.mesh))

  def place_block(self, block: PyTree) -> PyTree:
    """A block of a stream, leading axis frames, sharded as `tick` takes it; without a mesh, the block itself."""
    if self.mesh is None:
      return block
    return jax.device_put(block, distributed.block_sharding(self.layout, self.mesh, 0))


_init_state = jax.jit(Sampler.init_state)
_tick = jax.jit(Sampler.tick, donate_argnums=3)


def _fill_last_batch(plan: WindowPlan, windows_per_batch: int) -> WindowPlan:
  """The plan padded with idle rows to full batches; its tables may be traced."""
  extra = -plan.frames.shape[0] % windows_per_batch
  repeat = lambda table: jnp.concatenate([jnp.asarray(table)] + [jnp.asarray(table[:1])] * extra)
  rows = jnp.arange(plan.frames.shape[0] + extra) < plan.count
  weights = jnp.where(rows[:, None], repeat(plan.weights), 0)
  return dataclasses.replace(plan, frames=repeat(plan.frames), mask=repeat(plan.mask), weights=weights)
