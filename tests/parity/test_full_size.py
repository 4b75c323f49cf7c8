"""The golden lists of full-size parameters match the torch classes."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModel

from anchor_jax.config.networks import UNetConfig
from anchor_jax.formats.names import torch_name, torch_shape
from anchor_jax.formats.registry import parameter_shapes

PARAMETERS = Path(__file__).parents[1] / "golden" / "parameters"
SD15 = {"cross_attention_dim": 768, "attention_head_dim": 8}
CLASSES = {
  "unet": lambda: UNet2DConditionModel(**SD15),
  "head_unet": lambda: UNet2DConditionModel(**SD15, in_channels=9),
  "controlnet": lambda: ControlNetModel(**SD15),
  "vae": lambda: AutoencoderKL(
    block_out_channels=(128, 256, 512, 512),
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    layers_per_block=2,
  ),
  "image_encoder": lambda: CLIPVisionModel(CLIPVisionConfig()),
  "text_encoder": lambda: CLIPTextModel(
    CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12)
  ),
}
PREFIXES = {
  "image_encoder": "vision_model.",
  "text_encoder": "text_model.",
}  # in published files, not in transformers 5


@pytest.mark.parametrize("name", CLASSES)
def test_parameters(name):
  with torch.device("meta"):
    module = CLASSES[name]()
  prefix = PREFIXES.get(name, "")
  lines = sorted(f"{prefix}{key} {'x'.join(map(str, value.shape))}" for key, value in module.named_parameters())
  assert lines == (PARAMETERS / f"{name}.txt").read_text().splitlines()


def test_parameters_of_stable_diffusion_2():
  fields = {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True}
  with torch.device("meta"):
    module = UNet2DConditionModel(**fields)
  own = {torch_name(path): torch_shape(path, shape) for path, shape in parameter_shapes(UNetConfig(**fields)).items()}
  assert own == {name: tuple(value.shape) for name, value in module.named_parameters()}
