"""Reads Stable Diffusion's single files: one .safetensors with UNet, autoencoder and text tower, or with one network.

Names are those of latent diffusion or of diffusers, and sizes follow from the shapes. As for folders, tensors are read
later.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from anchor_jax.config.networks import CLIPTextConfig, Config, ControlNetConfig, ScheduleConfig, UNetConfig, VAEConfig
from anchor_jax.core.errors import UserError
from anchor_jax.files.inputs import regular_file
from anchor_jax.formats.diffusers import fit_tensors
from anchor_jax.formats.folders import ModelFolder, StoredModel
from anchor_jax.formats.ldm_names import unet_names, vae_names
from anchor_jax.formats.roles import SHARED, ModelPlace
from anchor_jax.formats.sizes import config_of
from anchor_jax.formats.tensors import Tensor, read_metadata, read_safetensors, refuse_pickled

_UNET, _VAE, _TEXT, _CONTROL = (
  *("model.diffusion_model.", "first_stage_model."),
  *("cond_stage_model.transformer.", "control_model."),
)
_AVERAGED = "model_ema."
_TRAINING = ("loss.", _AVERAGED)  # keys of an autoencoder's training
_ROLES: dict[type[Config], str] = {
  UNetConfig: "unet",
  ControlNetConfig: "controlnet",
  VAEConfig: "vae",
  CLIPTextConfig: "text_encoder",
}
# Keys that occur only in files of other models.
_UNSUPPORTED = {
  "conditioner.embedders.1.": "Stable Diffusion XL",
  **dict.fromkeys((f"{_UNET}label_emb.", f"{_CONTROL}label_emb.", "label_emb."), "Stable Diffusion XL or unCLIP"),
  f"{_UNET}joint_blocks.": "Stable Diffusion 3",
  f"{_UNET}double_blocks.": "Flux",
  "double_blocks.": "Flux",
  "lora_controlnet": "a low-rank ControlNet (Control-LoRA)",
  "difference": "a ControlNet as the difference to one base model",
}
_PREDICTIONS = ("epsilon", "v_prediction")


def is_single_file(path: Path) -> bool:
  """Whether a source is a file rather than a folder of models."""
  return not path.is_dir() and (path.suffix == ".safetensors" or path.is_file())


def open_tensors(file: Path) -> dict[str, Tensor]:
  """Returns the tensors of a .safetensors that a user names, not read yet.

  Raises:
    UserError: there is no such file, or it is pickled, damaged or of another kind.
  """
  file = regular_file(file, "file")
  refuse_pickled(file, file.with_suffix(".safetensors"))
  if file.suffix != ".safetensors":
    raise UserError(f"{file} is not a .safetensors: give one, or a folder that diffusers or transformers wrote")
  return read_safetensors(file)


def open_single_file(file: Path, averaged: bool = False, prediction: str = "") -> ModelFolder:
  """Returns the networks in a single file and, for a complete model, its noise schedule.

  Args:
    file: a .safetensors. The text tower of Stable Diffusion 2 and keys of training are ignored.
    averaged: read the moving average of the UNet's weights, from a file with both.
    prediction: what the UNet predicts, "epsilon" or "v_prediction"; "" for what the file says, and noise for a file of
      Stable Diffusion 1 that does not say.

  Raises:
    UserError: the file cannot be read, or has another model; the message names all missing, unexpected and mis-shaped
      keys.
  """
  tensors = open_tensors(file)
  unsupported = next(
    (model for start, model in _UNSUPPORTED.items() if any(key.startswith(start) for key in tensors)), None
  )
  if unsupported:
    raise UserError(f"{file} is {unsupported}, which is not supported: give a model of Stable Diffusion 1 or 2")
  folder = ModelFolder()
  groups = {prefix: _below(tensors, prefix) for prefix in (_UNET, _VAE, _TEXT, _CONTROL)}
  if averaged:
    groups[_UNET] = _averages(file, tensors, groups[_UNET])
  if not any(groups.values()):
    return _one_network(file, tensors)
  for prefix, named in groups.items():
    if named:
      model = _model(file, named, prefix)
      folder.models[_place(file, model)] = model
  unet = next((model.config for model in folder.models.values() if isinstance(model.config, UNetConfig)), None)
  if unet is None and len(folder.models) > 1:
    raise UserError(f"{file} holds {', '.join(map(str, folder.models))} and no UNet below {_UNET.rstrip('.')}")
  if unet is not None:
    folder.models[ModelPlace(SHARED, "scheduler")] = StoredModel(_schedule(file, tensors, unet, prediction))
  ignored = {key.split(".")[0] for key in tensors if not key.startswith(tuple(groups))}
  folder.ignored = tuple(sorted(ignored))
  return folder


def open_network(file: Path, kind: type[Config]) -> StoredModel:
  """Returns the network of a class in a single file, such as the UNet of a complete model.

  Raises:
    UserError: as `open_single_file`, or there is no such network.
  """
  models = open_single_file(file, prediction=_PREDICTIONS[0]).models
  found = next((model for model in models.values() if isinstance(model.config, kind)), None)
  if found is None:
    raise UserError(f"{file} holds {', '.join(map(str, models))}, and no {kind.class_name}; give the right file")
  return found


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, tuple[str, Tensor]]:
  """Returns {name after a prefix: (name in the file, tensor)}."""
  return {key.removeprefix(prefix): (key, tensor) for key, tensor in tensors.items() if key.startswith(prefix)}


def _averages(
  file: Path, tensors: Mapping[str, Tensor], unet: Mapping[str, tuple[str, Tensor]]
) -> dict[str, tuple[str, Tensor]]:
  """Returns the moving average of the UNet, whose keys are the UNet's without dots."""
  below = _UNET.removeprefix("model.")
  flat = {name: _AVERAGED + f"{below}{name}".replace(".", "") for name in unet}
  missing = [key for key in flat.values() if key not in tensors]
  if missing or not flat:
    raise UserError(f"{file} holds no averaged weights (model_ema) of every parameter: omit --ema")
  return {name: (key, tensors[key]) for name, key in flat.items()}


