"""Small single files of latent diffusion, with the names and layout of the format and random numbers."""

import numpy as np
from safetensors.numpy import save_file

from anchor_jax.config.networks import CLIPTextConfig, ControlNetConfig, UNetConfig, VAEConfig
from anchor_jax.formats import names
from anchor_jax.formats.registry import parameter_shapes

UNET = UNetConfig(
  block_out_channels=(32, 64, 64),
  down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
  up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
  layers_per_block=1,
  cross_attention_dim=64,
)
VAE = VAEConfig.from_widths((32, 64), layers_per_block=1)
TEXT = CLIPTextConfig(
  hidden_size=64, intermediate_size=48, projection_dim=64, num_hidden_layers=2, num_attention_heads=1, vocab_size=40
)
CONTROLNET = ControlNetConfig.from_unet(UNET, (4, 8, 8, 12))

RESNET = {
  "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
  "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def unet_modules(config):
  """Returns {module in diffusers: module in latent diffusion}, by numbering the blocks in order."""
  modules = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    "mid_block.attentions.0": "middle_block.1", "controlnet_mid_block": "middle_block_out.0",
  }  # fmt: skip

  def resnet(module, place):
    modules.update({f"{module}.{name}": f"{place}.{ldm_name}" for name, ldm_name in RESNET.items()})

  resnet("mid_block.resnets.0", "middle_block.0")
  resnet("mid_block.resnets.1", "middle_block.2")
  number, last = 1, len(config.layers) - 1
  for level, layers in enumerate(config.layers):
    for layer in range(layers):
      resnet(f"down_blocks.{level}.resnets.{layer}", f"input_blocks.{number}.0")
      modules[f"down_blocks.{level}.attentions.{layer}"] = f"input_blocks.{number}.1"
      number += 1
    if level < last:
      modules[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{number}.0.op"
      number += 1
  if isinstance(config, ControlNetConfig):
    modules |= {f"controlnet_down_blocks.{n}": f"zero_convs.{n}.0" for n in range(number)}
    blocks = 2 * (len(config.conditioning_embedding_out_channels) - 1)
    stem = ["conv_in", *(f"blocks.{n}" for n in range(blocks)), "conv_out"]
    return modules | {f"controlnet_cond_embedding.{at}": f"input_hint_block.{2 * n}" for n, at in enumerate(stem)}
  number = 0
  for level, kind in enumerate(config.up_block_types):
    for layer in range(config.layers[last - level] + 1):
      resnet(f"up_blocks.{level}.resnets.{layer}", f"output_blocks.{number}.0")
      modules[f"up_blocks.{level}.attentions.{layer}"] = f"output_blocks.{number}.1"
      number += 1
    if level < last:
      modules[f"up_blocks.{level}.upsamplers.0"] = f"output_blocks.{number - 1}.{2 if kind.startswith('Cross') else 1}"
  return modules


def vae_modules(config):
  modules = {}
  last = len(config.block_out_channels) - 1
  for side, way, sample, more in (("encoder", "down", "downsample", 0), ("decoder", "up", "upsample", 1)):
    modules[f"{side}.conv_norm_out"] = f"{side}.norm_out"
    for number in (0, 1):
      modules[f"{side}.mid_block.resnets.{number}"] = f"{side}.mid.block_{number + 1}"
    modules |= {f"{side}.mid_block.attentions.0.{name}": f"{side}.mid.attn_1.{ldm}" for name, ldm in ATTENTION.items()}
    for level in range(last + 1):
      place = f"{side}.{way}.{level if way == 'down' else last - level}"
      for layer in range(config.layers_per_block + more):
        module = f"{side}.{way}_blocks.{level}.resnets.{layer}"
        modules[f"{module}.conv_shortcut"] = f"{place}.block.{layer}.nin_shortcut"
        modules[module] = f"{place}.block.{layer}"
      modules[f"{side}.{way}_blocks.{level}.{sample}rs.0"] = f"{place}.{sample}"
  return modules


def ldm_names(config, torch_names):
  """Returns {name in diffusers: name in the file, without the network's prefix}."""
  modules = {} if isinstance(config, CLIPTextConfig) else None
  if modules is None:
    modules = vae_modules(config) if isinstance(config, VAEConfig) else unet_modules(config)
  renamed = {}
  for name in torch_names:
    parts = name.split(".")
    cut = next((n for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in modules), 0)
    renamed[name] = ".".join((modules[".".join(parts[:cut])], *parts[cut:])) if cut else name
  return renamed


def drawn(config, seed, dtype=np.float32):
  """Returns random parameters of a network by path."""
  rng = np.random.default_rng(seed)
  return {path: rng.normal(size=shape).astype(dtype) for path, shape in parameter_shapes(config).items()}


def ldm_tensors(config, params, prefix):
  """Returns parameters as a single file has them, with the autoencoder's attention as 1x1 convolutions."""
  torch = {names.torch_name(path): names.to_torch(path, array) for path, array in params.items()}
  flat = isinstance(config, VAEConfig)
  shaped = {name: array[..., None, None] if flat and array.ndim == 2 else array for name, array in torch.items()}
  return {f"{prefix}{name}": shaped[torch_name] for torch_name, name in ldm_names(config, shaped).items()}


def betas():
  return np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2


def write_checkpoint(file, unet=UNET, dtype=np.float32, text=True, **added):
  """Writes a complete model; returns {role: parameters}."""
  params = {"unet": drawn(unet, 0, dtype), "vae": drawn(VAE, 1, dtype)}
  tensors = ldm_tensors(unet, params["unet"], "model.diffusion_model.")
  tensors |= ldm_tensors(VAE, params["vae"], "first_stage_model.")
  if text:
    params["text_encoder"] = drawn(TEXT, 2, dtype)
    tensors |= ldm_tensors(TEXT, params["text_encoder"], "cond_stage_model.transformer.")
    position = "cond_stage_model.transformer.text_model.embeddings.position_ids"
    tensors[position] = np.arange(77, dtype=np.int64)[None]
  save_file({**tensors, "betas": betas().astype(dtype), "model_ema.decay": np.ones((), dtype), **added}, file)
  return params
