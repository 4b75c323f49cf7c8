"""Translates names of parameters in single files of latent diffusion into those of diffusers.

Such files number all blocks of the UNet's down path and of its up path consecutively, so a block's content determines
its place. The autoencoder numbers its decoder's levels from the finest. Names within transformers are equal.
"""

import re
from collections.abc import Collection, Iterable

# Modules outside the numbered blocks.
_MODULES = {
  "time_embed.0": "time_embedding.linear_1",
  "time_embed.2": "time_embedding.linear_2",
  "input_blocks.0.0": "conv_in",
  "middle_block.0": "mid_block.resnets.0",
  "middle_block.1": "mid_block.attentions.0",
  "middle_block.2": "mid_block.resnets.1",
  "middle_block_out.0": "controlnet_mid_block",
  "out.0": "conv_norm_out",
  "out.2": "conv_out",
}
_IN_RESNETS = {
  "in_layers.0": "norm1",
  "in_layers.2": "conv1",
  "emb_layers.1": "time_emb_proj",
  "out_layers.0": "norm2",
  "out_layers.3": "conv2",
  "skip_connection": "conv_shortcut",
}
_MAX_DEPTH = 4  # components of the longest module, `input_blocks.3.0.op`
_HINT, _EXIT = "input_hint_block", "zero_convs"
_IN_VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_IN_VAE_RESNETS = {"nin_shortcut": "conv_shortcut"}


def unet_names(keys: Iterable[str]) -> dict[str, str]:
  """Returns {key: diffusers' name} of a UNet or ControlNet; unknown keys are unchanged.

  Args:
    keys: without the prefix of the network (`model.diffusion_model.`, `control_model.`).
  """
  keys = dict.fromkeys(keys)
  modules = {**_MODULES, **_down_modules(keys), **_up_modules(keys), **_stem_modules(keys)}
  names = {}
  for key in keys:
    parts = key.split(".")
    # Longest module first: `input_blocks.3.0.op` before `input_blocks.3.0`.
    found = next((n for n in range(min(len(parts), _MAX_DEPTH), 0, -1) if ".".join(parts[:n]) in modules), 0)
    rest = ".".join(parts[found:])
    rest = next((f"{to}{rest[len(old) :]}" for old, to in _IN_RESNETS.items() if rest.startswith(f"{old}.")), rest)
    names[key] = f"{modules['.'.join(parts[:found])]}.{rest}" if found else key
  return names


def _numbers(keys: Collection[str], group: str) -> list[int]:
  """Returns the numbers of a group of blocks, ascending."""
  return sorted({int(found[1]) for key in keys if (found := re.match(rf"{group}\.(\d{{1,6}})\.", key))})


def _down_modules(keys: Collection[str]) -> dict[str, str]:
  modules, level, layer = {}, 0, 0
  for number in _numbers(keys, "input_blocks"):
    block = f"input_blocks.{number}"
    if f"{block}.0.op.weight" in keys:
      modules[f"{block}.0.op"] = f"down_blocks.{level}.downsamplers.0.conv"
      level, layer = level + 1, 0
    elif number:
      modules[f"{block}.0"] = f"down_blocks.{level}.resnets.{layer}"
      modules[f"{block}.1"] = f"down_blocks.{level}.attentions.{layer}"
      layer += 1
  return modules


def _up_modules(keys: Collection[str]) -> dict[str, str]:
  modules, level, layer = {}, 0, 0
  for number in _numbers(keys, "output_blocks"):
    block = f"output_blocks.{number}"
    upsampler = next((part for part in (1, 2) if f"{block}.{part}.conv.weight" in keys), None)
    modules[f"{block}.0"] = f"up_blocks.{level}.resnets.{layer}"
    if upsampler != 1:
      modules[f"{block}.1"] = f"up_blocks.{level}.attentions.{layer}"
    if upsampler is None:
      layer += 1
    else:
      modules[f"{block}.{upsampler}"] = f"up_blocks.{level}.upsamplers.0"
      level, layer = level + 1, 0
  return modules


def _stem_modules(keys: Collection[str]) -> dict[str, str]:
  """Returns names of a ControlNet's stem, whose convolutions have even numbers, and of its 1x1 output convolutions."""
  stem = _numbers(keys, _HINT)
  places = ["conv_in", *(f"blocks.{n}" for n in range(len(stem) - 2)), "conv_out"] if len(stem) > 1 else []
  modules = {f"{_HINT}.{number}": f"controlnet_cond_embedding.{place}" for number, place in zip(stem, places)}
  return modules | {f"{_EXIT}.{n}.0": f"controlnet_down_blocks.{n}" for n in _numbers(keys, _EXIT)}


def vae_names(keys: Iterable[str]) -> dict[str, str]:
  """Returns {key: diffusers' name} of an autoencoder; unknown keys are unchanged.

  Args:
    keys: without the prefix of the network (`first_stage_model.`).
  """
  keys = list(keys)
  top = max(_numbers(keys, r"decoder\.up"), default=0)
  return {key: _vae_name(key, top) for key in keys}


def _vae_name(key: str, top: int) -> str:
  side, _, rest = key.partition(".")
  if side not in ("encoder", "decoder"):
    return key
  if found := re.fullmatch(r"(down|up)\.(\d{1,6})\.(block|downsample|upsample)\.(.+)", rest):
    way, number, kind, inner = found[1], int(found[2]), found[3], found[4]
    block = f"{way}_blocks.{number if way == 'down' else top - number}"
    inner = _renamed(inner, _IN_VAE_RESNETS)
    return f"{side}.{block}.resnets.{inner}" if kind == "block" else f"{side}.{block}.{kind}rs.0.{inner}"
  if found := re.fullmatch(r"mid\.block_([12])\.(.+)", rest):
    return f"{side}.mid_block.resnets.{int(found[1]) - 1}.{_renamed(found[2], _IN_VAE_RESNETS)}"
  if found := re.fullmatch(r"mid\.attn_1\.(.+)", rest):
    return f"{side}.mid_block.attentions.0.{_renamed(found[1], _IN_VAE_ATTENTION)}"
  return f"{side}.{_renamed(rest, {'norm_out': 'conv_norm_out'})}"


def _renamed(name: str, table: dict[str, str]) -> str:
  """Returns a dotted name with its modules, all but the last component, renamed by a table."""
  *modules, leaf = name.split(".")
  return ".".join((*(table.get(module, module) for module in modules), leaf))
