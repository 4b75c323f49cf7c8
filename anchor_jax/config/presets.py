"""Configurations of published models, and of the reference's training runs."""

import dataclasses

from anchor_jax.config.networks import ControlNetConfig, UNetConfig
from anchor_jax.config.run import DataConfig, MeshConfig, ModelConfig, OptimizerConfig, RunConfig, SampleConfig


def stable_diffusion_15(part: str, remat: bool | str = "products", **unet_fields) -> ModelConfig:
  """Stable Diffusion 1.5 with a pose branch and CLIP ViT-B/32's image tower; for the head, the inpainting model.

  Args:
    part: "body" or "head".
    remat: rematerialization of UNet and pose branch; see `models.layers.rematerialized`.
    unet_fields: more fields of `UNetConfig`, such as temporal_attention.
  """
  unet = UNetConfig(in_channels=9 if part == "head" else 4, remat=remat, **unet_fields)
  return ModelConfig(unet=unet, controlnet=dataclasses.replace(ControlNetConfig.from_unet(unet), remat=remat))


def reference_run(part: str, **unet_fields) -> RunConfig:
  """The reference's training run of `part` (Make-Your-Anchor, 2024): AdamW at 1e-5 with 500 warm-up steps, batch 4.

  The configs add what differs between the first and the second stage: `init` and `steps`.

  Args:
    part: "body" or "head".
    unet_fields: more fields of `UNetConfig`.
  """
  body = SampleConfig("ddim", steps=20, window=16, overlap=4, guidance=7.5, conditioning_scale=2.0)
  head = SampleConfig("ddim", steps=20, window=1, overlap=0, guidance=3.5, conditioning_scale=1.0, windows_per_batch=30)
  return RunConfig(
    part=part,
    dtype="bfloat16",
    log_every=50,
    keep=3,
    model=stable_diffusion_15(part, **unet_fields),
    data=DataConfig(batch_size=4, size=512, crop=256, cache=True, workers=4, validation=32),
    optimizer=OptimizerConfig(learning_rate=1e-5, warmup_steps=500),
    mesh=MeshConfig(data=1, fsdp=-1),
    sample=head if part == "head" else body,
  )
