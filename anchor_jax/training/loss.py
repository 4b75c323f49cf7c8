"""The training loss of each part, a sum of loss terms: loss(trained, frozen, batch, key) -> (loss, metrics).

A batch is {"target": {field: [B ...], or [B T ...] for clips}, "reference": {field: [B ...]}}, as data/loader.py makes
it; `batch_fields` lists the fields. All randomness comes from `key`.

A loss term is a class with its weight (`Term`) and one line in a table below, where the settings of the run choose it:
`PICTURE_TERMS` compares the decoded pictures of body and head with the true ones, `AUTOENCODER_TERMS` those of the
autoencoder. The denoising error itself is in diffusion/loss.py.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from anchor_jax.config.run import RunConfig
from anchor_jax.core.shapes import Array, Float, Int, PyTree
from anchor_jax.diffusion.loss import denoising_loss
from anchor_jax.diffusion.schedule import make_schedule
from anchor_jax.evaluation.published import lpips
from anchor_jax.evaluation.published.torch_layers import Params
from anchor_jax.models.controlnet import FrameInputs
from anchor_jax.models.lora import merge_weights
from anchor_jax.models.networks import Networks
from anchor_jax.models.pictures import to_signed
from anchor_jax.store.weights import trained_keys
from anchor_jax.texture.channels import channel_groups, to_unit
from anchor_jax.training.accumulation import Loss
from anchor_jax.training.draws import (
  LPIPS_STRIDE,
  Batch,
  Draws,
  decoded_rows,
  draw_autoencoder,
  draw_diffusion,
  drop_groups,
  pixel_weights,
  shift_groups,
)
from anchor_jax.training.perceptual import LPIPS
from anchor_jax.training.precompute import LOOKED_UP

log = logging.getLogger(__name__)

KL_WEIGHT = 1e-6  # Rombach et al. 2022, appendix G: a weak pull towards unit variance
EDGE_WEIGHT = 1.0  # keeps eyes, mouths and fingers sharp without a GAN loss
_SQUARE = 8  # pixels; the size of an eye or a finger in frames of 128 pixels
_LEAST_ENERGY = 4e-5  # a change of a third of a gray level; keeps the slope of the root finite in flat squares


# ---- terms -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Painted:
  """Pictures that a part painted, beside the true ones: what the loss terms compare.

  Attributes:
    pictures, truth: pixels from -1 to 1.
    weights: loss weight of each pixel, 1 on average over the batch; None weighs all pixels alike.
    moments: mean and log variance of the latents' posterior; None unless the autoencoder is trained.
    lpips: weights of LPIPS's network; None unless config.lpips.
    lpips_offsets: pixels by which each picture is moved before LPIPS, down and across; None moves none.
  """

  pictures: Float[Array, "B H W 3"]
  truth: Float[Array, "B H W 3"]
  weights: Float[Array, "B H W"] | None = None
  moments: tuple[Float[Array, "B h w C"], Float[Array, "B h w C"]] | None = None
  lpips: Params | None = None
  lpips_offsets: Int[Array, "B 2"] | None = None

  def error(self) -> Float[Array, "B H W 3"]:
    """Weighted difference of the pictures from the true ones."""
    return self._error

  @functools.cached_property
  def _error(self) -> Float[Array, "B H W 3"]:  # one array for all terms, so that gradients add up in it
    error = self.pictures - self.truth
    return error if self.weights is None else error * self.weights[..., None]


@runtime_checkable
class Term(Protocol):
  """One addend of a part's loss."""

  @property
  def weight(self) -> float:
    """Factor of the term's value."""
    ...

  def __call__(self, painted: Painted) -> Float[Array, ""]:
    """The value before weighting: a mean over the pictures, so that it averages over accumulation parts."""
    ...


@dataclasses.dataclass(frozen=True)
class AbsoluteError:
  """Mean absolute error of pixels."""

  weight: float = 1.0

  def __call__(self, painted: Painted) -> Float[Array, ""]:
    """See `absolute_error`."""
    return absolute_error(painted.error())


