"""Sizes of published models, for configs and for planning without their weights."""

import dataclasses

from anchor_jax.architecture import ControlNetConfig, UNetConfig
from anchor_jax.config import ModelConfig


def stable_diffusion_15(part: str, remat: bool | str = True, **unet_fields) -> ModelConfig:
  """Stable Diffusion 1.5 with its pose branch and CLIP ViT-B/32's image tower; for the head its inpainting twin.

  Args:
    part: "body" or "head".
    remat: see `UNetConfig.remat`.
    unet_fields: of the UNet, such as temporal_attention.
  """
  unet = UNetConfig(in_channels=9 if part == "head" else 4, remat=remat, **unet_fields)
  return ModelConfig(unet=unet, controlnet=dataclasses.replace(ControlNetConfig.of_unet(unet), remat=remat))
