"""Files of low-rank adapters (LoRA): those trained here, and those that others trained for Stable Diffusion.

A file written here holds `unet.down_blocks.0...to_q.lora_A.weight` [rank in] and `...lora_B.weight` [out rank], the
names by which diffusers and PEFT load them. Alpha equals the rank: the scale is multiplied into lora_B. Keys of the
pose branch start with `controlnet.`; null_context [N D] is specific to this package.

Files of others are merged into a model. kohya's name a layer by diffusers' name with underscores for dots,
`lora_unet_down_blocks_0_..._to_q.lora_down`, and hold alpha for each: the weight changes by up @ down * alpha / rank.
For a convolution, down has the convolution's kernel and up is 1x1 (LoCon). diffusers' files have the names above, with
alpha equal to the rank unless the metadata gives another.
"""

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from anchor_jax.core.errors import UserError, one_line
from anchor_jax.core.shapes import Float, NdArray, PyTree
from anchor_jax.formats import names
from anchor_jax.formats.diffusers import DTYPES
from anchor_jax.formats.folders import ModelFolder, StoredModel
from anchor_jax.formats.roles import LORA_FILE, SHARED, ModelPlace
from anchor_jax.formats.tensors import Tensor, read_metadata, read_safetensors, write_safetensors

_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"


@dataclasses.dataclass(frozen=True)
class Adapters:
  """The adapters of one trained part.

  Attributes:
    tree: {network: {... layer: {down, up}}}, to be merged with scale 1; see models/lora.py.
    null_context: [N D], if it was trained.
    base_hash: `weights_hash` of the networks that they change.
    step: optimizer steps they were trained for.
  """

  tree: PyTree
  null_context: Float[NdArray, "N D"] | None
  base_hash: str
  step: int


def save_adapters(file: Path, adapters: Adapters, dtype: str = "float32") -> None:
  """Writes adapters to `file`; `dtype` is one of `diffusers.DTYPES`."""
  tensors: dict[str, NdArray] = {}
  flat = {path: np.asarray(value) for path, value in flatten_dict(adapters.tree).items()}
  for path, value in flat.items():
    name = names.torch_name((*path[:-1], "kernel")).removesuffix(".weight")
    if path[-1] == "up" and flat[*path[:-1], "down"].ndim == 4:  # torch stores a convolution's second factor as 1x1
      value = value[None, None]
    tensors[name + (_DOWN if path[-1] == "down" else _UP)] = names.to_torch(("kernel",), value)
  if adapters.null_context is not None:
    tensors["null_context"] = np.asarray(adapters.null_context)
  stored = {name: Tensor.of(value).astype(DTYPES[dtype]) for name, value in tensors.items()}
  write_safetensors(file, stored, {"format": "pt", "base": adapters.base_hash, "step": str(adapters.step)})


def load_adapters(file: Path) -> Adapters:
  """Returns the adapters that `save_adapters` wrote, in float32.

  Raises:
    UserError: the file is damaged, or was not written by `save_adapters`.
  """
  tensors = {name: tensor.astype(np.float32).read() for name, tensor in read_safetensors(file).items()}
  metadata = read_metadata(file)
  null_context = tensors.pop("null_context", None)
  if null_context is not None and null_context.ndim != 2:
    raise UserError(f"{file} holds a null_context of shape {list(null_context.shape)}, not [N D]: write it again")
  flat: dict[names.Path, NdArray] = {}
  for name, value in tensors.items():
    side = "down" if name.endswith(_DOWN) else "up" if name.endswith(_UP) else None
    layer = tuple(re.sub(r"\.(\d+)", r"_\1", name.removesuffix(_DOWN).removesuffix(_UP)).split("."))
    if side is None or layer[0] not in ("unet", "controlnet") or value.ndim not in (2, 4):
      raise UserError(f"{file} holds {name!r}, which is not an adapter: write the file with anchor_jax.convert lora")
    value = names.from_torch(("kernel",), value)
    flat[*layer, side] = value.reshape(value.shape[-2:]) if side == "up" else value
  incomplete = [path for path in flat if (*path[:-1], "up" if path[-1] == "down" else "down") not in flat]
  if incomplete:
    raise UserError(f"{file} holds half of the adapter of {'/'.join(incomplete[0][:-1])}: write it again")
  if not flat or not re.fullmatch("[0-9]{1,18}", metadata.get("step", "")):
    raise UserError(f"{file} holds no adapters that can be read here: write it with anchor_jax.convert lora")
  return Adapters(unflatten_dict(flat), null_context, metadata.get("base", ""), int(metadata["step"]))


