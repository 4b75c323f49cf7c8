"""Pose channels: what the pose branch takes beside the pose render, by `config.data.pose_channels`.

""            none, as in the reference
"coordinates" 6: the position of each pixel on the body's surface
"atlas"       4: the atlas at that position, and its coverage
"full"        20: atlas, three key frames and background plate, in the order that look_up/plain.py documents
"""

import dataclasses

import jax
import jax.numpy as jnp

from anchor_jax.core import sharding
from anchor_jax.core.shapes import Array, Float, Int, PyTree, UInt8
from anchor_jax.models.controlnet import COORDINATE_CHANNELS, RENDER_CHANNELS
from anchor_jax.texture.gather import KEY_FRAMES
from anchor_jax.texture.look_up.plain import (
  ATLAS_CHANNELS,
  KEY_FRAME_CHANNELS,
  PLATE_CHANNELS,
  LookUpTables,
  coordinates,
  crop_looked_up,
  crop_surface,
  look_up,
  look_up_tables,
)
from anchor_jax.texture.look_up.tiled import look_up_tiled
from anchor_jax.texture.stored import Texture

_GROUPS = {
  "": (),
  "coordinates": (COORDINATE_CHANNELS,),
  "atlas": (ATLAS_CHANNELS,),
  "full": (ATLAS_CHANNELS, *(KEY_FRAME_CHANNELS,) * KEY_FRAMES, PLATE_CHANNELS),
}


def channel_groups(kind: str) -> tuple[int, ...]:
  """Sizes of the groups of channels that are dropped and shifted together: atlas, each key frame, background plate."""
  return _GROUPS[kind]


def branch_channels(kind: str) -> int:
  """Input channels of the pose branch: the pose render's three plus the pose channels."""
  return RENDER_CHANNELS + sum(_GROUPS[kind])


def kind_of(channels: int) -> str | None:
  """The `config.data.pose_channels` that gives the pose branch this many input channels; None if there is none."""
  return next((kind for kind in _GROUPS if branch_channels(kind) == channels), None)


def shared_channels(kind: str, channels: int) -> int | None:
  """Number of leading channels with the same meaning for a pose branch of `kind` and one with `channels` inputs.

  At least the pose render's three; coordinates and looked-up pictures share no more than those. Dropping the rest is
  safe, because training drops pose channels of some examples. None if no kind has `channels` inputs. See `fit_stem`.
  """
  before = kind_of(channels)
  if before is None:
    return None
  if needs_texture(kind) != needs_texture(before):
    return RENDER_CHANNELS
  return min(channels, branch_channels(kind))


def needs_texture(kind: str) -> bool:
  """Whether the channels are looked up in a person's texture, rather than computed from the motion alone."""
  return kind in ("atlas", "full")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PoseChannels:
  """The look-up as a callable pytree, for jitted functions; `make_pose_channels` creates it.

  Attributes:
    kind: value of `config.data.pose_channels`.
    tables: the person's texture; None where the kind needs none, or where it is unknown.
  """

  kind: str = dataclasses.field(metadata={"static": True})
  tables: LookUpTables | None = None

  @property
  def nothing_known(self) -> bool:
    """Whether all channels are zero because the kind needs a texture and there is none."""
    return needs_texture(self.kind) and self.tables is None

  def __call__(
    self,
    surface: UInt8[Array, "T H W 3"],
    places: Int[Array, "T S S 2"] | None = None,
    plates: UInt8[Array, "T H W 4"] | None = None,
  ) -> UInt8[Array, "T h w C"]:
    """The channels of each frame or face crop, 0 to 255; a frame's depend on its own surface map only.

    All 0 where the texture is unknown, as when training drops them.

    Args:
      surface: surface maps, of the same size as the pictures that the texture was gathered from.
      places: from `body.face_crop.crop_places`, for face crops; None for full frames.
      plates: the background plate as each frame's camera shows it (`plate.ShownPlate`); None for a still camera.

    Raises:
      ValueError: the kind has no channels, or the maps have another size.
    """
    if self.kind == "coordinates":
      values = coordinates(surface if places is None else jax.vmap(crop_surface)(surface, places))
    elif not _GROUPS[self.kind]:
      raise ValueError(f'texture "{self.kind}" has no channels to look up')
    elif self.tables is None:
      return jnp.zeros((*(surface if places is None else places).shape[:-1], sum(_GROUPS[self.kind])), jnp.uint8)
    else:
      operands = (self.tables, surface) if plates is None else (self.tables, surface, plates)
      channels = sharding.by_platform(look_up_tiled, _look_up_bytes, *operands)[..., : sum(_GROUPS[self.kind])]
      return channels if places is None else jax.vmap(crop_looked_up)(channels, places)
    return _in_bytes(values)


def _in_bytes(values: Float[Array, "..."]) -> UInt8[Array, "..."]:
  return jnp.rint(values * 255).astype(jnp.uint8)


def _look_up_bytes(*operands: PyTree) -> UInt8[Array, "T H W C"]:
  return _in_bytes(look_up(*operands))


def make_pose_channels(kind: str, texture: Texture | None = None) -> PoseChannels:
  """The look-up, with its tables computed on the host; once per person, about 0.1 s per key frame.

  Args:
    kind: value of `config.data.pose_channels`.
    texture: the person's; None where it is unknown, or where `needs_texture(kind)` is False.
  """
  if texture is None or not needs_texture(kind):
    return PoseChannels(kind)
  return PoseChannels(kind, look_up_tables(texture, KEY_FRAMES if kind == "full" else 0))


def to_unit(channels: UInt8[Array, "..."]) -> Float[Array, "..."]:
  """Pose channels in [0, 1], as `Networks.embed_pose` takes them."""
  return channels.astype(jnp.float32) / 255
