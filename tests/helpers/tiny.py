"""Networks small enough to train in a test: eight channels, for pictures of 32 pixels."""

import jax
import numpy as np

from anchor_jax.architecture import CLIPVisionConfig, ControlNetConfig, ScheduleConfig, UNetConfig, VAEConfig
from anchor_jax.config import ModelConfig
from anchor_jax.models.networks import Networks


def tiny_model(latent: int = 2, inpaint: bool = False) -> ModelConfig:
  unet = UNetConfig(
    in_channels=2 * latent + 1 if inpaint else latent,
    out_channels=latent,
    block_out_channels=(8, 8),
    layers_per_block=1,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    norm_num_groups=4,
    cross_attention_dim=8,
    attention_head_dim=1,
  )
  return ModelConfig(
    unet,
    ControlNetConfig.from_unet(unet, (4, 4, 8)),
    VAEConfig.from_widths((8, 8, 8), layers_per_block=1, norm_num_groups=4, latent_channels=latent, scaling_factor=1.0),
    CLIPVisionConfig(
      hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=16, patch_size=8
    ),
    ScheduleConfig(prediction_type="v_prediction", timestep_spacing="trailing", set_alpha_to_one=True),
  )


def drawn_weights(networks: Networks, seed: int = 0):
  """Weights as of `networks.init`, but none is zero, and no program is compiled to draw them: that takes 15 seconds."""
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    noise = rng.normal(size=leaf.shape).astype(np.float32)
    if path[-1].key == "kernel":
      return noise * np.float32(np.prod(leaf.shape[:-1]) ** -0.5)
    return np.float32(0.1) * noise + np.float32(path[-1].key == "scale")

  return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(networks.init, jax.random.key(0)))
