"""Maps class names of diffusers and transformers to configurations, and configurations to networks."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from anchor_jax.config.networks import CLIPTextConfig, CLIPVisionConfig, Config, ControlNetConfig, UNetConfig, VAEConfig
from anchor_jax.config.pixels import LightDecoderConfig, RefinerConfig
from anchor_jax.core.errors import UserError
from anchor_jax.formats.names import Path
from anchor_jax.models.clip import CLIPText, CLIPVision
from anchor_jax.models.controlnet import ControlNet
from anchor_jax.models.light_decoder import LightDecoder
from anchor_jax.models.refiner import Refiner
from anchor_jax.models.unet import UNet
from anchor_jax.models.vae import AutoencoderKL

_CONFIGS: dict[str, type[Config]] = {
  "UNet2DConditionModel": UNetConfig,
  "FlaxUNet2DConditionModel": UNetConfig,
  "ControlNetModel": ControlNetConfig,
  "FlaxControlNetModel": ControlNetConfig,
  "AutoencoderKL": VAEConfig,
  "AnchorRefiner": RefinerConfig,
  "AnchorLightDecoder": LightDecoderConfig,
  "FlaxAutoencoderKL": VAEConfig,
  "CLIPVisionModel": CLIPVisionConfig,
  "CLIPVisionModelWithProjection": CLIPVisionConfig,
  "FlaxCLIPVisionModel": CLIPVisionConfig,
  "CLIPTextModel": CLIPTextConfig,
  "CLIPTextModelWithProjection": CLIPTextConfig,
  "FlaxCLIPTextModel": CLIPTextConfig,
}

# For files without a class name.
_MODEL_TYPES = {
  "clip": "CLIPModel",
  CLIPVisionConfig.model_type: CLIPVisionConfig.class_name,
  CLIPTextConfig.model_type: CLIPTextConfig.class_name,
}

_MODULES: dict[type[Config], Any] = {
  UNetConfig: UNet,
  ControlNetConfig: ControlNet,
  VAEConfig: AutoencoderKL,
  RefinerConfig: Refiner,
  LightDecoderConfig: LightDecoder,
  CLIPVisionConfig: CLIPVision,
  CLIPTextConfig: CLIPText,
}


def parse_network_config(fields: Mapping[str, Any], role: str = "") -> Config:
  """Returns the configuration in the fields of a config.json.

  Args:
    fields: its content.
    role: the folder's name; for a CLIP model with both towers, `text_encoder` selects the text tower, others the image
      tower.

  Raises:
    UserError: the class is unknown.
  """
  architectures = fields.get("architectures")
  named = architectures[0] if isinstance(architectures, list) and architectures else None
  kind = str(fields.get("_class_name") or named or _MODEL_TYPES.get(str(fields.get("model_type")), ""))
  if kind == "CLIPModel":
    tower, config = ("text_config", CLIPTextConfig) if role == "text_encoder" else ("vision_config", CLIPVisionConfig)
    # Older files have sizes in a second dictionary, which takes precedence.
    sizes = [fields.get(name) or {} for name in (tower, f"{tower}_dict")]
    if not all(isinstance(part, Mapping) for part in sizes):
      raise UserError(f"config.json holds no sizes of CLIP in {tower}; fetch it again")
    return config.from_json({**sizes[0], **sizes[1]})
  if kind not in _CONFIGS:
    raise UserError(f"config.json names the class {kind!r}; known are {', '.join(sorted(_CONFIGS))}")
  return _CONFIGS[kind].from_json(fields)


def make_module(config: Config, dtype: Any = jnp.float32) -> Any:
  """Returns the network of a configuration with compute type `dtype`."""
  if type(config) not in _MODULES:
    raise TypeError(f"{type(config).__name__} describes no network")
  return _MODULES[type(config)](config, dtype)


def example_inputs(config: Config) -> tuple[Any, ...]:
  """Returns the smallest inputs with which a network can be initialized."""
  if isinstance(config, (UNetConfig, ControlNetConfig)):
    side = 2 ** (len(config.block_out_channels) - 1)
    inputs = (
      jnp.zeros((1, 1, side, side, config.in_channels)),
      jnp.zeros(1, jnp.int32),
      jnp.zeros((1, 1, config.cross_attention_dim)),
    )
    if isinstance(config, UNetConfig):
      return inputs
    return (*inputs, jnp.zeros((1, 1, side, side, config.block_out_channels[0])))
  if isinstance(config, VAEConfig):
    return (jnp.zeros((1, config.stride, config.stride, config.in_channels)),)
  if isinstance(config, RefinerConfig):
    return tuple(jnp.zeros((1, config.stride, config.stride, c)) for c in (3, config.conditioning_channels))
  if isinstance(config, LightDecoderConfig):
    return (jnp.zeros((1, 1, 1, config.latent_channels)),)
  if isinstance(config, CLIPVisionConfig):
    return (jnp.zeros((1, config.image_size, config.image_size, config.num_channels)),)
  return (jnp.zeros((1, 1), jnp.int32),)


@functools.lru_cache(maxsize=32)
def parameter_shapes(config: Config) -> dict[Path, tuple[int, ...]]:
  """Returns {path: shape} of a network's parameters, by abstract evaluation."""
  module = make_module(config)
  variables = jax.eval_shape(module.init, jax.random.key(0), *example_inputs(config))
  return {path: tuple(leaf.shape) for path, leaf in flatten_dict(variables["params"]).items()}