def _one_network(file: Path, tensors: Mapping[str, Tensor]) -> ModelFolder:
  """Returns the content of a file with a single network, whose keys have no prefix."""
  model = _model(file, _below(tensors, ""), "")
  return ModelFolder({_place(file, model): model})


def _place(file: Path, model: StoredModel) -> ModelPlace:
  """Returns the place of a network; the UNet of an inpainting model is the head's."""
  config = model.config
  assert config is not None
  if not isinstance(config, UNetConfig) or config.in_channels == config.out_channels:
    return ModelPlace(SHARED, _ROLES[type(config)])
  inpainting = 2 * config.out_channels + 1  # latents, mask, latents of the masked picture
  if config.in_channels != inpainting:
    raise UserError(
      f"the UNet in {file} takes {config.in_channels} channels: give one of {config.out_channels}, or of {inpainting}"
      " for the head"
    )
  return ModelPlace("head", "unet")


def _model(file: Path, tensors: Mapping[str, tuple[str, Tensor]], prefix: str) -> StoredModel:
  """Returns a network from {name after `prefix`: (name in the file, tensor)}."""
  tensors = {name: value for name, value in tensors.items() if not name.startswith(_TRAINING)}
  # An autoencoder's keys are unknown to the UNet's table and vice versa, so both can be applied.
  from_unet = unet_names(tensors)
  from_vae = vae_names(from_unet.values())
  renamed = {key: from_vae[name] for key, name in from_unet.items()}
  if prefix == _TEXT:
    renamed = {key: f"text_model.{name.removeprefix('text_model.')}" for key, name in renamed.items()}
  named = {name: tensors[key] for key, name in renamed.items()}
  if len(named) < len(tensors):
    raise UserError(f"{file} holds some parameters twice, under two names; fetch it again")
  try:
    config = config_of({name: tensor.shape for name, (_, tensor) in named.items()})
  except UserError as error:
    below = f" below {prefix.rstrip('.')}" if prefix else ""
    raise UserError(f"{file}{below}: {error}") from None
  misfit = f"the weights in {file} do not fit the {config.class_name} that their shapes describe"
  return StoredModel(config, fit_tensors(named, config, misfit, str(file)))


def _schedule(file: Path, tensors: Mapping[str, Tensor], unet: UNetConfig, prediction: str) -> ScheduleConfig:
  """Returns Stable Diffusion's noise schedule, with the given prediction or the file's."""
  stated = read_metadata(file).get("modelspec.prediction_type", "v" if "v_pred" in tensors else "")
  stated = {"v": "v_prediction"}.get(stated, stated)
  prediction = prediction or stated or ("" if unet.use_linear_projection else "epsilon")
  if prediction not in _PREDICTIONS:
    raise UserError(
      f"{file} does not say what its UNet predicts: add --prediction=v_prediction (Stable Diffusion 2.1 for 768 pixels)"
      " or --prediction=epsilon (2.1-base for 512)"
    )
  config = ScheduleConfig(prediction_type=prediction)
  if "ztsnr" in tensors:
    config = dataclasses.replace(
      config, rescale_betas_zero_snr=True, timestep_spacing="trailing", set_alpha_to_one=True
    )
  if "betas" in tensors:
    betas = np.linspace(config.beta_start**0.5, config.beta_end**0.5, config.num_train_timesteps) ** 2
    read = tensors["betas"].read()
    if read.shape != betas.shape or not np.allclose(read.astype(np.float64), betas, rtol=5e-3):
      raise UserError(f"{file} was trained with other noise levels (betas) than Stable Diffusion's: give its folder")
  return config
