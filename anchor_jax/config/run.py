"""Typed, frozen settings of a run.

A config file's `get_config(arg)` returns an ml_collections ConfigDict, so that `--config.key=value` works on the
command line; `run_config` turns it, once and strictly, into the frozen `RunConfig` that all code reads. Each group of
settings checks its own values when it is created: from a file, from the command line or by `dataclasses.replace`.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import ml_collections

from anchor_jax.config.networks import CLIPVisionConfig, ControlNetConfig, ScheduleConfig, UNetConfig, VAEConfig
from anchor_jax.config.parts import PARTS
from anchor_jax.config.pixels import RefinerConfig
from anchor_jax.config.renamed import accepts_old_names, with_current_names
from anchor_jax.core.errors import UserError
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.core.values import SettingError, check, check_choice, check_counts, check_names, from_values

DTYPES = ("float32", "bfloat16")
# Names of solvers and of how windows end, as in diffusion/; listed here to check them without JAX.
SOLVERS = ("ddim", "dpm++2m")
TAILS = ("ragged", "moved_back", "loop")
TRAINABLE = ("vae", "unet", "controlnet", "null_context", "image_encoder", "refiner", "lora")
# Input of the pose branch besides the pose render; see texture/channels.py.
POSE_CHANNELS = ("", "coordinates", "atlas", "full")

# `lpips` for films of people. Of the last fifth of A_yes at 128 pixels, LPIPS goes from 0.135 to 0.071 and the
# person's sharpness from 0.46 to 0.60, at 19.8 and 19.9 dB (results/real.jsonl).
LPIPS_WEIGHT = 0.5
# Steps for films of real people, by config; the studio's people need fewer. Of the headset's 251 frames, the person's
# SSIM goes from 0.822 after 200 steps to 0.833; of A_yes' 52 frames it stays at 0.708 (results/real.jsonl).
FILM_STEPS = {"studio_finetune.py": 400}

# Products with the largest values stay finite in float32; the smallest do not round to 0.
_POSITIVE: tuple[Callable[[Any], bool], str] = (lambda value: 1e-30 <= value <= 1e6, "above 0, between 1e-30 and 1e6")
_NOT_NEGATIVE: tuple[Callable[[Any], bool], str] = (lambda value: 0 <= value <= 1e6, "between 0 and 1e6")
_FACTOR: tuple[Callable[[Any], bool], str] = (lambda value: -1e4 <= value <= 1e4, "between -1e4 and 1e4")
_MOST_DEVICES = 2**20
_DECAY: tuple[Callable[[Any], bool], str] = (lambda value: 0 <= value < 1, "at least 0 and below 1")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """Sizes of the networks; weights from `RunConfig.init` bring their own sizes instead.

  The refiner is optional (body only): "init" takes the one of `RunConfig.init`, if any; None trains without one, as in
  the reference, whatever `init` holds.
  """

  unet: UNetConfig = UNetConfig()
  controlnet: ControlNetConfig = ControlNetConfig()
  vae: VAEConfig = VAEConfig()
  image_encoder: CLIPVisionConfig = CLIPVisionConfig()
  schedule: ScheduleConfig = ScheduleConfig()
  refiner: RefinerConfig | str | None = "init"

  def __post_init__(self) -> None:
    if self.refiner == "None":  # a flag with a string default yields a string
      object.__setattr__(self, "refiner", None)
    check(self, "refiner", lambda value: not isinstance(value, str) or value == "init", "sizes, None or init")

  @property
  def own_refiner(self) -> RefinerConfig | None:
    """Sizes of the refiner; None without one, and while the one of `init` is not known yet."""
    return self.refiner if isinstance(self.refiner, RefinerConfig) else None

  @property
  def scale(self) -> int:
    """Ratio of the frames' size to the size that the networks see; above 1 the refiner upsamples."""
    return 1 if self.own_refiner is None else self.own_refiner.scale

  @property
  def stride(self) -> int:
    """Side of a latent cell in pixels of the frame."""
    return self.vae.stride * self.scale

  def multiple(self, part: str = "body") -> int:
    """What the sides of a part's pictures are multiples of: they are halved at every level of the networks."""
    multiple = self.stride * (1 if part == "vae" else 2 ** (len(self.unet.block_out_channels) - 1))
    refiner = self.own_refiner if part == "body" else None
    return multiple if refiner is None else math.lcm(multiple, refiner.stride)


