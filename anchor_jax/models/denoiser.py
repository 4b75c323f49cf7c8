"""UNet and pose branch as one network: what is trained, sampled and saved together."""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from anchor_jax.architecture import ControlNetConfig, UNetConfig
from anchor_jax.models.controlnet import ControlNet
from anchor_jax.models.unet import UNet
from anchor_jax.shapes import Array, Bool, Float, Shaped


class Denoiser(nn.Module):
  """Predicts the noise in latents, given appearance tokens and a pose; with `inpaint` conditions, the head model.

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

  def embed_pose(self, pose: Float[Array, "B T h w 3"]) -> Float[Array, "B T H W C0"]:
    """Pose features from renders in [0, 1]; they do not depend on the timestep."""
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
    """Predicts, in float32.

    Args:
      latents: noisy latents, scaled.
      timesteps: 0 to 999, one a clip.
      context: appearance tokens.
      condition: `pose`, features [B T H W C0] from `embed_pose`; for the head also `inpaint` [B T H W 1+C], the mask
        (1 keep, 0 repaint) and the masked image's latent, which the UNet alone sees.
      frame_mask: False for padded frames.
      conditioning_scale: strength of the pose.
    """
    down, middle = self.controlnet(latents, timesteps, context, condition["pose"], frame_mask, scale=conditioning_scale)
    sample = latents
    if "inpaint" in condition:
      sample = jnp.concatenate([latents, condition["inpaint"].astype(latents.dtype)], axis=-1)
    return self.unet(sample, timesteps, context, frame_mask, down, middle)
