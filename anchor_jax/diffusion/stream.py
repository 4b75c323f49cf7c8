"""The overlapped-window sampler in constant memory: blocks of motion go in, blocks of finished frames come out.

Sampling a clip in memory runs all windows at step 0, then all at step 1, and so on. But what window k predicts at step
i depends only on latents that windows k - r to k + r produced at step i - 1, where r = ceil(window / stride) - 1 is the
number of windows after k that overlap it. So the windows can run along a diagonal: window k takes step i on tick

    t = k + (r + 1) i

Its inputs need window k + r at step i - 1, which ran on tick k + r + (r + 1)(i - 1) = t - 1, the tick before. Thus
every tick runs one window per step, at that step's noise level, r + 1 windows apart; it takes in one stride of new
motion and puts out one stride of finished frames. The memory does not grow with the clip.

Two generalizations. A tick runs groups of m windows (`group_size`), for larger batches: blocks of m strides replace
strides, a group overlaps the next ceil(r / m) groups, and t = group + R i where R is one more than that. And with the
"moved_back" tail the last window starts up to stride - 1 frames early; so every block starts that many frames before
its group (`offset`), which R counts too, and the clip's length must be known beforehand. A loop can't be streamed: its
first window needs the last frames.

The state is a shift register. Level i, one per sampling step, holds R blocks of latents; after each tick its first
block, now one step cleaner, becomes the last block of level i + 1. Neighboring levels hold neighboring parts of the
clip, so all levels together hold R * steps blocks, none of them twice. The loop over levels skips those that hold no
window of the clip yet, or no longer.

Where no window overlaps another (single frames, such as the head's), nothing depends on other blocks: a tick runs all
steps of its group at once and puts it out. The state is then one level of one block.

`predict_windows` predicts here as in `Sampler.clip`, so the frames are the same up to rounding.
"""

import collections
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Array, Float, PyTree
from anchor_jax.diffusion.guidance import Branches, guide
from anchor_jax.diffusion.predict import Constrain, Denoise, WindowInputs, predict_windows
from anchor_jax.diffusion.solvers import SolverTables, advance
from anchor_jax.diffusion.windows import WindowPlan, WindowRule, plan_group


@runtime_checkable
class PredictLevel(Protocol):
  """Predicts the windows of one level; on a mesh, the devices share them."""

  def __call__(
    self, denoise: Denoise, inputs: WindowInputs, total: Float[Array, "branch R F H W C"], /
  ) -> Float[Array, "branch R F H W C"]:
    """Returns `total` plus the windows' weighted predictions.

    Args:
      denoise: the network.
      inputs: the level's windows and its R blocks of F frames.
      total: sums to add to.
    """
    ...


