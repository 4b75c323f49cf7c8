"""The table of roles: every kind of model that a folder of models holds, and where.

A folder of models has one subfolder for each model, named by its role, as diffusers writes a pipeline. A model at the
top is for body and head alike; one below body/ or head/ is for that part alone, and is read instead of the one at the
top:

    vae/  image_encoder/  text_encoder/  scheduler/       shared
    light_decoder/                                        shared; read on request alone, see light.py
    body/unet/  body/controlnet/  body/refiner/           the body's own; not every body has a refiner
    head/unet/  head/controlnet/                          the head's own
    null_context.safetensors                              shared, or body/... and head/... where the two differ

`folders.py` is the only reader and writer of this layout.
"""

import dataclasses
import enum
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from anchor_jax.config.networks import (
  CLIPTextConfig,
  CLIPVisionConfig,
  Config,
  ControlNetConfig,
  ScheduleConfig,
  UNetConfig,
  VAEConfig,
)
from anchor_jax.config.pixels import LightDecoderConfig, RefinerConfig

SHARED = ""  # the part of a model that is for body and head alike
PARTS = ("body", "head")
WEIGHT_TYPES = ("float32", "float16", "bfloat16")  # in which weights can be written


class Kind(enum.Enum):
  """How a role is stored: a network's folder, a noise schedule's folder, or one file with one array."""

  NETWORK = "config.json"
  SCHEDULE = "scheduler_config.json"
  ARRAY = ""


@dataclasses.dataclass(frozen=True)
class Role:
  """One row of the table.

  Attributes:
    kind: how it is stored.
    config: class of its configuration; None for an array, which needs none.
    setting: its field in ModelConfig; "" where a run has no such network.
    per_part: whether body and head always have their own when a person is written; other roles are written once where
      both are equal.
  """

  kind: Kind
  config: type[Config] | None
  setting: str = ""
  per_part: bool = False


ROLES: dict[str, Role] = {
  "unet": Role(Kind.NETWORK, UNetConfig, "unet", per_part=True),
  "controlnet": Role(Kind.NETWORK, ControlNetConfig, "controlnet", per_part=True),
  "refiner": Role(Kind.NETWORK, RefinerConfig, "refiner", per_part=True),
  "vae": Role(Kind.NETWORK, VAEConfig, "vae"),
  "light_decoder": Role(Kind.NETWORK, LightDecoderConfig),
  "image_encoder": Role(Kind.NETWORK, CLIPVisionConfig, "image_encoder"),
  "text_encoder": Role(Kind.NETWORK, CLIPTextConfig),
  "scheduler": Role(Kind.SCHEDULE, ScheduleConfig, "schedule"),
  "null_context": Role(Kind.ARRAY, None),
}
NETWORKS = tuple(name for name, role in ROLES.items() if role.kind is Kind.NETWORK)


class Place(NamedTuple):
  """The place of a model: its part (SHARED, "body" or "head") and its role. `str` gives "vae" or "head/unet"."""

  part: str
  role: str

  def __str__(self) -> str:
    """The path below the folder of models."""
    return f"{self.part}/{self.role}" if self.part else self.role

  def path(self, folder: Path) -> Path:
    """The model's folder, or the array's file, below `folder`."""
    array = ROLES[self.role].kind is Kind.ARRAY
    return folder / self.part / (f"{self.role}.safetensors" if array else self.role)

  def exists(self, folder: Path) -> bool:
    """Whether `folder` holds a model at this place."""
    return (self.path(folder) / ROLES[self.role].kind.value).is_file()


def places_of(part: str, role: str) -> tuple[Place, ...]:
  """Returns the places where a part's model may be; the first that exists is the one to read."""
  return (Place(part, role), Place(SHARED, role)) if part in PARTS else (Place(SHARED, role),)


def all_places() -> Iterator[Place]:
  """Every place there can be in a folder of models."""
  return (Place(part, role) for part in (SHARED, *PARTS) for role in ROLES)
