"""Folders that hold several models: a diffusers pipeline, or the folder of models that training starts from.

Both look the same: one folder a model, named by its role. Those of one part may stand in `body/` or `head/`. Ours may
also hold null_context.safetensors, the tokens of the null branch.
"""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from anchor_jax.architecture import (
  CLIPTextConfig,
  CLIPVisionConfig,
  Config,
  ControlNetConfig,
  ScheduleConfig,
  UNetConfig,
  VAEConfig,
)
from anchor_jax.errors import UserError
from anchor_jax.shapes import Float, Int, NdArray
from anchor_jax.store import names
from anchor_jax.store.derive import controlnet_from_unet, head_unet_from_unet
from anchor_jax.store.diffusers import load_config, load_schedule, load_tensors, save_schedule, save_tensors
from anchor_jax.store.registry import make_module
from anchor_jax.store.tensors import Tensor, read_safetensors, write_safetensors

ROLES: dict[str, type[Config]] = {
  "unet": UNetConfig,
  "controlnet": ControlNetConfig,
  "vae": VAEConfig,
  "image_encoder": CLIPVisionConfig,
  "text_encoder": CLIPTextConfig,
}
_PARTS = ("", "body", "head")
NULL_CONTEXT = "null_context.safetensors"


@dataclasses.dataclass
class ModelFolder:
  """Models by place ("vae", "head/unet"), their tensors not read yet.

  Attributes:
    models: configuration and tensors of each.
    schedules: noise schedule of each `scheduler` folder, by place.
    null_context: tokens of the null branch, [N D], if known.
    left_out: names of subfolders that nothing here needs.
  """

  models: dict[str, tuple[Config, dict[names.Path, Tensor]]]
  schedules: dict[str, ScheduleConfig]
  null_context: Tensor | None = None
  left_out: tuple[str, ...] = ()


def null_ids(config: CLIPTextConfig, length: int) -> Int[NdArray, "1 {length}"]:
  """CLIP's tokens of the empty prompt, padded: the start token and then the end token, its vocabulary's last two.

  Stable Diffusion's text configurations name other ids, which are wrong.
  """
  if length > config.max_position_embeddings:
    raise UserError(
      f"the image tower gives {length} tokens and the text tower has {config.max_position_embeddings} positions;"
      " leave text_encoder out, the null context is then learned"
    )
  ids = np.full((1, length), config.vocab_size - 1, np.int32)
  ids[0, 0] = config.vocab_size - 2
  return ids


def make_null_context(
  config: CLIPTextConfig, tensors: dict[names.Path, Tensor], length: int
) -> Float[NdArray, "{length} D"]:
  """The null branch's tokens, as the reference has them: the text tower on the empty prompt."""
  params = names.unflatten({path: jnp.asarray(t.astype(np.float32).read()) for path, t in tensors.items()})
  hidden = make_module(config).apply({"params": params}, jnp.asarray(null_ids(config, length)))
  return np.asarray(hidden)[0]


def open_folder(folder: Path) -> ModelFolder:
  """Opens every model in a folder; nothing large is read yet.

  Raises:
    UserError: no model there, or all that is wrong with those there.
  """
  if not folder.is_dir():
    raise UserError(f"no folder {folder}; give a folder that diffusers or transformers wrote")
  pipeline = ModelFolder({}, {})
  complaints, left_out = [], []
  for part in _PARTS:
    for place in sorted(p for p in (folder / part).glob("*") if p.is_dir()):
      where = f"{part}/{place.name}" if part else place.name
      try:
        if place.name in ROLES:
          config = load_config(place, ROLES[place.name])
          pipeline.models[where] = (config, load_tensors(place, config))
        elif place.name == "scheduler":
          pipeline.schedules[where] = load_schedule(place)
        elif where not in _PARTS:
          left_out.append(where)
      except UserError as error:
        complaints.append(str(error))
  if complaints:
    raise UserError(" | ".join(complaints))
  if not pipeline.models:
    raise UserError(f"{folder} holds no model: neither config.json nor a subfolder {', '.join(ROLES)}")
  null = folder / NULL_CONTEXT
  pipeline.null_context = read_null_context(null) if null.exists() else None
  pipeline.left_out = tuple(left_out)
  return pipeline


def read_null_context(file: Path) -> Tensor:
  """The tokens in a null_context.safetensors."""
  tensors = read_safetensors(file)
  if list(tensors) != ["null_context"]:
    raise UserError(f"{file} holds {', '.join(tensors)} and not null_context alone; convert the pipeline again")
  return tensors["null_context"]


def complete(pipeline: ModelFolder, make_controlnet: bool, make_head: bool, stem_widths: tuple[int, ...]) -> None:
  """Adds what training needs and the folder lacks.

  Args:
    pipeline: changed in place.
    make_controlnet: a pose branch from each UNet that has none.
    make_head: a head UNet, and with `make_controlnet` its pose branch, from the body's UNet.
    stem_widths: of the pose branches made.
  """
  if make_head and "head/unet" not in pipeline.models:
    source = next((place for place in ("body/unet", "unet") if place in pipeline.models), None)
    if source is None:
      raise UserError("there is no UNet to make a head UNet from")
    config, tensors = pipeline.models[source]
    assert isinstance(config, UNetConfig)
    pipeline.models["head/unet"] = head_unet_from_unet(config, tensors)
  if make_controlnet:
    for place, (config, tensors) in list(pipeline.models.items()):
      beside = place.removesuffix("unet") + "controlnet"
      if isinstance(config, UNetConfig) and beside not in pipeline.models:
        pipeline.models[beside] = controlnet_from_unet(config, tensors, stem_widths)
  text, image = pipeline.models.get("text_encoder"), pipeline.models.get("image_encoder")
  if pipeline.null_context is None and text is not None and image is not None:
    assert isinstance(text[0], CLIPTextConfig) and isinstance(image[0], CLIPVisionConfig)
    pipeline.null_context = Tensor.of(make_null_context(text[0], text[1], image[0].tokens))


def write_models(folder: Path, pipeline: ModelFolder, dtype: str | None) -> None:
  """Writes all models below `folder`, their types kept unless `dtype` names one."""
  for place, (config, tensors) in pipeline.models.items():
    save_tensors(folder / place, config, tensors, dtype)
  for place, schedule in pipeline.schedules.items():
    save_schedule(folder / place, schedule)
  if pipeline.null_context is not None:
    write_safetensors(folder / NULL_CONTEXT, {"null_context": pipeline.null_context})