@accepts_old_names(appearance="pose_channels")
@dataclasses.dataclass(frozen=True)
class DataConfig:
  """What a run reads.

  Attributes:
    path: prepared folder.
    batch_size: examples per step, over all devices; at least 1.
    size: of the frames, the side of a square or (width, height) in pixels, for planning without data (`--aot`); a run
      uses the data's size.
    crop: height and width of the face crop in pixels (head only).
    clip_frames: frames per example; above 1 for temporal blocks, which learn nothing from single frames.
    validation: number of records held out of training: the last ones, at most a fifth of all. Their loss is reported
      with every checkpoint, and the checkpoint with the lowest loss stays as the best.
    in_memory: hold decoded records in host memory.
    cache: encode every record once before training (the latent's mean, and the image tokens of reference images if the
      image tower is frozen) instead of at each step (a sample of the latent, as in the reference).
    workers: reader processes; 0 reads in threads of the training process.
    pose_channels: input of the pose branch besides the pose render, one of `POSE_CHANNELS`: "" is none, as in the
      reference; "coordinates" is the place on the body of each pixel; "atlas" the person's texture there; "full" adds
      key frames of the film, warped to the pose, and the background plate. Needs surface maps in the prepared folder.
  """

  path: str = ""
  batch_size: int = 4
  size: int | tuple[int, int] = 512
  crop: int = 256
  clip_frames: int = 1
  validation: int = 0
  in_memory: bool = False
  cache: bool = False
  workers: int = 0
  pose_channels: str = ""

  def __post_init__(self) -> None:
    check_counts(self, "batch_size", 1, 2**20)
    check(
      self,
      "size",
      lambda size: all(1 <= side <= 2**14 for side in FrameSize.of(size)),
      "a side, or (width, height), of 1 to 16384 pixels",
    )
    check_counts(self, "crop", 1, 2**14)
    check_counts(self, "clip_frames", 1, 2**12)
    check_counts(self, "validation", 0)
    check_counts(self, "workers", 0, 1024)
    check(self, "pose_channels", lambda name: name in POSE_CHANNELS, 'empty, "coordinates", "atlas" or "full"')

  @property
  def frame_size(self) -> FrameSize:
    """The setting `size` as width and height."""
    return FrameSize.of(self.size)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """AdamW; the defaults are the reference's.

  Attributes:
    learning_rate: peak rate, above 0.
    schedule: "constant" after the warm-up, or "cosine" down to zero at the last step.
    warmup_steps: steps over which the rate rises linearly from 0.
    b1, b2: decay of the first and second moment, at least 0 and below 1.
    eps: added to the root of the second moment, above 0.
    weight_decay: decoupled weight decay (Loshchilov and Hutter 2019), at least 0.
    clip: largest global gradient norm over all trained networks; above 0, and infinity does not clip.
    clip_networks: names of the networks whose gradients are clipped; () clips all, ("controlnet",) is the reference.
    accumulate: number of accumulation parts: equal parts of a batch, computed one after another, whose gradients are
      averaged. The step stays that of the full batch and needs the memory of one part.
    ema: decay of the averaged weights that sampling uses, below 1; 0 computes no average.
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

  def __post_init__(self) -> None:
    check(self, "learning_rate eps", *_POSITIVE)
    check_choice(self, "schedule", ("constant", "cosine"))
    check_counts(self, "warmup_steps", 0)
    check(self, "b1 b2 ema", *_DECAY)
    check(self, "weight_decay", *_NOT_NEGATIVE)
    check(self, "clip", lambda value: value >= 1e-30, "above 0, at least 1e-30")
    check_names(self, "clip_networks", TRAINABLE, least=0)
    check_counts(self, "accumulate", 1, 2**20)


@dataclasses.dataclass(frozen=True)
class LoRAConfig:
  """Low-rank adapters, trained while UNet and pose branch stay frozen; see models/lora.py.

  Attributes:
    rank: rank of the adapters; 0 trains the networks themselves.
    alpha: adapters are scaled by alpha / rank; 0 leaves them unscaled.
    networks: networks with adapters, of "unet" and "controlnet".
    targets: names of layers with adapters; by default the projections of attention. "net_0/proj" and "net_2" are the
      feed-forward layers, "conv1" and "conv2" the residual blocks.
  """

  rank: int = 0
  alpha: float = 0.0
  networks: tuple[str, ...] = ("unet", "controlnet")
  targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out_0")

  @property
  def scale(self) -> float:
    """Factor of the product of an adapter's two matrices."""
    return self.alpha / self.rank if self.alpha else 1.0

  def __post_init__(self) -> None:
    check_counts(self, "rank", 0, 2**16)
    check(self, "alpha", *_NOT_NEGATIVE)
    check_names(self, "networks", ("unet", "controlnet"))
    few = lambda names: 0 < len(names) <= 64 and all(0 < len(name) <= 128 for name in names)
    check(self, "targets", few, "names of layers, at most 64")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """Number of devices along each mesh axis; one axis may be -1, all remaining devices. See core/sharding.py."""

  data: int = -1
  fsdp: int = 1
  tensor: int = 1
  frames: int = 1

  def __post_init__(self) -> None:
    valid = lambda size: 1 <= size <= _MOST_DEVICES or size == -1
    check(self, "data fsdp tensor frames", valid, f"between 1 and {_MOST_DEVICES}, or -1 for all remaining devices")
    if self.sizes.count(-1) > 1:
      raise SettingError(
        "data, fsdp, tensor, frames", "are -1 more than once: only one axis can take all remaining devices"
      )

  @property
  def sizes(self) -> tuple[int, int, int, int]:
    """Sizes of all axes, in the mesh's order."""
    return self.data, self.fsdp, self.tensor, self.frames


