"""Frozen configurations of the pixel-space networks, which diffusers does not have."""

import dataclasses
from typing import ClassVar

from anchor_jax.config.bounds import WIDTH, Bounds, Span
from anchor_jax.config.json_file import Config


@dataclasses.dataclass(frozen=True)
class RefinerConfig(Config):
  """The refiner of decoded pictures; see models/refiner.py.

  Attributes:
    conditioning_channels: three of the pose render, plus four per looked-up picture.
    patch_size: side in pixels of the patches that the finest level works on.
    block_out_channels: channels of each level, finest first.
    norm_num_groups: groups of the normalizations.
    scale: ratio of the frames' size to the size that the other networks see; it does not change the weights.
    decide_at: ratio of the frames' size to the size at which the refiner decides which colors to take. It takes them at
      full size: large frames keep their detail, and layers cost what they cost in small ones. Like `scale`, it does
      not affect the weights.
  """

  class_name: ClassVar[str] = "AnchorRefiner"
  own_fields: ClassVar[tuple[str, ...]] = ("scale", "decide_at")
  bounds: ClassVar[Bounds] = {
    **dict.fromkeys(("conditioning_channels", "block_out_channels", "norm_num_groups"), WIDTH),
    "patch_size": Span(1, 256),
    "scale": Span(1, 64),
    "decide_at": Span(1, 64),
  }

  conditioning_channels: int = 23
  patch_size: int = 2
  block_out_channels: tuple[int, ...] = (48, 64, 96)
  norm_num_groups: int = 16
  scale: int = 1
  decide_at: int = 1

  def __post_init__(self) -> None:
    super().__post_init__()
    self._require(
      self.conditioning_channels % 4 == 3, f"conditioning_channels {self.conditioning_channels} is not 3 + 4n"
    )
    for width in self.block_out_channels:
      self._require(width % self.norm_num_groups == 0, f"width {width} is no multiple of {self.norm_num_groups} groups")

  @property
  def candidates(self) -> int:
    """Number of looked-up pictures: atlas, key frames and background plate."""
    return self.conditioning_channels // 4

  @property
  def stride(self) -> int:
    """Side of a cell of the coarsest level in pixels; the sides of pictures are multiples of it."""
    return self.decide_at * self.patch_size * 2 ** (len(self.block_out_channels) - 1)


@dataclasses.dataclass(frozen=True)
class LightDecoderConfig(Config):
  """A small network in place of an autoencoder's decoder; see models/light_decoder.py.

  Attributes:
    latent_channels: of the autoencoder.
    block_out_channels, layers_per_block: channels and residual blocks of each level, finest first.
    patch_size: side in pixels of the patches that the finest level outputs.
    autoencoder: hash of the autoencoder whose decoder it replaces; see store/light.py.
  """

  class_name: ClassVar[str] = "AnchorLightDecoder"
  bounds: ClassVar[Bounds] = {
    **dict.fromkeys(("latent_channels", "block_out_channels"), WIDTH),
    "layers_per_block": Span(0, 64),
    "patch_size": Span(1, 256),
  }

  latent_channels: int = 8
  block_out_channels: tuple[int, ...] = (32, 64)
  layers_per_block: tuple[int, ...] = (1, 1)
  patch_size: int = 2
  autoencoder: str = ""

  def __post_init__(self) -> None:
    super().__post_init__()
    levels = len(self.block_out_channels)
    self._require(levels == len(self.layers_per_block), "layers_per_block needs one entry for each width")
