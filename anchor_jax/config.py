"""Typed, frozen settings of a run.

A config file's `get_config(arg)` returns an ml_collections ConfigDict, so that `--config.key=value` works on the
command line; `run_config` turns it, once and strictly, into the frozen `RunConfig` that all code reads.
"""

import dataclasses
import types
import typing
from typing import Any

import ml_collections

from anchor_jax.architecture import CLIPVisionConfig, ControlNetConfig, ScheduleConfig, UNetConfig, VAEConfig
from anchor_jax.errors import UserError, suggestion


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """Sizes of networks made from nothing; unused where weights come from `RunConfig.init`."""

  unet: UNetConfig = UNetConfig()
  controlnet: ControlNetConfig = ControlNetConfig()
  vae: VAEConfig = VAEConfig()
  image_encoder: CLIPVisionConfig = CLIPVisionConfig()
  schedule: ScheduleConfig = ScheduleConfig()


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """What a run reads.

  Attributes:
    path: prepared folder.
    batch_size: examples a step, over all devices.
    size: side of the frames in pixels, for planning without data (`--aot`); a run takes the data's.
    crop: side of the face crop in pixels (head only).
    clip_frames: frames of an example; above 1 for the temporal blocks, which learn nothing from single frames.
    validation: records kept out of training, the last ones, at most a fifth of all; their loss is told with every
      checkpoint, and the one with the lowest is kept as the best.
    in_memory: keep decoded records in host memory.
    cache: encode every record once before training (the latent's mean, and the tokens of references where the image
      tower is frozen) instead of at each step (a draw of the latent, as the reference does).
    workers: reader processes; 0 reads in this one.
  """

  path: str = ""
  batch_size: int = 4
  size: int = 512
  crop: int = 256
  clip_frames: int = 1
  validation: int = 0
  in_memory: bool = False
  cache: bool = False
  workers: int = 0


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """AdamW; the defaults are the reference's.

  Attributes:
    schedule: "constant" after the warm-up, or "cosine" down to zero at the last step.
    clip: largest global gradient norm, over all trained networks together.
    clip_networks: names of the networks whose gradients are clipped; () clips all, ("controlnet",) is the reference.
    accumulate: parts that a batch is cut into, their gradients averaged: memory for a part, the step of a whole.
    ema: decay of the averaged weights that sampling uses; 0 keeps none.
  """

  learning_rate: float = 1e-5
  schedule: str = "constant"
  warmup_steps: int = 500
  b1: float = 0.9
  b2: float = 0.999
  eps: float = 1e-8
  weight_decay: float = 1e-2
  clip: float = 1.0
  clip_networks: tuple[str, ...] = ()
  accumulate: int = 1
  ema: float = 0.0


@dataclasses.dataclass(frozen=True)
class LoRAConfig:
  """Low-rank adapters trained in the place of UNet and pose branch, which stay as they are; see models/lora.py.

  Attributes:
    rank: of the adapters; 0 trains whole networks.
    alpha: weighs the adapters by alpha / rank; 0 weighs them 1.
    networks: those that get adapters.
    targets: names of the layers that get one (attention's projections; add "net_0/proj" and "net_2" for the
      feed-forward layers, "conv1" and "conv2" for the residual blocks).
  """

  rank: int = 0
  alpha: float = 0.0
  networks: tuple[str, ...] = ("unet", "controlnet")
  targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out_0")

  @property
  def scale(self) -> float:
    """What the product of an adapter's two matrices is multiplied by."""
    return self.alpha / self.rank if self.alpha else 1.0


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """How many devices each mesh axis has; -1 once, for all that remain. See parallel.py."""

  data: int = -1
  fsdp: int = 1
  tensor: int = 1
  frames: int = 1


@dataclasses.dataclass(frozen=True)
class SampleConfig:
  """How `generate` samples with this part's networks; the defaults are the reference's for the body.

  Attributes:
    window, overlap: frames of a window, and of its overlap with the next; 1 and 0 samples frame by frame.
    tail, window_weights: how windows end and what they weigh, see diffusion/windows.py.
    guidance_interval: noise levels (sigma, 0 to 1) between which guidance acts.
    conditioning_scale: weight of the pose branch's residuals.
    windows_per_batch: windows denoised in one call.
    whole_clip: hold the whole clip in memory instead of streaming it; a loop always does.
  """

  solver: str = "ddim"
  steps: int = 20
  window: int = 16
  overlap: int = 4
  tail: str = "ragged"
  window_weights: str = "uniform"
  guidance: float = 7.5
  guidance_interval: tuple[float, ...] = (0.0, 1.0)
  conditioning_scale: float = 2.0
  windows_per_batch: int = 1
  whole_clip: bool = False


