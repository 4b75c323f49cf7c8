"""Frozen configurations of the networks, with the field names of diffusers' and transformers' config.json.

Defaults are Stable Diffusion 1.5's.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from anchor_jax.config import published
from anchor_jax.config.bounds import COUNT, EPSILON, WIDTH, Bounds, Span
from anchor_jax.config.json_file import Config, ConfigT
from anchor_jax.core.errors import UserError

# Rematerialization policies: names of this package, and of `jax.checkpoint_policies`; see models/layers.py.
REMAT = (
  *("attention", "products", "everything_saveable", "nothing_saveable", "dots_saveable", "checkpoint_dots"),
  *("dots_with_no_batch_dims_saveable", "checkpoint_dots_with_no_batch_dims"),
)


def _per_block(value: Any, blocks: int) -> tuple[Any, ...]:
  return value if isinstance(value, tuple) else (value,) * blocks


@dataclasses.dataclass(frozen=True)
class _DownPath(Config):
  """Fields that UNet and ControlNet share: the down path and the middle block."""

  file_defaults: ClassVar[Mapping[str, Any]] = {"cross_attention_dim": 1280}
  ignored: ClassVar[Mapping[str, Any]] = published.UNET
  bounds: ClassVar[Bounds] = {
    **dict.fromkeys(("block_out_channels", "cross_attention_dim", "in_channels", "norm_num_groups"), WIDTH),
    **dict.fromkeys(("layers_per_block", "transformer_layers_per_block"), COUNT),
    **dict.fromkeys(("attention_head_dim", "num_attention_heads"), Span(1, 4096)),
    **dict.fromkeys(("freq_shift", "downsample_padding"), Span(0, 1)),
    "norm_eps": EPSILON,
    "remat": REMAT,
    "act_fn": ("silu", "swish"),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
  }

  in_channels: int = 4
  flip_sin_to_cos: bool = True
  freq_shift: int = 0
  down_block_types: tuple[str, ...] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
  mid_block_type: str | None = "UNetMidBlock2DCrossAttn"
  block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
  layers_per_block: int | tuple[int, ...] = 2
  downsample_padding: int = 1
  act_fn: str = "silu"
  norm_num_groups: int = 32
  norm_eps: float = 1e-5
  cross_attention_dim: int = 768
  transformer_layers_per_block: int | tuple[int, ...] = 1
  attention_head_dim: int | tuple[int, ...] = 8  # the number of heads despite its name, as in diffusers
  num_attention_heads: int | tuple[int, ...] | None = None
  use_linear_projection: bool = False
  upcast_attention: bool = False  # read and written only: the softmax is always in float32
  remat: bool | str = False  # see models.layers.rematerialized

  def __post_init__(self) -> None:
    super().__post_init__()
    levels = len(self.block_out_channels)
    self._require_levels("down_block_types")
    for name in ("layers_per_block", "transformer_layers_per_block", "attention_head_dim", "num_attention_heads"):
      value = getattr(self, name)
      self._require(not isinstance(value, tuple) or len(value) == levels, f"{name} needs one entry or {levels}")
    for width, heads in zip(self.block_out_channels, self.heads, strict=True):
      self._require(width % self.norm_num_groups == 0, f"width {width} is no multiple of {self.norm_num_groups} groups")
      self._require(width % heads == 0, f"width {width} is no multiple of {heads} heads")

  @classmethod
  def from_json(cls: type[ConfigT], fields: Mapping[str, Any]) -> ConfigT:
    """As the base's; upcast_attention may be null, as diffusers writes it, and is false then."""
    return super().from_json({**fields, "upcast_attention": fields.get("upcast_attention") or False})

  def _require_levels(self, name: str) -> None:
    levels, entries = len(self.block_out_channels), getattr(self, name)
    self._require(len(entries) == levels, f"{len(entries)} {name} for {levels} levels")

  @property
  def heads(self) -> tuple[int, ...]:
    """Number of attention heads at each level, finest first."""
    return _per_block(self.num_attention_heads or self.attention_head_dim, len(self.block_out_channels))

  @property
  def layers(self) -> tuple[int, ...]:
    """Number of residual blocks at each level of the down path, finest first."""
    return _per_block(self.layers_per_block, len(self.block_out_channels))

  @property
  def depths(self) -> tuple[int, ...]:
    """Number of transformer blocks per transformer at each level, finest first."""
    return _per_block(self.transformer_layers_per_block, len(self.block_out_channels))

  @property
  def time_embedding_dim(self) -> int:
    """Features of the time embedding."""
    return 4 * self.block_out_channels[0]

  @property
  def skip_channels(self) -> tuple[int, ...]:
    """Channels of each skip feature of the down path, finest first."""
    channels = [self.block_out_channels[0]]
    for width, layers in zip(self.block_out_channels, self.layers, strict=True):
      channels += [width] * (layers + 1)  # one more for the downsampling
    return tuple(channels[:-1])  # the last level has none


