"""Infers architectures from the shapes of their parameters, for files without a config.json.

Shapes determine neither the number of heads nor that of normalization groups; those of Stable Diffusion are assumed.
"""

import re
from collections.abc import Mapping
from typing import Any

from anchor_jax.config.networks import CLIPTextConfig, Config, ControlNetConfig, UNetConfig, VAEConfig
from anchor_jax.core.errors import UserError

Shapes = Mapping[str, tuple[int, ...]]
_STEM = "controlnet_cond_embedding"
_HEADS = 8  # of Stable Diffusion 1 at every level
_HEAD_WIDTH = 64  # of Stable Diffusion 2 at every level, and of CLIP's towers


def config_of(shapes: Shapes) -> Config:
  """Returns the architecture of a UNet, a ControlNet, an autoencoder or a text tower.

  Args:
    shapes: torch's shapes of its parameters, by diffusers' or transformers' names.

  Raises:
    UserError: it is none of those, or a parameter that determines a size is missing or has an impossible shape.
  """
  if any(name.startswith(f"{_STEM}.") for name in shapes):
    build = _controlnet
  elif any(name.startswith("down_blocks.") for name in shapes):
    build = _unet
  elif any(name.startswith("decoder.up_blocks.") for name in shapes):
    build = _vae
  elif any(name.startswith("text_model.") for name in shapes):
    build = _text
  else:
    raise UserError("it holds no UNet, ControlNet, autoencoder or text tower of Stable Diffusion 1 or 2")
  try:
    return build(shapes)
  except KeyError as error:
    raise UserError(f"it lacks {error.args[0]}") from None
  except (IndexError, ZeroDivisionError, ValueError):
    raise UserError("its parameters do not have the shapes of Stable Diffusion 1 or 2") from None


def _count(shapes: Shapes, prefix: str) -> int:
  """Returns the number of modules numbered after `prefix`."""
  pattern = re.compile(re.escape(prefix) + r"\.(\d{1,6})\.")
  return len({found[1] for name in shapes if (found := pattern.match(name))})


def _same(values: list[Any]) -> Any:
  """Returns one value if all are equal, as config files do, else all values."""
  return values[0] if len(set(values)) == 1 else tuple(values)


def _attends(shapes: Shapes, block: str) -> bool:
  return any(name.startswith(f"{block}.attentions.") for name in shapes)


def _down_path(shapes: Shapes) -> dict[str, Any]:
  """Returns the fields that a UNet and a ControlNet have in common."""
  blocks = [f"down_blocks.{level}" for level in range(_count(shapes, "down_blocks"))]
  widths = tuple(shapes[f"{block}.resnets.0.conv1.weight"][0] for block in blocks)
  attending = [_attends(shapes, block) for block in blocks]
  middle = "mid_block.attentions.0"
  transformers = [f"{block}.attentions.0" if attends else middle for block, attends in zip(blocks, attending)]
  linear = len(shapes[f"{middle}.proj_in.weight"]) == 2
  return {
    "in_channels": shapes["conv_in.weight"][1],
    "block_out_channels": widths,
    "down_block_types": tuple("CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in attending),
    "layers_per_block": _same([_count(shapes, f"{block}.resnets") for block in blocks]),
    "transformer_layers_per_block": _same([_count(shapes, f"{at}.transformer_blocks") for at in transformers]),
    "cross_attention_dim": shapes[f"{middle}.transformer_blocks.0.attn2.to_k.weight"][1],
    "attention_head_dim": tuple(max(1, width // _HEAD_WIDTH) for width in widths) if linear else _HEADS,
    "use_linear_projection": linear,
  }


def _unet(shapes: Shapes) -> UNetConfig:
  ups = (_attends(shapes, f"up_blocks.{number}") for number in range(_count(shapes, "up_blocks")))
  return UNetConfig(
    out_channels=shapes["conv_out.weight"][0],
    up_block_types=tuple("CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in ups),
    **_down_path(shapes),
  )


def _controlnet(shapes: Shapes) -> ControlNetConfig:
  # Each size of the stem has two convolutions; the second one leads to the next size.
  widening = range(1, _count(shapes, f"{_STEM}.blocks"), 2)
  stem = [shapes[f"{_STEM}.{place}.weight"][0] for place in ("conv_in", *(f"blocks.{n}" for n in widening))]
  return ControlNetConfig(
    conditioning_channels=shapes[f"{_STEM}.conv_in.weight"][1],
    conditioning_embedding_out_channels=tuple(stem),
    **_down_path(shapes),
  )


def _vae(shapes: Shapes) -> VAEConfig:
  blocks = [f"encoder.down_blocks.{level}" for level in range(_count(shapes, "encoder.down_blocks"))]
  return VAEConfig.from_widths(
    tuple(shapes[f"{block}.resnets.0.conv1.weight"][0] for block in blocks),
    in_channels=shapes["encoder.conv_in.weight"][1],
    out_channels=shapes["decoder.conv_out.weight"][0],
    layers_per_block=_count(shapes, f"{blocks[0]}.resnets"),
    latent_channels=shapes["decoder.conv_in.weight"][1],
    use_quant_conv="quant_conv.weight" in shapes,
    use_post_quant_conv="post_quant_conv.weight" in shapes,
    mid_block_add_attention=_attends(shapes, "decoder.mid_block"),
  )


def _text(shapes: Shapes) -> CLIPTextConfig:
  vocabulary, width = shapes["text_model.embeddings.token_embedding.weight"]
  return CLIPTextConfig(
    hidden_size=width,
    intermediate_size=shapes["text_model.encoder.layers.0.mlp.fc1.weight"][0],
    projection_dim=width,
    num_hidden_layers=_count(shapes, "text_model.encoder.layers"),
    num_attention_heads=max(1, width // _HEAD_WIDTH),
    vocab_size=vocabulary,
    max_position_embeddings=shapes["text_model.embeddings.position_embedding.weight"][0],
  )
