"""Distils a light decoder: a small network that learns the autoencoder's decoder.

The autoencoder encodes and decodes frames once. The light decoder is then trained on crops to reproduce the decoded
pictures; crops suffice, since each pixel depends on a few cells around it. The true pixels count a little, so that the
autoencoder's own errors need not be learned.
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
from anchor_jax.models.networks import Networks
from anchor_jax.models.pictures import require_finite, shrink, to_bytes, to_signed
from anchor_jax.store.light import StoredLightDecoder, autoencoder_hash
from anchor_jax.training.loss import EDGE_WEIGHT, absolute_error, edge_error

TRUTH_WEIGHT = 0.3  # of the error against the true pixels; 1 for that against the decoded ones
_CHUNK = 16  # frames per call of the autoencoder
_CROP = 16  # side of a crop in latent cells
_RATE = 2e-3


@dataclasses.dataclass(frozen=True)
class DistillationData:
  """Frames as the autoencoder encodes and decodes them.

  Attributes:
    latents: scaled means.
    decoded: pictures decoded from the latents.
    frames: the true frames, at the size that the networks see.
  """

  latents: Float[NdArray, "N h w C"]
  decoded: UInt8[NdArray, "N H W 3"]
  frames: UInt8[NdArray, "N H W 3"]

  def __getitem__(self, rows: slice) -> "DistillationData":
    return DistillationData(self.latents[rows], self.decoded[rows], self.frames[rows])


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
  """Returns a light decoder, and its PSNR in dB on the last twentieth of the frames, which are held out.

  The measures are "against_decoded" and "against_truth"; "autoencoder" is the autoencoder's PSNR against the truth.

  Args:
    networks, weights: with the autoencoder.
    source: prepared frames.
    config: architecture of the light decoder; latent channels, patch size and autoencoder are filled in here.
    steps: optimizer steps, over which the learning rate falls to 0.
    batch_size: crops per step.
    frames: number of frames to hold in memory, at most; they are evenly spaced over the source.
    seed: of the initial weights and of the choice of crops.

  Raises:
    UserError: fewer than 20 frames, or levels that do not fit the autoencoder.
  """
  vae, levels = networks.model.vae, len(config.block_out_channels)
  patch = vae.stride // 2 ** (levels - 1)
  if not patch:
    raise UserError(
      f"a light decoder of {levels} levels is too deep for latent cells of {vae.stride} pixels: give fewer widths"
    )
  if len(source) < 20:
    raise UserError(f"{len(source)} frames are too few to learn from: prepare at least 20")
  config = dataclasses.replace(
    config, latent_channels=vae.latent_channels, patch_size=patch, autoencoder=autoencoder_hash(weights["vae"])
  )
  data = autoencode(networks, weights, source, np.unique(np.linspace(0, len(source) - 1, frames).astype(int)))
  border = len(data.latents) - max(1, len(data.latents) // 20)
  params = fit_decoder(config, data[:border], steps, batch_size, seed)
  held_out = data[border:]
  decode = jax.jit(lambda params, latents: to_bytes(jnp.clip(_decode(config, params, latents), 0, 1)))
  chunks = [decode(params, held_out.latents[i : i + _CHUNK]) for i in _chunks(len(held_out.latents))]
  pictures, finite = (np.concatenate([np.asarray(chunk[i]) for chunk in chunks]) for i in range(2))
  require_finite(finite, "the light decoder's picture")
  measures = {
    "against_decoded": metrics.psnr(pictures, held_out.decoded),
    "against_truth": metrics.psnr(pictures, held_out.frames),
    "autoencoder": metrics.psnr(held_out.decoded, held_out.frames),
  }
  return StoredLightDecoder(config, jax.tree.map(np.asarray, params)), measures


def autoencode(networks: Networks, weights: PyTree, source: Source, records: Int[NdArray, " N"]) -> DistillationData:
  """These records, encoded and decoded by the autoencoder."""
  autoencoder = jax.device_put({"vae": weights["vae"]})

  @jax.jit
  def encode_and_decode(weights, frames):
    latents, small = networks.encode(weights, to_signed(frames)), shrink(frames / 255.0, networks.model.scale)
    decoded, finite = to_bytes(networks.decode(weights, latents), latents)
    return latents, decoded, to_bytes(small)[0], finite

  reading = read_all(source, [int(number) for number in records], ("frame",))
  pictures = np.stack([record["frame"] for record in tqdm(reading, "read", len(records), unit="frame")])
  chunks = [encode_and_decode(autoencoder, pictures[i : i + _CHUNK]) for i in tqdm(_chunks(len(records)), "decode")]
  *arrays, finite = (np.concatenate([np.asarray(chunk[i]) for chunk in chunks]) for i in range(4))
  require_finite(finite, "the autoencoder's picture of record")
  return DistillationData(*arrays)


def distillation_loss(
  pictures: Float[Array, "B H W 3"], decoded: Float[Array, "B H W 3"], frames: Float[Array, "B H W 3"]
) -> Float[Array, ""]:
  """Absolute error of pixels and of differences between neighboring pixels, against decoded and true pictures."""

  def error(targets: Float[Array, "B H W 3"]) -> Float[Array, ""]:
    difference = pictures - targets
    return absolute_error(difference) + EDGE_WEIGHT * edge_error(difference)

  return error(decoded) + TRUTH_WEIGHT * error(frames)


def fit_decoder(config: LightDecoderConfig, data: DistillationData, steps: int, batch_size: int, seed: int) -> PyTree:
  """Trained parameters of a light decoder; arguments as of `distil`."""
  rng = np.random.default_rng(seed)
  rate = optax.warmup_cosine_decay_schedule(0.0, _RATE, min(100, steps // 10 + 1), max(steps, 2))
  optimizer = optax.adam(rate)
  params = LightDecoder(config).init(jax.random.key(seed), jnp.asarray(data.latents[:1]))["params"]
  state = optimizer.init(params)

  @jax.jit
  def step(params: PyTree, state: PyTree, crops: tuple[Array, ...]):
    latents, decoded, frames = crops

    def loss(params):
      pictures = _decode(config, params, latents)
      return distillation_loss(pictures, jnp.asarray(decoded / 255.0), jnp.asarray(frames / 255.0))

    value, gradients = jax.value_and_grad(loss)(params)
    updates, state = optimizer.update(gradients, state, params)
    return optax.apply_updates(params, updates), state, value

  (count, height, width), side = data.latents.shape[:3], data.frames.shape[1] // data.latents.shape[1]
  crop = min(_CROP, height, width)
  bar = tqdm(range(steps), "distil", unit="step")
  for number in bar:
    rows = np.sort(rng.integers(0, count, batch_size))
    y, x = rng.integers(0, height - crop + 1), rng.integers(0, width - crop + 1)
    crop_of = lambda leaf, side, y=y, x=x, rows=rows: leaf[
      rows, side * y : side * (y + crop), side * x : side * (x + crop)
    ]
    crops = (crop_of(data.latents, 1), crop_of(data.decoded, side), crop_of(data.frames, side))
    params, state, value = step(params, state, crops)
    if number % 100 == 0:
      bar.set_postfix(loss=f"{float(value):.4f}")
  return params


def _decode(config: LightDecoderConfig, params: PyTree, latents: Float[Array, "B h w C"]) -> Any:
  return LightDecoder(config).apply({"params": params}, latents)


def _chunks(count: int) -> range:
  return range(0, count, _CHUNK)
