"""Derives models that training needs from those that a folder has: pose branches, a head UNet and null contexts."""

import dataclasses
import math
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from anchor_jax.config.fit import check_tower
from anchor_jax.config.networks import CLIPTextConfig, CLIPVisionConfig, ControlNetConfig, UNetConfig
from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Float, Int, NdArray
from anchor_jax.formats.folders import ModelFolder, StoredModel
from anchor_jax.formats.names import Path
from anchor_jax.formats.registry import make_module, parameter_shapes
from anchor_jax.formats.roles import PERSON_PARTS, SHARED, ModelPlace
from anchor_jax.formats.tensors import Tensor

_STEM = "controlnet_cond_embedding"
_CONV_IN = ("conv_in", "kernel")


def add_derived_models(
  folder: ModelFolder, make_controlnet: bool, make_head: bool, stem_widths: tuple[int, ...]
) -> None:
  """Adds the pose branches, head UNet and null contexts that can be derived from the models of a folder.

  A null context is computed from a text encoder for a folder with an image encoder and none. If the image encoder gives
  more tokens (CLIP ViT-L/14: 257) than the text encoder has positions, training starts from a random null context.

  Args:
    folder: changed in place.
    make_controlnet: derive a pose branch for each UNet without one.
    make_head: derive a head UNet, and with `make_controlnet` its pose branch, from the body's UNet.
    stem_widths: channels of the new pose branches' stems, see `controlnet_from_unet`.

  Raises:
    UserError: there is no UNet for the head's, or the image encoder's tokens do not have the UNet's width.
  """
  models = folder.models
  if make_head and ModelPlace("head", "unet") not in models:
    body = folder.find("body", "unet")
    if body is None:
      raise UserError("there is no UNet to derive a head UNet from")
    assert isinstance(body.config, UNetConfig)
    models[ModelPlace("head", "unet")] = StoredModel(*head_unet_from_unet(body.config, dict(body.tensors)))
  for part in (SHARED, *PERSON_PARTS):
    unet, controlnet = models.get(ModelPlace(part, "unet")), ModelPlace(part, "controlnet")
    if make_controlnet and unet is not None and controlnet not in models:
      assert isinstance(unet.config, UNetConfig)
      models[controlnet] = StoredModel(*controlnet_from_unet(unet.config, dict(unet.tensors), stem_widths))
    text, image = models.get(ModelPlace(part, "text_encoder")), folder.find(part, "image_encoder")
    if unet is not None and image is not None:
      assert isinstance(unet.config, UNetConfig) and isinstance(image.config, CLIPVisionConfig)
      check_tower(image.config, unet.config)
    if folder.find(part, "null_context") is None and text is not None and image is not None:
      assert isinstance(text.config, CLIPTextConfig) and isinstance(image.config, CLIPVisionConfig)
      if image.config.tokens > text.config.max_position_embeddings:
        continue
      null = make_null_context(text.config, text.tensors, image.config.tokens)
      models[ModelPlace(part, "null_context")] = StoredModel(None, {("null_context",): Tensor.of(null)})


def controlnet_from_unet(
  config: UNetConfig,
  tensors: dict[Path, Tensor],
  stem_widths: tuple[int, ...] = (16, 32, 96, 256),
  seed: int = 0,
) -> tuple[ControlNetConfig, dict[Path, Tensor]]:
  """Returns a pose branch whose encoder is the UNet's (Zhang et al. 2023, section 3.1); its residuals are zero.

  Args:
    config, tensors: the UNet. From a head UNet, the branch takes the noisy latent's channels only.
    stem_widths: channels of the stem, one per size; `len - 1` halvings must bring the render to the latent's size.
    seed: of the stem's random weights.

  Returns:
    The branch's configuration and parameters; the stem's last convolution and all output convolutions are zero.
  """
  branch = ControlNetConfig.from_unet(config, stem_widths)
  rng = np.random.default_rng(seed)
  dtype = tensors[_CONV_IN].dtype
  params = {}
  for path, shape in parameter_shapes(branch).items():
    if path == _CONV_IN:
      params[path] = tensors[path].then(shape, lambda kernel: kernel[:, :, : branch.in_channels])
    elif path in tensors and path[0] != "conv_norm_out":
      params[path] = tensors[path]
    else:
      kernel = path[0] == _STEM and path[1] != "conv_out" and path[-1] == "kernel"
      array = _random_kernel(rng, shape) if kernel else np.zeros(shape, np.float32)
      params[path] = Tensor.of(array.astype(dtype))
  return branch, params


def head_unet_from_unet(config: UNetConfig, tensors: dict[Path, Tensor]) -> tuple[UNetConfig, dict[Path, Tensor]]:
  """Returns a UNet that also takes a mask and a masked image's latent: five more input channels with zero weights.

  Raises:
    UserError: the UNet already has more input than output channels.
  """
  if config.in_channels != config.out_channels:
    raise UserError(
      f"a head UNet is derived from one with {config.out_channels} input channels, not {config.in_channels}"
    )
  head = dataclasses.replace(config, in_channels=2 * config.out_channels + 1)
  shape = parameter_shapes(head)[_CONV_IN]

  def widen(kernel: NdArray) -> NdArray:
    return np.concatenate([kernel, np.zeros((*shape[:2], shape[2] - kernel.shape[2], shape[3]), kernel.dtype)], axis=2)

  return head, {**tensors, _CONV_IN: tensors[_CONV_IN].then(shape, widen)}


def _random_kernel(rng: np.random.Generator, shape: tuple[int, ...]) -> NdArray:
  return rng.normal(0, math.prod(shape[:-1]) ** -0.5, shape).astype(np.float32)


def null_ids(config: CLIPTextConfig, length: int) -> Int[NdArray, "1 {length}"]:
  """Returns CLIP's tokens of the empty prompt: the start token, then end tokens, the last two of its vocabulary.

  The ids in Stable Diffusion's text configurations are wrong.
  """
  ids = np.full((1, length), config.vocab_size - 1, np.int32)
  ids[0, 0] = config.vocab_size - 2
  return ids


def make_null_context(
  config: CLIPTextConfig, tensors: Mapping[Path, Tensor], length: int
) -> Float[NdArray, "{length} D"]:
  """Returns the reference's null context, float32: the text encoder's hidden states of the empty prompt.

  Args:
    config, tensors: the text encoder.
    length: number of the image encoder's tokens.
  """
  params = unflatten_dict({path: jnp.asarray(t.astype(np.float32).read()) for path, t in tensors.items()})
  hidden = make_module(config).apply({"params": params}, jnp.asarray(null_ids(config, length)))
  return np.asarray(hidden)[0]