@dataclasses.dataclass(frozen=True)
class SampleConfig:
  """How `generate` samples with this part's networks; the defaults are the reference's for the body.

  Attributes:
    solver: one of `SOLVERS`.
    steps: sampling steps, 1 to 1000.
    window, overlap: frames per window, and frames shared with the next window, fewer than a window has; 1 and 0 sample
      frame by frame.
    tail: how the last windows end, one of `TAILS`; see diffusion/windows.py.
    guidance: scale of classifier-free guidance; 1 turns it off.
    guidance_interval: lowest and highest noise level (sigma, 0 to 1) at which guidance is applied.
    conditioning_scale: factor of the pose branch's residuals.
    windows_per_batch: windows denoised in one call.
    whole_clip: hold the entire clip in memory instead of streaming it; the tail "loop" always does.
  """

  solver: str = "ddim"
  steps: int = 20
  window: int = 16
  overlap: int = 4
  tail: str = "ragged"
  guidance: float = 7.5
  guidance_interval: tuple[float, ...] = (0.0, 1.0)
  conditioning_scale: float = 2.0
  windows_per_batch: int = 1
  whole_clip: bool = False

  def __post_init__(self) -> None:
    check_choice(self, "solver", SOLVERS)
    check(self, "steps", lambda value: 1 <= value <= 1000, "between 1 and 1000")
    check_counts(self, "window windows_per_batch", 1, 2**16)
    check(self, "overlap", lambda value: 0 <= value < self.window, f"at least 0 and below the window, {self.window}")
    check_choice(self, "tail", TAILS)
    check(self, "guidance conditioning_scale", *_FACTOR)
    ordered = lambda ends: len(ends) == 2 and 0 <= ends[0] <= ends[1] <= 1
    check(self, "guidance_interval", ordered, "two numbers from 0 to 1, the lower one first")


