"""Makes a light decoder: a small network that learns what the autoencoder's decoder shows of latents.

The autoencoder encodes and decodes frames once; the light decoder then regresses what it decoded, on crops, since it
sees a few cells around each pixel only. True pixels count a little too: where the autoencoder errs, its error need not
be learned.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from anchor_jax.config.pixels import LightDecoderConfig
from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Array, Float, Int, NdArray, PyTree, UInt8
from anchor_jax.data.sources import Source, read_all
from anchor_jax.evaluation import metrics
from anchor_jax.models.light_decoder import LightDecoder
from anchor_jax.models.networks import Networks, to_signed
from anchor_jax.models.pictures import require_finite, to_bytes
from anchor_jax.models.scale import shrink
from anchor_jax.store.light import StoredLightDecoder, autoencoder_hash
from anchor_jax.training.loss import EDGE_WEIGHT, pixel_errors

TRUTH_WEIGHT = 0.3  # of the true pixels' error beside that of the decoded ones
_CHUNK = 16  # frames in one call of the autoencoder
_CROP = 16  # cells of a crop's side
_RATE = 2e-3


@dataclasses.dataclass(frozen=True)
class Teaching:
  """What the autoencoder makes of frames.

  Attributes:
    latents: scaled means.
    decoded: pictures of the latents.
    frames: the true ones, of the size that the networks see.
  """

  latents: Float[NdArray, "N h w C"]
  decoded: UInt8[NdArray, "N H W 3"]
  frames: UInt8[NdArray, "N H W 3"]

  def __getitem__(self, rows: slice) -> "Teaching":
    return Teaching(self.latents[rows], self.decoded[rows], self.frames[rows])


def distil(
  networks: Networks,
  weights: PyTree,
  source: Source,
  config: LightDecoderConfig,
  steps: int = 6000,
  batch_size: int = 16,
  frames: int = 2880,
  seed: int = 0,
) -> tuple[StoredLightDecoder, dict[str, float]]:
  """Returns a light decoder, and what it is measured by: PSNR in dB on the last twentieth of the frames, not learned.

  Those are "against_decoded" and "against_truth", and "autoencoder", which is the autoencoder's against the truth.

  Args:
    networks, weights: with the autoencoder.
    source: prepared frames.
    config: the architecture to be; latent channels, patch and autoencoder are filled in here.
    steps: optimiser steps; the rate falls to 0 over them.
    batch_size: crops a step.
    frames: at most so many, evenly spaced over the source, are held in memory.
    seed: of the first weights and of the choice of crops.

  Raises:
    UserError: fewer than 20 frames, or levels that do not fit the autoencoder.
  """
  vae, levels = networks.model.vae, len(config.block_out_channels)
  patch = vae.stride // 2 ** (levels - 1)
  if not patch:
    raise UserError(f"a light decoder of {levels} levels for cells of {vae.stride} pixels: give fewer widths")
  if len(source) < 20:
    raise UserError(f"{len(source)} frames are too few to learn from: prepare at least 20")
  config = dataclasses.replace(
    config, latent_channels=vae.latent_channels, patch_size=patch, autoencoder=autoencoder_hash(weights["vae"])
  )
  taught = teach(networks, weights, source, np.unique(np.linspace(0, len(source) - 1, frames).astype(int)))
  border = len(taught.latents) - max(1, len(taught.latents) // 20)
  params = fit(config, taught[:border], steps, batch_size, seed)
  held = taught[border:]
  decode = jax.jit(lambda params, latents: to_bytes(jnp.clip(_decode(config, params, latents), 0, 1)))
  pieces = [decode(params, held.latents[i : i + _CHUNK]) for i in _chunks(len(held.latents))]
  made, finite = (np.concatenate([np.asarray(piece[i]) for piece in pieces]) for i in range(2))
  require_finite(finite, "the light decoder's picture")
  measured = {
    "against_decoded": metrics.psnr(made, held.decoded),
    "against_truth": metrics.psnr(made, held.frames),
    "autoencoder": metrics.psnr(held.decoded, held.frames),
  }
  return StoredLightDecoder(config, jax.tree.map(np.asarray, params)), measured


def teach(networks: Networks, weights: PyTree, source: Source, records: Int[NdArray, " N"]) -> Teaching:
  """What the autoencoder makes of these records."""
  used = jax.device_put({"vae": weights["vae"]})

  @jax.jit
  def make(weights, frames):
    latents, seen = networks.encode(weights, to_signed(frames)), shrink(frames / 255.0, networks.model.scale)
    decoded, finite = to_bytes(networks.decode(weights, latents), latents)
    return latents, decoded, to_bytes(seen)[0], finite

  reading = read_all(source, [int(number) for number in records], ("frame",))
  pictures = np.stack([record["frame"] for record in tqdm(reading, "read", len(records), unit="frame")])
  made = [make(used, pictures[i : i + _CHUNK]) for i in tqdm(_chunks(len(records)), "decode")]
  *taught, finite = (np.concatenate([np.asarray(part[i]) for part in made]) for i in range(4))
  require_finite(finite, "the autoencoder's picture of record")
  return Teaching(*taught)


def distillation_loss(
  made: Float[Array, "B H W 3"], decoded: Float[Array, "B H W 3"], frames: Float[Array, "B H W 3"]
) -> Float[Array, ""]:
  """Absolute error of pixels and of differences between neighbouring pixels, against decoded and true pictures."""

  def error(wanted: Float[Array, "B H W 3"]) -> Float[Array, ""]:
    absolute, edges = pixel_errors(made - wanted)
    return absolute + EDGE_WEIGHT * edges

  return error(decoded) + TRUTH_WEIGHT * error(frames)


def fit(config: LightDecoderConfig, taught: Teaching, steps: int, batch_size: int, seed: int) -> PyTree:
  """Parameters of a light decoder that has learned; arguments as of `distil`."""
  rng = np.random.default_rng(seed)
  rate = optax.warmup_cosine_decay_schedule(0.0, _RATE, min(100, steps // 10 + 1), max(steps, 2))
  optimizer = optax.adam(rate)
  params = LightDecoder(config).init(jax.random.key(seed), jnp.asarray(taught.latents[:1]))["params"]
  state = optimizer.init(params)

  @jax.jit
  def step(params: PyTree, state: PyTree, crops: tuple[Array, ...]):
    latents, decoded, frames = crops

    def loss(params):
      made = _decode(config, params, latents)
      return distillation_loss(made, jnp.asarray(decoded / 255.0), jnp.asarray(frames / 255.0))

    value, gradients = jax.value_and_grad(loss)(params)
    updates, state = optimizer.update(gradients, state, params)
    return optax.apply_updates(params, updates), state, value

  (count, height, width), side = taught.latents.shape[:3], taught.frames.shape[1] // taught.latents.shape[1]
  crop = min(_CROP, height, width)
  bar = tqdm(range(steps), "distil", unit="step")
  for number in bar:
    rows = np.sort(rng.integers(0, count, batch_size))
    y, x = rng.integers(0, height - crop + 1), rng.integers(0, width - crop + 1)
    cut = lambda leaf, side, y=y, x=x, rows=rows: leaf[rows, side * y : side * (y + crop), side * x : side * (x + crop)]
    crops = (cut(taught.latents, 1), cut(taught.decoded, side), cut(taught.frames, side))
    params, state, value = step(params, state, crops)
    if number % 100 == 0:
      bar.set_postfix(loss=f"{float(value):.4f}")
  return params


def _decode(config: LightDecoderConfig, params: PyTree, latents: Float[Array, "B h w C"]) -> Any:
  return LightDecoder(config).apply({"params": params}, latents)


def _chunks(count: int) -> range:
  return range(0, count, _CHUNK)
