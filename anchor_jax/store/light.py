"""Light decoders on disk: LIGHT_DECODER/config.json and weights, beside the networks that come with the package.

Each was made for one autoencoder and decodes the latents of no other; its configuration has that one's hash.
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
from anchor_jax.formats.tensors import weights_hash

LIGHT = "light_decoder"  # its role, and its key among the weights of a part


@dataclasses.dataclass(frozen=True)
class StoredLightDecoder:
  """A light decoder read from a folder.

  Attributes:
    config: the architecture, and the autoencoder that it stands in for.
    params: float32, numpy.
  """

  config: LightDecoderConfig
  params: PyTree

  def check(self, vae: PyTree) -> None:
    """Raises UserError unless these are the parameters of the autoencoder that it was made for."""
    if self.config.autoencoder != autoencoder_hash(vae):
      raise UserError(
        "the light decoder was made for another autoencoder than this person's: make one for hers with"
        " python -m anchor_jax.distil, or leave --decoder out"
      )


def autoencoder_hash(vae: PyTree) -> str:
  """Names an autoencoder by its parameters in float32."""
  return weights_hash({"vae": vae})


def read_light_decoder(choice: str | Path = "light") -> StoredLightDecoder:
  """Reads a light decoder: a folder that `distil` wrote, or "light", the one that comes with the package.

  Raises:
    UserError: there is none, or it can't be read.
  """
  folder = shipped() / LIGHT if str(choice) == "light" else Path(choice)
  folder = folder / LIGHT if os.path.isdir(folder / LIGHT) else folder
  if not os.path.isfile(folder / "config.json"):
    raise UserError(f"no light decoder in {folder}: say exact, light, or the folder that anchor_jax.distil wrote")
  model = load_model(folder, LightDecoderConfig, np.float32)
  assert isinstance(model.config, LightDecoderConfig)
  return StoredLightDecoder(model.config, model.params)


def write_light_decoder(folder: Path, light: StoredLightDecoder, dtype: str = "float16") -> None:
  """Writes a light decoder to FOLDER/light_decoder; raises UserError where that can't be written or replaced."""
  with new_folder(folder / LIGHT, MODELS) as new:
    save_model(new, light.config, light.params, dtype)