@dataclasses.dataclass(frozen=True)
class RunConfig:
  """Everything that decides a training run.

  Attributes:
    part: one of `PARTS`: "vae" is the small autoencoder.
    init: source of the weights: "" initializes them, "studio" are the weights in this package; otherwise a folder of
      diffusers models (a pipeline's folder, or a workdir of this project). A folder named studio is given as ./studio.
      It is not read any more once the run has a checkpoint.
    seed: of everything random, 0 to 2**32 - 1.
    steps: optimizer steps.
    dtype: compute type, one of `DTYPES`; weights are float32.
    train_image_encoder: also train the image tower (pre-training of the small one).
    only_temporal: train the temporal blocks only; the weights of the 2D network stay fixed.
    condition_dropout: probability that an example gets the null context; also that a group of looked-up channels is
      dropped, and that it is shifted.
    condition_jitter: largest shift of such a group in pixels.
    detail_weight: loss weight of pixels on face and hands (body only), 1 for all others; at least 1. Needs
      data.pose_channels, since surface maps locate face and hands.
    last_step: share of each batch that starts from pure noise, as single-step sampling does: every 1 / last_step-th
      example.
    zero_snr: train velocity prediction on a noise schedule that ends at pure noise, as sampling in few steps needs,
      whatever the schedule of `init`. Stable Diffusion 1.5, which predicts noise, has to be trained for it.
    pixels: pixel-loss weight when no refiner is trained; 0 disables it. With a trained refiner the weight is 1.
    refined: examples of each batch that are decoded for the pixel loss; at least 1.
    sharpness: weight of the contrast error of small squares in the pixel loss, which counters the blur that absolute
      errors allow where details are uncertain; 0 disables it.
    lpips: weight of LPIPS (Zhang et al. 2018) in the pixel loss, which prefers sharp pictures to blurred ones where
      details are uncertain; 0 disables it. Body and head only; needs lpips_weights.
    lpips_weights: file of LPIPS's weights, from `convert lpips`. The run copies it; a restarted run reads its copy.
    snr_gamma: bound of the min-SNR loss weights (Hang et al. 2023, who use 5); 0 weighs all timesteps equally.
    max_skipped: number of consecutive steps without a finite loss and gradient after which the run stops.
    log_every, checkpoint_every, preview_every: in steps; 0 is never, but the last step always logs and saves.
    keep: number of newest checkpoints to keep, besides the best.
  """

  part: str = "body"
  init: str = ""
  seed: int = 0
  steps: int = 1000
  dtype: str = "float32"
  train_image_encoder: bool = False
  only_temporal: bool = False
  condition_dropout: float = 0.1
  condition_jitter: int = 0
  detail_weight: float = 1.0
  last_step: float = 0.0
  zero_snr: bool = False
  pixels: float = 0.0
  refined: int = 2
  sharpness: float = 0.0
  lpips: float = 0.0
  lpips_weights: str = ""
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

  def __post_init__(self) -> None:
    check_choice(self, "part", PARTS)
    check_choice(self, "dtype", DTYPES)
    check(self, "seed", lambda value: 0 <= value < 2**32, "at least 0 and below 2**32")
    check_counts(self, "steps max_skipped keep refined", 1)
    check_counts(self, "log_every checkpoint_every preview_every", 0)
    check_counts(self, "condition_jitter", 0, 256)
    check(self, "condition_dropout last_step", lambda value: 0 <= value <= 1, "between 0 and 1")
    check(self, "snr_gamma sharpness lpips pixels", *_NOT_NEGATIVE)
    check(self, "detail_weight", lambda value: 1 <= value <= 1e6, "between 1 and 1e6")
    if self.data.batch_size % self.optimizer.accumulate:
      raise SettingError(
        "optimizer.accumulate",
        f"is {self.optimizer.accumulate}: it must divide data.batch_size, which is {self.data.batch_size}",
      )
    self._check_lora()
    self._check_objective()
    if self.part == "vae" and (self.pixels or self.zero_snr or self.lpips):
      raise SettingError("pixels, zero_snr, lpips", "are for body and head: leave them out for the autoencoder")
    if self.lpips and not self.lpips_weights:
      raise SettingError("lpips", "needs config.lpips_weights, a file that `convert lpips` writes (docs/evaluation.md)")
    if self.data.pose_channels and self.part == "vae":
      raise SettingError(
        "data.pose_channels", f"is {self.data.pose_channels!r}: the autoencoder has none, leave it empty"
      )

  def _check_objective(self) -> None:
    ends_at_noise = self.zero_snr or self.model.schedule.rescale_betas_zero_snr
    if self.snr_gamma and self.last_step and ends_at_noise:
      raise SettingError(
        "snr_gamma",
        f"weighs examples by their signal-to-noise ratio, which is 0 for the examples of"
        f" last_step={self.last_step:g} on a schedule that ends at pure noise: set one of the two to 0",
      )
    if self.only_temporal and self.data.clip_frames == 1:
      raise SettingError("only_temporal", "learns nothing from single frames: set data.clip_frames to at least 2")
    if self.sample.steps > self.model.schedule.num_train_timesteps:
      raise SettingError(
        "sample.steps",
        f"is {self.sample.steps}: the noise schedule has only {self.model.schedule.num_train_timesteps} steps",
      )

  def _check_lora(self) -> None:
    excluded = {"part=vae": self.part == "vae", "only_temporal": self.only_temporal}
    excluded |= {"train_image_encoder": self.train_image_encoder}
    excluded |= {"optimizer.clip_networks": self.optimizer.clip_networks}
    for name, is_set in excluded.items():
      if self.lora.rank and is_set:
        raise SettingError("lora.rank", f"trains adapters only: it cannot be combined with {name}")


def check_seed(seed: int) -> None:
  """Raises UserError unless JAX's random keys accept the seed of a generated video."""
  if not 0 <= seed < 2**63:
    raise UserError(f"the seed is {seed}: give an integer from 0 to {2**63 - 1}")


def to_config_dict(settings: Any) -> ml_collections.ConfigDict:
  """A ConfigDict with a dataclass's fields, which command-line flags can override."""
  return ml_collections.ConfigDict(to_plain(settings))


def to_plain(settings: Any) -> dict[str, Any]:
  """Nested dictionaries of a dataclass's fields, ready for JSON."""
  return dataclasses.asdict(settings)


def run_config(values: Any) -> RunConfig:
  """The frozen settings in a ConfigDict or in plain dictionaries; old names are accepted (config/renamed.py).

  Raises:
    UserError: an unknown setting, or a value out of range.
  """
  return from_values(RunConfig, with_current_names(values), "config")
