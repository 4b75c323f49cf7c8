"""Networks small enough to train in a test: eight channels, for pictures of 32 pixels."""

import dataclasses
import functools
import pathlib
import types
from unittest import mock

import cv2
import jax
import numpy as np
import optax

from anchor_jax.config.networks import CLIPVisionConfig, ControlNetConfig, ScheduleConfig, UNetConfig, VAEConfig
from anchor_jax.config.run import ModelConfig, RunConfig
from anchor_jax.config.stored import write_settings
from anchor_jax.core import sharding
from anchor_jax.models.networks import Networks
from anchor_jax.store.weights import frozen_names, trained_keys, write_folder
from anchor_jax.train import train
from anchor_jax.training import loop
from anchor_jax.training.checkpoint import Checkpoints
from anchor_jax.training.compiling import step_shapes
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


@functools.cache
def weight_shapes(networks: Networks):
  """The shapes of all weights; tracing the networks takes a second."""
  return jax.eval_shape(networks.init, jax.random.key(0))


def drawn_weights(networks: Networks, seed: int = 0):
  """Weights as of `networks.init`, but none is zero, and no program is compiled to draw them: that takes 15 seconds."""
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    noise = rng.normal(size=leaf.shape).astype(np.float32)
    if path[-1].key == "kernel":
      return noise * np.float32(np.prod(leaf.shape[:-1]) ** -0.5)
    return np.float32(0.1) * noise + np.float32(path[-1].key == "scale")

  return jax.tree_util.tree_map_with_path(draw, weight_shapes(networks))


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


class DrawnStep:
  """Stands in for the compiled step of a run: adds drawn numbers to the weights."""

  memory_analysis = cost_analysis = lambda self: None

  def __init__(self, config, networks, weights, size, mesh):
    step, arguments = step_shapes(config, networks, jax.eval_shape(lambda tree: tree, weights), size, mesh)
    with sharding.use_mesh(mesh):
      jax.eval_shape(step, *arguments)
    self.arguments = arguments

  def __call__(self, *arguments):
    shapes = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
    assert shapes(arguments) == shapes(self.arguments)
    state, rng = arguments[0], np.random.default_rng(0)
    draw = lambda leaf: jax.device_put(leaf + rng.normal(0, 0.01, leaf.shape).astype(np.float32), leaf.sharding)
    weights, ema = jax.tree.map(draw, (state.weights, state.ema))
    return dataclasses.replace(state, step=state.step + 1, weights=weights, ema=ema), {"loss": np.float32(1.0)}


def train_by_drawing(config: RunConfig, workdir: pathlib.Path) -> None:
  """Trains as `train` does on one device; the step is traced, not compiled, which takes half a minute."""
  start = lambda *of_run: types.SimpleNamespace(result=lambda: (DrawnStep(*of_run), 0.0))
  with mock.patch.object(loop, "start_compiling", start):  # the notebook's test has no pytest
    train(config, workdir, jax.devices()[:1])
