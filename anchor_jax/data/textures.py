"""Textures of the people in a prepared folder: gathered from its records, or read from its texture files."""

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
from anchor_jax.texture.stored import SEEN, Texture, read_texture, write_texture

log = logging.getLogger(__name__)

PICTURE = "appearance.png"
MAX_STORED = 4  # people; each takes a megabyte and some seconds
_FIELDS = ("frame", "surface", "person_mask", "landmarks")


class GatheredPerson(NamedTuple):
  """A person's gathered film.

  Attributes:
    gathered: returns the texture for a new motion, or for training on one block of the film.
    records: numbers of the records that were gathered; record `records[i]` is in block `gathered.blocks.of_frame[i]`.
  """

  gathered: Gathered
  records: Int[NdArray, " N"]


def gather_person(
  source: PreparedSource, person: int = 0, key_frames: int = KEY_FRAMES, progress: str | None = None
) -> GatheredPerson:
  """Gathers one person's texture from all records with a surface map; takes a few seconds per minute of film.

  Args:
    source: a prepared folder.
    person: number of the person.
    key_frames: number of key frames for each block.
    progress: label of the progress bar; None for no bar.

  Raises:
    UserError: the person's records have no surface maps, or maps with charts that this version does not know.
  """
  records = _records_of(source, person)
  if not len(records):
    raise UserError(f"{source.folder} has no surface maps: prepare the videos again")
  bar = tqdm(desc=progress, total=len(records), disable=progress is None, unit="frame")

  def read(number: int) -> FilmFrame:
    record = source.read(int(records[number]), _FIELDS)
    if record["surface"][..., 0].max() >= len(CHARTS):
      raise UserError(f"{source.folder} has the surface charts of another version: prepare the videos again")
    if number == bar.n:  # key frames are read a second time
      bar.update()
    return FilmFrame(record["frame"], record["surface"], record["person_mask"][..., 0], record["landmarks"])

  with bar:
    cameras = None if source.cameras is None else source.cameras[records]
    gathered = gather(read, plan_blocks(source.videos[records], source.fps), CHARTS, key_frames, cameras)
  return GatheredPerson(dataclasses.replace(gathered, measures=source.measures[person]), records)


def texture_of_prepared(source: PreparedSource, person: int = 0) -> Texture:
  """One person's texture from the entire film: read from its file if possible, else gathered.

  Raises:
    UserError: as `gather_person`.
  """
  stored = stored_texture(source, person)
  return gather_person(source, person).gathered.texture() if stored is None else stored


def stored_texture(source: PreparedSource, person: int = 0) -> Texture | None:
  """The texture that `prepare` stored in the folder; None if there is none, or none that fits folder and version.

  Folders of earlier versions and of many people have none.
  """
  path = _stored_path(source.folder, person)
  if not path.is_file():
    return None
  try:
    texture = read_texture(path, CHARTS)
  except UserError as error:
    log.warning("%s; gathering the texture from the records", error)
    return None
  texture = dataclasses.replace(texture, measures=source.measures[person])
  # Files of earlier versions lack some fields, which the records have.
  complete = all(value is not None for name, value in vars(texture).items() if name not in ("measures", "room"))
  return texture if complete and texture.plate.shape[:2] == source.size.shape else None


def store_textures(source: PreparedSource, progress: str | None = "texture") -> None:
  """Writes each person's texture into the folder, and a contact sheet of all of them, appearance.png.

  Writes nothing if no record has a surface map. More than `MAX_STORED` textures would be large, so they are not written
  either, but gathered on demand.

  Args:
    source: a prepared folder.
    progress: label of the progress bar; None for no bar.

  Raises:
    UserError: a file can't be written.
  """
  people = len(source.meta["people"])
  if people > MAX_STORED:
    return
  sheets = []
  for person in range(people):
    if not len(_records_of(source, person)):
      continue
    try:
      gathered = gather_person(source, person, progress=progress).gathered
    except UserError as error:  # surface maps of another version must not fail the preparation
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
  """Fraction of the picture, 0 to 1, where the film never shows the room behind the person."""
  return float((texture.plate_coverage != SEEN).mean())


def _records_of(source: PreparedSource, person: int) -> Int[NdArray, " N"]:
  return np.flatnonzero((source.people == person) & source.has_surface)


def _stored_path(folder: str | os.PathLike, person: int) -> Path:
  return Path(folder) / ("appearance.safetensors" if person == 0 else f"appearance_{person}.safetensors")
