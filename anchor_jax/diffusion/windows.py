"""Overlapping windows over a clip, as tables computed on the host (paper, section 3.3).

Windows start at 0, s, 2s, ... below the length, s = window - overlap. Every window has the same number of slots, so
that nothing recompiles; a mask marks the slots that hold a frame. The rule's `tail` decides how the clip ends:

    "ragged"      the last windows hold fewer frames, as in the reference
    "moved_back"  the last window is full and ends with the clip, so it may overlap the previous one more
    "loop"        the clip is periodic: the last windows continue with its first frames
"""

import dataclasses
import math

import jax
import numpy as np

from anchor_jax.config.run import TAILS
from anchor_jax.core.errors import UserError, suggestion
from anchor_jax.core.shapes import Array, Bool, Float, Int, NdArray


@dataclasses.dataclass(frozen=True)
class WindowRule:
  """How windows are laid over a clip of any length.

  Attributes:
    window: frames of a window.
    overlap: frames that it shares with the next window.
    tail: one of `TAILS`, see above.

  Raises:
    UserError: the overlap is not in [0, window), or the tail is unknown.
  """

  window: int
  overlap: int
  tail: str = "ragged"

  def __post_init__(self):
    if self.window < 1 or not 0 <= self.overlap < self.window:
      raise UserError(
        f"window {self.window} with overlap {self.overlap}: the overlap must be at least 0 and below the window"
      )
    if self.tail not in TAILS:
      raise UserError(f'unknown tail "{self.tail}": use one of {", ".join(TAILS)}.{suggestion(self.tail, TAILS)}')

  @property
  def stride(self) -> int:
    """Frames between the starts of consecutive windows."""
    return self.window - self.overlap

  @property
  def windows_ahead(self) -> int:
    """How many of the following windows a window overlaps."""
    return math.ceil(self.window / self.stride) - 1

  def count(self, length: int) -> int:
    """The number of windows of a clip of `length` frames."""
    if self.tail == "moved_back":
      return 1 + max(0, math.ceil((length - self.window) / self.stride))
    return math.ceil(length / self.stride)

  def starts(self, windows: Int[NdArray, "K"], length: int | None) -> Int[NdArray, "K"]:
    """First frames of the windows with these numbers; `length` is None while the end of the clip is unknown."""
    starts = windows * self.stride
    if self.tail == "moved_back" and length is not None:
      starts = np.minimum(starts, max(0, length - self.window))
    return starts


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class WindowPlan:
  """The frames of each window, and their weights. A pytree, for jitted functions.

  Attributes:
    frames: frame number of each slot, int32 [K, T]; slots without a frame repeat the clip's last frame.
    mask: which slots hold a frame, bool [K, T]; every window has at least one.
    weights: weight of a slot's prediction in its frame's mean, float32 [K, T]; they sum to 1 over a frame's slots.
    count: number of windows; rows beyond it are padding, of weight 0.
    length: frames in the clip.
  """

  frames: Int[NdArray, "*levels K T"] | Int[Array, "*levels K T"]
  mask: Bool[NdArray, "*levels K T"] | Bool[Array, "*levels K T"]
  weights: Float[NdArray, "*levels K T"] | Float[Array, "*levels K T"]
  count: int | Int[NdArray, "*levels"] | Int[Array, "*levels"]
  length: int | Int[NdArray, "*levels"] | Int[Array, "*levels"]


def plan_clip(rule: WindowRule, length: int) -> WindowPlan:
  """The windows of a clip of `length` frames. Raises UserError if there are none."""
  if length < 1:
    raise UserError("a clip needs at least one frame")
  count = rule.count(length)
  frames = rule.starts(np.arange(count), length)[:, None] + np.arange(rule.window)
  if rule.tail == "loop" and length > rule.window:
    mask, frames = np.ones(frames.shape, bool), frames % length
  else:
    if rule.tail == "loop":  # one window holds the full period
      frames, count = frames[:1], 1
    mask = frames < length
    frames = np.minimum(frames, length - 1)
  windows = np.zeros(length)  # that hold each frame
  np.add.at(windows, frames, mask)
  return WindowPlan(frames.astype(np.int32), mask, (mask / windows[frames]).astype(np.float32), count, length)


def plan_group(rule: WindowRule, first: int, size: int, length: int | None) -> WindowPlan:
  """The windows `first` to `first + size - 1` of a clip whose end may not be known yet.

  Args:
    rule: how windows are laid over the clip; not a loop, whose first window needs its last frame.
    first: number of the group's first window.
    size: windows of the group; those beyond the clip's last have one slot with a frame, of weight 0.
    length: frames of the clip; None: it continues beyond these windows.

  Returns:
    A plan with the clip's frame numbers; those of slots without a frame may lie beyond its end.
  """
  count = math.inf if length is None else rule.count(length)
  # All windows that may share a frame with the group: `windows_ahead` on both sides, and one for a moved last window.
  near = np.arange(max(0, first - rule.windows_ahead - 1), first + size + rule.windows_ahead + 1)
  near = near[near < count]
  held = rule.starts(near, length)[:, None] + np.arange(rule.window)
  end = math.inf if length is None else length
  numbers = np.arange(first, first + size)
  frames = rule.starts(numbers, length)[:, None] + np.arange(rule.window)
  lowest = min(int(held.min()) if held.size else 0, int(frames.min()))
  windows = np.zeros(max(int(held.max(initial=0)), int(frames.max())) + 1 - lowest)  # that hold each frame
  np.add.at(windows, held - lowest, held < end)
  real = (frames < end) & (numbers < count)[:, None]
  weights = real / np.where(real, windows[frames - lowest], 1.0)
  mask = real | (~real.any(axis=1, keepdims=True) & (np.arange(rule.window) == 0))
  in_clip = int(max(0, min(size, count - first)))
  return WindowPlan(frames.astype(np.int32), mask, weights.astype(np.float32), in_clip, int(frames.max()) + 1)


def capacity(count: int) -> int:
  """The smallest of 1, 2, 3, 4, 6, 8, 12, 16, ... that is at least `count`: many lengths share a compiled program."""
  power = 1 << max(0, count.bit_length() - 1)
  return next(size for size in (power, power * 3 // 2, power * 2) if size >= count)


def pad_windows(plan: WindowPlan, rows: int) -> WindowPlan:
  """The plan padded to `rows` windows; padding repeats window 0 with weight 0."""
  extra = rows - len(plan.frames)
  if extra <= 0:
    return plan
  repeat = lambda table: np.concatenate([table, np.repeat(table[:1], extra, axis=0)])
  weights = np.concatenate([plan.weights, np.zeros((extra, plan.weights.shape[1]), np.float32)])
  return dataclasses.replace(plan, frames=repeat(plan.frames), mask=repeat(plan.mask), weights=weights)