@dataclasses.dataclass(frozen=True)
class EdgeError:
  """Mean absolute error of differences between neighboring pixels."""

  weight: float = EDGE_WEIGHT

  def __call__(self, painted: Painted) -> Float[Array, ""]:
    """See `edge_error`."""
    return edge_error(painted.error())


@dataclasses.dataclass(frozen=True)
class ContrastError:
  """Error of the contrast of small squares."""

  weight: float

  def __call__(self, painted: Painted) -> Float[Array, ""]:
    """See `contrast_error`."""
    return contrast_error(painted.pictures, painted.truth, painted.weights)


@dataclasses.dataclass(frozen=True)
class PerceptualDistance:
  """LPIPS of the pictures, moved at random: AlexNet looks at every fourth pixel, and would imprint a grid."""

  weight: float

  def __call__(self, painted: Painted) -> Float[Array, ""]:
    """See `evaluation/published/lpips.py`; a picture counts by the mean weight of its pixels."""
    params, offsets = painted.lpips, painted.lpips_offsets
    assert params is not None, "training/perceptual.py reads the weights"
    moved = lambda images: images if offsets is None else _moved(images, offsets)
    pictures, truth = (lpips.features(params, moved(images)) for images in (painted.pictures, painted.truth))
    distances = lpips.distance(params, pictures, truth)
    if painted.weights is not None:
      distances = distances * painted.weights.mean(axis=(1, 2))
    return jnp.mean(distances)


@dataclasses.dataclass(frozen=True)
class Divergence:
  """KL divergence of the latents' posterior from a unit normal; for the autoencoder only."""

  weight: float = KL_WEIGHT

  def __call__(self, painted: Painted) -> Float[Array, ""]:
    """Per picture, with `Painted.moments`."""
    assert painted.moments is not None, "only the autoencoder's loss has a posterior"
    mean, logvar = painted.moments
    return 0.5 * jnp.mean(jnp.sum(mean**2 + jnp.exp(logvar) - 1 - logvar, axis=(1, 2, 3)))


def _moved(images: Float[Array, "B H W 3"], offsets: Int[Array, "B 2"]) -> Float[Array, "B H W 3"]:
  """The pictures moved up and left by less than `LPIPS_STRIDE` pixels, with their last rows and columns repeated."""
  wide = jnp.pad(images, ((0, 0), (0, LPIPS_STRIDE - 1), (0, LPIPS_STRIDE - 1), (0, 0)), mode="edge")
  cut = lambda image, offset: jax.lax.dynamic_slice(image, (offset[0], offset[1], 0), images.shape[1:])
  return jax.vmap(cut)(wide, offsets)


# (settings) -> the term, or None to leave it out. Terms are computed and summed in this order: another one changes the
# last bits of gradients.
PICTURE_TERMS: dict[str, Callable[[RunConfig], Term | None]] = {
  "edges": lambda config: EdgeError(),
  "absolute": lambda config: AbsoluteError(),
  "contrast": lambda config: ContrastError(config.sharpness) if config.sharpness else None,
  LPIPS: lambda config: PerceptualDistance(config.lpips) if config.lpips else None,
}
AUTOENCODER_TERMS: dict[str, Callable[[RunConfig], Term | None]] = {
  "edges": lambda config: EdgeError(),
  "absolute": lambda config: AbsoluteError(),
  "kl": lambda config: Divergence(),
}


def chosen_terms(table: Mapping[str, Callable[[RunConfig], Term | None]], config: RunConfig) -> dict[str, Term]:
  """The terms of a table that the settings choose, by name."""
  terms = {name: choose(config) for name, choose in table.items()}
  return {name: term for name, term in terms.items() if term is not None}


def weighted_sum(values: Sequence[Float[Array, ""]], terms: Sequence[Term]) -> Float[Array, ""]:
  """The sum of the terms' values, each times its weight, in the order of the terms."""
  first, *rest = (term.weight * value for term, value in zip(terms, values, strict=True))
  return sum(rest, first)


