"""Random draws and choices of a training step, made for the full batch before it is split into accumulation parts.

Which examples start from pure noise, which lose their condition, which pictures are decoded: the batch decides, so that
the step is the same however many parts it is computed in. All arrays have examples as their leading axis and are at
most as large as the latents, a fraction of the batch's pictures; activations exist one part at a time.
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
from anchor_jax.training.precompute import LOOKED_UP

Batch = dict[str, Any]
Draws = dict[str, Array]  # by name, each [B ...]
LPIPS_STRIDE = 4  # pixels; that of AlexNet's first convolution


def draw_autoencoder(networks: Networks, batch: Batch, key: Key[Array, ""]) -> Draws:
  """Posterior noise for the latents of a batch of pictures, as draws["latent"]."""
  count, height, width, _ = batch["target"]["frame"].shape
  vae = networks.model.vae
  return {"latent": jax.random.normal(key, (count, height // vae.stride, width // vae.stride, vae.latent_channels))}


def draw_diffusion(
  config: RunConfig, networks: Networks, schedule: Schedule, batch: Batch, decoded: int, key: Key[Array, ""]
) -> Draws:
  """The draws of body and head for a batch.

  Args:
    config, networks, schedule: of the run.
    batch: all examples of a step; see training/loss.py.
    decoded: number of examples whose pictures are decoded, see `decoded_rows`.
    key: of everything random.

  Returns:
    noise [B T h w C]
    timesteps [B], the last one for the examples that start from pure noise
    dropped [B 1 1], whether the null context replaces the context
    latent, inpaint [B (T) h w C], posterior noise, for what is not encoded in the batch already
    group_mask [B 1+G], shifts [B G 2]: see `draw_group_mask`, `draw_shifts`; only with looked-up channels
    decoded [B], whether pictures are decoded; only if `decoded` is above 0
    lpips_offsets [B 2], pixels by which a decoded picture is moved before LPIPS; only with config.lpips besides
    pixel_mean [B], the mean weight over all decoded pixels; only with surface maps besides
  """
  target, model = batch["target"], networks.model
  pose = target["pose"]
  keys = jax.random.split(key, 5)
  # folded in, since a larger split would change the first five keys
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
    "timesteps": jnp.where(starts_from_noise(count, config.last_step), len(schedule) - 1, timesteps),
    "dropped": jax.random.bernoulli(keys[1], config.condition_dropout, (count, 1, 1)),
  }
  if "latent" not in target:
    draws["latent"] = of_posterior(keys[0])
  if networks.inpaints and "inpaint" not in target:
    draws["inpaint"] = of_posterior(keys[2])
  if LOOKED_UP in target:
    groups, rate = len(channel_groups(config.data.pose_channels)), config.condition_dropout
    draws["group_mask"] = draw_group_mask(count, groups, rate, drop_key)
    draws["shifts"] = draw_shifts(count, groups, config.condition_jitter, rate, jitter_key)
  if decoded:
    draws["decoded"] = jnp.asarray(decoded_rows(count, decoded))
    if config.lpips:
      draws["lpips_offsets"] = jax.random.randint(jax.random.fold_in(key, 7), (count, 2), 0, LPIPS_STRIDE)
    if "surface" in target:
      surface = target["surface"] if pose.ndim == 4 else target["surface"][:, 0]
      weights = pixel_weights(surface[:: -(-count // decoded)], config.detail_weight)
      draws["pixel_mean"] = jnp.broadcast_to(jnp.mean(weights), (count,))
  return draws


def starts_from_noise(count: int, share: float) -> Bool[NdArray, "{count}"]:
  """Which examples of a batch start from pure noise: every 1 / share-th, which balances the devices."""
  return (np.arange(count) * share) % 1 < share


def decoded_rows(count: int, most: int) -> Bool[NdArray, "{count}"]:
  """Which examples of a batch are decoded: at most `most`, evenly spaced."""
  return np.arange(count) % -(-count // most) == 0


def pixel_weights(surface: UInt8[Array, "*B H W 3"], detail_weight: float) -> Float[Array, "*B H W"]:
  """Loss weight of each pixel: `detail_weight` where the surface map shows face or hands, 1 elsewhere."""
  return jnp.where(jnp.asarray(DETAILS)[surface[..., 0]], detail_weight, 1.0)


def draw_group_mask(count: int, groups: int, rate: float, key: Key[Array, ""]) -> Bool[Array, "{count} G"]:
  """Dropout mask of looked-up channels; column 0 stands for all channels, columns 1 to G - 1 for one group each.

  Args:
    count: number of examples.
    groups: number of groups; G is one more.
    rate: probability of False, independent for each entry.
    key: of the random choice.
  """
  return jax.random.bernoulli(key, 1 - rate, (count, 1 + groups))


def draw_shifts(
  count: int, groups: int, most: int, rate: float, key: Key[Array, ""]
) -> Int[Array, "{count} {groups} 2"]:
  """Shift in pixels, down and to the right, of each group of looked-up channels.

  Args:
    count: number of examples.
    groups: number of groups.
    most: largest shift in pixels; 0 shifts nothing.
    rate: probability with which a group of an example is shifted.
    key: of the random choice.
  """
  if not most:
    return jnp.zeros((count, groups, 2), jnp.int32)
  keys = jax.random.split(key)
  shifts = jax.random.randint(keys[0], (count, groups, 2), -most, most + 1)
  return jnp.where(jax.random.bernoulli(keys[1], rate, (count, groups))[..., None], shifts, 0)


def drop_groups(
  channels: Float[Array, "B T H W C"], groups: tuple[int, ...], mask: Bool[Array, "B G"]
) -> Float[Array, "B T H W C"]:
  """The channels with dropped groups set to 0, the value of unknown texture; all frames of an example are alike.

  The network learns to fill what the look-up lacks, and to rely on no single group.

  Args:
    channels: looked-up channels.
    groups: number of channels of each group.
    mask: from `draw_group_mask`.
  """
  group_of_channel = np.repeat(np.arange(len(groups)), groups)
  kept = mask[:, :1] & mask[:, 1 + group_of_channel]
  return jnp.where(kept[:, None, None, None], channels, 0)


def shift_groups(
  channels: Float[Array, "B T H W C"], groups: tuple[int, ...], most: int, shifts: Int[Array, "B G 2"]
) -> Float[Array, "B T H W C"]:
  """The channels with each group shifted by up to `most` pixels; all frames of an example are alike.

  The body in a new film fits the pose's solids less well than the bodies of the training data, whose texture was
  gathered with the same solids: shifts teach the network to correct small misfits.

  Args:
    channels: looked-up channels.
    groups: number of channels of each group.
    most: largest shift in pixels; 0 returns the channels unchanged.
    shifts: from `draw_shifts`.
  """
  if not most:
    return channels

  def shifted(group: Float[Array, "T H W D"], shift: Int[Array, "2"]) -> Float[Array, "T H W D"]:
    padded = jnp.pad(group, ((0, 0), (most, most), (most, most), (0, 0)), mode="edge")
    return jax.lax.dynamic_slice(padded, (0, most - shift[0], most - shift[1], 0), group.shape)

  split = jnp.split(channels, np.cumsum(groups)[:-1], axis=-1)
  return jnp.concatenate([jax.vmap(shifted)(group, shifts[:, index]) for index, group in enumerate(split)], axis=-1)
