"""How the devices of a sampling mesh share windows.

In a stream, each device of the data axis holds one shard of every block's frames and predicts the windows that start in
it. Such windows reach up to `overlap` frames into the next device's shard. So before predicting, each device sends the
first frames of its shard to its left neighbor, and afterwards it sends the sums for those frames to its right neighbor:
two collective-permutes per step, of overlaps only. The neighbor of the last device is the first, whose frames then are
those of the level's next block. Along the mesh's frames axis, the frames of each window are sharded too; there the
compiler all-gathers attention's keys and values.

That needs shards that are aligned with windows and at least as long as the overlap (`exchanges_overlaps`). Otherwise,
and for clips in memory, latents are replicated and sharding constraints split the windows of each network call over all
devices: simpler, but every device receives all predictions.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from anchor_jax.core import sharding
from anchor_jax.core.shapes import Array
from anchor_jax.diffusion.predict import Constrain, WindowInputs, predict_windows
from anchor_jax.diffusion.stream import PredictLevel, StreamLayout, StreamState, predict_level
from anchor_jax.diffusion.windows import WindowRule


def round_up(count: int, multiple: int) -> int:
  """The smallest multiple of `multiple` that is at least `count`."""
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
  """Whether each device can hold a shard of every block and exchange overlaps with its neighbors only."""
  rule, devices = layout.rule, mesh.shape[sharding.DATA]
  aligned = rule.tail == "ragged"  # a last window that is moved back starts anywhere
  shared = layout.group_size % devices == 0 and rule.window % mesh.shape[sharding.FRAMES] == 0
  return aligned and shared and rule.overlap <= layout.block // devices


def make_predict_level(layout: StreamLayout, mesh: Any) -> PredictLevel:
  """The `predict` of `stream.advance_levels` for a mesh; for one device where `mesh` is None."""
  if mesh is None:
    return predict_level
  if exchanges_overlaps(layout, mesh):
    return _predict_own_shards(layout, mesh)
  return functools.partial(predict_level, constrain=over_all_devices(mesh))


def over_all_devices(mesh: Any) -> Constrain:
  """A sharding constraint that shards the leading axis over all devices of a sampling mesh."""
  return lambda leaf: jax.lax.with_sharding_constraint(leaf, all_devices_sharding(mesh))


def all_devices_sharding(mesh: Any) -> Any:
  """The sharding of the leading axis over all devices of a sampling mesh."""
  return jax.NamedSharding(mesh, jax.P((sharding.DATA, sharding.FRAMES)))


def block_sharding(layout: StreamLayout, mesh: Any, axis: int) -> Any:
  """The sharding of an array whose axis `axis` runs over the frames of a block."""
  return jax.NamedSharding(mesh, jax.P(*[None] * axis, sharding.DATA if exchanges_overlaps(layout, mesh) else None))


def map_state(layout: StreamLayout, mesh: Any, state: StreamState, place: Callable[[Any, Any], Any]) -> StreamState:
  """The state with `place(leaf, its sharding)` applied to every leaf."""
  one = lambda leaf, axis: place(leaf, block_sharding(layout, mesh, axis))
  frame_inputs = jax.tree.map(lambda leaf: one(leaf, 2), state.frame_inputs)
  return StreamState(one(state.latents, 2), one(state.clean, 2), one(state.total, 3), frame_inputs)


def _predict_own_shards(layout: StreamLayout, mesh: Any) -> PredictLevel:
  """Each device predicts the windows that start in its shard of a block; overlaps are exchanged with its neighbors."""
  rule, shard = layout.rule, layout.block // mesh.shape[sharding.DATA]
  overlap, shards_frames = rule.overlap, mesh.shape[sharding.FRAMES] > 1

  def predict(denoise, inputs, total, /):
    def one_by_one(*arguments):
      """Windows one after another: convolutions over [window * frame] stay sharded only if there is one window."""

      def one(example):
        latents, timestep, context, frame_inputs, mask = jax.tree.map(lambda leaf: leaf[None], example)
        latents, frame_inputs = jax.tree.map(sharding.shard_frames, (latents, frame_inputs))
        return denoise(latents, timestep, context, frame_inputs, mask)[0]

      return jax.lax.map(one, arguments)

    def on_device(latents, step, contexts, frame_inputs, total, mask, weights):
      """The computation of one device: leaves [R shard ...], windows [m/devices T]."""
      is_first = jax.lax.axis_index(sharding.DATA) == 0

      def extended(leaf: Array) -> Array:
        if not overlap:
          return leaf[0]
        own_first = jnp.where(is_first & (leaf.shape[0] > 1), leaf[-1], leaf[0])[:overlap]
        return jnp.concatenate([leaf[0], sharding.from_next_device(own_first)])

      timestep, guided = step
      own_latents, own_frame_inputs = jax.tree.map(extended, (latents, frame_inputs))
      own = WindowInputs(
        latents=own_latents,
        timestep=timestep,
        branches=dataclasses.replace(inputs.branches, contexts=contexts, guided=guided),
        frame_inputs=own_frame_inputs,
        frames=(jnp.arange(mask.shape[0]) * rule.stride)[:, None] + jnp.arange(rule.window),
        mask=mask,
        weights=weights,
      )
      empty = jnp.zeros((len(own.branches), *own_latents.shape), own_latents.dtype)
      sums = predict_windows(one_by_one if shards_frames else denoise, own, empty)
      total = total.at[:, 0].add(sums[:, :shard])
      if overlap:
        received = sharding.from_previous_device(sums[:, shard:])
        same_block, next_block = jnp.where(is_first, 0, received), jnp.where(is_first, received, 0)
        total = total.at[:, 0, :overlap].add(same_block).at[:, -1, :overlap].add(next_block)
      return total

    run = sharding.shard_map_windows(on_device, mesh)
    step, contexts = (inputs.timestep, inputs.branches.guided), inputs.branches.contexts
    return run(inputs.latents, step, contexts, inputs.frame_inputs, total, inputs.mask, inputs.weights)

  return predict
