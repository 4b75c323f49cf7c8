"""Stable Diffusion 1.5 and its towers at full size: names and shapes of all published parameters."""

import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from anchor_jax.config.networks import CLIPTextConfig, CLIPVisionConfig, ControlNetConfig, UNetConfig, VAEConfig
from anchor_jax.formats.names import torch_name, torch_shape
from anchor_jax.formats.registry import parameter_shapes
from anchor_jax.models.controlnet import Denoiser, FrameInputs

PARAMETERS = Path(__file__).parents[1] / "golden" / "parameters"  # names and shapes as the torch classes have them
MODELS = {
  "unet": (UNetConfig(), 859_520_964),
  "head_unet": (UNetConfig(in_channels=9), 859_535_364),
  "controlnet": (ControlNetConfig(), 361_279_120),
  "vae": (VAEConfig(), 83_653_863),
  "image_encoder": (CLIPVisionConfig(), 87_456_000),
  "text_encoder": (CLIPTextConfig(), 123_060_480),
}


@pytest.mark.parametrize("name", MODELS)
def test_names_and_shapes_of_parameters(name):
  config, count = MODELS[name]
  shapes = parameter_shapes(config)
  assert sum(math.prod(shape) for shape in shapes.values()) == count
  lines = sorted(f"{torch_name(p)} {'x'.join(map(str, torch_shape(p, shape)))}" for p, shape in shapes.items())
  assert lines == (PARAMETERS / f"{name}.txt").read_text().splitlines()


@pytest.mark.slow
def test_a_full_size_forward_pass_of_the_body(jit):
  """One frame of 512 pixels through UNet and pose branch, random weights (7 GB and some minutes)."""
  unet, controlnet = UNetConfig(), ControlNetConfig()
  rng = np.random.default_rng(0)

  def draw(path, shape):
    if path[-1] != "kernel":
      return jnp.full(shape, path[-1] == "scale", jnp.float32)
    return jnp.asarray(rng.standard_normal(shape, np.float32) * math.prod(shape[:-1]) ** -0.5)

  def random(config):
    return unflatten_dict({path: draw(path, shape) for path, shape in parameter_shapes(config).items()})

  params = {"unet": random(unet), "controlnet": random(controlnet)}
  latents, context = jnp.asarray(rng.normal(size=(1, 1, 64, 64, 4)), jnp.float32), jnp.ones((1, 50, 768))
  inputs = FrameInputs(jnp.zeros((1, 1, 64, 64, 320)))
  got = jit(Denoiser(unet, controlnet).apply)({"params": params}, latents, jnp.array([500]), context, inputs)
  assert got.shape == latents.shape
  assert np.isfinite(got).all()
  assert np.std(got) > 0.1
