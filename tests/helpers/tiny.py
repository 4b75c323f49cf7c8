"""Networks small enough to train in a test: eight channels, for pictures of 32 pixels."""

import pathlib

import cv2
import jax
import numpy as np
import optax

from anchor_jax.config.networks import CLIPVisionConfig, ControlNetConfig, ScheduleConfig, UNetConfig, VAEConfig
from anchor_jax.config.run import ModelConfig, RunConfig
from anchor_jax.config.stored import write_settings
from anchor_jax.models.networks import Networks
from anchor_jax.store.weights import frozen_names, trained_keys, write_folder
from anchor_jax.training.checkpoint import Checkpoints
from anchor_jax.training.step import make_state


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
    VAEConfig.from_widths(
      (8, 8, 8), layers_per_block=1, norm_num_groups=4, latent_channels=latent, scaling_factor=1.0, sample_size=32
    ),
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


def write_untrained(folder: pathlib.Path, config: RunConfig, weights, picture) -> None:
  """What training leaves in WORKDIR/PART after a step, without the half minute that compiling one takes.

  Args:
    folder: WORKDIR/PART.
    config: the settings.
    weights: of all its networks.
    picture: the reference of the person, uint8 [H W 3].
  """
  folder.mkdir(parents=True)
  write_settings(folder, config)
  write_folder(folder / "base", Networks(config.model), weights, frozen_names(config), "float32")
  trained = {name: weights[name] for name in trained_keys(config)}
  with Checkpoints(folder) as checkpoints:
    checkpoints.save(1, make_state(jax.device_put(trained), optax.sgd(1.0), config), {"position": 0})
  cv2.imwrite(str(folder / "appearance.png"), picture[..., ::-1])