@dataclasses.dataclass(frozen=True)
class UNetConfig(_DownPath):
  """The denoising UNet (UNet2DConditionModel).

  Attributes that diffusers does not have:
    all_frame_attention: self-attention over all frames of a clip as one sequence; no effect on a single frame.
    attended_frames: with all_frame_attention, how many frames each frame of a clip attends to: itself, a neighbor, and
      others evenly spaced; 0 is all. Fewer frames are faster and change the result.
    mid_gets_last_residual: feed the middle block the last skip feature with its ControlNet residual added; a bug of the
      reference, needed by weights that were trained with it.
    temporal_kernel: temporal extent in frames of the residual blocks' convolutions, odd; 1 is the 2D network.
    temporal_attention: attention over frames after each transformer; see models/temporal.py.
    remat: rematerialization; see `models.layers.rematerialized`.
  """

  class_name: ClassVar[str] = "UNet2DConditionModel"
  own_fields: ClassVar[tuple[str, ...]] = (
    *("all_frame_attention", "attended_frames", "mid_gets_last_residual", "remat"),
    *("temporal_kernel", "temporal_attention"),
  )
  layer_fields: ClassVar[tuple[str, ...]] = ("temporal_kernel", "temporal_attention")

  bounds: ClassVar[Bounds] = {
    **_DownPath.bounds,
    **dict.fromkeys(("out_channels", "sample_size"), WIDTH),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "attended_frames": Span(0, 65536),
    "temporal_kernel": Span(1, 63),
  }

  sample_size: int | tuple[int, ...] | None = 64
  out_channels: int = 4
  up_block_types: tuple[str, ...] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
  all_frame_attention: bool = True
  attended_frames: int = 0
  mid_gets_last_residual: bool = False
  temporal_kernel: int = 1
  temporal_attention: bool = False

  def __post_init__(self) -> None:
    super().__post_init__()
    self._require(self.temporal_kernel % 2 == 1, f"temporal_kernel {self.temporal_kernel} is not odd")
    self._require_levels("up_block_types")


@dataclasses.dataclass(frozen=True)
class ControlNetConfig(_DownPath):
  """The pose branch (ControlNetModel): stem over the pose render, down path, middle block, 1x1 convolutions."""

  class_name: ClassVar[str] = "ControlNetModel"
  own_fields: ClassVar[tuple[str, ...]] = ("remat",)
  all_frame_attention: ClassVar[bool] = False
  attended_frames: ClassVar[int] = 0
  temporal_kernel: ClassVar[int] = 1
  temporal_attention: ClassVar[bool] = False
  bounds: ClassVar[Bounds] = {
    **_DownPath.bounds,
    **dict.fromkeys(("conditioning_channels", "conditioning_embedding_out_channels"), WIDTH),
    "controlnet_conditioning_channel_order": ("rgb", "bgr"),
  }

  conditioning_channels: int = 3
  conditioning_embedding_out_channels: tuple[int, ...] = (16, 32, 96, 256)
  controlnet_conditioning_channel_order: str = "rgb"

  @property
  def stem_stride(self) -> int:
    """Side of a latent cell in pixels of the pose render."""
    return 2 ** (len(self.conditioning_embedding_out_channels) - 1)

  @classmethod
  def from_unet(
    cls, unet: UNetConfig, conditioning_embedding_out_channels: tuple[int, ...] = (16, 32, 96, 256)
  ) -> "ControlNetConfig":
    """The pose branch for a UNet. Its input is the noisy latents, `unet.out_channels` channels, also for the head."""
    shared = {f.name: getattr(unet, f.name) for f in dataclasses.fields(_DownPath) if f.name != "in_channels"}
    return cls(
      in_channels=unet.out_channels, **shared, conditioning_embedding_out_channels=conditioning_embedding_out_channels
    )


