"""The channels that the pose branch takes beside the pose render, looked up for every record before training.

For the body they are as large as the frames, for the head as its face crops.

A record's channels come from the film without its own block and that block's neighbours (texture/blocks.py), so that
the network cannot learn to copy what it should paint.
"""

import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from anchor_jax.body.charts import CHARTS
from anchor_jax.body.face_crop import crop_places, face_transform
from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Array, Int, NdArray, UInt8
from anchor_jax.data.encoded import block_records, write_block
from anchor_jax.data.records import PreparedSource
from anchor_jax.data.sources import read_all
from anchor_jax.data.textures import GatheredPerson, gather_person
from anchor_jax.texture.channels import PoseChannels, make_pose_channels, needs_texture
from anchor_jax.texture.gather import KEY_FRAMES
from anchor_jax.training.encode import complete_folder, hash_records

FIELD = "conditions"  # uint8 [H W C]; 255 is 1
_FORMAT = 2  # to be raised when the same records would be gathered or looked up differently
_CHUNK = 16  # records per call of the look-up


class FilmTextures:
  """The textures of the people in a prepared folder, gathered when they are asked for; few are kept in memory."""

  def __init__(self, records: PreparedSource):
    """Takes the folder; reads nothing yet."""
    self.records = records
    self.of_person = functools.lru_cache(maxsize=2)(self._gather)

  def _gather(self, person: int) -> GatheredPerson:
    return gather_person(self.records, person)

  def block_of(self, record: int) -> tuple[int, int]:
    """(person, block of the film) of a record; of the nearest one where a record has no surface map."""
    person = int(self.records.people[record])
    gathered, mine = self.of_person(person)
    return person, int(gathered.blocks.of_frame[min(int(np.searchsorted(mine, record)), len(mine) - 1)])


def check_surface(kind: str, records: PreparedSource) -> None:
  """Raises UserError where channels are asked for and a folder has no surface maps to look them up with."""
  if kind and not records.has_surface.any():
    raise UserError(
      f"{records.folder} does not say where on the body its pixels lie, which config.data.appearance={kind} needs:"
      " prepare the videos again"
    )


def look_up_records(
  kind: str,
  textures: FilmTextures,
  folders: Sequence[Path],
  share: tuple[int, int] = (0, 1),
  crop: int | None = None,
) -> Path:
  """The folder with the channels of every record as the array `FIELD`, looked up now or by an earlier run.

  Args:
    kind: value of `config.data.appearance`, not "".
    textures: of the people in the folder that is trained on.
    folders: where the result may be kept; the first that has it, or else the first that can be written, is used.
    share: (index, count) of this process among those of the run.
    crop: size in pixels of the head's face crops, of the records that `head_source` takes; None for whole frames.

  Raises:
    UserError: a person has no surface map.
  """
  records = textures.records
  chosen = np.arange(len(records)) if crop is None else np.flatnonzero(records.has_landmarks)

  @functools.lru_cache(maxsize=1)  # consecutive records are of one block
  def pose_channels(person: int, block: int) -> PoseChannels:
    return make_pose_channels(kind, textures.of_person(person).gathered.texture(block))

  def of_record(record: int) -> PoseChannels:
    return pose_channels(*textures.block_of(record)) if needs_texture(kind) else make_pose_channels(kind)

  def write(folder: Path, blocks: Sequence[int]) -> None:
    for block in tqdm(blocks, "look up", unit="block"):
      numbers = chosen[block_records(block, len(chosen))].tolist()
      surfaces, places = _read(records, numbers, crop)
      keys = [textures.block_of(number) if needs_texture(kind) else 0 for number in numbers]
      starts = [i for i in range(len(keys)) if i == 0 or keys[i] != keys[i - 1]]
      ends = [*starts[1:], len(keys)]
      made = [
        _look_up(of_record(numbers[i]), surfaces[i:j], None if places is None else places[i:j])
        for i, j in zip(starts, ends, strict=True)
      ]
      write_block(folder, block, {FIELD: np.concatenate(made)})

  facts: dict[str, Any] = {"format": _FORMAT, "kind": kind, "key_frames": KEY_FRAMES, "charts": CHARTS}
  facts |= {} if crop is None else {"part": "head", "crop": crop}
  digest = hashlib.sha256(json.dumps(facts).encode())
  hash_records(digest, records)
  name = f"conditions-{digest.hexdigest()[:16]}"
  return complete_folder(folders, name, (FIELD,), len(chosen), write, share)


def _read(
  records: PreparedSource, numbers: Sequence[int], crop: int | None
) -> tuple[UInt8[NdArray, "N H W 3"], Int[NdArray, "N S S 2"] | None]:
  """Surface maps of some records, and with `crop` the places in them of the pixels of the face crops."""
  if crop is None:
    return np.stack([record["surface"] for record in read_all(records, numbers, ("surface",))]), None
  read = list(read_all(records, numbers, ("surface", "landmarks")))
  frame_size = records.size, records.size
  places = [crop_places(face_transform(record["landmarks"], crop), crop, frame_size) for record in read]
  return np.stack([record["surface"] for record in read]), np.stack(places)


@jax.jit
def _look_up_chunk(
  pose_channels: PoseChannels, surface: UInt8[Array, "N H W 3"], places: Int[Array, "N S S 2"] | None
) -> UInt8[Array, "N h w C"]:
  return pose_channels(surface, places)


def _look_up(
  pose_channels: PoseChannels, surfaces: UInt8[NdArray, "N H W 3"], places: Int[NdArray, "N S S 2"] | None
) -> UInt8[NdArray, "N h w C"]:
  """The channels of records of one block, always so many in a call that nothing compiles twice."""
  made = []
  for start in range(0, len(surfaces), _CHUNK):
    count = min(_CHUNK, len(surfaces) - start)
    rows = start + np.minimum(np.arange(_CHUNK), count - 1)
    chunk = _look_up_chunk(pose_channels, surfaces[rows], None if places is None else places[rows])
    made.append(np.asarray(chunk)[:count])
  return np.concatenate(made)