_KOHYA = re.compile(r"lora_(unet|te)_(\w+)\.(lora_down\.weight|lora_up\.weight|alpha)")
_PEFT = re.compile(r"(unet|text_encoder)\.([\w.]+?)\.(lora_A|lora_B|lora\.down|lora\.up)\.weight")
_ROLES = {"te": "text_encoder"}
_SIDES = {
  **dict.fromkeys(("lora_down.weight", "lora_A", "lora.down"), "down"),
  **dict.fromkeys(("lora_up.weight", "lora_B", "lora.up"), "up"),
}
# Modules of a UNet and of a text tower whose names contain underscores; all other names end at an underscore.
_WORDS = (
  "down_blocks up_blocks mid_block transformer_blocks time_embedding time_emb_proj linear_1 linear_2 proj_in proj_out "
  "conv_in conv_out conv_shortcut to_q to_k to_v to_out text_model self_attn q_proj k_proj v_proj out_proj "
  "token_embedding position_embedding"
).split()
_MODULE = re.compile(rf"({'|'.join(_WORDS)}|[a-zA-Z]+\d?|\d+)(?:_|$)")
_FIRST = ("down_blocks", "up_blocks", "mid_block", "conv_in", "conv_out", "time_embedding", "text_model")
_METADATA = "lora_adapter_metadata"


@dataclasses.dataclass(frozen=True)
class LayerChange:
  """The adapter of one layer, not read yet.

  Attributes:
    down: [rank in], or a convolution's [rank in h w].
    up: [out rank], or [out rank 1 1].
    alpha: divided by the rank, the scale of their product; None stands for the rank.
  """

  down: Tensor
  up: Tensor
  alpha: Tensor | float | None

  @property
  def scale(self) -> float:
    """The factor of the product of up and down."""
    alpha = float(self.alpha.read().reshape(())) if isinstance(self.alpha, Tensor) else self.alpha
    if alpha is not None and not math.isfinite(alpha):
      raise UserError(f"an adapter has the alpha {alpha}: fetch its file again")
    return 1.0 if alpha is None else alpha / self.down.shape[0]

  def product(self, shape: tuple[int, ...]) -> NdArray:
    """The change of a weight of torch's `shape`; float32."""
    down, up = (tensor.astype(np.float32).read() for tensor in (self.down, self.up))
    return (up.reshape(len(up), -1) @ down.reshape(len(down), -1)).reshape(shape) * np.float32(self.scale)

  def fits(self, shape: tuple[int, ...]) -> bool:
    """Whether `product` gives a weight of this shape."""
    same = self.up.shape[0] == shape[0] and math.prod(self.down.shape[1:]) == math.prod(shape[1:])
    return same and len(self.down.shape) in (2, len(shape))


Changes = Mapping[str, Mapping[str, LayerChange]]  # by network ("unet", "text_encoder") and torch's name of the layer


def holds_lora(tensors: Mapping[str, Tensor]) -> bool:
  """Whether a file's tensors are adapters of any kind."""
  return any(
    re.search(r"lora_(unet|te|te1|te2)_|\.lora_(A|B|down|up)\.|[._]lora\.(down|up)\.", name) for name in tensors
  )


def read_lora(file: Path, tensors: Mapping[str, Tensor]) -> Changes:
  """Returns the changes in a file of others, not read yet.

  Args:
    file: a .safetensors.
    tensors: its content.

  Raises:
    UserError: the file holds anything but low-rank adapters of Stable Diffusion 1 or 2, or one factor of a pair.
  """
  sides: dict[tuple[str, str], dict[str, Tensor]] = {}
  for name, tensor in tensors.items():
    layer, side = _parsed(file, name)
    sides.setdefault(layer, {})[side] = tensor
  alphas = _peft_alphas(file)
  changes: dict[str, dict[str, LayerChange]] = {}
  for (network, module), found in sides.items():
    down, up, alpha = found.get("down"), found.get("up"), found.get("alpha", alphas.get(network))
    if down is None or up is None:
      raise UserError(f"{file} holds half of the adapter of {network}.{module}; fetch it again")
    flat = len(down.shape) in (2, 4) and down.shape[0] > 0 and len(up.shape) in (2, 4) and up.shape[2:] in ((), (1, 1))
    if not flat or up.shape[1] != down.shape[0] or (isinstance(alpha, Tensor) and math.prod(alpha.shape) != 1):
      raise UserError(f"{file} holds factors for {network}.{module} that do not match; fetch it again")
    changes.setdefault(network, {})[module] = LayerChange(down, up, alpha)
  return changes


