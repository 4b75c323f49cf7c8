"""Maps class names of diffusers and transformers to configurations, and configurations to networks."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

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


class Network(NamedTuple):
  """How a network is read, built and initialized.

  Attributes:
    config: its configuration.
    module: the Linen module, constructed with a configuration and the compute type.
    inputs: function from a configuration to the smallest inputs that initialize the network.
    other_names: class names in a config.json besides `config.class_name`.
  """

  config: type[Config]
  module: Any
  inputs: Callable[[Any], tuple[Any, ...]]
  other_names: tuple[str, ...] = ()


def _unet_inputs(config: UNetConfig | ControlNetConfig) -> tuple[Any, ...]:
  side = 2 ** (len(config.block_out_channels) - 1)
  latents = jnp.zeros((1, 1, side, side, config.in_channels))
  return latents, jnp.zeros(1, jnp.int32), jnp.zeros((1, 1, config.cross_attention_dim))


def _controlnet_inputs(config: ControlNetConfig) -> tuple[Any, ...]:
  latents, *others = _unet_inputs(config)
  return latents, *others, jnp.zeros((*latents.shape[:-1], config.block_out_channels[0]))


def _refiner_inputs(config: RefinerConfig) -> tuple[Any, ...]:
  return tuple(jnp.zeros((1, config.stride, config.stride, c)) for c in (3, config.conditioning_channels))


# To add a network, add its line.
NETWORKS: list[Network] = [
  Network(UNetConfig, UNet, _unet_inputs, ("FlaxUNet2DConditionModel",)),
  Network(ControlNetConfig, ControlNet, _controlnet_inputs, ("FlaxControlNetModel",)),
  Network(
    VAEConfig, AutoencoderKL, lambda c: (jnp.zeros((1, c.stride, c.stride, c.in_channels)),), ("FlaxAutoencoderKL",)
  ),
  Network(RefinerConfig, Refiner, _refiner_inputs),
  Network(LightDecoderConfig, LightDecoder, lambda c: (jnp.zeros((1, 1, 1, c.latent_channels)),)),
  Network(
    CLIPVisionConfig,
    CLIPVision,
    lambda c: (jnp.zeros((1, c.image_size, c.image_size, c.num_channels)),),
    ("CLIPVisionModelWithProjection", "FlaxCLIPVisionModel"),
  ),
  Network(
    CLIPTextConfig,
    CLIPText,
    lambda c: (jnp.zeros((1, 1), jnp.int32),),
    ("CLIPTextModelWithProjection", "FlaxCLIPTextModel"),
  ),
]

# For files without a class name.
_MODEL_TYPES = {
  "clip": "CLIPModel",
  CLIPVisionConfig.model_type: CLIPVisionConfig.class_name,
  CLIPTextConfig.model_type: CLIPTextConfig.class_name,
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
  configs = {name: network.config for network in NETWORKS for name in (network.config.class_name, *network.other_names)}
  if kind not in configs:
    raise UserError(f"config.json names the class {kind!r}; known are {', '.join(sorted(configs))}")
  return configs[kind].from_json(fields)


def make_module(config: Config, dtype: Any = jnp.float32) -> Any:
  """Returns the network of a configuration with compute type `dtype`."""
  return _network(config).module(config, dtype)


def example_inputs(config: Config) -> tuple[Any, ...]:
  """Returns the smallest inputs with which a network can be initialized."""
  return _network(config).inputs(config)


def _network(config: Config) -> Network:
  for network in NETWORKS:
    if network.config is type(config):
      return network
  raise TypeError(f"{type(config).__name__} describes no network")


@functools.lru_cache(maxsize=32)
def parameter_shapes(config: Config) -> dict[Path, tuple[int, ...]]:
  """Returns {path: shape} of a network's parameters, by abstract evaluation."""
  module = make_module(config)
  variables = jax.eval_shape(module.init, jax.random.key(0), *example_inputs(config))
  return {path: tuple(leaf.shape) for path, leaf in flatten_dict(variables["params"]).items()}
