"""A stream's windows over several devices: each holds its own part of every block, and only overlaps travel.

A level's block of m windows is cut along its frames into as many parts as the mesh's data axis has devices. A device's
windows reach `overlap` frames into the next device's part, so before predicting each device sends the first frames of
its part to its left neighbour, and afterwards the sums that belong there to its right neighbour. The last device's
neighbour is the first, whose frames then are those of the level's next block. Windows may be cut further along their
frames, over the mesh's frames axis: there the compiler gathers attention's keys and values.
"""

from typing import Any

import jax
import jax.numpy as jnp

from anchor_jax import parallel
from anchor_jax.diffusion.guidance import Branches
from anchor_jax.diffusion.sampler import predict_windows
from anchor_jax.diffusion.stream import StreamLayout
from anchor_jax.errors import UserError
from anchor_jax.shapes import Array


def distribute_windows(layout: StreamLayout, mesh: Any):
  """A `predict_level` for `stream.make_tick` over the devices of a mesh (of `parallel.sampling_mesh`).

  Raises:
    UserError: the windows can't be shared out evenly.
  """
  rule, devices, frame_devices = layout.rule, mesh.shape[parallel.DATA], mesh.shape[parallel.FRAMES]
  overlap, part = rule.overlap, layout.block // devices
  if layout.together % devices:
    raise UserError(f"{layout.together} windows at a time can't be shared by {devices} devices: use a multiple")
  if rule.tail != "ragged" and devices > 1:
    raise UserError("windows over several devices need the ragged tail")
  if overlap > part:
    raise UserError(
      f"an overlap of {overlap} frames reaches beyond the next device's {part}: take more windows at once"
    )
  if rule.window % frame_devices:
    raise UserError(f"windows of {rule.window} frames can't be cut into {frame_devices} equal parts")

  def predict(denoise, latents, timestep, branches, condition, total, frames, mask, weights):
    def inner(*arguments):
      """One clip after another: only where the frames come first can convolutions over all of them stay cut."""

      def one(example):
        latents, timestep, context, condition, mask = jax.tree.map(lambda leaf: leaf[None], example)
        cut = jax.tree.map(parallel.shard_frames, (latents, condition))
        return denoise(cut[0], timestep, context, cut[1], mask)[0]

      return jax.lax.map(one, arguments)

    cut_denoise = inner if frame_devices > 1 else denoise

    def local(latents, timestep, contexts, condition, total, mask, weights):
      """On one device: leaves [R part ...], windows [m/devices T]."""
      is_first = jax.lax.axis_index(parallel.DATA) == 0

      def extended(leaf: Array) -> Array:
        if not overlap:
          return leaf[0]
        own_first = jnp.where(is_first & (leaf.shape[0] > 1), leaf[-1], leaf[0])[:overlap]
        return jnp.concatenate([leaf[0], parallel.from_next_device(own_first)])

      here = Branches(contexts, branches.scale, branches.interval)
      starts = jnp.arange(mask.shape[0]) * rule.stride
      rows = starts[:, None] + jnp.arange(rule.window)
      inputs, conditions = jax.tree.map(extended, (latents, condition))
      empty = jnp.zeros((len(here), *inputs.shape), inputs.dtype)
      sums = predict_windows(cut_denoise, inputs, timestep, here, conditions, empty, rows, mask, weights)
      total = total.at[:, 0].add(sums[:, :part])
      if overlap:
        beyond = parallel.from_previous_device(sums[:, part:])
        own, next_block = jnp.where(is_first, 0, beyond), jnp.where(is_first, beyond, 0)
        total = total.at[:, 0, :overlap].add(own).at[:, -1, :overlap].add(next_block)
      return total

    run = parallel.shard_map_windows(local, mesh)
    return run(latents, timestep, branches.contexts, condition, total, mask, weights)

  return predict