def _parsed(file: Path, name: str) -> tuple[tuple[str, str], str]:
  """Returns ((network, layer), "down", "up" or "alpha") of a key."""
  if found := _KOHYA.fullmatch(name):
    network, flat, side = found.groups()
    parts = _MODULE.findall(flat)
    if "_".join(parts) == flat and parts[0] in _FIRST:
      return (_ROLES.get(network, network), ".".join(parts)), _SIDES.get(side, side)
  # diffusers' oldest files name an attention's processor.
  name = re.sub(r"\.processor\.(to_q|to_k|to_v|to_out)_lora\.", r".\1.lora.", name)
  if found := _PEFT.fullmatch(name):
    network, module, side = found.groups()
    if network == "text_encoder":  # transformers no longer names the tower since 5.0
      module = f"text_model.{module.removeprefix('text_model.')}"
    return (network, re.sub(r"\.to_out$", ".to_out.0", module)), _SIDES[side]
  raise UserError(
    f"{file} holds {one_line(name, 80)!r}, which is not a plain low-rank adapter (LoRA) of a layer of Stable Diffusion"
    " 1 or 2: merge such files with the program that made them"
  )


def _peft_alphas(file: Path) -> dict[str, float]:
  """Returns alpha by network, from the PEFT settings in the metadata of diffusers' files."""
  try:
    settings = json.loads(read_metadata(file).get(_METADATA, "{}"))
    unsupported = ("use_dora", "use_rslora", "alpha_pattern")
    refused = [key for key in settings if key.rpartition(".")[2] in unsupported and settings[key]]
    alphas = {key.partition(".")[0]: float(settings[key]) for key in settings if key.endswith(".lora_alpha")}
  except (ValueError, TypeError, AttributeError, RecursionError) as error:
    raise UserError(f"{file} has settings that can't be read ({one_line(error)}); save it again") from None
  if refused:
    raise UserError(f"{file} uses {refused[0]}, which is not merged here: merge it with diffusers, and convert that")
  return alphas


def merge_lora(folder: ModelFolder, changes: Changes, strength: float, file: Path) -> None:
  """Adds adapters to the shared networks of a folder; sums are computed when a tensor is read.

  Args:
    folder: changed in place.
    changes: from one file.
    strength: factor of all changes.
    file: for messages.

  Raises:
    UserError: there is no UNet, or a changed layer is missing or has another shape.
  """
  for network, of_layers in changes.items():
    place = ModelPlace(SHARED, network)
    model = folder.models.get(place)
    if model is None and network == "text_encoder":  # only the null context needs it
      folder.ignored += (f"changes of a text tower in {file.name}",)
      continue
    if model is None:
      raise UserError(f"{file} changes the {network}, and there is none: give a complete model as SRC")
    layers = {names.torch_name(path).removesuffix(".weight"): path for path in model.tensors if path[-1] == "kernel"}
    misfits = [
      layer
      for layer, change in of_layers.items()
      if layer not in layers or not change.fits(names.torch_shape(layers[layer], model.tensors[layers[layer]].shape))
    ]
    if misfits:
      raise UserError(
        f"{file} does not fit the {network}: {len(misfits)} of {len(of_layers)} layers are missing or have another"
        f" shape, such as {', '.join(sorted(misfits)[:3])}; give the model that it was trained for"
      )
    merged = {layers[layer]: _merged(model.tensors[layers[layer]], layers[layer], change, strength)
              for layer, change in of_layers.items()}  # fmt: skip
    folder.models[place] = StoredModel(model.config, {**model.tensors, **merged})


def _merged(tensor: Tensor, path: names.Path, change: LayerChange, strength: float) -> Tensor:
  def add(array: NdArray) -> NdArray:
    product = change.product(names.torch_shape(path, tensor.shape))
    return array.astype(np.float32) + np.float32(strength) * names.from_torch(path, product)

  summed = tensor.then(tensor.shape, add)
  return dataclasses.replace(summed, dtype=np.dtype(np.float32)).astype(tensor.dtype)


def write_lora(folder: Path, changes: Changes, dtype: np.dtype | None = None) -> None:
  """Writes adapters as diffusers and PEFT load them; alpha equals the rank, and the scale goes into lora_B."""
  tensors: dict[str, Tensor] = {}
  for network, of_layers in changes.items():
    for layer, change in of_layers.items():
      scaled = change.up.then(change.up.shape, lambda up, c=change: (up.astype(np.float32) * c.scale).astype(up.dtype))
      tensors[f"{network}.{layer}{_DOWN}"] = change.down
      tensors[f"{network}.{layer}{_UP}"] = scaled
  if dtype is not None:
    tensors = {name: tensor.astype(dtype) for name, tensor in tensors.items()}
  write_safetensors(folder / LORA_FILE, tensors, {"format": "pt"})