@dataclasses.dataclass(frozen=True)
class VAEConfig(Config):
  """The image autoencoder (AutoencoderKL); the UNet takes its latents times `scaling_factor`."""

  class_name: ClassVar[str] = "AutoencoderKL"
  file_defaults: ClassVar[Mapping[str, Any]] = {
    "block_out_channels": (64,),
    "down_block_types": ("DownEncoderBlock2D",),
    "up_block_types": ("UpDecoderBlock2D",),
    "layers_per_block": 1,
    "sample_size": 32,
  }
  ignored: ClassVar[Mapping[str, Any]] = published.VAE
  bounds: ClassVar[Bounds] = {
    **dict.fromkeys(("block_out_channels", "latent_channels", "norm_num_groups", "sample_size"), WIDTH),
    **dict.fromkeys(("in_channels", "out_channels"), WIDTH),
    "layers_per_block": COUNT,
    "scaling_factor": Span(1e-6, 1e6),
    "act_fn": ("silu", "swish"),
    "down_block_types": ("DownEncoderBlock2D",),
    "up_block_types": ("UpDecoderBlock2D",),
  }

  in_channels: int = 3
  out_channels: int = 3
  down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",) * 4
  up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",) * 4
  block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
  layers_per_block: int = 2
  act_fn: str = "silu"
  latent_channels: int = 4
  norm_num_groups: int = 32
  sample_size: int | tuple[int, ...] | None = 512
  scaling_factor: float = 0.18215
  use_quant_conv: bool = True
  use_post_quant_conv: bool = True
  mid_block_add_attention: bool = True

  def __post_init__(self) -> None:
    super().__post_init__()
    levels = len(self.block_out_channels)
    self._require(len(self.down_block_types) == levels, f"needs {levels} DownEncoderBlock2D")
    self._require(len(self.up_block_types) == levels, f"needs {levels} UpDecoderBlock2D")
    for width in self.block_out_channels:
      self._require(width % self.norm_num_groups == 0, f"width {width} is no multiple of {self.norm_num_groups} groups")

  @property
  def stride(self) -> int:
    """Side of a latent cell in pixels."""
    return 2 ** (len(self.block_out_channels) - 1)

  @classmethod
  def from_widths(cls, block_out_channels: tuple[int, ...], **fields: Any) -> "VAEConfig":
    """A configuration with one level per entry of `block_out_channels`, finest first, and any other fields."""
    down, up = (("DownEncoderBlock2D",) * len(block_out_channels), ("UpDecoderBlock2D",) * len(block_out_channels))
    return cls(block_out_channels=block_out_channels, down_block_types=down, up_block_types=up, **fields)


@dataclasses.dataclass(frozen=True)
class _CLIPTower(Config):
  """Fields that CLIP's image and text towers share."""

  model_type: ClassVar[str] = ""
  ignored: ClassVar[Mapping[str, Any]] = published.CLIP
  bounds: ClassVar[Bounds] = {
    **dict.fromkeys(("hidden_size", "projection_dim", "num_attention_heads"), WIDTH),
    "intermediate_size": Span(1, 2**20),
    "num_hidden_layers": Span(1, 256),
    "hidden_act": ("quick_gelu", "gelu"),
    "layer_norm_eps": EPSILON,
  }

  hidden_size: int = 768
  intermediate_size: int = 3072
  projection_dim: int = 512
  num_hidden_layers: int = 12
  num_attention_heads: int = 12
  hidden_act: str = "quick_gelu"
  layer_norm_eps: float = 1e-5

  def __post_init__(self) -> None:
    super().__post_init__()
    width, heads = self.hidden_size, self.num_attention_heads
    self._require(width % heads == 0, f"width {width} is no multiple of {heads} heads")

  def to_json(self) -> dict[str, Any]:
    """As the base's, with the class name where transformers writes it."""
    fields = super().to_json()
    return {"architectures": [fields.pop("_class_name")], "model_type": self.model_type, **fields}


