"""Low-rank adapters (LoRA) that others trained for Stable Diffusion: kohya's names and diffusers', merged into a model.

kohya's files name a layer by diffusers' name with underscores for dots, `lora_unet_down_blocks_0_..._to_q.lora_down`,
and say alpha for each: the weight changes by up @ down * alpha / rank. Of a convolution, down has the convolution's
kernel and up is 1x1 (LoCon). diffusers' files have `unet.down_blocks.0..._to_q.lora_A`, with alpha equal to the rank
unless the metadata say otherwise.
"""

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from anchor_jax.core.errors import UserError, one_line
from anchor_jax.core.shapes import NdArray
from anchor_jax.formats import names
from anchor_jax.formats.folders import ModelFolder, StoredModel
from anchor_jax.formats.roles import SHARED, Place
from anchor_jax.formats.tensors import Tensor, read_metadata, write_safetensors

FILE = "lora.safetensors"
_KOHYA = re.compile(r"lora_(unet|te)_(\w+)\.(lora_down\.weight|lora_up\.weight|alpha)")
_PEFT = re.compile(r"(unet|text_encoder)\.([\w.]+?)\.(lora_A|lora_B|lora\.down|lora\.up)\.weight")
_ROLES = {"te": "text_encoder"}
_SIDES = {
  **dict.fromkeys(("lora_down.weight", "lora_A", "lora.down"), "down"),
  **dict.fromkeys(("lora_up.weight", "lora_B", "lora.up"), "up"),
}
# The modules of a UNet and of a text tower that have underscores in their names; others end at each underscore.
_WORDS = (
  "down_blocks up_blocks mid_block transformer_blocks time_embedding time_emb_proj linear_1 linear_2 proj_in proj_out "
  "conv_in conv_out conv_shortcut to_q to_k to_v to_out text_model self_attn q_proj k_proj v_proj out_proj "
  "token_embedding position_embedding"
).split()
_MODULE = re.compile(rf"({'|'.join(_WORDS)}|[a-zA-Z]+\d?|\d+)(?:_|$)")
_FIRST = ("down_blocks", "up_blocks", "mid_block", "conv_in", "conv_out", "time_embedding", "text_model")
_METADATA = "lora_adapter_metadata"


@dataclasses.dataclass(frozen=True)
class Change:
  """What a file says of one layer, not read yet.

  Attributes:
    down: [rank in], or a convolution's [rank in h w].
    up: [out rank], or [out rank 1 1].
    alpha: divided by the rank, the factor of their product; None: the rank itself.
  """

  down: Tensor
  up: Tensor
  alpha: Tensor | float | None

  @property
  def factor(self) -> float:
    """What the product of up and down is multiplied by."""
    alpha = float(self.alpha.read().reshape(())) if isinstance(self.alpha, Tensor) else self.alpha
    if alpha is not None and not math.isfinite(alpha):
      raise UserError(f"an adapter has the alpha {alpha}: fetch its file again")
    return 1.0 if alpha is None else alpha / self.down.shape[0]

  def product(self, shape: tuple[int, ...]) -> NdArray:
    """The change of a weight of a shape as torch has it; float32."""
    down, up = (tensor.astype(np.float32).read() for tensor in (self.down, self.up))
    return (up.reshape(len(up), -1) @ down.reshape(len(down), -1)).reshape(shape) * np.float32(self.factor)

  def fits(self, shape: tuple[int, ...]) -> bool:
    """Whether `product` gives a weight of this shape."""
    same = self.up.shape[0] == shape[0] and math.prod(self.down.shape[1:]) == math.prod(shape[1:])
    return same and len(self.down.shape) in (2, len(shape))


Changes = Mapping[str, Mapping[str, Change]]  # by network ("unet", "text_encoder") and layer, as torch names it


def holds_lora(tensors: Mapping[str, Tensor]) -> bool:
  """Whether a file's tensors are adapters, of whatever kind."""
  return any(
    re.search(r"lora_(unet|te|te1|te2)_|\.lora_(A|B|down|up)\.|[._]lora\.(down|up)\.", name) for name in tensors
  )


def read_lora(file: Path, tensors: Mapping[str, Tensor]) -> Changes:
  """Returns what a file changes, not read yet.

  Args:
    file: a .safetensors.
    tensors: those in it.

  Raises:
    UserError: it holds something else than low-rank adapters of Stable Diffusion 1 or 2, or half of one.
  """
  sides: dict[tuple[str, str], dict[str, Tensor]] = {}
  for name, tensor in tensors.items():
    layer, side = _parsed(file, name)
    sides.setdefault(layer, {})[side] = tensor
  alphas = _peft_alphas(file)
  changes: dict[str, dict[str, Change]] = {}
  for (network, module), found in sides.items():
    down, up, alpha = found.get("down"), found.get("up"), found.get("alpha", alphas.get(network))
    if down is None or up is None:
      raise UserError(f"{file} holds half of the adapter of {network}.{module}; fetch it again")
    flat = len(down.shape) in (2, 4) and down.shape[0] > 0 and len(up.shape) in (2, 4) and up.shape[2:] in ((), (1, 1))
    if not flat or up.shape[1] != down.shape[0] or (isinstance(alpha, Tensor) and math.prod(alpha.shape) != 1):
      raise UserError(f"{file} holds factors for {network}.{module} that do not go together; fetch it again")
    changes.setdefault(network, {})[module] = Change(down, up, alpha)
  return changes


