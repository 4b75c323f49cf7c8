"""UNet and pose branch as one module, with one tree of parameters {"unet", "controlnet"}."""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from anchor_jax.config.networks import ControlNetConfig, UNetConfig
from anchor_jax.core.shapes import Array, Bool, Float, Shaped
from anchor_jax.models.controlnet import ControlNet
from anchor_jax.models.unet import UNet


class Denoiser(nn.Module):
  """The UNet's prediction for noisy latents, given image tokens and a pose; serves body and head.

  Attributes:
    unet_config, controlnet_config: the two architectures.
    dtype: of the computation.
  """

  unet_config: UNetConfig
  controlnet_config: ControlNetConfig
  dtype: DTypeLike = jnp.float32

  def setup(self) -> None:
    self.unet = UNet(self.unet_config, self.dtype)
    self.controlnet = ControlNet(self.controlnet_config, self.dtype)

  def embed_pose(self, pose: Float[Array, "B T h w C"]) -> Float[Array, "B T H W C0"]:
    """Pose features [B T H W C0] from RGB renders in [0, 1]; they do not depend on the timestep. See `ControlNet`."""
    return self.controlnet.embed_pose(pose)

  def __call__(
    self,
    latents: Float[Array, "B T H W C"],
    timesteps: Shaped[Array, " B"],
    context: Float[Array, "B N D"],
    condition: Mapping[str, Array],
    frame_mask: Bool[Array, "B T"] | None = None,
    conditioning_scale: int | float | Float[Array, ""] = 1.0,
  ) -> Float[Array, "B T H W C"]:
    """The prediction of noise or velocity (as the schedule's `prediction_type` says), float32.

    Args:
      latents: noisy latents, scaled.
      timesteps: one per clip, 0 to num_train_timesteps - 1.
      context: image tokens.
      condition: "pose", the features [B T H W C0] of `embed_pose`; for the head also "inpaint" [B T H W 1+C], the mask
        (1 keep, 0 repaint) followed by the latent of the masked image, which only the UNet takes.
      frame_mask: False for padded frames. None: no padding.
      conditioning_scale: multiplies the pose branch's residuals.
    """
    down, middle = self.controlnet(latents, timesteps, context, condition["pose"], frame_mask, scale=conditioning_scale)
    sample = latents
    if "inpaint" in condition:
      sample = jnp.concatenate([latents, condition["inpaint"].astype(latents.dtype)], axis=-1)
    return self.unet(sample, timesteps, context, frame_mask, down, middle)