@dataclasses.dataclass(frozen=True)
class RunConfig:
  """Everything that decides a training run.

  Attributes:
    part: "vae" (the small autoencoder), "body" or "head".
    init: where weights come from: "" makes them anew, "studio" are the shipped ones, else a folder of diffusers
      models (a pipeline's folder, or a workdir of this project).
    train_image_encoder: also train the image tower (pre-training of the small one).
    only_temporal: train the temporal blocks alone, and leave the frame network's weights as they are.
    condition_dropout: chance that an example trains the null branch.
    snr_gamma: bound of the min-SNR loss weights (Hang et al. 2023; 5 is theirs); 0 weighs all timesteps the same.
    max_skipped: steps in a row without a finite loss and gradient after which the run stops.
    dtype: compute type, "float32" or "bfloat16"; weights are kept in float32.
    steps: optimiser steps.
    log_every, checkpoint_every, preview_every: in steps; 0 is never, but the last step always logs and saves.
    keep: newest checkpoints kept, beside the best.
  """

  part: str = "body"
  init: str = ""
  seed: int = 0
  steps: int = 1000
  dtype: str = "float32"
  train_image_encoder: bool = False
  only_temporal: bool = False
  condition_dropout: float = 0.1
  snr_gamma: float = 0.0
  max_skipped: int = 10
  log_every: int = 20
  checkpoint_every: int = 500
  preview_every: int = 0
  keep: int = 2
  model: ModelConfig = ModelConfig()
  data: DataConfig = DataConfig()
  optimizer: OptimizerConfig = OptimizerConfig()
  lora: LoRAConfig = LoRAConfig()
  mesh: MeshConfig = MeshConfig()
  sample: SampleConfig = SampleConfig()

  def __post_init__(self):
    choices = {"part": ("vae", "body", "head"), "dtype": ("float32", "bfloat16")}
    for name, allowed in choices.items():
      if getattr(self, name) not in allowed:
        raise UserError(f'config.{name} is "{getattr(self, name)}": use one of {", ".join(allowed)}')
    if self.optimizer.schedule not in ("constant", "cosine"):
      raise UserError(f'config.optimizer.schedule is "{self.optimizer.schedule}": use constant or cosine')
    counts = {"steps": self.steps, "data.batch_size": self.data.batch_size, "keep": self.keep}
    counts |= {"max_skipped": self.max_skipped, "optimizer.accumulate": self.optimizer.accumulate}
    counts |= {"data.clip_frames": self.data.clip_frames}
    for name, value in counts.items():
      if value < 1:
        raise UserError(f"config.{name} is {value}: it must be at least 1")
    if self.data.validation < 0:
      raise UserError(f"config.data.validation is {self.data.validation}: it must be at least 0")
    self._check_lora()

  def _check_lora(self) -> None:
    lora = self.lora
    unknown = set(lora.networks) - {"unet", "controlnet"}
    if lora.rank < 0 or unknown or not lora.networks or not lora.targets:
      raise UserError(
        "config.lora: rank is 0 or more, networks are of unet and controlnet, targets are names of layers"
      )
    apart = {"part=vae": self.part == "vae", "only_temporal": self.only_temporal}
    apart |= {"train_image_encoder": self.train_image_encoder, "optimizer.clip_networks": self.optimizer.clip_networks}
    for name, asked in apart.items():
      if lora.rank and asked:
        raise UserError(f"config.lora.rank trains adapters alone: it doesn't go with config.{name}")


def to_config_dict(settings: Any) -> ml_collections.ConfigDict:
  """A ConfigDict, open to overrides, that holds a dataclass's fields."""
  return ml_collections.ConfigDict(to_plain(settings))


def to_plain(settings: Any) -> dict[str, Any]:
  """Nested dictionaries of a dataclass's fields, fit for JSON."""
  return dataclasses.asdict(settings)


def run_config(values: Any) -> RunConfig:
  """The frozen settings of a ConfigDict or of plain dictionaries. Raises UserError for what RunConfig doesn't know."""
  return from_values(RunConfig, values, "config")


def from_values(kind: type, values: Any, where: str) -> Any:
  """Builds dataclass `kind` from a mapping, refusing unknown keys and values of another type."""
  if not hasattr(values, "items"):
    raise UserError(f"{where} must be a group of settings, not {values!r}")
  hints = typing.get_type_hints(kind)
  fields = {field.name: hints[field.name] for field in dataclasses.fields(kind)}
  made = {}
  for key, value in values.items():
    if key not in fields:
      raise UserError(f'unknown setting "{where}.{key}".{suggestion(key, fields)}')
    made[key] = _convert(fields[key], value, f"{where}.{key}")
  return kind(**made)


def _convert(hint: Any, value: Any, where: str) -> Any:
  if dataclasses.is_dataclass(hint):
    return from_values(typing.cast(type, hint), value, where)
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin in (typing.Union, types.UnionType):
    for option in arguments:
      try:
        return _convert(option, value, where)
      except UserError:
        continue
  elif origin is tuple:
    if isinstance(value, list | tuple):
      inner = arguments[0]
      return tuple(_convert(inner, item, where) for item in value)
  elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
    return float(value)
  elif hint is Any or (hint in (int, str, bool, type(None)) and type(value) is hint):
    return value
  raise UserError(f"{where} is {value!r}: expected {getattr(hint, '__name__', hint)}")
