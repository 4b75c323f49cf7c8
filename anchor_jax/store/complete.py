"""Adds to a folder of models what training needs and the folder lacks."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from anchor_jax.config.fit import check_tower
from anchor_jax.config.networks import CLIPTextConfig, CLIPVisionConfig, UNetConfig
from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Float, Int, NdArray
from anchor_jax.formats import names
from anchor_jax.formats.folders import ModelFolder, StoredModel
from anchor_jax.formats.registry import make_module
from anchor_jax.formats.roles import PARTS, SHARED, Place
from anchor_jax.formats.tensors import Tensor
from anchor_jax.store.derive import controlnet_from_unet, head_unet_from_unet


def complete(folder: ModelFolder, make_controlnet: bool, make_head: bool, stem_widths: tuple[int, ...]) -> None:
  """Adds pose branches, a head UNet and null contexts that can be derived from the models there are.

  A null context is computed wherever there are a text encoder and an image encoder, and no null context. It is left to
  training where the image encoder gives more tokens (CLIP ViT-L/14: 257) than the text encoder has positions.

  Args:
    folder: changed in place.
    make_controlnet: make a pose branch from each UNet that has none.
    make_head: make a head UNet, and with `make_controlnet` its pose branch, from the body's UNet.
    stem_widths: channels of the new pose branches' stems, see `controlnet_from_unet`.

  Raises:
    UserError: there is no UNet to make the head's from, or the image encoder gives tokens of another width than the
      UNet takes.
  """
  models = folder.models
  if make_head and Place("head", "unet") not in models:
    body = folder.find("body", "unet")
    if body is None:
      raise UserError("there is no UNet to make a head UNet from")
    assert isinstance(body.config, UNetConfig)
    models[Place("head", "unet")] = StoredModel(*head_unet_from_unet(body.config, dict(body.tensors)))
  for part in (SHARED, *PARTS):
    unet, controlnet = models.get(Place(part, "unet")), Place(part, "controlnet")
    if make_controlnet and unet is not None and controlnet not in models:
      assert isinstance(unet.config, UNetConfig)
      models[controlnet] = StoredModel(*controlnet_from_unet(unet.config, dict(unet.tensors), stem_widths))
    text, image = models.get(Place(part, "text_encoder")), folder.find(part, "image_encoder")
    if unet is not None and image is not None:
      assert isinstance(unet.config, UNetConfig) and isinstance(image.config, CLIPVisionConfig)
      check_tower(image.config, unet.config)
    if folder.find(part, "null_context") is None and text is not None and image is not None:
      assert isinstance(text.config, CLIPTextConfig) and isinstance(image.config, CLIPVisionConfig)
      if image.config.tokens > text.config.max_position_embeddings:
        continue
      null = make_null_context(text.config, text.tensors, image.config.tokens)
      models[Place(part, "null_context")] = StoredModel(None, {("null_context",): Tensor.of(null)})


def null_ids(config: CLIPTextConfig, length: int) -> Int[NdArray, "1 {length}"]:
  """CLIP's tokens of the empty prompt, padded: the start token and then end tokens, the last two of its vocabulary.

  Stable Diffusion's text configurations name other ids, which are wrong.
  """
  ids = np.full((1, length), config.vocab_size - 1, np.int32)
  ids[0, 0] = config.vocab_size - 2
  return ids


def make_null_context(
  config: CLIPTextConfig, tensors: Mapping[names.Path, Tensor], length: int
) -> Float[NdArray, "{length} D"]:
  """The null branch's context as the reference has it: the text encoder's hidden states of the empty prompt, float32.

  Args:
    config, tensors: the text encoder.
    length: tokens, as many as the image encoder gives.
  """
  params = names.unflatten({path: jnp.asarray(t.astype(np.float32).read()) for path, t in tensors.items()})
  hidden = make_module(config).apply({"params": params}, jnp.asarray(null_ids(config, length)))
  return np.asarray(hidden)[0]
