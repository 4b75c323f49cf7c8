"""The loss of each part: loss(trained, frozen, batch, key) -> (loss, metrics), with randomness as an argument.

A batch is {"target": {field: [B ...], or [B T ...] for clips}, "reference": {field: [B ...]}}, as data/loader.py makes
it; `batch_fields` says which fields.
"""

from collections.abc import Callable, Container
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.config import RunConfig
from anchor_jax.diffusion.loss import denoising_loss
from anchor_jax.diffusion.schedule import make_schedule
from anchor_jax.models.conditioning import condition_groups, to_unit
from anchor_jax.models.lora import merge_weights
from anchor_jax.models.networks import Networks, to_signed
from anchor_jax.motion.surface import DETAILS
from anchor_jax.shapes import Array, Bool, Float, Int, Key, NdArray, PyTree, UInt8
from anchor_jax.store.weights import trained_keys

Batch = dict[str, Any]
Loss = Callable[[PyTree, PyTree, Batch, Key[Array, ""]], tuple[Float[Array, ""], dict[str, Array]]]

_LEAST_ENERGY = 4e-5  # a change of a third of a grey level: the root's slope stays finite in flat squares
KL_WEIGHT = 1e-6  # Rombach et al. 2022, appendix G: a weak pull towards unit variance
_SQUARE = 8  # pixels: as large as what an eye or a finger is at 128 pixels
EDGE_WEIGHT = 1.0  # of differences between neighbouring pixels: keeps eyes, mouths and fingers sharp without a GAN loss


def make_loss(config: RunConfig, networks: Networks) -> Loss:
  """The loss of config.part."""
  return _autoencoder_loss(networks) if config.part == "vae" else _diffusion_loss(networks, config)


