"""Which channels the pose branch takes beside the pose render, by `config.data.appearance`.

""            none, as in the reference
"coordinates" 6: where on the body each pixel lies
"atlas"       4: the person's texture at that place, and its coverage
"full"        20: atlas, three key frames, the room; see texture/look_up.py for their order
"""

import dataclasses

import jax
import jax.numpy as jnp

from anchor_jax.core.shapes import Array, Float, Int, UInt8
from anchor_jax.models.controlnet import COORDINATE_CHANNELS, RENDER_CHANNELS
from anchor_jax.texture.gather import KEY_FRAMES
from anchor_jax.texture.look_up import (
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
from anchor_jax.texture.stored import Texture

_GROUPS = {
  "": (),
  "coordinates": (COORDINATE_CHANNELS,),
  "atlas": (ATLAS_CHANNELS,),
  "full": (ATLAS_CHANNELS, *(KEY_FRAME_CHANNELS,) * KEY_FRAMES, PLATE_CHANNELS),
}


def channel_groups(kind: str) -> tuple[int, ...]:
  """Number of channels of each group that is known or unknown as one: the atlas, each key frame, the room."""
  return _GROUPS[kind]


def branch_channels(kind: str) -> int:
  """Channels that the pose branch takes, the pose render's three among them."""
  return RENDER_CHANNELS + sum(_GROUPS[kind])


def kind_of(channels: int) -> str | None:
  """The value of `config.data.appearance` for which a pose branch takes so many channels; None where there is none."""
  return next((kind for kind in _GROUPS if branch_channels(kind) == channels), None)


def shared_channels(kind: str, channels: int) -> int | None:
  """How many first channels mean the same to a pose branch of `kind` and to one that takes `channels`; see `fit_stem`.

  The pose render's at least; coordinates and looked-up pictures have no others in common. Training drops the channels
  of some examples, so a branch works without those that are left out. None where no kind has so many channels.
  """
  before = kind_of(channels)
  if before is None:
    return None
  if needs_texture(kind) != needs_texture(before):
    return RENDER_CHANNELS
  return min(channels, branch_channels(kind))


def needs_texture(kind: str) -> bool:
  """Whether the channels come from the texture of a person (and not from the motion alone)."""
  return kind in ("atlas", "full")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PoseChannels:
  """Looks the channels up; a pytree, so that jitted functions can take it. `make_pose_channels` makes one.

  Attributes:
    kind: value of `config.data.appearance`.
    tables: the texture of the person; None where the kind needs none, or where nothing is known of her.
  """

  kind: str = dataclasses.field(metadata={"static": True})
  tables: LookUpTables | None = None

  @property
  def nothing_known(self) -> bool:
    """Whether all channels are zero, since they would need a texture and there is none."""
    return needs_texture(self.kind) and self.tables is None

  def __call__(
    self, surface: UInt8[Array, "T H W 3"], places: Int[Array, "T S S 2"] | None = None
  ) -> UInt8[Array, "T h w C"]:
    """The channels of each frame, or of its face crop, which depend on its own surface map alone; 255 is 1.

    All are 0 where a texture is needed and nothing is known of it, as they are when training drops conditions.

    Args:
      surface: surface maps; as large as the pictures that the texture was gathered from.
      places: of `body.face_crop.crop_places`, for the face crops of the frames; None for whole frames.

    Raises:
      ValueError: the kind has no channels, or the maps are of another size.
    """
    if self.kind == "coordinates":
      values = coordinates(surface if places is None else jax.vmap(crop_surface)(surface, places))
    elif not _GROUPS[self.kind]:
      raise ValueError(f'texture "{self.kind}" has no channels to look up')
    elif self.tables is None:
      return jnp.zeros((*(surface if places is None else places).shape[:-1], sum(_GROUPS[self.kind])), jnp.uint8)
    else:
      values = look_up(self.tables, surface)[..., : sum(_GROUPS[self.kind])]
    made = jnp.rint(values * 255).astype(jnp.uint8)
    return made if places is None or self.kind == "coordinates" else jax.vmap(crop_looked_up)(made, places)


def make_pose_channels(kind: str, texture: Texture | None = None) -> PoseChannels:
  """Prepares the look-up on the host, once a person (about 0.1 s a key frame).

  Args:
    kind: value of `config.data.appearance`.
    texture: of the person; None where nothing is known of it, or where `needs_texture(kind)` is False.
  """
  if texture is None or not needs_texture(kind):
    return PoseChannels(kind)
  return PoseChannels(kind, look_up_tables(texture, KEY_FRAMES if kind == "full" else 0))


def to_unit(conditions: UInt8[Array, "..."]) -> Float[Array, "..."]:
  """Looked up channels in [0, 1], as `Networks.embed_pose` takes them."""
  return conditions.astype(jnp.float32) / 255
