"""Writes trained parts that can be read without their workdir: as a folder of models, or as adapters."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from anchor_jax.config.stored import read_settings, write_settings
from anchor_jax.core.errors import UserError
from anchor_jax.files.outputs import new_file, new_folder
from anchor_jax.formats.diffusers import write_json
from anchor_jax.formats.folders import MODELS, ModelFolder, check_models_target, stored_models, write_models
from anchor_jax.formats.lora import Adapters, save_adapters
from anchor_jax.formats.roles import LIGHT_DECODER, LORA_FILE
from anchor_jax.formats.tensors import weights_hash
from anchor_jax.store.part import Part
from anchor_jax.store.weights import NEWEST, STEP, CheckpointChoice, read_base
from anchor_jax.store.workdir import REFERENCE_IMAGE, TEXTURE, read_weights
from anchor_jax.texture.background.film_plate import FILM_PLATE, write_film_plate
from anchor_jax.texture.channels import needs_texture
from anchor_jax.texture.stored import write_texture


def write_person(folder: Path, parts: Mapping[str, Part]) -> None:
  """Writes a person as a folder of diffusers models, from which `read_part` restores the parts bit for bit.

  In addition to the models (float32), each part's folder holds config.json (settings), step.json, appearance.png and,
  if the part needs a texture, appearance.safetensors. Light decoders are not saved.

  Args:
    folder: created, or replaced if it holds models.
    parts: "body", and optionally "head".

  Raises:
    UserError: `folder` holds something else, or cannot be written.
  """
  check_models_target(folder)
  weights = {
    name: {key: tree for key, tree in part.weights.items() if key != LIGHT_DECODER} for name, part in parts.items()
  }
  models = ModelFolder.of_parts(
    {name: stored_models(part.networks.model, weights[name]) for name, part in parts.items()}
  )
  with new_folder(folder, MODELS) as new:
    write_models(new, models, "float32")
    for name, part in parts.items():
      write_settings(new / name, part.config)
      write_json(new / name / STEP, {"step": part.step})
      if part.reference_image is not None:
        with new_file(new / name / REFERENCE_IMAGE) as path:
          Image.fromarray(part.reference_image).save(path)
      if part.texture is not None:
        write_texture(new / name / TEXTURE, part.texture)
      if part.film_plate is not None:
        write_film_plate(new / name / FILM_PLATE, part.film_plate)


def write_adapters(
  workdir: Path, part: str, target: Path, choice: CheckpointChoice = NEWEST, dtype: str = "float32"
) -> None:
  """Writes the adapters of a run with config.lora to TARGET/PART, without the networks that they change.

  Settings, appearance.png and, if the part needs a texture, appearance.safetensors are copied.

  Raises:
    UserError: the part was not trained with adapters, or one of those files is missing.
  """
  config = read_settings(workdir / part)
  if not config.lora.rank:
    raise UserError(f"{workdir / part} was trained without adapters: train with --config.lora.rank=N")
  trained, step = read_weights(workdir / part, choice.averaged, choice.step)
  frozen = read_base(workdir / part, config)
  scaled = jax.tree_util.tree_map_with_path(
    lambda path, leaf: leaf * np.float32(config.lora.scale) if path[-1].key == "up" else leaf, trained["lora"]
  )
  stored = Adapters(scaled, trained.get("null_context"), weights_hash(frozen), step)
  save_adapters(target / part / LORA_FILE, stored, dtype)
  write_settings(target / part, config)
  for name in (REFERENCE_IMAGE, *(TEXTURE,) * needs_texture(config.data.pose_channels)):
    if not (workdir / part / name).exists():
      raise UserError(f"{workdir / part / name} is missing: train this part again")
    shutil.copyfile(workdir / part / name, target / part / name)
  if (workdir / part / FILM_PLATE).exists():
    shutil.copyfile(workdir / part / FILM_PLATE, target / part / FILM_PLATE)
