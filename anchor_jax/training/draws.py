"""What a training step draws and chooses for its whole batch, before the batch is split into parts.

Which examples start from pure noise, which lose their condition, whose pictures are decoded: all that is a matter of
the batch, so a batch in parts must not choose anew in each. Everything here has examples as its leading axis and is at
most as large as the latents, a small share of the batch's pictures; activations are left to the parts.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.body.charts import DETAILS
from anchor_jax.config.run import RunConfig
from anchor_jax.core.shapes import Array, Bool, Float, Int, Key, NdArray, UInt8
from anchor_jax.diffusion.schedule import Schedule
from anchor_jax.models.networks import Networks
from anchor_jax.texture.channels import channel_groups

Batch = dict[str, Any]
Draws = dict[str, Array]  # by name, each [B ...]


def draw_autoencoder(networks: Networks, batch: Batch, key: Key[Array, ""]) -> Draws:
  """The noise with which the latents of a batch of pictures are sampled from their posteriors."""
  count, height, width, _ = batch["target"]["frame"].shape
  vae = networks.model.vae
  return {"latent": jax.random.normal(key, (count, height // vae.stride, width // vae.stride, vae.latent_channels))}


def draw_diffusion(
  config: RunConfig, networks: Networks, schedule: Schedule, batch: Batch, shown: int, key: Key[Array, ""]
) -> Draws:
  """What the loss of body or head draws and chooses for a batch.

  Args:
    config, networks, schedule: of the run.
    batch: all examples of a step; see training/loss.py.
    shown: examples whose pictures are decoded, see `shown_rows`; 0 decodes none.
    key: of all that is random.

  Returns:
    noise [B T h w C]
    timesteps [B], the last one for the examples that start from pure noise
    dropped [B 1 1], whether the context is replaced by the null context
    latent, inpaint [B (T) h w C], noise of the posteriors, for what the batch has not encoded already
    kept [B 1+G] and shifts [B G 2] of the groups of looked-up channels, where there are such
    shown [B], whether pictures are decoded, and pixel_mean [B], the mean weight of all the pixels that are decoded
  """
  target, model = batch["target"], networks.model
  pose = target["pose"]
  keys = jax.random.split(key, 5)
  # not further keys of the split, which would change the others
  drop_key, jitter_key = (jax.random.fold_in(key, number) for number in (5, 6))
  count, leading = len(pose), pose.shape[:-3]  # [B], or [B T] for clips
  height, width = (side // model.stride for side in pose.shape[-3:-1])
  latent = (height, width, model.vae.latent_channels)

  def of_posterior(key: Key[Array, ""]) -> Array:
    return jax.random.normal(key, (int(np.prod(leading)), *latent)).reshape(*leading, *latent)

  clip = leading[1:] or (1,)
  timesteps = jax.random.randint(keys[4], (count,), 0, len(schedule))
  draws = {
    "noise": jax.random.normal(keys[3], (count, *clip, *latent)),
    "timesteps": jnp.where(at_last_step(count, config.last_step), len(schedule) - 1, timesteps),
    "dropped": jax.random.bernoulli(keys[1], config.condition_dropout, (count, 1, 1)),
  }
  if "latent" not in target:
    draws["latent"] = of_posterior(keys[0])
  if networks.inpaints and "inpaint" not in target:
    draws["inpaint"] = of_posterior(keys[2])
  if "conditions" in target:
    groups, rate = len(channel_groups(config.data.appearance)), config.condition_dropout
    draws["kept"] = draw_kept(count, groups, rate, drop_key)
    draws["shifts"] = draw_shifts(count, groups, config.condition_jitter, rate, jitter_key)
  if shown:
    rows = shown_rows(count, shown)
    draws["shown"] = jnp.asarray(rows)
    if "surface" in target:
      surface = target["surface"] if pose.ndim == 4 else target["surface"][:, 0]
      decoded = pixel_weights(surface[:: -(-count // shown)], config.detail_weight)
      draws["pixel_mean"] = jnp.broadcast_to(jnp.mean(decoded), (count,))
  return draws


def at_last_step(count: int, share: float) -> Bool[NdArray, "{count}"]:
  """Which examples of a batch start from pure noise: every 1 / share-th, so that all devices have as many."""
  return (np.arange(count) * share) % 1 < share


def shown_rows(count: int, most: int) -> Bool[NdArray, "{count}"]:
  """Which examples of a batch are decoded: at most `most`, spread evenly."""
  return np.arange(count) % -(-count // most) == 0


def pixel_weights(surface: UInt8[Array, "*B H W 3"], detail_weight: float) -> Float[Array, "*B H W"]:
  """How much each pixel counts: `detail_weight` where a surface map shows face or hands, 1 elsewhere."""
  return jnp.where(jnp.asarray(DETAILS)[surface[..., 0]], detail_weight, 1.0)


def draw_kept(count: int, groups: int, rate: float, key: Key[Array, ""]) -> Bool[Array, "{count} G"]:
  """Whether each example keeps its looked-up channels: first all of them, then each of the groups.

  Args:
    count: of examples.
    groups: number of groups; G is one more.
    rate: probability with which an example loses each group, and independently all of them.
    key: of the random choice.
  """
  return jax.random.bernoulli(key, 1 - rate, (count, 1 + groups))


def draw_shifts(
  count: int, groups: int, most: int, rate: float, key: Key[Array, ""]
) -> Int[Array, "{count} {groups} 2"]:
  """By how many pixels, down and to the right, each group of each example is shifted.

  Args:
    count: of examples.
    groups: number of groups.
    most: pixels; 0 shifts nothing.
    rate: probability with which each group of an example is shifted.
    key: of the random choice.
  """
  if not most:
    return jnp.zeros((count, groups, 2), jnp.int32)
  keys = jax.random.split(key)
  ways = jax.random.randint(keys[0], (count, groups, 2), -most, most + 1)
  return jnp.where(jax.random.bernoulli(keys[1], rate, (count, groups))[..., None], ways, 0)


def drop_groups(
  pose_channels: Float[Array, "B T H W C"], groups: tuple[int, ...], kept: Bool[Array, "B G"]
) -> Float[Array, "B T H W C"]:
  """The channels with some groups of them set to 0, as where nothing is known, for all frames of an example alike.

  So the network repairs what the look-up lacks, and does not trust any one group.

  Args:
    pose_channels: looked up channels.
    groups: number of channels of each group.
    kept: see `draw_kept`.
  """
  of_channel = np.repeat(np.arange(len(groups)), groups)
  channels = kept[:, :1] & kept[:, 1 + of_channel]
  return jnp.where(channels[:, None, None, None], pose_channels, 0)


def shift_groups(
  pose_channels: Float[Array, "B T H W C"], groups: tuple[int, ...], most: int, shifts: Int[Array, "B G 2"]
) -> Float[Array, "B T H W C"]:
  """The channels with some groups of them shifted by up to `most` pixels, for all frames of an example alike.

  Real bodies never fit the pose's solids as well as they do in training data made from them, so the network learns to
  repair small misfits.

  Args:
    pose_channels: looked up channels.
    groups: number of channels of each group.
    most: pixels; 0 changes nothing.
    shifts: see `draw_shifts`.
  """
  if not most:
    return pose_channels

  def shift(group: Float[Array, "T H W D"], way: Int[Array, "2"]) -> Float[Array, "T H W D"]:
    padded = jnp.pad(group, ((0, 0), (most, most), (most, most), (0, 0)), mode="edge")
    return jax.lax.dynamic_slice(padded, (0, most - way[0], most - way[1], 0), group.shape)

  parts = jnp.split(pose_channels, np.cumsum(groups)[:-1], axis=-1)
  return jnp.concatenate([jax.vmap(shift)(part, shifts[:, index]) for index, part in enumerate(parts)], axis=-1)
