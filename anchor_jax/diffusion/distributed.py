"""How the devices of a sampling mesh share windows.

In a stream, each device of the data axis holds its own part of every block's frames and predicts the windows that
start in it. Such windows end up to `overlap` frames inside the next device's part. So before predicting, each device
sends the first frames of its part to its left neighbour, and afterwards it sends the sums for those frames to its
right neighbour: two collective-permutes per step, of overlaps only. The neighbour of the last device is the first,
whose frames then are those of the level's next block. Along the mesh's frames axis, the frames of each window are
sharded too; there the compiler all-gathers attention's keys and values.

That needs parts that are aligned with windows and at least as long as the overlap (`exchanges_overlaps`). Otherwise,
and for whole clips, latents are replicated and sharding constraints split the windows of each network call over all
devices: simpler, but every device receives all predictions.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from anchor_jax.core import sharding
from anchor_jax.core.shapes import Array
from anchor_jax.diffusion.guidance import Branches
from anchor_jax.diffusion.predict import predict_windows
from anchor_jax.diffusion.stream import PredictLevel, StreamLayout, StreamState, predict_level
from anchor_jax.diffusion.windows import WindowRule


def round_up(count: int, multiple: int) -> int:
  """The smallest multiple that is no less than `count`."""
  return math.ceil(count / multiple) * multiple


def stream_layout(rule: WindowRule, steps: int, windows_per_batch: int, mesh: Any) -> StreamLayout:
  """The layout of a stream on a mesh: groups of at least `windows_per_batch` windows that the devices share evenly."""
  if mesh is None:
    return StreamLayout(rule, steps, windows_per_batch)
  layout = StreamLayout(rule, steps, round_up(windows_per_batch, mesh.shape[sharding.DATA]))
  if exchanges_overlaps(layout, mesh):
    return layout
  return StreamLayout(rule, steps, round_up(windows_per_batch, mesh.size))


def exchanges_overlaps(layout: StreamLayout, mesh: Any) -> bool:
  """Whether the devices can hold a part of every block each, and exchange overlaps with their neighbours alone."""
  rule, devices = layout.rule, mesh.shape[sharding.DATA]
  aligned = rule.tail == "ragged"  # moved back, the last window starts anywhere
  shared = layout.group_size % devices == 0 and rule.window % mesh.shape[sharding.FRAMES] == 0
  return aligned and shared and rule.overlap <= layout.block // devices


def make_predict_level(layout: StreamLayout, mesh: Any) -> PredictLevel:
  """The `predict` of `stream.advance_levels` for a mesh, or for one device where it is None."""
  if mesh is None:
    return predict_level
  if exchanges_overlaps(layout, mesh):
    return _predict_own_parts(layout, mesh)
  return functools.partial(predict_level, constrain=over_all_devices(mesh))


def over_all_devices(mesh: Any) -> Callable[[Array], Array]:
  """A sharding constraint that splits the leading axis over all devices of a sampling mesh."""
  return lambda leaf: jax.lax.with_sharding_constraint(leaf, all_devices_sharding(mesh))


def all_devices_sharding(mesh: Any) -> Any:
  """The leading axis over all devices of a sampling mesh."""
  return jax.NamedSharding(mesh, jax.P((sharding.DATA, sharding.FRAMES)))


def block_sharding(layout: StreamLayout, mesh: Any, axis: int) -> Any:
  """The sharding of an array whose axis `axis` is the frames of a block."""
  return jax.NamedSharding(mesh, jax.P(*[None] * axis, sharding.DATA if exchanges_overlaps(layout, mesh) else None))


def map_state(layout: StreamLayout, mesh: Any, state: StreamState, place: Callable[[Any, Any], Any]) -> StreamState:
  """The state with `place(leaf, its sharding)` applied to every leaf."""
  one = lambda leaf, axis: place(leaf, block_sharding(layout, mesh, axis))
  condition = jax.tree.map(lambda leaf: one(leaf, 2), state.condition)
  return StreamState(one(state.latents, 2), one(state.clean, 2), one(state.total, 3), condition)


def _predict_own_parts(layout: StreamLayout, mesh: Any) -> PredictLevel:
  """Each device predicts the windows that start in its part of a block, and exchanges overlaps with its neighbours."""
  rule, part = layout.rule, layout.block // mesh.shape[sharding.DATA]
  overlap, shards_frames = rule.overlap, mesh.shape[sharding.FRAMES] > 1

  def predict(denoise, latents, timestep, branches, condition, total, frames, mask, weights):
    def one_by_one(*arguments):
      """Windows one after another: convolutions over [window * frame] stay sharded only if there is one window."""

      def one(example):
        latents, timestep, context, condition, mask = jax.tree.map(lambda leaf: leaf[None], example)
        latents, condition = jax.tree.map(sharding.shard_frames, (latents, condition))
        return denoise(latents, timestep, context, condition, mask)[0]

      return jax.lax.map(one, arguments)

    def local(latents, step, contexts, condition, total, mask, weights):
      """What one device does: leaves [R part ...], windows [m/devices T]."""
      is_first = jax.lax.axis_index(sharding.DATA) == 0

      def extended(leaf: Array) -> Array:
        if not overlap:
          return leaf[0]
        own_first = jnp.where(is_first & (leaf.shape[0] > 1), leaf[-1], leaf[0])[:overlap]
        return jnp.concatenate([leaf[0], sharding.from_next_device(own_first)])

      timestep, guided = step
      own_branches = Branches(contexts, branches.scale, branches.interval, guided)
      starts = jnp.arange(mask.shape[0]) * rule.stride
      rows = starts[:, None] + jnp.arange(rule.window)
      inputs, conditions = jax.tree.map(extended, (latents, condition))
      empty = jnp.zeros((len(own_branches), *inputs.shape), inputs.dtype)
      network = one_by_one if shards_frames else denoise
      sums = predict_windows(network, inputs, timestep, own_branches, conditions, empty, rows, mask, weights)
      total = total.at[:, 0].add(sums[:, :part])
      if overlap:
        beyond = sharding.from_previous_device(sums[:, part:])
        own, next_block = jnp.where(is_first, 0, beyond), jnp.where(is_first, beyond, 0)
        total = total.at[:, 0, :overlap].add(own).at[:, -1, :overlap].add(next_block)
      return total

    run = sharding.shard_map_windows(local, mesh)
    step = (timestep, branches.guided)
    return run(latents, step, branches.contexts, condition, total, mask, weights)

  return predict
