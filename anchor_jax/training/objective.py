"""What each part learns: loss(trained, frozen, batch, key) -> (loss, metrics), with randomness as an argument."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from anchor_jax.config import RunConfig
from anchor_jax.diffusion.loss import denoising_loss
from anchor_jax.diffusion.schedule import make_schedule
from anchor_jax.models.lora import merge_weights
from anchor_jax.models.networks import Networks, to_signed
from anchor_jax.shapes import Array, Float, Key, PyTree

Objective = Callable[[PyTree, PyTree, dict[str, Array], Key[Array, ""]], tuple[Float[Array, ""], dict[str, Array]]]

KL_WEIGHT = 1e-6  # Rombach et al. 2022, appendix G: a light pull towards unit variance
EDGE_WEIGHT = 1.0  # differences of neighbours: keeps eyes, mouths and fingers sharp without an adversary


def make_objective(config: RunConfig, networks: Networks) -> Objective:
  """The loss of config.part."""
  return _autoencoding(networks) if config.part == "vae" else _denoising(networks, config)


def encode_batch(
  networks: Networks, weights: PyTree, batch: dict[str, Array], keys: tuple[Array, Array] | None = None
) -> dict[str, Array]:
  """What the denoising loss needs of a batch's pictures; whatever is in the batch already is taken from there.

  Args:
    networks, weights: with the autoencoder and the image tower.
    batch: frames, references, and for the head keep masks.
    keys: for the draws of the latents; None takes their means.

  Returns:
    latent [B h w C] and, for the head, inpaint [B h w 1+C], both constants to the gradient, and reference_context
    [B N D].
  """
  made = {name: batch[name] for name in ("latent", "inpaint", "reference_context") if name in batch}
  first, second = keys or (None, None)
  leading = batch["pose"].shape[:-3] if "pose" in batch else ()  # [B], or [B T] for clips
  flat = lambda leaf: leaf.reshape(-1, *leaf.shape[-3:])
  unflat = lambda leaf: leaf.reshape(*leading, *leaf.shape[1:]) if leading else leaf
  if "latent" not in made:
    made["latent"] = unflat(jax.lax.stop_gradient(networks.encode(weights, to_signed(flat(batch["frame"])), first)))
  if networks.inpaints and "inpaint" not in made:
    keep, frames = flat(batch["keep_mask"])[..., 0] > 127, to_signed(flat(batch["frame"]))
    made["inpaint"] = unflat(jax.lax.stop_gradient(networks.inpaint_condition(weights, frames, keep, second)))
  if "reference_context" not in made:
    made["reference_context"] = networks.encode_appearance(weights, batch["reference_frame"])
  return made


def _autoencoding(networks: Networks) -> Objective:
  """Absolute error of pixels and of neighbour differences, and a light KL term."""

  def loss(trained, frozen, batch, key):
    images = to_signed(batch["frame"])
    mean, logvar = networks.encode_moments(trained, images)
    latents = mean + jnp.exp(0.5 * logvar) * jax.random.normal(key, mean.shape)
    made = networks.decode_unscaled(trained, latents)
    error = made - images
    absolute = jnp.mean(jnp.abs(error))
    edges = jnp.mean(jnp.abs(jnp.diff(error, axis=1))) + jnp.mean(jnp.abs(jnp.diff(error, axis=2)))
    kl = 0.5 * jnp.mean(jnp.sum(mean**2 + jnp.exp(logvar) - 1 - logvar, axis=(1, 2, 3)))
    psnr = -10 * jnp.log10(jnp.mean(jnp.square(jnp.clip(made, -1, 1) - images) / 4))
    metrics = {"absolute": absolute, "psnr": psnr, "kl": kl, "latent_std": jnp.std(mean)}
    return absolute + EDGE_WEIGHT * edges + KL_WEIGHT * kl, metrics

  return loss


def _denoising(networks: Networks, config: RunConfig) -> Objective:
  """The denoising loss of frames (clips of length one) given pose and appearance; body and head."""
  schedule = make_schedule(networks.model.schedule)

  def loss(trained, frozen, batch, key):
    weights = merge_weights(frozen, trained, config.lora)
    keys = jax.random.split(key, 5)
    made = encode_batch(networks, weights, batch, (keys[0], keys[2]))
    as_clips = lambda leaf: leaf if batch["pose"].ndim == 5 else leaf[:, None]
    clean = as_clips(made["latent"])
    count = clean.shape[0]
    context = made["reference_context"]
    dropped = jax.random.bernoulli(keys[1], config.condition_dropout, (count, 1, 1))
    context = jnp.where(dropped, weights["null_context"], context)
    condition = {"pose": networks.embed_pose(weights, as_clips(batch["pose"]))}
    if networks.inpaints:
      condition["inpaint"] = as_clips(made["inpaint"])
    noise = jax.random.normal(keys[3], clean.shape)
    timesteps = jax.random.randint(keys[4], (count,), 0, len(schedule))

    def denoise(latents, timesteps, context, condition, frame_mask):
      return networks.denoise(weights, latents, timesteps, context, condition, frame_mask)

    losses = denoising_loss(denoise, schedule, clean, noise, timesteps, context, condition, config.snr_gamma)
    return jnp.mean(losses), {}

  return loss
