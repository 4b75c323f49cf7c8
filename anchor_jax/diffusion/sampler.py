"""The sampler: batch-overlapped temporal denoising (paper, section 3.3, algorithm 1) of whole clips and of streams.

At every sampling step all windows predict; a frame's prediction is the weighted mean over the windows that hold it,
for the conditional and the null branch apart; then guidance, then one solver step for all frames. `Sampler.clip` does
so with the whole clip in memory, `Sampler.stream` in constant memory (see stream.py), with the same result up to
rounding. Single frames, such as the head's, are windows of one frame.

The sampler knows no network; it takes `denoise` (see predict.py). A network's weights should be arguments of the
compiled program, not constants in it: pass `jax.tree_util.Partial(function, weights)`, which is a pytree.
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
from anchor_jax.diffusion.predict import Denoise, predict_windows
from anchor_jax.diffusion.solvers import SolverTables, advance, make_solver
from anchor_jax.diffusion.stream import StreamLayout, StreamState
from anchor_jax.diffusion.windows import WindowPlan, WindowRule, plan_windows

static = functools.partial(dataclasses.field, metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sampler:
  """Everything about sampling that is not the network. A pytree, so that jitted functions can take it.

  Attributes:
    solver: tables of the sampling steps.
    rule: how windows are laid over a clip.
    windows_per_batch: windows in one call of the network; rounded up to a multiple of the devices on a mesh.
    guidance: scale of classifier-free guidance; 1 or less runs one branch.
    guidance_interval: noise levels (sigma, 0 to 1) between which guidance acts.
    mesh: of `parallel.sampling_mesh`: the devices that share the windows; None is one device. Weights, noise and
      condition must be on it (`parallel.replicated`), and it must be the current mesh (`parallel.use_mesh`)
      where `clip` is jitted.
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
    rule = WindowRule(sample.window, sample.overlap, sample.tail, sample.window_weights)
    solver = make_solver(sample.solver, schedule, sample.steps)
    return cls(solver, rule, sample.windows_per_batch, sample.guidance, sample.guidance_interval, mesh)

  def branches(self, context: Float[Array, "N D"], null_context: Float[Array, "N D"] | None = None) -> Branches:
    """The branches that the guidance scale asks for."""
    return make_branches(context, null_context, self.guidance, self.guidance_interval)

  def clip(
    self,
    denoise: Denoise,
    noise: Float[Array, "T H W C"],
    condition: PyTree,
    context: Float[Array, "N D"],
    null_context: Float[Array, "N D"] | None = None,
    *,
    plan: WindowPlan | None = None,
    on_step: Callable[[], object] | None = None,
    every_step: bool = False,
  ) -> Float[Array, "T H W C"] | Float[Array, "S T H W C"]:
    """Denoises a clip that is in memory as a whole; a pure function, to be jitted by the caller.

    Args:
      denoise: the network.
      noise: the starting latents; the reference starts all frames from the same.
      condition: arrays whose leading axis is frames (pose features, and for the head the inpainting channels).
      context: tokens of the appearance.
      null_context: tokens of the null branch, for guidance.
      plan: which frames each window holds; by default the rule's plan for T frames. A jitted caller may take it as an
        argument: its number of windows is read at run time, so that clips whose arrays are padded to one size
        (`windows.pad_windows`, `windows.capacity`) share a compiled program. Frames beyond `plan.length` come back
        with meaningless values.
      on_step: called on the host after each sampling step, for a progress bar.
      every_step: return the latents after every step, not only after the last.

    Returns:
      Clean latents.
    """
    branches = self.branches(context, null_context)
    step = self._make_step(denoise, plan_windows(self.rule, len(noise)) if plan is None else plan, branches, condition)

    def body(carry, i):
      carry = step(carry, i)
      if on_step is not None:
        # The second argument makes the callback wait for the step.
        jax.debug.callback(functools.partial(_call, on_step), carry[0].ravel()[0])
      return carry, carry[0] if every_step else None

    final, steps = jax.lax.scan(body, (noise, jnp.zeros_like(noise)), jnp.arange(len(self.solver)))
    return final[0] if steps is None else steps

  def _make_step(self, denoise: Denoise, plan: WindowPlan, branches: Branches, condition: PyTree):
    """One sampling step for all frames: step((latents, previous clean latents), i) -> the same pair, less noisy."""
    batch, constrain = self.windows_per_batch, None
    if self.mesh is not None:
      batch = distributed.round_up(batch, self.mesh.size)
      constrain = distributed.over_all_devices(self.mesh)
    tables = _fill_last_batch(plan, batch)

    def predict(latents, i):
      """The averaged prediction of each branch at step i, [branch T H W C]."""
      timestep, here = self.solver.timesteps[i], branches.at_step(self.solver, i)

      def window_batch(number, total):
        rows = lambda table: jax.lax.dynamic_slice_in_dim(table, number * batch, batch)
        windows = (rows(tables.frames), rows(tables.mask), rows(tables.weights))
        return predict_windows(denoise, latents, timestep, here, condition, total, *windows, constrain)

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
    """The frame that `stream` must be given first, to yield the frames from `start` on."""
    return max(0, self.layout.first_frame(self.layout.first_block_needed(start)))

  def stream(
    self,
    denoise: Denoise,
    frames: Iterable[PyTree],
    prepare: Callable[[PyTree], tuple[Array, PyTree]],
    context: Float[Array, "N D"],
    null_context: Float[Array, "N D"] | None = None,
    *,
    length: int | None = None,
    start: int = 0,
  ) -> Iterator[tuple[int, Float[Array, "n H W C"]]]:
    """Yields (number of the first frame, clean latents) of one block after another, while the frames come in.

    Args:
      denoise: the network, as a `jax.tree_util.Partial` whose arguments are its weights.
      frames: what is known of each frame, a tree of numpy arrays; may be a generator that is still running. Begins
        with frame `first_frame_needed(start)`.
      prepare: makes noise and condition of a block from its stacked frames; jitted.
      context, null_context: as for `clip`.
      length: frames of the whole clip; only a last window that is moved back needs it beforehand.
      start: frames from here on are those of a stream from 0, bit for bit; frames before it that are yielded too
        are not.

    Raises:
      UserError: the length is needed and missing, or differs from the frames that came, or there is no frame.
    """
    if not isinstance(denoise, jax.tree_util.Partial):
      denoise = jax.tree_util.Partial(denoise)
    layout, everywhere, over_block = self.layout, self.replicate, self.place_block
    sampler, branches = everywhere((self, self.branches(context, null_context)))
    arrived: Any = None
    state: Any = None

    def push(block, plans, levels):
      nonlocal arrived, state
      with sharding.use_mesh(self.mesh):
        if block is not None:
          arrived = over_block(prepare(over_block(block)))
        if state is None:
          state = _init_state(sampler, branches, *arrived)
        state, finished = _tick(sampler, denoise, branches, state, *arrived, *everywhere((plans, levels)))
      return finished

    yield from stream.run_blocks(layout, push, frames, length, layout.first_block_needed(start))

  def init_state(self, branches: Branches, noise: Float[Array, "F H W C"], condition: PyTree) -> StreamState:
    """The state of a stream before its first block; noise and condition give shapes and types alone."""
    return self._constrain(stream.init_state(self.layout, len(branches), noise, condition))

  def tick(
    self,
    denoise: Denoise,
    branches: Branches,
    state: StreamState,
    noise: Float[Array, "F H W C"],
    condition: PyTree,
    plans: WindowPlan,
    levels: tuple[Any, Any],
  ) -> tuple[StreamState, Float[Array, "F H W C"]]:
    """One tick of a stream, a pure function; `stream.advance_levels` describes the arguments."""
    predict = distributed.make_predict_level(self.layout, self.mesh)
    state, finished = stream.advance_levels(
      denoise, self.solver, self.layout, branches, predict, state, noise, condition, plans, levels
    )
    return self._constrain(state), finished

  def place_state(self, state: StreamState, place: Callable[[Any, Any], Any]) -> StreamState:
    """The state with `place(leaf, sharding)` applied to every leaf; on a mesh only."""
    return distributed.map_state(self.layout, self.mesh, state, place)

  def _constrain(self, state: StreamState) -> StreamState:
    # Every tick takes and returns the state in the same shardings; else the second tick would compile once more.
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
  """The plan with idle rows until the last batch is full, also where its tables are traced."""
  extra = -plan.frames.shape[0] % windows_per_batch
  repeat = lambda table: jnp.concatenate([jnp.asarray(table)] + [jnp.asarray(table[:1])] * extra)
  rows = jnp.arange(plan.frames.shape[0] + extra) < plan.count
  weights = jnp.where(rows[:, None], repeat(plan.weights), 0)
  return dataclasses.replace(plan, frames=repeat(plan.frames), mask=repeat(plan.mask), weights=weights)


def _call(on_step: Callable[[], object], _: Any) -> None:
  on_step()
