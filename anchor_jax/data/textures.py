"""The texture of a person in a prepared folder: gathered from its records, or read from the file beside them."""

import dataclasses
import logging
import os
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from anchor_jax.body.charts import CHARTS
from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Int, NdArray
from anchor_jax.data.records import PreparedSource
from anchor_jax.files.outputs import new_file
from anchor_jax.texture.blocks import plan_blocks
from anchor_jax.texture.gather import KEY_FRAMES, FilmFrame, Gathered, gather
from anchor_jax.texture.sheet import texture_sheet
from anchor_jax.texture.stored import Texture, read_texture, write_texture

log = logging.getLogger(__name__)

PICTURE = "appearance.png"
MOST_STORED = 4  # people; a megabyte and some seconds each
_FIELDS = ("frame", "surface", "person_mask", "landmarks")


class GatheredPerson(NamedTuple):
  """What a prepared folder tells of one person.

  Attributes:
    gathered: her texture, for a new motion (`appearance()`) and for training on one of its blocks.
    records: the records it was gathered from, in order; record `records[i]` is in block `gathered.blocks.of_frame[i]`.
  """

  gathered: Gathered
  records: Int[NdArray, " N"]


def gather_person(
  source: PreparedSource, person: int = 0, key_frames: int = KEY_FRAMES, progress: str | None = None
) -> GatheredPerson:
  """Gathers the texture of one person from all her records that have a surface map, in a few seconds a minute.

  Args:
    source: a prepared folder.
    person: her number in it.
    key_frames: how many to keep for each block.
    progress: what the progress bar says; None for no bar.

  Raises:
    UserError: no record of hers has a surface map, or a map names parts of the body that this version does not know.
  """
  records = _records_of(source, person)
  if not len(records):
    raise UserError(f"{source.folder} does not say where on the body its pixels lie: prepare the videos again")
  bar = tqdm(desc=progress, total=len(records), disable=progress is None, unit="frame")

  def read(number: int) -> FilmFrame:
    record = source.read(int(records[number]), _FIELDS)
    if record["surface"][..., 0].max() >= len(CHARTS):
      raise UserError(f"{source.folder} divides the body as another version does: prepare the videos again")
    if number == bar.n:  # key frames are read a second time
      bar.update()
    return FilmFrame(record["frame"], record["surface"], record["person_mask"][..., 0], record["landmarks"])

  with bar:
    gathered = gather(read, plan_blocks(source.videos[records], source.fps), CHARTS, key_frames)
  return GatheredPerson(dataclasses.replace(gathered, measures=source.measures[person]), records)


def texture_of_prepared(source: PreparedSource, person: int = 0) -> Texture:
  """The texture of one person for a motion that is not of this film: read from its file, or else gathered.

  Raises:
    UserError: as `gather_person`.
  """
  stored = stored_texture(source, person)
  return gather_person(source, person).gathered.texture() if stored is None else stored


def stored_texture(source: PreparedSource, person: int = 0) -> Texture | None:
  """The texture that `prepare` stored in the folder; None where there is none that fits the folder and this version.

  Folders of earlier versions have none, and those of many people.
  """
  path = _stored_path(source.folder, person)
  if not path.is_file():
    return None
  try:
    texture = read_texture(path, CHARTS)
  except UserError as error:
    log.warning("%s; until then it is gathered from the records", error)
    return None
  texture = dataclasses.replace(texture, measures=source.measures[person])
  # A field that this version added is None in files of earlier ones: the records tell it.
  complete = all(value is not None for name, value in vars(texture).items() if name != "measures")
  return texture if complete and texture.plate.shape[0] == source.size else None


def store_textures(source: PreparedSource, progress: str | None = "texture") -> None:
  """Writes the texture of each person of a folder into it, and a picture of all of them, appearance.png.

  Writes nothing where no record has a surface map, or for more than `MOST_STORED` people, whose textures would be
  large and are gathered when they are needed.

  Args:
    source: a prepared folder.
    progress: what the progress bar says; None for no bar.

  Raises:
    UserError: a file can't be written.
  """
  people = len(source.meta["people"])
  if people > MOST_STORED:
    return
  sheets = []
  for person in range(people):
    if not len(_records_of(source, person)):
      continue
    try:
      gathered = gather_person(source, person, progress=progress).gathered
    except UserError as error:  # maps of another version are no reason to lose a prepared film
      log.warning("%s", error)
      continue
    texture = gathered.texture()
    write_texture(_stored_path(source.folder, person), texture)
    sheets.append(texture_sheet(texture))
  if sheets:
    width = max(sheet.shape[1] for sheet in sheets)
    sheet = np.concatenate([np.pad(sheet, ((0, 0), (0, width - sheet.shape[1]), (0, 0))) for sheet in sheets])
    with new_file(source.folder / PICTURE) as path:
      path.write_bytes(cv2.imencode(".png", sheet[..., ::-1])[1].tobytes())


def unseen_room(texture: Texture) -> float:
  """Share of the picture on which the film never shows the room, 0 to 1: the person or her shadow is always there."""
  return float((texture.plate_coverage == 0).mean())


def _records_of(source: PreparedSource, person: int) -> Int[NdArray, " N"]:
  return np.flatnonzero((source.people == person) & source.has_surface)


def _stored_path(folder: str | os.PathLike, person: int) -> Path:
  return Path(folder) / ("appearance.safetensors" if person == 0 else f"appearance_{person}.safetensors")
