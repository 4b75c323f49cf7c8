"""The loss of each part: loss(trained, frozen, batch, key) -> (loss, metrics), with randomness as an argument.

A batch is {"target": {field: [B ...], or [B T ...] for clips}, "reference": {field: [B ...]}}, as data/loader.py makes
it; `batch_fields` says which fields.
"""

import dataclasses
from collections.abc import Container

import jax
import jax.numpy as jnp

from anchor_jax.config.run import RunConfig
from anchor_jax.core.shapes import Array, Float, PyTree
from anchor_jax.diffusion.loss import denoising_loss
from anchor_jax.diffusion.schedule import make_schedule
from anchor_jax.models.lora import merge_weights
from anchor_jax.models.networks import Networks, to_signed
from anchor_jax.store.weights import trained_keys
from anchor_jax.texture.channels import channel_groups, to_unit
from anchor_jax.training.accumulation import Loss
from anchor_jax.training.draws import (
  Batch,
  Draws,
  draw_autoencoder,
  draw_diffusion,
  drop_groups,
  pixel_weights,
  shift_groups,
  shown_rows,
)

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


def _cell_means(pixels: Float[Array, "B T H W"], height: int) -> Float[Array, "B T h w"]:
  """Means over the pixels of each cell of a latent of this height."""
  side = pixels.shape[2] // height
  squares = pixels.reshape(*pixels.shape[:2], height, side, pixels.shape[3] // side, side)
  return squares.mean(axis=(3, 5))


def encode_batch(
  networks: Networks, weights: PyTree, batch: Batch, draws: Draws
) -> tuple[Float[Array, "..."], Float[Array, "..."] | None, Float[Array, "B N D"]]:
  """Latents of the targets, inpainting channels for the head (else None), and image tokens of the references.

  Those that the batch has already are taken from it; the others are encoded here, with no gradient for the autoencoder.

  Args:
    networks, weights: with the autoencoder and the image tower.
    batch: see above.
    draws: with the noise of the posteriors that latents are sampled from; see training/draws.py.

  Returns:
    latent [B h w C], inpaint [B h w 1+C], both [B T ...] for clips, and context [B N D].
  """
  target, reference = batch["target"], batch["reference"]
  leading = target["pose"].shape[:-3]  # [B], or [B T] for clips
  flat = lambda leaf: leaf.reshape(-1, *leaf.shape[-3:])
  unflat = lambda leaf: jax.lax.stop_gradient(leaf.reshape(*leading, *leaf.shape[1:]))
  latent, inpaint, context = target.get("latent"), target.get("inpaint"), reference.get("context")
  if latent is None:
    latent = unflat(networks.encode(weights, to_signed(flat(target["frame"])), flat(draws["latent"])))
  if networks.inpaints and inpaint is None:
    keep = flat(target["keep_mask"])[..., 0] > 127
    frames, noise = to_signed(flat(target["frame"])), flat(draws["inpaint"])
    inpaint = unflat(networks.inpaint_condition(weights, frames, keep, noise))
  if context is None:
    context = networks.encode_reference(weights, reference["frame"])
  return latent, inpaint, context


def _autoencoder_loss(networks: Networks) -> Loss:
  """Absolute error of pixels and of differences between neighbouring pixels, and a small KL term."""

  def draw(batch, key):
    return draw_autoencoder(networks, batch, key)

  def value(trained, frozen, batch, draws, parts):
    images = to_signed(batch["target"]["frame"])
    mean, logvar = networks.encode_moments(trained, images)
    latents = mean + jnp.exp(0.5 * logvar) * draws["latent"]
    made = networks.decode_unscaled(trained, latents)
    error = made - images
    absolute, edges = pixel_errors(error)
    kl = 0.5 * jnp.mean(jnp.sum(mean**2 + jnp.exp(logvar) - 1 - logvar, axis=(1, 2, 3)))
    squared = jnp.mean(jnp.square(jnp.clip(made, -1, 1) - images) / 4)
    metrics = {"absolute": absolute, "kl": kl, "squared": squared}
    metrics |= {"latent_mean": jnp.mean(mean), "latent_power": jnp.mean(jnp.square(mean))}
    return absolute + EDGE_WEIGHT * edges + KL_WEIGHT * kl, metrics

  def finish(metrics):
    variance = jnp.maximum(metrics["latent_power"] - jnp.square(metrics["latent_mean"]), 0)
    kept = {name: metrics[name] for name in ("absolute", "kl")}
    return {**kept, "psnr": -10 * jnp.log10(metrics["squared"]), "latent_std": jnp.sqrt(variance)}

  return Loss(draw, value, finish=finish)


def pixel_errors(
  error: Float[Array, "B H W 3"], weights: Float[Array, "B H W"] | None = None
) -> tuple[Float[Array, ""], Float[Array, ""]]:
  """Returns mean absolute errors of pixels and of differences between neighbouring ones, times `weights`."""
  if weights is not None:
    error = error * weights[..., None]  # also the differences count more there
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
    weights: how much each pixel counts, where 1 is the mean; a square counts as much as its mean; None: all alike.
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
    error = error * means(weights)
  return jnp.mean(error)


def _picture_loss(
  networks: Networks,
  weights: PyTree,
  target: dict[str, Array],
  latents: Float[Array, "B T h w C"],
  pose_channels: Float[Array, "B T H W D"] | None,
  weights_of_pixels: Float[Array, "B T H W"] | None,
  config: RunConfig,
  draws: Draws,
  parts: int = 1,
) -> Float[Array, ""]:
  """The error of decoded pictures, in the units of the autoencoder's, of the examples that `draws` chose.

  They are refined where the part has a refiner. They are decoded from what the denoiser estimated from noise, with all
  its faults: those are what the refiner sees when videos are sampled. The gradient reaches the denoiser through the
  frozen decoder, so it also learns from pixels, of which latents say too little where fingers are.

  All arguments are of one of `parts` parts of a batch; the mean over the parts is the error of the batch.
  """
  whole = parts * len(latents)
  total = int(shown_rows(whole, config.refined).sum())
  places = -(-total // parts)  # in each part, the same number for all: some stay empty
  share, chosen = None, slice(None, None, -(-whole // config.refined))
  if parts > 1:
    chosen = jnp.nonzero(draws["shown"], size=places, fill_value=0)[0]
    share = (jnp.arange(places) < jnp.sum(draws["shown"])) * (places * parts / total)

  def error() -> Float[Array, ""]:
    first = lambda leaf: (leaf[:, 0] if leaf.ndim == 5 else leaf)[chosen]
    decoded = networks.decode(weights, first(latents))
    made = networks.refine(
      weights, decoded, first(target["pose"]), None if pose_channels is None else first(pose_channels)
    )
    counted = None if share is None else jnp.broadcast_to(share[:, None, None], made.shape[:3])
    if weights_of_pixels is not None:
      normalised = weights_of_pixels[chosen, 0] / draws["pixel_mean"][chosen][:, None, None]
      counted = normalised if counted is None else counted * normalised
    made, truth = 2 * made - 1, to_signed(first(target["frame"]))
    absolute, edges = pixel_errors(made - truth, counted)
    contrast = config.sharpness * contrast_error(made, truth, counted) if config.sharpness else 0
    return absolute + EDGE_WEIGHT * edges + contrast

  if total < parts:  # a part without pictures decodes none
    return jax.lax.cond(jnp.any(draws["shown"]), error, lambda: jnp.zeros(()))
  return error()


def _diffusion_loss(networks: Networks, config: RunConfig) -> Loss:
  """The denoising loss of clips (a frame is a clip of length one) given pose and appearance; for body and head."""
  schedule = make_schedule(networks.model.schedule)
  groups = channel_groups(config.data.appearance)
  weight = _pixel_weight(config, trained_keys(dataclasses.replace(config, model=networks.model)))
  shown = config.refined if weight else 0

  def draw(batch, key):
    return draw_diffusion(config, networks, schedule, batch, shown, key)

  def value(trained, frozen, batch, draws, parts):
    weights = merge_weights(frozen, trained, config.lora)
    latent, inpaint, context = encode_batch(networks, weights, batch, draws)
    pose = batch["target"]["pose"]
    as_clips = lambda leaf: leaf if pose.ndim == 5 else leaf[:, None]
    clean = as_clips(latent)
    context = jnp.where(draws["dropped"], weights["null_context"], context)
    looked_up = batch["target"].get("conditions")
    if looked_up is not None:
      looked_up = to_unit(as_clips(looked_up))
      looked_up = shift_groups(looked_up, groups, config.condition_jitter, draws["shifts"])
      looked_up = drop_groups(looked_up, groups, draws["kept"])
    condition = {"pose": networks.embed_pose(weights, as_clips(pose), looked_up)}
    if inpaint is not None:
      condition["inpaint"] = as_clips(inpaint)
    surface = batch["target"].get("surface")
    pixels = None if surface is None else pixel_weights(as_clips(surface), config.detail_weight)
    cells = None if pixels is None else _cell_means(pixels, clean.shape[2])

    def denoise(latents, timesteps, context, condition, frame_mask):
      return networks.denoise(weights, latents, timesteps, context, condition, frame_mask)

    losses, estimate = denoising_loss(
      denoise, schedule, clean, draws["noise"], draws["timesteps"], context, condition, config.snr_gamma, cells
    )
    denoising = jnp.mean(losses)
    if not shown:
      return denoising, {}
    pictures = _picture_loss(networks, weights, batch["target"], estimate, looked_up, pixels, config, draws, parts)
    return denoising + weight * pictures, {"denoising": denoising, "refining": pictures}

  return Loss(draw, value, (lambda count: shown_rows(count, shown)) if shown else None)
