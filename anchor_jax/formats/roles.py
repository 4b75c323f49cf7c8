"""The roles of models in a folder of models, and where each is stored.

A folder of models has one subfolder per model, named by its role, as diffusers writes a pipeline. A model at the top is
shared by body and head; one below body/ or head/ belongs to that part alone and takes precedence over the shared one:

    vae/  image_encoder/  text_encoder/  scheduler/       shared
    light_decoder/                                        shared; read only on request, see store/light.py
    body/unet/  body/controlnet/  body/refiner/           of the body; the refiner is optional
    head/unet/  head/controlnet/                          of the head
    null_context.safetensors                              shared, or body/... and head/... where they differ

Only `folders.py` reads and writes this layout.
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

SHARED = ""  # the part of a model that body and head share
PERSON_PARTS = ("body", "head")
WEIGHT_TYPES = ("float32", "float16", "bfloat16")  # of the weights in files
LORA_FILE = "lora.safetensors"  # adapters of a part, in place of its networks
LIGHT_DECODER = "light_decoder"  # a role, and its key in a part's weights


class Storage(enum.Enum):
  """How a role is stored: a network's folder, a noise schedule's folder, or one file with one array."""

  NETWORK = "config.json"
  SCHEDULE = "scheduler_config.json"
  ARRAY = ""


@dataclasses.dataclass(frozen=True)
class Role:
  """One row of the table.

  Attributes:
    storage: how it is stored.
    config: class of its configuration; None for an array.
    setting: its field in ModelConfig; "" for a network that runs do not have.
    per_part: whether each part of a saved person has its own; other roles are written once where both parts have equal
      ones.
  """

  storage: Storage
  config: type[Config] | None
  setting: str = ""
  per_part: bool = False


ROLES: dict[str, Role] = {
  "unet": Role(Storage.NETWORK, UNetConfig, "unet", per_part=True),
  "controlnet": Role(Storage.NETWORK, ControlNetConfig, "controlnet", per_part=True),
  "refiner": Role(Storage.NETWORK, RefinerConfig, "refiner", per_part=True),
  "vae": Role(Storage.NETWORK, VAEConfig, "vae"),
  "light_decoder": Role(Storage.NETWORK, LightDecoderConfig),
  "image_encoder": Role(Storage.NETWORK, CLIPVisionConfig, "image_encoder"),
  "text_encoder": Role(Storage.NETWORK, CLIPTextConfig),
  "scheduler": Role(Storage.SCHEDULE, ScheduleConfig, "schedule"),
  "null_context": Role(Storage.ARRAY, None),
}
NETWORK_ROLES = tuple(name for name, role in ROLES.items() if role.storage is Storage.NETWORK)


class ModelPlace(NamedTuple):
  """Where a model is in a folder: its part (SHARED, "body" or "head") and role. `str` gives "vae" or "head/unet"."""

  part: str
  role: str

  def __str__(self) -> str:
    """The path below the folder of models."""
    return f"{self.part}/{self.role}" if self.part else self.role

  def path(self, folder: Path) -> Path:
    """The model's folder, or the array's file, below `folder`."""
    array = ROLES[self.role].storage is Storage.ARRAY
    return folder / self.part / (f"{self.role}.safetensors" if array else self.role)

  def exists(self, folder: Path) -> bool:
    """Whether `folder` holds a model at this place."""
    return (self.path(folder) / ROLES[self.role].storage.value).is_file()


def places_of(part: str, role: str) -> tuple[ModelPlace, ...]:
  """Returns the places where a part's model may be, in order of precedence."""
  return (ModelPlace(part, role), ModelPlace(SHARED, role)) if part in PERSON_PARTS else (ModelPlace(SHARED, role),)


def all_places() -> Iterator[ModelPlace]:
  """Yields every possible place in a folder of models."""
  return (ModelPlace(part, role) for part in (SHARED, *PERSON_PARTS) for role in ROLES)
