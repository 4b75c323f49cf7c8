"""The golden lists of full-size parameters are what the torch classes have."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModel

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