@dataclasses.dataclass(frozen=True)
class StreamLayout:
  """The sizes of a stream, all of them static.

  Attributes:
    rule: how windows are laid over the clip.
    steps: sampling steps.
    group_size: windows of a group, which one call of the network predicts.
  """

  rule: WindowRule
  steps: int
  group_size: int = 1

  def __post_init__(self):
    if self.rule.tail == "loop":
      raise UserError("a closed loop can't be streamed: sample the full clip at once")

  @property
  def block(self) -> int:
    """Frames that a tick takes in and puts out."""
    return self.group_size * self.rule.stride

  @property
  def offset(self) -> int:
    """Frames by which a block starts before the first window of its group."""
    return self.rule.stride - 1 if self.rule.tail == "moved_back" else 0

  @property
  def independent(self) -> bool:
    """Whether no window overlaps another, so that a tick runs all steps."""
    return self.rule.overlap + self.offset == 0

  @property
  def levels(self) -> int:
    """Levels of the state: one for each step, or one that takes all steps."""
    return 1 if self.independent else self.steps

  @property
  def depth(self) -> int:
    """Blocks of a level, R above; also the ticks between two steps of a group."""
    return 1 + math.ceil((self.rule.overlap + self.offset) / self.block)

  @property
  def frames_held(self) -> int:
    """Frames in the state, whatever the clip's length."""
    return self.levels * self.depth * self.block

  def first_frame(self, block: int) -> int:
    """Number of the frame that a block starts with; may be negative for block 0."""
    return block * self.block - self.offset

  def first_block_needed(self, frame: int) -> int:
    """The block that a stream must start with, so that `frame` and all after it are those of a stream from block 0.

    Windows before that block never run: their frames are wrong after the first step, and each further step spreads
    that over `windows_ahead` more windows. From the second step on, a last window that was moved back may hold a wrong
    frame where it would hold none at its regular place; it counts with the farthest start it can be moved to, whatever
    the clip's length.
    """
    rule = self.rule
    shared = rule.window - rule.windows_ahead * rule.stride  # by a window and the farthest window that it overlaps
    moved = shared - 1 if self.offset and self.steps > 1 else 0
    # From the start of the first window that runs.
    wrong = rule.windows_ahead * rule.stride * self.steps + shared - rule.stride + moved
    return max(0, (frame - wrong) // self.block)


class StreamFrame(NamedTuple):
  """A frame that goes into a stream.

  Attributes:
    inputs: what the frame's block is prepared from, a tree of numpy arrays.
    companion: anything; comes out of the stream with the frame.
  """

  inputs: PyTree
  companion: Any = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PreparedBlock:
  """What the sampler takes of a block of frames, and what comes out with them. A pytree with leading axes F.

  Attributes:
    noise: the starting latents.
    frame_inputs: what the network takes for each frame.
    carried: not used for sampling; comes out of the stream with the block, for decoding.
  """

  noise: Float[Array, "F H W C"]
  frame_inputs: PyTree
  carried: PyTree = ()


@dataclasses.dataclass(frozen=True)
class FinishedBlock:
  """A block that comes out of a stream.

  Attributes:
    first: number of its first frame.
    rows: the rows of `latents` and `carried` that hold frames of the clip; the content of the others is meaningless.
    latents: clean latents of all F rows, so that every block has one shape.
    carried: as the block was prepared, leading axes F.
    companions: of the frames in `rows`.
  """

  first: int
  rows: slice
  latents: Float[Array, "F H W C"]
  carried: PyTree
  companions: list[Any]

  def __len__(self) -> int:
    return self.rows.stop - self.rows.start

  @property
  def frames(self) -> Float[Array, "n H W C"]:
    """Clean latents of the clip's frames alone."""
    return jax.lax.slice_in_dim(self.latents, self.rows.start, self.rows.stop)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StreamState:
  """The shift register; leading axes levels (`StreamLayout.levels`), R blocks, F frames. A pytree.

  Attributes:
    latents: of each level's frames, before its step.
    clean: clean latents that the previous step implied, for multistep solvers.
    total: sums of weighted predictions so far, per branch.
    frame_inputs: what the network takes for each frame.
  """

  latents: Float[Array, "S R F H W C"]
  clean: Float[Array, "S R F H W C"]
  total: Float[Array, "S branch R F H W C"]
  frame_inputs: PyTree


def init_state(layout: StreamLayout, branches: int, noise: Any, frame_inputs: PyTree) -> StreamState:
  """A state of zeros for blocks like these (arrays or their shapes, leading axis `layout.block` frames)."""

  def empty(leaf, *axes: int):
    return jnp.zeros((layout.levels, *axes, layout.depth, *leaf.shape), leaf.dtype)

  return StreamState(empty(noise), empty(noise), empty(noise, branches), jax.tree.map(empty, frame_inputs))


def advance_levels(
  denoise: Denoise,
  solver: SolverTables,
  layout: StreamLayout,
  branches: Branches,
  predict: PredictLevel,
  state: StreamState,
  noise: Float[Array, "F H W C"],
  frame_inputs: PyTree,
  plans: WindowPlan,
  levels: tuple[Any, Any],
) -> tuple[StreamState, Float[Array, "F H W C"]]:
  """One tick: takes a block in, runs each level's step on its group, and returns the state and the finished block.

  Args:
    denoise: the network.
    solver: tables of the sampling steps.
    layout: sizes of the stream.
    branches: contexts and guidance.
    predict: `predict_level`, or a function that shares the windows among devices.
    state: of the previous tick; a jitted caller can donate it.
    noise, frame_inputs: the block that arrives, leading axis `layout.block`.
    plans: each level's windows; one more leading axis [levels], frames counted from the first of the level's blocks.
    levels: (first, last + 1) of the levels that hold a group.

  Returns:
    The new state, and the last level's first block of clean latents.
  """
  if layout.independent:
    return state, _all_steps(denoise, solver, branches, predict, noise, frame_inputs, plans, levels)
  put = lambda leaf, new: leaf.at[0, -1].set(new)
  latents = put(state.latents, noise)
  frame_inputs = jax.tree.map(put, state.frame_inputs, frame_inputs)

  def one_level(i, total):
    of_level = lambda leaf: jax.lax.dynamic_index_in_dim(leaf, i, keepdims=False)
    inputs = WindowInputs(
      latents=of_level(latents),
      timestep=solver.timesteps[i],
      branches=branches.at_step(solver, i),
      frame_inputs=jax.tree.map(of_level, frame_inputs),
      frames=of_level(plans.frames),
      mask=of_level(plans.mask),
      weights=of_level(plans.weights),
    )
    return jax.lax.dynamic_update_index_in_dim(total, predict(denoise, inputs, of_level(total)), i, 0)

  total = jax.lax.fori_loop(*levels, one_level, state.total)
  steps = jnp.arange(layout.steps)
  prediction = guide(jnp.moveaxis(total[:, :, 0], 1, 0), branches.scale_at(solver, steps))
  cleaner, clean = advance(solver, steps, latents[:, 0], prediction, state.clean[:, 0])

  def shift(leaf, first):
    # Each level drops its first block and appends the block that the previous level has finished.
    arrived = jnp.concatenate([jnp.zeros_like(first[:1]), first[:-1]])
    return jnp.concatenate([leaf[:, 1:], arrived[:, None]], axis=1)

  state = StreamState(
    shift(latents, cleaner),
    shift(state.clean, clean),
    jnp.concatenate([total[:, :, 1:], jnp.zeros_like(total[:, :, :1])], axis=2),
    jax.tree.map(lambda leaf: shift(leaf, leaf[:, 0]), frame_inputs),
  )
  return state, cleaner[-1]


def _all_steps(
  denoise: Denoise,
  solver: SolverTables,
  branches: Branches,
  predict: PredictLevel,
  noise: Float[Array, "F H W C"],
  frame_inputs: PyTree,
  plans: WindowPlan,
  levels: tuple[Any, Any],
) -> Float[Array, "F H W C"]:
  """Clean latents of a block whose windows overlap none of another; arguments as in `advance_levels`."""
  one_block = jax.tree.map(lambda leaf: leaf[None], frame_inputs)
  zeros = jnp.zeros((len(branches), 1, *noise.shape), noise.dtype)

  def step(i, carry):
    latents, clean = carry
    inputs = WindowInputs(
      latents=latents[None],
      timestep=solver.timesteps[i],
      branches=branches.at_step(solver, i),
      frame_inputs=one_block,
      frames=plans.frames[0],
      mask=plans.mask[0],
      weights=plans.weights[0],
    )
    prediction = guide(predict(denoise, inputs, zeros)[:, 0], branches.scale_at(solver, i))
    return advance(solver, i, latents, prediction, clean)

  first, last = levels
  return jax.lax.fori_loop(0, jnp.where(first < last, len(solver), 0), step, (noise, jnp.zeros_like(noise)))[0]


def predict_level(
  denoise: Denoise,
  inputs: WindowInputs,
  total: Float[Array, "branch R F H W C"],
  constrain: Constrain | None = None,
) -> Float[Array, "branch R F H W C"]:
  """`predict_windows` over the R blocks of one level, as one array of R * F frames."""
  flat = lambda leaf: leaf.reshape(-1, *leaf.shape[2:])
  latents, frame_inputs = jax.tree.map(flat, (inputs.latents, inputs.frame_inputs))
  inputs = dataclasses.replace(inputs, latents=latents, frame_inputs=frame_inputs)
  sums = total.reshape(total.shape[0], -1, *total.shape[3:])
  return predict_windows(denoise, inputs, sums, constrain).reshape(total.shape)


def run_blocks(
  layout: StreamLayout,
  prepare: Callable[[PyTree], PreparedBlock],
  tick: Callable[[PreparedBlock, WindowPlan, tuple[Any, Any]], Float[Array, "F H W C"]],
  frames: Iterable[StreamFrame],
  length: int | None = None,
  first_block: int = 0,
) -> Iterator[FinishedBlock]:
  """Runs ticks as frames come in; yields finished blocks in order, each as soon as it is finished.

  Args:
    layout: sizes of the stream.
    prepare: stacked inputs of a block's frames -> the block.
    tick: (block that arrives, each level's windows, levels that hold a group) -> clean latents of the block that
      leaves; see `advance_levels`. After the clip's last block, that block is passed again.
    frames: may be a generator that is still running. Begins with the first frame of `first_block`.
    length: frames of the clip; needed beforehand only to move the last window back.
    first_block: where to begin, see `StreamLayout.first_block_needed`.

  Raises:
    UserError: the length is needed and missing, or differs from the number of frames, or there is no frame.
  """
  if layout.rule.tail == "moved_back" and length is None:
    raise UserError("to move the last window back, the clip's length must be known beforehand")
  source, size = iter(frames), layout.group_size
  known, ended, taken = length, False, max(0, layout.first_frame(first_block))
  plans: dict[int, WindowPlan] = {}
  # Of the blocks in the stream, in order.
  waiting: collections.deque[tuple[PyTree, list[Any]]] = collections.deque()
  block: Any = None
  for arriving in itertools.count(first_block):  # number of the block that comes in on this tick
    if not ended:
      missing = layout.first_frame(arriving + 1) - taken
      items = list(itertools.islice(source, missing))
      taken, ended = taken + len(items), len(items) < missing
      if ended:
        known = taken if known is None else known
        if known != taken:
          raise UserError(f"the motion has {taken} frames instead of the expected {known}: prepare it again")
      if items:
        inputs = [item.inputs for item in items]
        block = prepare(_stack(inputs, max(0, -layout.first_frame(arriving)), layout.block))
        waiting.append((block.carried, [item.companion for item in items]))
      elif arriving == first_block:
        raise UserError("the motion has no frames: give one with at least one frame")
    group = arriving - layout.depth + 1  # of level 0
    if group >= first_block:
      plan = plan_group(layout.rule, group * size, size, known)
      local = np.clip(plan.frames - layout.first_frame(group), 0, layout.depth * layout.block - 1)
      plans[group] = dataclasses.replace(plan, frames=local.astype(np.int32))
    groups = math.inf if known is None else math.ceil(layout.rule.count(known) / size)
    of_levels = [group - layout.depth * i for i in range(layout.levels)]
    busy = [i for i, g in enumerate(of_levels) if first_block <= g < groups]
    levels = (np.int32(busy[0]), np.int32(busy[-1] + 1)) if busy else (np.int32(0), np.int32(0))
    idle = next(iter(plans.values()), None) or plan_group(layout.rule, 0, size, None)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *[plans.get(g, idle) for g in of_levels])
    finished = tick(block, stacked, levels)
    leaving = of_levels[-1]
    plans.pop(leaving, None)
    if leaving < first_block:
      continue
    start, stop = layout.first_frame(leaving), layout.first_frame(leaving + 1)
    if known is not None:
      stop = min(stop, known)
    if stop > max(0, start):
      carried, companions = waiting.popleft()
      yield FinishedBlock(max(0, start), slice(max(0, -start), stop - start), finished, carried, companions)
    if known is not None and stop >= known and ended:
      return


def _stack(frames: list[PyTree], before: int, size: int) -> PyTree:
  """Frames stacked to a block of `size` rows, the first in row `before`; the rows around repeat the outermost."""

  def stack(*leaves):
    stacked = np.stack(leaves)
    ends = [(before, size - before - len(leaves))] + [(0, 0)] * (stacked.ndim - 1)
    return np.pad(stacked, ends, mode="edge")

  return jax.tree.map(stack, *frames)
