"""The networks of one part (body or head), and the functions of them that training and sampling share.

Weights are one tree: {"unet", "controlnet", "null_context", "vae", "image_encoder"}, and optionally "refiner" and
"light_decoder". The trainer decides which of them are trained.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from anchor_jax.config.pixels import LightDecoderConfig
from anchor_jax.config.run import ModelConfig
from anchor_jax.core.shapes import Array, Bool, Float, Int, Key, PyTree, UInt8
from anchor_jax.models.clip import CLIPVision, preprocess
from anchor_jax.models.controlnet import COORDINATE_CHANNELS, Denoiser, FrameInputs
from anchor_jax.models.light_decoder import LightDecoder
from anchor_jax.models.pictures import enlarge, shrink, shrink_looked_up
from anchor_jax.models.refiner import Refiner
from anchor_jax.models.vae import AutoencoderKL


@dataclasses.dataclass(frozen=True)
class Networks:
  """The modules of one part and pure functions of their weights; holds no weights.

  Attributes:
    model: the architecture of every network, and the noise schedule.
    dtype: compute dtype, "float32" or "bfloat16".
    light: settings of the light decoder that replaces the autoencoder's; None: the autoencoder decodes.
  """

  model: ModelConfig
  dtype: str = "float32"
  light: LightDecoderConfig | None = None

  @functools.cached_property
  def denoiser(self) -> Denoiser:
    """UNet and pose branch."""
    return Denoiser(self.model.unet, self.model.controlnet, jnp.dtype(self.dtype))

  @functools.cached_property
  def vae(self) -> AutoencoderKL:
    """The image autoencoder."""
    return AutoencoderKL(self.model.vae, jnp.dtype(self.dtype))

  @functools.cached_property
  def image_encoder(self) -> CLIPVision:
    """The CLIP image tower, which computes image tokens."""
    return CLIPVision(self.model.image_encoder, jnp.dtype(self.dtype))

  @functools.cached_property
  def refiner(self) -> Refiner | None:
    """The refiner of decoded pictures; None if the part has none."""
    config = self.model.own_refiner
    return None if config is None else Refiner(config, jnp.dtype(self.dtype))

  @functools.cached_property
  def light_decoder(self) -> LightDecoder | None:
    """The light decoder; None if the autoencoder decodes."""
    return None if self.light is None else LightDecoder(self.light, jnp.dtype(self.dtype))

  @property
  def inpaints(self) -> bool:
    """Whether the UNet takes inpainting channels besides the noisy latents, as the head's does."""
    return self.model.unet.in_channels > self.model.unet.out_channels

  def init(self, key: Key[Array, ""]) -> PyTree:
    """Randomly initialized weights, float32."""
    keys = jax.random.split(key, 4)  # for all except the refiner, which must not change the others' weights
    unet, controlnet, vae, image = (self.model.unet, self.model.controlnet, self.model.vae, self.model.image_encoder)
    side = 2 ** len(unet.block_out_channels)
    latents = jnp.zeros((1, 1, side, side, unet.out_channels))
    frame_inputs = FrameInputs(
      jnp.zeros((1, 1, side, side, controlnet.block_out_channels[0])),
      jnp.zeros((1, 1, side, side, unet.in_channels - unet.out_channels)) if self.inpaints else None,
    )
    pose_side = side * controlnet.stem_stride
    pose = jnp.zeros((1, 1, pose_side, pose_side, controlnet.conditioning_channels))
    context = jnp.zeros((1, image.tokens, unet.cross_attention_dim))
    pixels = jnp.zeros((1, vae.stride * 4, vae.stride * 4, 3))

    def denoiser(module: Denoiser):
      module.embed_pose(pose)
      return module(latents, jnp.zeros((1,), jnp.int32), context, frame_inputs)

    def autoencoder(module: AutoencoderKL):
      return module.decode(module.encode(pixels)[0])

    init_params = lambda module, function, k: module.init(k, method=function)["params"]
    weights = init_params(self.denoiser, denoiser, keys[0])
    weights["vae"] = init_params(self.vae, autoencoder, keys[1])
    clip_pixels = jnp.zeros((1, image.image_size, image.image_size, 3))
    weights["image_encoder"] = self.image_encoder.init(keys[2], clip_pixels)["params"]
    if self.refiner is not None:
      side = self.refiner.config.stride
      inputs = (jnp.zeros((1, side, side, c)) for c in (3, self.refiner.config.conditioning_channels))
      weights["refiner"] = self.refiner.init(jax.random.fold_in(key, 4), *inputs)["params"]
    weights["null_context"] = 0.02 * jax.random.normal(keys[3], context.shape[1:])
    return weights

  def embed_pose(
    self, weights: PyTree, pose: UInt8[Array, "B T H W 3"], pose_channels: Float[Array, "B T H W D"] | None = None
  ) -> Float[Array, "B T h w C"]:
    """Pose features for `denoise`, at the latents' resolution. They do not depend on the timestep.

    Args:
      weights: of the part.
      pose: RGB renders, as large as the frames.
      pose_channels: in [0, 1], see `texture/look_up/plain.py`; None for a branch that takes only the render.
    """
    pixels = shrink(pose.astype(jnp.float32) / 255, self.model.scale)
    if pose_channels is not None:
      pixels = jnp.concatenate([pixels, shrink_looked_up(pose_channels, self.model.scale)], axis=-1)
    return _apply(self.denoiser, _denoiser_params(weights), pixels, method="embed_pose")

  def denoise(
    self,
    weights: PyTree,
    latents: Float[Array, "B T H W C"],
    timesteps: Int[Array, "B"],
    context: Float[Array, "B N D"],
    frame_inputs: FrameInputs,
    frame_mask: Bool[Array, "B T"] | None = None,
    conditioning_scale: float = 1.0,
  ) -> Float[Array, "B T H W C"]:
    """The denoiser's prediction, float32; see `Denoiser`. With `weights` bound it is a `Denoise` of diffusion/."""
    params = _denoiser_params(weights)
    return _apply(self.denoiser, params, latents, timesteps, context, frame_inputs, frame_mask, conditioning_scale)

  def encode_reference(self, weights: PyTree, images: UInt8[Array, "B H W 3"]) -> Float[Array, "B N D"]:
    """Image tokens of reference images: CLIP's preprocessing, then the image tower; float32.

    Of portrait pictures the upper square counts, where the head is; CLIP's own rule, the central square, may cut it.
    """
    pixels = preprocess(images[:, : images.shape[2]].astype(jnp.float32) / 255, self.model.image_encoder.image_size)
    return _apply(self.image_encoder, weights["image_encoder"], pixels)

  def encode_moments(
    self, weights: PyTree, pixels: Float[Array, "B H W 3"]
  ) -> tuple[Float[Array, "B h w C"], Float[Array, "B h w C"]]:
    """Mean and log-variance of the unscaled latents of images in [-1, 1], float32."""
    return _apply(self.vae, weights["vae"], pixels, method="encode")

  def encode(
    self, weights: PyTree, pixels: Float[Array, "B H W 3"], noise: Float[Array, "B h w C"] | None = None
  ) -> Float[Array, "B h w C"]:
    """Scaled latents of frames in [-1, 1]: samples of the posterior drawn with normal `noise`, or its mean for None."""
    mean, logvar = self.encode_moments(weights, shrink(pixels, self.model.scale))
    if noise is not None:
      mean = mean + jnp.exp(0.5 * logvar) * noise
    return mean * self.model.vae.scaling_factor

  def decode(self, weights: PyTree, latents: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
    """Images of scaled latents, clipped to [0, 1], at the networks' size (before `enlarge`)."""
    if self.light_decoder is not None:
      return jnp.clip(_apply(self.light_decoder, weights["light_decoder"], latents), 0, 1)
    pixels = self.decode_unscaled(weights, latents / self.model.vae.scaling_factor)
    return jnp.clip(pixels / 2 + 0.5, 0, 1)

  def decode_unscaled(self, weights: PyTree, latents: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
    """Images of unscaled latents, nominally in [-1, 1], not clipped."""
    return _apply(self.vae, weights["vae"], latents, method="decode")

  def refine(
    self,
    weights: PyTree,
    pictures: Float[Array, "B h w 3"],
    pose: UInt8[Array, "B H W 3"],
    pose_channels: Float[Array, "B H W D"] | None = None,
  ) -> Float[Array, "B H W 3"]:
    """Refined frames, nominally in [0, 1], not clipped; without a refiner, `pictures` itself.

    Args:
      weights: of the part.
      pictures: output of `decode`.
      pose: RGB renders, as large as the frames.
      pose_channels: looked-up channels, in [0, 1]; missing ones count as unknown (0). Coordinates are ignored: they are
        not pictures, and only the pose branch takes them.
    """
    if self.refiner is None:
      return pictures
    if pose_channels is not None and pose_channels.shape[-1] == COORDINATE_CHANNELS:
      pose_channels = None
    known = [pose.astype(jnp.float32) / 255] + ([] if pose_channels is None else [pose_channels])
    missing = self.refiner.config.conditioning_channels - sum(part.shape[-1] for part in known)
    channels = jnp.pad(jnp.concatenate(known, axis=-1), ((0, 0),) * 3 + ((0, missing),))
    return _apply(self.refiner, weights["refiner"], enlarge(pictures, self.model.scale), channels)

  def paint(
    self,
    weights: PyTree,
    latents: Float[Array, "B h w C"],
    pose: UInt8[Array, "B H W 3"],
    pose_channels: Float[Array, "B H W D"] | None = None,
  ) -> Float[Array, "B H W 3"]:
    """Frames in [0, 1] of scaled latents, decoded and refined; arguments as in `decode` and `refine`."""
    return jnp.clip(self.refine(weights, self.decode(weights, latents), pose, pose_channels), 0, 1)

  def inpainting_channels(
    self,
    weights: PyTree,
    pixels: Float[Array, "B H W 3"],
    keep: Bool[Array, "B H W"],
    noise: Float[Array, "B h w C"] | None = None,
  ) -> Float[Array, "B h w D"]:
    """The head UNet's extra channels: the mask (1 keep, 0 repaint), then the latent of the masked image.

    Args:
      weights: with "vae".
      pixels: images in [-1, 1].
      keep: False where the head repaints; those pixels are set to 0 (gray) before encoding.
      noise: normal, to sample the latent; None takes its mean.

    Returns:
      D = 1 + latent channels. The mask is downsampled by torch's nearest rule: the top left pixel of each cell.
    """
    stride = self.model.vae.stride
    masked = self.encode(weights, jnp.where(keep[..., None], pixels, 0), noise)
    return jnp.concatenate([keep[:, ::stride, ::stride, None].astype(jnp.float32), masked], axis=-1)


def scale_latents(vae: PyTree, factor: Float[Array, ""]) -> PyTree:
  """Autoencoder weights that scale the latents by `factor` and decode to the same images.

  Rescales the 1x1 convolutions before and after the latent; log-variances grow by 2 log(factor).
  """
  kernel, bias = vae["quant_conv"]["kernel"], vae["quant_conv"]["bias"]
  channels = bias.shape[0] // 2
  is_mean = jnp.arange(2 * channels) < channels
  before = {
    "kernel": jnp.where(is_mean, kernel * factor, kernel),
    "bias": jnp.where(is_mean, bias * factor, bias + 2 * jnp.log(factor)),
  }
  after = {**vae["post_quant_conv"], "kernel": vae["post_quant_conv"]["kernel"] / factor}
  return {**vae, "quant_conv": before, "post_quant_conv": after}


def _denoiser_params(weights: PyTree) -> PyTree:
  return {"unet": weights["unet"], "controlnet": weights["controlnet"]}


def _apply(module: Any, params: PyTree, *arguments: Any, method: str | None = None) -> Any:
  """module.apply without mutable collections, so that the result is only the module's output."""
  return module.apply({"params": params}, *arguments, method=method)
