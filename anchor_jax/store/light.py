"""Reads and writes light decoders: a folder light_decoder/ with config.json and weights.

Each is trained for one autoencoder, whose latents it decodes and whose hash its configuration has.
"""

import dataclasses
import os
from pathlib import Path

import numpy as np

from anchor_jax.config.pixels import LightDecoderConfig
from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import PyTree
from anchor_jax.files.outputs import new_folder
from anchor_jax.files.shipped import shipped
from anchor_jax.formats.diffusers import load_model, save_model
from anchor_jax.formats.folders import MODELS
from anchor_jax.formats.roles import LIGHT_DECODER
from anchor_jax.formats.tensors import weights_hash


@dataclasses.dataclass(frozen=True)
class StoredLightDecoder:
  """A light decoder and its weights.

  Attributes:
    config: the architecture, and the hash of the autoencoder it replaces.
    params: numpy, float32.
  """

  config: LightDecoderConfig
  params: PyTree

  def check(self, vae: PyTree) -> None:
    """Raises UserError unless these are the parameters of the autoencoder it was trained for."""
    if self.config.autoencoder != autoencoder_hash(vae):
      raise UserError(
        "the light decoder was trained for another autoencoder than this person's: train one for it with"
        " python -m anchor_jax.distil, or omit --decoder"
      )


def autoencoder_hash(vae: PyTree) -> str:
  """Returns the hash of an autoencoder's parameters in float32."""
  return weights_hash({"vae": vae})


def read_light_decoder(choice: str | Path = "light") -> StoredLightDecoder:
  """Returns the light decoder in a folder that `distil` wrote, or the package's own for "light".

  Raises:
    UserError: there is none, or it can't be read.
  """
  folder = shipped() / LIGHT_DECODER if str(choice) == "light" else Path(choice)
  folder = folder / LIGHT_DECODER if os.path.isdir(folder / LIGHT_DECODER) else folder
  if not os.path.isfile(folder / "config.json"):
    raise UserError(f"no light decoder in {folder}: say exact, light, or the folder that anchor_jax.distil wrote")
  model = load_model(folder, LightDecoderConfig, np.float32)
  assert isinstance(model.config, LightDecoderConfig)
  return StoredLightDecoder(model.config, model.params)


def write_light_decoder(folder: Path, light: StoredLightDecoder, dtype: str = "float16") -> None:
  """Writes a light decoder to FOLDER/light_decoder; raises UserError if that can't be written or replaced."""
  with new_folder(folder / LIGHT_DECODER, MODELS) as new:
    save_model(new, light.config, light.params, dtype)
