"""Checks that the networks of a part fit each other, when they are read rather than in the first step."""

from collections.abc import Iterator

from anchor_jax.config.networks import CLIPVisionConfig, UNetConfig
from anchor_jax.config.run import ModelConfig
from anchor_jax.core.errors import UserError


def check_model(model: ModelConfig, part: str) -> None:
  """Raises UserError if the networks of "body" or "head" do not fit each other; "vae" has only one."""
  for problem in () if part == "vae" else _problems(model, part):
    raise UserError(f"the networks of the {part} don't fit each other: {problem}")


def check_tower(tower: CLIPVisionConfig, unet: UNetConfig) -> None:
  """Raises UserError unless the image tokens have the width that the UNet's cross-attention takes."""
  if problem := _tower_problem(tower, unet):
    raise UserError(f"the networks don't fit each other: {problem}")


def _tower_problem(tower: CLIPVisionConfig, unet: UNetConfig) -> str:
  width, expected = tower.hidden_size, unet.cross_attention_dim
  return "" if width == expected else (
    f"the image tokens have {width} features and the UNet's cross-attention takes {expected}: give an image tower"
    f" of hidden_size {expected}" + (" (CLIP ViT-B/32)" if expected == 768 else "")
  )  # fmt: skip


def _problems(model: ModelConfig, part: str) -> Iterator[str]:
  unet, branch, latents = model.unet, model.controlnet, model.vae.latent_channels
  if problem := _tower_problem(model.image_encoder, unet):
    yield problem
  if branch.cross_attention_dim != unet.cross_attention_dim:
    yield (
      f"the pose branch's cross-attention takes {branch.cross_attention_dim} features and the UNet's"
      f" {unet.cross_attention_dim}: create the pose branch from this UNet"
    )
  if branch.skip_channels != unet.skip_channels:
    yield "the pose branch has other widths or layers than the UNet: create the pose branch from this UNet"
  if not unet.out_channels == branch.in_channels == latents:
    yield (
      f"the autoencoder's latents have {latents} channels, the UNet predicts {unet.out_channels} and the pose branch"
      f" takes {branch.in_channels}: give networks that were trained together"
    )
  inpainting = unet.out_channels + 1 + latents
  if unet.in_channels not in ((unet.out_channels,) if part == "body" else (unet.out_channels, inpainting)):
    yield f"the UNet takes {unet.in_channels} channels: the body's takes {unet.out_channels}, the head's {inpainting}"
  if not model.vae.in_channels == model.vae.out_channels == model.image_encoder.num_channels == 3:
    yield "autoencoder and image tower must take pictures of 3 channels"
