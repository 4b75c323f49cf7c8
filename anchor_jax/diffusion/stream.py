"""The overlapped-window sampler in constant memory: a layout that takes in motion and gives out finished frames.

The whole-clip loop runs all windows at step 0, then all at step 1, and so on. But what window k says at step i depends
only on latents that the windows k - r to k + r made at step i - 1, where r = ceil(window / stride) - 1 is how many
windows ahead a window reaches. So windows may run along a diagonal: let window k take step i on tick

    t = k + (r + 1) i

Its inputs need window k + r at step i - 1, which ran on tick k + r + (r + 1)(i - 1) = t - 1: just in time. Every tick
then runs one window for each step, each at its own noise level and r + 1 windows apart; takes in one stride of new
motion; and gives out one stride of finished frames. What is alive never grows with the clip.

Generalised here in two ways. A tick runs groups of m windows (`together`), for the sake of large batches: blocks of m
strides take the place of strides, a group reaches ceil(r / m) groups ahead, and t = group + R i with R one more than
that. A last window that is moved back to end with the clip starts up to a stride - 1 frames early: so all blocks lag
that far behind their groups (`lag`), which R counts too; and which window is the last must be known beforehand. A
closed loop has no first window to begin with and is for the whole clip only.

The state is a shift register: level i (one for each sampling step) holds R blocks of latents; after each tick its
first block, now a step cleaner, becomes the last block of level i + 1. Neighbouring levels hold neighbouring parts of
the clip, so all levels together hold R * steps blocks once, and nothing twice. Levels that hold no window yet, or no
more, are outside the bounds of the loop over levels, and cost nothing.

Every window is computed by the same function as in `sampler.py`, so the frames are the same.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.diffusion.guidance import Branches, guide
from anchor_jax.diffusion.sampler import Denoise, predict_windows
from anchor_jax.diffusion.solvers import Solver, advance
from anchor_jax.diffusion.windows import WindowPlan, WindowRule, plan_group
from anchor_jax.errors import UserError
from anchor_jax.shapes import Array, Bool, Float, Int, PyTree

PredictLevel = Callable[..., Float[Array, "branch R F H W C"]]


@dataclasses.dataclass(frozen=True)
class StreamLayout:
  """The sizes of a stream; all of them static.

  Attributes:
    rule: how windows are laid.
    steps: sampling steps, one level each.
    together: windows of a group, denoised in one call.
  """

  rule: WindowRule
  steps: int
  together: int = 1

  def __post_init__(self):
    if self.rule.tail == "loop":
      raise UserError("a closed loop can't be streamed: sample the whole clip at once")

  @property
  def block(self) -> int:
    """Frames that a tick takes in and gives out."""
    return self.together * self.rule.stride

  @property
  def lag(self) -> int:
    """Frames that a block starts before its own group's first window."""
    return self.rule.stride - 1 if self.rule.tail == "moved_back" else 0

  @property
  def depth(self) -> int:
    """Blocks of a level, R above; also the ticks between two steps of a group."""
    return 1 + math.ceil((self.rule.overlap + self.lag) / self.block)

  @property
  def live_frames(self) -> int:
    """Frames that the state holds, whatever the clip's length."""
    return self.steps * self.depth * self.block

  def first_frame(self, block: int) -> int:
    """Frame number that a block starts with; may be negative for block 0."""
    return block * self.block - self.lag

  def warm_up(self, frame: int) -> int:
    """The block to start a new stream with so that `frame` and all after it come out as in the whole clip's stream.

    Each step, a wrong beginning spoils `reach` more windows.
    """
    spoilt = math.ceil(self.rule.reach * self.steps / self.together) + (self.lag > 0)
    return max(0, (frame + self.lag) // self.block - spoilt)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StreamState:
  """The shift register.

  Attributes:
    latents: of each level's frames, before its step.
    clean: what the step before made of them, for solvers with a memory.
    total: each branch's sum of weighted predictions so far.
    condition: what the network is told of each frame.
  """

  latents: Float[Array, "S R F H W C"]
  clean: Float[Array, "S R F H W C"]
  total: Float[Array, "S branch R F H W C"]
  condition: PyTree


def init_stream(layout: StreamLayout, branches: int, noise: PyTree, condition: PyTree) -> StreamState:
  """An empty register for blocks like these (arrays or their shapes, leading axis `layout.block` frames)."""

  def empty(leaf, *axes: int):
    return jnp.zeros((layout.steps, *axes, layout.depth, *leaf.shape), leaf.dtype)

  return StreamState(empty(noise), empty(noise), empty(noise, branches), jax.tree.map(empty, condition))


def make_tick(
  denoise: Denoise,
  solver: Solver,
  layout: StreamLayout,
  branches: Branches,
  predict_level: PredictLevel | None = None,
):
  """tick(state, noise, condition, plans, alive) -> (state, finished latents), to be jitted with `state` donated.

  Arguments of the tick: the block that arrives (noise and condition, leading axis `layout.block`), each level's
  windows (a WindowPlan with one more leading axis, frame numbers counted from the level's first frame), and the bounds
  of the levels that have a group at all. `predict_level` is another `predict_in_place`, one that spreads the windows
  over devices, say.
  """
  predict = predict_level or predict_in_place

  def tick(state: StreamState, noise: Array, condition: PyTree, plans: WindowPlan, alive: tuple[Array, Array]):
    put = lambda leaf, new: leaf.at[0, -1].set(new)
    latents = put(state.latents, noise)
    conditions = jax.tree.map(put, state.condition, condition)

    def level(i, total):
      here = lambda leaf: jax.lax.dynamic_index_in_dim(leaf, i, keepdims=False)
      added = predict(
        denoise, here(latents), solver.timesteps[i], branches, jax.tree.map(here, conditions), here(total),
        here(plans.frames), here(plans.mask), here(plans.weights),
      )  # fmt: skip
      return jax.lax.dynamic_update_index_in_dim(total, added, i, 0)

    total = jax.lax.fori_loop(*alive, level, state.total)
    steps = jnp.arange(layout.steps)
    prediction = guide(jnp.moveaxis(total[:, :, 0], 1, 0), branches.scale_at(solver, steps))
    moved, clean = advance(solver, steps, latents[:, 0], prediction, state.clean[:, 0])

    def shift(leaf, first):
      # Each level drops its first block, and takes in the one that the level before it has finished.
      arrived = jnp.concatenate([jnp.zeros_like(first[:1]), first[:-1]])
      return jnp.concatenate([leaf[:, 1:], arrived[:, None]], axis=1)

    state = StreamState(
      shift(latents, moved),
      shift(state.clean, clean),
      jnp.concatenate([total[:, :, 1:], jnp.zeros_like(total[:, :, :1])], axis=2),
      jax.tree.map(lambda leaf: shift(leaf, leaf[:, 0]), conditions),
    )
    return state, moved[-1]

  return tick


def predict_in_place(
  denoise: Denoise,
  latents: Float[Array, "R F H W C"],
  timestep: Int[Array, ""],
  branches: Branches,
  condition: PyTree,
  total: Float[Array, "branch R F H W C"],
  frames: Int[Array, "K T"],
  mask: Bool[Array, "K T"],
  weights: Float[Array, "K T"],
) -> Float[Array, "branch R F H W C"]:
  """`sampler.predict_windows` over a level's blocks."""
  flat = lambda leaf: leaf.reshape(-1, *leaf.shape[2:])
  sums = total.reshape(total.shape[0], -1, *total.shape[3:])
  added = predict_windows(
    denoise, flat(latents), timestep, branches, jax.tree.map(flat, condition), sums, frames, mask, weights
  )
  return added.reshape(total.shape)


def stream_clip(
  tick: Callable[..., tuple[StreamState, Array]],
  layout: StreamLayout,
  state: StreamState,
  frames: Iterable[PyTree],
  prepare: Callable[[PyTree], tuple[Array, PyTree]],
  length: int | None = None,
  first_block: int = 0,
) -> Iterator[tuple[int, Float[Array, "n H W C"]]]:
  """Runs a layout over frames as they come; yields (number of the first frame, finished latents), in order.

  Args:
    tick: of `make_tick`, jitted.
    layout: its sizes.
    state: of `init_stream`.
    frames: what is known of each frame, a tree of numpy arrays; may be a generator that is still running. With
      `first_block`, it begins at that block's first frame.
    prepare: makes noise and condition of a block from stacked frames.
    length: frames of the whole clip, needed beforehand only where the last window is moved back.
    first_block: where to begin; the frames up to `StreamLayout.warm_up`'s promise are not those of the whole clip.

  Raises:
    UserError: the length is needed and missing, or differs from the frames that came.
  """
  if layout.rule.tail == "moved_back" and length is None:
    raise UserError("to move the last window back, the clip's length must be known beforehand")
  source, depth, m = iter(frames), layout.depth, layout.together
  known, ended, taken = length, False, max(0, layout.first_frame(first_block))
  plans: dict[int, WindowPlan] = {}
  arrived: tuple[Any, Any] | None = None
  ready: list[tuple[int, Array]] = []
  for arriving in itertools.count(first_block):  # number of the block that comes in on this tick
    if not ended:
      wanted = layout.first_frame(arriving + 1) - taken
      items = list(itertools.islice(source, wanted))
      taken, ended = taken + len(items), len(items) < wanted
      if ended:
        known = taken if known is None else known
        if known != taken:
          raise UserError(f"the motion was to have {known} frames and has {taken}")
      if items:
        before = max(0, -layout.first_frame(arriving))
        arrived = prepare(_block(items, before, layout.block))
    if arrived is None:
      raise UserError("there is no frame to make a video of")
    group = arriving - depth + 1  # of level 0
    if group >= first_block:
      plan = plan_group(layout.rule, group * m, m, known)
      reach = depth * layout.block - 1
      local = np.clip(plan.frames - layout.first_frame(group), 0, reach).astype(np.int32)
      plans[group] = dataclasses.replace(plan, frames=local)
    groups = math.inf if known is None else math.ceil(layout.rule.count(known) / m)
    levels = [group - depth * i for i in range(layout.steps)]
    alive = [i for i, g in enumerate(levels) if first_block <= g < groups]
    bounds = (np.int32(alive[0]), np.int32(alive[-1] + 1)) if alive else (np.int32(0), np.int32(0))
    some = next(iter(plans.values()), None) or plan_group(layout.rule, 0, m, None)
    tables = [plans.get(g, some) for g in levels]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *tables)
    state, finished = tick(state, *arrived, stacked, bounds)
    yield from ready  # one tick late, so that the device has work while the host looks at these
    ready = []
    leaving = levels[-1]
    plans.pop(leaving, None)
    if leaving < first_block:
      continue
    start, stop = layout.first_frame(leaving), layout.first_frame(leaving + 1)
    if known is not None:
      stop = min(stop, known)
    if stop > max(0, start):
      ready = [(max(0, start), finished[max(0, -start) : stop - start])]
    if known is not None and stop >= known and ended:
      yield from ready
      return


def _block(items: list[PyTree], before: int, size: int) -> PyTree:
  """Stacked frames; what is missing before the first and after the last repeats them."""

  def stack(*leaves):
    stacked = np.stack(leaves)
    ends = [(before, size - before - len(leaves))] + [(0, 0)] * (stacked.ndim - 1)
    return np.pad(stacked, ends, mode="edge")

  return jax.tree.map(stack, *items)