def batch_fields(config: RunConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
  """The fields of target and reference that the loss of config.part reads."""
  if config.part == "vae":
    return ("frame",), ()
  looked_up = ("conditions",) * bool(config.data.appearance) + ("surface",) * _weighs_details(config)
  if not config.data.cache:
    return ("frame", "pose", *("keep_mask",) * (config.part == "head"), *looked_up), ("frame",)
  reference = "frame" if config.train_image_encoder else "context"
  refined = ("frame",) * (_pixel_weight(config, trained_keys(config)) > 0)
  return ("pose", "latent", *("inpaint",) * (config.part == "head"), *looked_up, *refined), (reference,)


def _pixel_weight(config: RunConfig, trained: Container[str]) -> float:
  """How much decoded pictures count in the loss of body or head."""
  return 1.0 if "refiner" in trained else config.pixels


def _weighs_details(config: RunConfig) -> bool:
  return config.part == "body" and bool(config.data.appearance) and config.detail_weight != 1


def pixel_weights(surface: UInt8[Array, "B T H W 3"], detail_weight: float) -> Float[Array, "B T H W"]:
  """How much each pixel counts: `detail_weight` where a surface map shows face or hands, 1 elsewhere."""
  return jnp.where(jnp.asarray(DETAILS)[surface[..., 0]], detail_weight, 1.0)


def _cell_means(pixels: Float[Array, "B T H W"], height: int) -> Float[Array, "B T h w"]:
  """Means over the pixels of each cell of a latent of this height."""
  side = pixels.shape[2] // height
  squares = pixels.reshape(*pixels.shape[:2], height, side, pixels.shape[3] // side, side)
  return squares.mean(axis=(3, 5))


def encode_batch(
  networks: Networks, weights: PyTree, batch: Batch, keys: tuple[Array, Array]
) -> tuple[Float[Array, "..."], Float[Array, "..."] | None, Float[Array, "B N D"]]:
  """Latents of the targets, inpainting channels for the head (else None), and appearance tokens of the references.

  Those that the batch has already are taken from it; the others are encoded here, with no gradient for the autoencoder.

  Args:
    networks, weights: with the autoencoder and the image tower.
    batch: see above.
    keys: for sampling the latents of the targets and of the masked targets from their posteriors.

  Returns:
    latent [B h w C], inpaint [B h w 1+C], both [B T ...] for clips, and context [B N D].
  """
  target, reference = batch["target"], batch["reference"]
  leading = target["pose"].shape[:-3]  # [B], or [B T] for clips
  flat = lambda leaf: leaf.reshape(-1, *leaf.shape[-3:])
  unflat = lambda leaf: jax.lax.stop_gradient(leaf.reshape(*leading, *leaf.shape[1:]))
  latent, inpaint, context = target.get("latent"), target.get("inpaint"), reference.get("context")
  if latent is None:
    latent = unflat(networks.encode(weights, to_signed(flat(target["frame"])), keys[0]))
  if networks.inpaints and inpaint is None:
    keep = flat(target["keep_mask"])[..., 0] > 127
    inpaint = unflat(networks.inpaint_condition(weights, to_signed(flat(target["frame"])), keep, keys[1]))
  if context is None:
    context = networks.encode_appearance(weights, reference["frame"])
  return latent, inpaint, context


def drop_groups(
  conditions: Float[Array, "B T H W C"], groups: tuple[int, ...], rate: float, key: Key[Array, ""]
) -> Float[Array, "B T H W C"]:
  """The channels with some groups of them set to 0, as where nothing is known, for all frames of an example alike.

  So the network repairs what the look-up lacks, and does not trust any one group.

  Args:
    conditions: looked up channels.
    groups: number of channels of each group.
    rate: probability with which an example loses each group, and independently all of them.
    key: of the random choice.
  """
  kept = jax.random.bernoulli(key, 1 - rate, (len(conditions), 1 + len(groups)))
  of_channel = np.repeat(np.arange(len(groups)), groups)
  kept = kept[:, :1] & kept[:, 1 + of_channel]
  return jnp.where(kept[:, None, None, None], conditions, 0)


def jitter_groups(
  conditions: Float[Array, "B T H W C"], groups: tuple[int, ...], most: int, rate: float, key: Key[Array, ""]
) -> Float[Array, "B T H W C"]:
  """The channels with some groups of them shifted by up to `most` pixels, for all frames of an example alike.

  Real bodies never fit the pose's solids as well as they do in training data made from them, so the network learns to
  repair small misfits.

  Args:
    conditions: looked up channels.
    groups: number of channels of each group.
    most: pixels; 0 changes nothing.
    rate: probability with which each group of an example is shifted.
    key: of the random choice.
  """
  if not most:
    return conditions
  keys = jax.random.split(key)
  count = (len(conditions), len(groups))
  ways = jax.random.randint(keys[0], (*count, 2), -most, most + 1)
  ways = jnp.where(jax.random.bernoulli(keys[1], rate, count)[..., None], ways, 0)

  def shift(group: Float[Array, "T H W D"], way: Int[Array, "2"]) -> Float[Array, "T H W D"]:
    padded = jnp.pad(group, ((0, 0), (most, most), (most, most), (0, 0)), mode="edge")
    return jax.lax.dynamic_slice(padded, (0, most - way[0], most - way[1], 0), group.shape)

  parts = jnp.split(conditions, np.cumsum(groups)[:-1], axis=-1)
  return jnp.concatenate([jax.vmap(shift)(part, ways[:, index]) for index, part in enumerate(parts)], axis=-1)


def at_last_step(count: int, share: float) -> Bool[NdArray, "{count}"]:
  """Which examples of a batch start from pure noise: every 1 / share-th, so that all devices have as many."""
  return (np.arange(count) * share) % 1 < share


def _autoencoder_loss(networks: Networks) -> Loss:
  """Absolute error of pixels and of differences between neighbouring pixels, and a small KL term."""

  def loss(trained, frozen, batch, key):
    images = to_signed(batch["target"]["frame"])
    mean, logvar = networks.encode_moments(trained, images)
    latents = mean + jnp.exp(0.5 * logvar) * jax.random.normal(key, mean.shape)
    made = networks.decode_unscaled(trained, latents)
    error = made - images
    absolute, edges = pixel_errors(error)
    kl = 0.5 * jnp.mean(jnp.sum(mean**2 + jnp.exp(logvar) - 1 - logvar, axis=(1, 2, 3)))
    psnr = -10 * jnp.log10(jnp.mean(jnp.square(jnp.clip(made, -1, 1) - images) / 4))
    metrics = {"absolute": absolute, "psnr": psnr, "kl": kl, "latent_std": jnp.std(mean)}
    return absolute + EDGE_WEIGHT * edges + KL_WEIGHT * kl, metrics

  return loss


def pixel_errors(
  error: Float[Array, "B H W 3"], weights: Float[Array, "B H W"] | None = None
) -> tuple[Float[Array, ""], Float[Array, ""]]:
  """Returns mean absolute errors of pixels and of differences between neighbouring ones, weighted with `weights`."""
  if weights is not None:
    error = error * (weights / jnp.mean(weights))[..., None]  # also the differences count more there
  edges = jnp.mean(jnp.abs(jnp.diff(error, axis=1))) + jnp.mean(jnp.abs(jnp.diff(error, axis=2)))
  return jnp.mean(jnp.abs(error)), edges


def contrast_error(
  images: Float[Array, "B H W 3"], truth: Float[Array, "B H W 3"], weights: Float[Array, "B H W"] | None = None
) -> Float[Array, ""]:
  """Mean absolute difference in contrast between the 8 x 8 pixel squares of pictures and of the true ones.

  The contrast of a square is the root of its gradient energy per pixel, of which the measure "sharpness" is made, so
  nothing is said of where in the square the details lie. Absolute errors alone are least for a blurred picture where
  details are uncertain. Gradients are those of means over 2 x 2 pixels: else a chequered pattern would be the cheapest
  contrast, and be painted over whatever is not known.

  Args:
    images, truth: in any one unit, which is the result's; at least 8 pixels high and wide. Pixels at the right and
      lower border that fill no square do not count.
    weights: how much each pixel counts, a square as much as its mean; None: all alike.
  """

  def means(pixels: Float[Array, "B H W"]) -> Float[Array, "B h w"]:
    batch, height, width = (pixels.shape[0], *(side // _SQUARE for side in pixels.shape[1:]))
    whole = pixels[:, : height * _SQUARE, : width * _SQUARE]
    return whole.reshape(batch, height, _SQUARE, width, _SQUARE).mean(axis=(2, 4))

  def contrast(images: Float[Array, "B H W 3"]) -> Float[Array, "B h w"]:
    around = jnp.pad(images, ((0, 0), (0, 2), (0, 2), (0, 0)), mode="edge")
    soft = (around[:, :-1, :-1] + around[:, 1:, :-1] + around[:, :-1, 1:] + around[:, 1:, 1:]) / 4
    down, across = jnp.diff(soft, axis=1)[:, :, :-1], jnp.diff(soft, axis=2)[:, :-1]
    energy = means(jnp.sum(jnp.square(down) + jnp.square(across), axis=-1))
    return jnp.sqrt(energy + _LEAST_ENERGY)

  error = jnp.abs(contrast(images) - contrast(truth))
  if weights is not None:
    error = error * means(weights) / jnp.mean(weights)
  return jnp.mean(error)


def _picture_loss(
  networks: Networks,
  weights: PyTree,
  target: dict[str, Array],
  latents: Float[Array, "B T h w C"],
  conditions: Float[Array, "B T H W D"] | None,
  weights_of_pixels: Float[Array, "B T H W"] | None,
  config: RunConfig,
) -> Float[Array, ""]:
  """The error of decoded pictures, in the units of the autoencoder's, of at most `config.refined` examples.

  They are refined where the part has a refiner. They are decoded from what the denoiser estimated from noise, with all
  its faults: those are what the refiner sees when videos are sampled. The gradient reaches the denoiser through the
  frozen decoder, so it also learns from pixels, of which latents say too little where fingers are.
  """
  chosen = slice(None, None, -(-len(latents) // config.refined))
  first = lambda leaf: (leaf[:, 0] if leaf.ndim == 5 else leaf)[chosen]
  decoded = networks.decode(weights, first(latents))
  conditions = None if conditions is None else first(conditions)
  made = networks.refine(weights, decoded, first(target["pose"]), conditions)
  counted = None if weights_of_pixels is None else weights_of_pixels[chosen, 0]
  made, truth = 2 * made - 1, to_signed(first(target["frame"]))
  absolute, edges = pixel_errors(made - truth, counted)
  contrast = config.sharpness * contrast_error(made, truth, counted) if config.sharpness else 0
  return absolute + EDGE_WEIGHT * edges + contrast


def _diffusion_loss(networks: Networks, config: RunConfig) -> Loss:
  """The denoising loss of clips (a frame is a clip of length one) given pose and appearance; for body and head."""
  schedule = make_schedule(networks.model.schedule)

  def loss(trained, frozen, batch, key):
    weights = merge_weights(frozen, trained, config.lora)
    keys = jax.random.split(key, 5)
    latent, inpaint, context = encode_batch(networks, weights, batch, (keys[0], keys[2]))
    pose = batch["target"]["pose"]
    as_clips = lambda leaf: leaf if pose.ndim == 5 else leaf[:, None]
    clean = as_clips(latent)
    count = clean.shape[0]
    dropped = jax.random.bernoulli(keys[1], config.condition_dropout, (count, 1, 1))
    context = jnp.where(dropped, weights["null_context"], context)
    looked_up = batch["target"].get("conditions")
    if looked_up is not None:
      groups = condition_groups(config.data.appearance)
      # not further keys of the split above, which would change the others
      drop_key, jitter_key = (jax.random.fold_in(key, number) for number in (5, 6))
      looked_up = to_unit(as_clips(looked_up))
      looked_up = jitter_groups(looked_up, groups, config.condition_jitter, config.condition_dropout, jitter_key)
      looked_up = drop_groups(looked_up, groups, config.condition_dropout, drop_key)
    condition = {"pose": networks.embed_pose(weights, as_clips(pose), looked_up)}
    if inpaint is not None:
      condition["inpaint"] = as_clips(inpaint)
    surface = batch["target"].get("surface")
    pixels = None if surface is None else pixel_weights(as_clips(surface), config.detail_weight)
    cells = None if pixels is None else _cell_means(pixels, clean.shape[2])
    noise = jax.random.normal(keys[3], clean.shape)
    timesteps = jax.random.randint(keys[4], (count,), 0, len(schedule))
    timesteps = jnp.where(at_last_step(count, config.last_step), len(schedule) - 1, timesteps)

    def denoise(latents, timesteps, context, condition, frame_mask):
      return networks.denoise(weights, latents, timesteps, context, condition, frame_mask)

    losses, estimate = denoising_loss(
      denoise, schedule, clean, noise, timesteps, context, condition, config.snr_gamma, cells
    )
    denoising = jnp.mean(losses)
    if not (weight := _pixel_weight(config, trained)):
      return denoising, {}
    shown = _picture_loss(networks, weights, batch["target"], estimate, looked_up, pixels, config)
    return denoising + weight * shown, {"denoising": denoising, "refining": shown}

  return loss