def _parsed(file: Path, name: str) -> tuple[tuple[str, str], str]:
  """((network, layer), "down", "up" or "alpha") of a key."""
  if found := _KOHYA.fullmatch(name):
    network, flat, side = found.groups()
    parts = _MODULE.findall(flat)
    if "_".join(parts) == flat and parts[0] in _FIRST:
      return (_ROLES.get(network, network), ".".join(parts)), _SIDES.get(side, side)
  # The oldest files of diffusers name the processor of an attention.
  name = re.sub(r"\.processor\.(to_q|to_k|to_v|to_out)_lora\.", r".\1.lora.", name)
  if found := _PEFT.fullmatch(name):
    network, module, side = found.groups()
    if network == "text_encoder":  # transformers names the tower no more since 5.0
      module = f"text_model.{module.removeprefix('text_model.')}"
    return (network, re.sub(r"\.to_out$", ".to_out.0", module)), _SIDES[side]
  raise UserError(
    f"{file} holds {one_line(name, 80)!r}, which is no plain low-rank adapter (LoRA) of a layer of Stable Diffusion 1"
    " or 2: merge such files with the program that made them"
  )


def _peft_alphas(file: Path) -> dict[str, float]:
  """Alpha by network, of a file that diffusers wrote with the settings of PEFT."""
  try:
    settings = json.loads(read_metadata(file).get(_METADATA, "{}"))
    names_ = ("use_dora", "use_rslora", "alpha_pattern")
    refused = [key for key in settings if key.rpartition(".")[2] in names_ and settings[key]]
    alphas = {key.partition(".")[0]: float(settings[key]) for key in settings if key.endswith(".lora_alpha")}
  except (ValueError, TypeError, AttributeError, RecursionError) as error:
    raise UserError(f"{file} has settings that can't be read ({one_line(error)}); save it again") from None
  if refused:
    raise UserError(f"{file} uses {refused[0]}, which is not merged here: merge it with diffusers, and convert that")
  return alphas


def merge_lora(folder: ModelFolder, changes: Changes, strength: float, file: Path) -> None:
  """Adds adapters to the shared networks of a folder; the sums are formed when a tensor is read.

  Args:
    folder: changed in place.
    changes: of one file.
    strength: multiplies them.
    file: for messages.

  Raises:
    UserError: there is no UNet, or a layer that is changed is not there or has another shape.
  """
  for network, of_layers in changes.items():
    place = Place(SHARED, network)
    model = folder.models.get(place)
    if model is None and network == "text_encoder":  # it is read for the null context alone
      folder.ignored += (f"what {file.name} changes in a text tower",)
      continue
    if model is None:
      raise UserError(f"{file} changes the {network}, and there is none: give a whole model as SRC")
    layers = {names.torch_name(path).removesuffix(".weight"): path for path in model.tensors if path[-1] == "kernel"}
    strange = [
      layer
      for layer, change in of_layers.items()
      if layer not in layers or not change.fits(names.torch_shape(layers[layer], model.tensors[layers[layer]].shape))
    ]
    if strange:
      raise UserError(
        f"{file} does not fit the {network}: {len(strange)} of {len(of_layers)} layers are not there or have another"
        f" shape, such as {', '.join(sorted(strange)[:3])}; give the model that it was trained for"
      )
    merged = {layers[layer]: _merged(model.tensors[layers[layer]], layers[layer], change, strength)
              for layer, change in of_layers.items()}  # fmt: skip
    folder.models[place] = StoredModel(model.config, {**model.tensors, **merged})


def _merged(tensor: Tensor, path: names.Path, change: Change, strength: float) -> Tensor:
  def add(array: NdArray) -> NdArray:
    product = change.product(names.torch_shape(path, tensor.shape))
    return array.astype(np.float32) + np.float32(strength) * names.from_torch(path, product)

  summed = tensor.then(tensor.shape, add)
  return dataclasses.replace(summed, dtype=np.dtype(np.float32)).astype(tensor.dtype)


def write_lora(folder: Path, changes: Changes, dtype: np.dtype | None = None) -> None:
  """Writes adapters as diffusers and PEFT load them, with alpha equal to the rank: its factor goes into lora_B."""
  tensors: dict[str, Tensor] = {}
  for network, of_layers in changes.items():
    for layer, change in of_layers.items():
      scaled = change.up.then(change.up.shape, lambda up, c=change: (up.astype(np.float32) * c.factor).astype(up.dtype))
      tensors[f"{network}.{layer}.lora_A.weight"] = change.down
      tensors[f"{network}.{layer}.lora_B.weight"] = scaled
  if dtype is not None:
    tensors = {name: tensor.astype(dtype) for name, tensor in tensors.items()}
  write_safetensors(folder / FILE, tensors, {"format": "pt"})
