"""Overlapping windows over a clip, as static tables made on the host (paper, section 3.3).

Windows start at 0, s, 2s, ... below the length, s = window - overlap; the last ones are cut short. Every window has
the same shape, so nothing recompiles; a mask says which of its slots are real.
"""

import dataclasses

import numpy as np

from anchor_jax.errors import UserError
from anchor_jax.shapes import Bool, Float, Int, NdArray


@dataclasses.dataclass(frozen=True)
class WindowPlan:
  """Which frames each window holds, and what its word counts.

  Attributes:
    frames: frame number of each slot, int32 [K, T]; unreal slots repeat the clip's last frame.
    mask: which slots are real, bool [K, T]; every window has at least one.
    weights: share of a slot's prediction in its frame's, float32 [K, T]; sums to 1 over a frame's real slots.
    length: frames in the clip.
  """

  frames: Int[NdArray, "K T"]
  mask: Bool[NdArray, "K T"]
  weights: Float[NdArray, "K T"]
  length: int

  @property
  def count(self) -> int:
    """Number of windows."""
    return len(self.frames)


def plan_windows(length: int, window: int, overlap: int) -> WindowPlan:
  """The reference's plan: uniform weights, ragged tail. Raises UserError when no plan exists."""
  if length < 1:
    raise UserError("a clip needs at least one frame")
  if window < 1 or not 0 <= overlap < window:
    raise UserError(f"window {window} with overlap {overlap}: the overlap must be at least 0 and below the window")
  starts = np.arange(0, length, window - overlap, dtype=np.int32)
  frames = starts[:, None] + np.arange(window, dtype=np.int32)
  mask = frames < length
  frames = np.minimum(frames, length - 1)
  return WindowPlan(frames, mask, _shares(frames, mask, mask.astype(np.float64), length), length)


def pad_windows(plan: WindowPlan, multiple: int) -> WindowPlan:
  """The plan with idle windows added until their number is a multiple; idle ones repeat window 0 with weight 0."""
  extra = -plan.count % multiple
  if not extra:
    return plan
  repeat = lambda table: np.concatenate([table, np.repeat(table[:1], extra, axis=0)])
  weights = np.concatenate([plan.weights, np.zeros((extra, plan.weights.shape[1]), np.float32)])
  return dataclasses.replace(plan, frames=repeat(plan.frames), mask=repeat(plan.mask), weights=weights)


def _shares(
  frames: Int[NdArray, "K T"], mask: Bool[NdArray, "K T"], raw: Float[NdArray, "K T"], length: int
) -> Float[NdArray, "K T"]:
  raw = np.where(mask, raw, 0.0)
  total = np.zeros(length)
  np.add.at(total, frames, raw)
  return (raw / total[frames]).astype(np.float32)