def absolute_error(error: Float[Array, "B H W 3"]) -> Float[Array, ""]:
  """Mean absolute value of a difference of pictures."""
  return jnp.mean(jnp.abs(error))


def edge_error(error: Float[Array, "B H W 3"]) -> Float[Array, ""]:
  """Mean absolute change of a difference of pictures from one pixel to the next, down and across."""
  return jnp.mean(jnp.abs(jnp.diff(error, axis=1))) + jnp.mean(jnp.abs(jnp.diff(error, axis=2)))


def contrast_error(
  images: Float[Array, "B H W 3"], truth: Float[Array, "B H W 3"], weights: Float[Array, "B H W"] | None = None
) -> Float[Array, ""]:
  """Mean absolute difference in contrast between the 8 x 8 pixel squares of pictures and of the true ones.

  The contrast of a square is the root of its gradient energy per pixel, the quantity behind the metric "sharpness". It
  does not depend on where in the square the details lie. Where details are uncertain, absolute errors alone favor a
  blurred picture. Gradients are taken of means over 2 x 2 pixels; otherwise a checkerboard would be the cheapest
  contrast, and would be painted over everything uncertain.

  Args:
    images, truth: in any common unit, which is the result's; at least 8 pixels high and wide. Pixels at the right and
      bottom border that fill no square do not count.
    weights: loss weight of each pixel, 1 on average; a square has the mean weight of its pixels. None: all alike.
  """

  def means(pixels: Float[Array, "B H W"]) -> Float[Array, "B h w"]:
    batch, height, width = (pixels.shape[0], *(side // _SQUARE for side in pixels.shape[1:]))
    cropped = pixels[:, : height * _SQUARE, : width * _SQUARE]
    return cropped.reshape(batch, height, _SQUARE, width, _SQUARE).mean(axis=(2, 4))

  def contrast(images: Float[Array, "B H W 3"]) -> Float[Array, "B h w"]:
    padded = jnp.pad(images, ((0, 0), (0, 2), (0, 2), (0, 0)), mode="edge")
    smooth = (padded[:, :-1, :-1] + padded[:, 1:, :-1] + padded[:, :-1, 1:] + padded[:, 1:, 1:]) / 4
    down, across = jnp.diff(smooth, axis=1)[:, :, :-1], jnp.diff(smooth, axis=2)[:, :-1]
    energy = means(jnp.sum(jnp.square(down) + jnp.square(across), axis=-1))
    return jnp.sqrt(energy + _LEAST_ENERGY)

  error = jnp.abs(contrast(images) - contrast(truth))
  if weights is not None:
    error = error * means(weights)
  return jnp.mean(error)


# ---- losses ----------------------------------------------------------------------------------------------------------


def make_loss(config: RunConfig, networks: Networks) -> Loss:
  """The loss of config.part."""
  return _autoencoder_loss(networks, config) if config.part == "vae" else _diffusion_loss(networks, config)


def batch_fields(config: RunConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
  """The fields of target and reference that the loss of config.part reads."""
  if config.part == "vae":
    return ("frame",), ()
  looked_up = (LOOKED_UP,) * bool(config.data.pose_channels) + ("surface",) * _weighs_details(config)
  if not config.data.cache:
    return ("frame", "pose", *("keep_mask",) * (config.part == "head"), *looked_up), ("frame",)
  reference = "frame" if config.train_image_encoder else "context"
  decoded = ("frame",) * (_picture_weight(config, trained_keys(config)) > 0)
  return ("pose", "latent", *("inpaint",) * (config.part == "head"), *looked_up, *decoded), (reference,)


def _picture_weight(config: RunConfig, trained: Container[str]) -> float:
  """Weight of the decoded pictures in the loss of body or head."""
  return 1.0 if "refiner" in trained else config.pixels


def _weighs_details(config: RunConfig) -> bool:
  return config.part == "body" and bool(config.data.pose_channels) and config.detail_weight != 1


def _cell_means(pixels: Float[Array, "B T H W"], height: int) -> Float[Array, "B T h w"]:
  """Means over the pixels of each cell of a latent of this height."""
  side = pixels.shape[2] // height
  squares = pixels.reshape(*pixels.shape[:2], height, side, pixels.shape[3] // side, side)
  return squares.mean(axis=(3, 5))


def encode_batch(
  networks: Networks, weights: PyTree, batch: Batch, draws: Draws
) -> tuple[Float[Array, "..."], Float[Array, "..."] | None, Float[Array, "B N D"]]:
  """Latents of the targets, inpainting channels (head only, else None), and image tokens of the reference images.

  What the batch already holds is taken from it. The rest is encoded here; the autoencoder gets no gradient.

  Args:
    networks, weights: with the autoencoder and the image tower.
    batch: see above.
    draws: with the posterior noise from which latents are sampled; see training/draws.py.

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
    inpaint = unflat(networks.inpainting_channels(weights, frames, keep, noise))
  if context is None:
    context = networks.encode_reference(weights, reference["frame"])
  return latent, inpaint, context


def _autoencoder_loss(networks: Networks, config: RunConfig) -> Loss:
  """The terms of `AUTOENCODER_TERMS`, over reconstructed pictures."""
  terms = chosen_terms(AUTOENCODER_TERMS, config)

  def draw(batch, key):
    return draw_autoencoder(networks, batch, key)

  def value(trained, frozen, batch, draws, parts):
    images = to_signed(batch["target"]["frame"])
    mean, logvar = networks.encode_moments(trained, images)
    latents = mean + jnp.exp(0.5 * logvar) * draws["latent"]
    pictures = networks.decode_unscaled(trained, latents)
    painted = Painted(pictures, images, moments=(mean, logvar))
    values = {name: term(painted) for name, term in terms.items()}
    squared = jnp.mean(jnp.square(jnp.clip(pictures, -1, 1) - images) / 4)
    metrics = {"absolute": values["absolute"], "kl": values["kl"], "squared": squared}
    metrics |= {"latent_mean": jnp.mean(mean), "latent_power": jnp.mean(jnp.square(mean))}
    return weighted_sum(tuple(values.values()), tuple(terms.values())), metrics

  def finish(metrics):
    variance = jnp.maximum(metrics["latent_power"] - jnp.square(metrics["latent_mean"]), 0)
    reported = {name: metrics[name] for name in ("absolute", "kl")}
    return {**reported, "psnr": -10 * jnp.log10(metrics["squared"]), "latent_std": jnp.sqrt(variance)}

  return Loss(draw, value, finish=finish)


def _picture_loss(
  networks: Networks,
  weights: PyTree,
  target: dict[str, Array],
  latents: Float[Array, "B T h w C"],
  looked_up: Float[Array, "B T H W D"] | None,
  weights_of_pixels: Float[Array, "B T H W"] | None,
  config: RunConfig,
  draws: Draws,
  parts: int = 1,
) -> Float[Array, ""]:
  """The terms of `PICTURE_TERMS`, over the decoded pictures of the examples that `draws` chose.

  Pictures are refined if the part has a refiner. They are decoded from the denoiser's estimate of the clean latents,
  with all its faults: the refiner gets the same input when videos are sampled. The gradient reaches the denoiser
  through the frozen decoder, so that it also learns from pixels: an error in fingers is small in latents.

  All arguments belong to one of `parts` parts of a batch; the mean over the parts is the value of the batch.
  """
  count = parts * len(latents)
  total = int(decoded_rows(count, config.refined).sum())
  slots = -(-total // parts)  # pictures decoded per part, the same number in each; some slots stay empty
  slot_weights, rows = None, slice(None, None, -(-count // config.refined))
  if parts > 1:
    rows = jnp.nonzero(draws["decoded"], size=slots, fill_value=0)[0]
    slot_weights = (jnp.arange(slots) < jnp.sum(draws["decoded"])) * (slots * parts / total)
  terms = tuple(chosen_terms(PICTURE_TERMS, config).values())

  def error() -> Float[Array, ""]:
    first = lambda leaf: (leaf[:, 0] if leaf.ndim == 5 else leaf)[rows]
    decoded = networks.decode(weights, first(latents))
    pictures = networks.refine(weights, decoded, first(target["pose"]), None if looked_up is None else first(looked_up))
    counted = None if slot_weights is None else jnp.broadcast_to(slot_weights[:, None, None], pictures.shape[:3])
    if weights_of_pixels is not None:
      normalized = weights_of_pixels[rows, 0] / draws["pixel_mean"][rows][:, None, None]
      counted = normalized if counted is None else counted * normalized
    offsets = draws["lpips_offsets"][rows] if LPIPS in weights else None
    painted = Painted(
      2 * pictures - 1, to_signed(first(target["frame"])), counted, lpips=weights.get(LPIPS), lpips_offsets=offsets
    )
    return weighted_sum([term(painted) for term in terms], terms)

  if total < parts:  # a part without pictures decodes none
    return jax.lax.cond(jnp.any(draws["decoded"]), error, lambda: jnp.zeros(()))
  return error()


def _diffusion_loss(networks: Networks, config: RunConfig) -> Loss:
  """The denoising loss plus the weighted loss of decoded pictures, for body and head; a frame is a clip of length 1."""
  schedule = make_schedule(networks.model.schedule)
  groups = channel_groups(config.data.pose_channels)
  weight = _picture_weight(config, trained_keys(dataclasses.replace(config, model=networks.model)))
  decoded = config.refined if weight else 0
  if unused := [name for name in ("sharpness", LPIPS) if getattr(config, name) and not decoded]:
    log.warning("config.%s has no effect: this run decodes no pictures, set config.pixels above 0", unused[0])

  def draw(batch, key):
    return draw_diffusion(config, networks, schedule, batch, decoded, key)

  def value(trained, frozen, batch, draws, parts):
    weights = merge_weights(frozen, trained, config.lora)
    latent, inpaint, context = encode_batch(networks, weights, batch, draws)
    pose = batch["target"]["pose"]
    as_clips = lambda leaf: leaf if pose.ndim == 5 else leaf[:, None]
    clean = as_clips(latent)
    context = jnp.where(draws["dropped"], weights["null_context"], context)
    looked_up = batch["target"].get(LOOKED_UP)
    if looked_up is not None:
      looked_up = to_unit(as_clips(looked_up))
      looked_up = shift_groups(looked_up, groups, config.condition_jitter, draws["shifts"])
      looked_up = drop_groups(looked_up, groups, draws["group_mask"])
    features = networks.embed_pose(weights, as_clips(pose), looked_up)
    inputs = FrameInputs(features, None if inpaint is None else as_clips(inpaint))
    surface = batch["target"].get("surface")
    pixels = None if surface is None else pixel_weights(as_clips(surface), config.detail_weight)
    cells = None if pixels is None else _cell_means(pixels, clean.shape[2])

    def denoise(latents, timesteps, context, frame_inputs, frame_mask):
      return networks.denoise(weights, latents, timesteps, context, frame_inputs, frame_mask)

    losses, estimate = denoising_loss(
      denoise, schedule, clean, draws["noise"], draws["timesteps"], context, inputs, config.snr_gamma, cells
    )
    denoising = jnp.mean(losses)
    if not decoded:
      return denoising, {}
    pictures = _picture_loss(networks, weights, batch["target"], estimate, looked_up, pixels, config, draws, parts)
    return denoising + weight * pictures, {"denoising": denoising, "refining": pictures}

  return Loss(draw, value, (lambda count: decoded_rows(count, decoded)) if decoded else None)