@dataclasses.dataclass(frozen=True)
class CLIPVisionConfig(_CLIPTower):
  """CLIP's image tower (CLIPVisionModel); the defaults are ViT-B/32."""

  class_name: ClassVar[str] = "CLIPVisionModel"
  model_type: ClassVar[str] = "clip_vision_model"
  bounds: ClassVar[Bounds] = {
    **_CLIPTower.bounds,
    **dict.fromkeys(("image_size", "patch_size", "num_channels"), Span(1, 16384)),
  }

  image_size: int = 224
  patch_size: int = 32
  num_channels: int = 3

  def __post_init__(self) -> None:
    super().__post_init__()
    fits = self.patch_size <= self.image_size
    self._require(fits, f"patches of {self.patch_size} pixels are larger than the picture, {self.image_size}")

  @property
  def tokens(self) -> int:
    """Number of context tokens: one per patch, and the class token."""
    return (self.image_size // self.patch_size) ** 2 + 1


@dataclasses.dataclass(frozen=True)
class CLIPTextConfig(_CLIPTower):
  """CLIP's text tower (CLIPTextModel); the defaults are Stable Diffusion 1.5's, ViT-L/14."""

  class_name: ClassVar[str] = "CLIPTextModel"
  model_type: ClassVar[str] = "clip_text_model"
  file_defaults: ClassVar[Mapping[str, Any]] = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8}

  bounds: ClassVar[Bounds] = {
    **_CLIPTower.bounds,
    **dict.fromkeys(("vocab_size", "max_position_embeddings"), Span(1, 2**24)),
  }

  vocab_size: int = 49408
  max_position_embeddings: int = 77


@dataclasses.dataclass(frozen=True)
class ScheduleConfig(Config):
  """The noise schedule (scheduler_config.json): the noise levels, and the spacing of sampling steps.

  Files of other schedulers are read as DDIM's if their noise levels come from a table of betas, too.
  """

  class_name: ClassVar[str] = "DDIMScheduler"
  file_defaults: ClassVar[Mapping[str, Any]] = {
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "set_alpha_to_one": True,
    "steps_offset": 0,
  }
  ignored: ClassVar[Mapping[str, Any]] = published.SCHEDULER
  bounds: ClassVar[Bounds] = {
    **dict.fromkeys(("beta_start", "beta_end"), Span(1e-8, 0.999)),
    "num_train_timesteps": Span(1, 100_000),
    "steps_offset": Span(0, 100_000),
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "prediction_type": ("epsilon", "v_prediction", "sample"),
    "timestep_spacing": ("leading", "trailing", "linspace"),
  }

  num_train_timesteps: int = 1000
  beta_start: float = 0.00085
  beta_end: float = 0.012
  beta_schedule: str = "scaled_linear"
  prediction_type: str = "epsilon"
  set_alpha_to_one: bool = False
  steps_offset: int = 1
  timestep_spacing: str = "leading"
  rescale_betas_zero_snr: bool = False

  def __post_init__(self) -> None:
    super().__post_init__()
    ordered = self.beta_start <= self.beta_end
    self._require(ordered, f"beta_start {self.beta_start:g} is above beta_end {self.beta_end:g}")
    self._require(
      not self.rescale_betas_zero_snr or self.prediction_type != "epsilon",
      "rescale_betas_zero_snr ends the schedule at pure noise, where predicted noise (epsilon) says nothing about the"
      " picture: use v_prediction, or leave rescale_betas_zero_snr out",
    )

  @classmethod
  def from_json(cls: type[ConfigT], fields: Mapping[str, Any]) -> ConfigT:
    """As the base's; raises UserError also for schedulers without a table of betas, such as flow matching."""
    kind = str(fields.get("_class_name", cls.class_name)).removeprefix("Flax")
    if kind not in published.SCHEDULERS:
      raise UserError(
        f"scheduler {kind!r} has other noise levels than Stable Diffusion's: give a pipeline with one of"
        f" {', '.join(published.SCHEDULERS)}"
      )
    values = {**published.SCHEDULERS[kind], **fields}
    if values.pop("predict_epsilon", True) is False:  # the name of the field until 2022
      values.setdefault("prediction_type", "sample")
    return super().from_json(values)

  def to_json(self) -> dict[str, Any]:
    """As the base's."""
    # diffusers clips predictions by default; Stable Diffusion must not be clipped.
    return {**super().to_json(), "clip_sample": False}
