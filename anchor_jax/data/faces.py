"""The face crops of a prepared folder, which the head trains on."""

from collections.abc import Sequence

import numpy as np

from anchor_jax.body.face_crop import crop_image, face_transform, keep_mask
from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Int, NdArray
from anchor_jax.data.sources import Record, Source


def records_with_faces(source: Source) -> Int[NdArray, " N"]:
  """Returns the numbers of the records whose landmarks are known. Raises UserError where there are none."""
  records = np.flatnonzero(source.has_landmarks)
  if not len(records):
    raise UserError("no face is found in any frame: the head needs a video that shows the person's face")
  return records


class CropSource:
  """The face crops of records whose landmarks are known, made as they are read; see `head_source`.

  Attributes:
    source: the whole frames.
    size: height and width S of the crops, in pixels.
    records: numbers of the records in `source`.
    people, videos, has_landmarks: as of a `Source`.
  """

  def __init__(self, source: Source, size: int, records: Int[NdArray, " N"]):
    """Takes the numbers of records with landmarks."""
    self.source, self.size, self.records = source, size, records
    self.people, self.videos = source.people[records], source.videos[records]
    self.has_landmarks = np.ones(len(records), bool)

  def __len__(self) -> int:
    return len(self.records)

  def __repr__(self) -> str:
    return f"CropSource({self.source}, {self.size} pixels, {len(self)} records)"

  def read(self, index: int, fields: Sequence[str]) -> Record:
    """Some fields of a record."""
    number, size = int(self.records[index]), self.size
    if unknown := set(fields) - set(_NEEDED):
      raise KeyError(f"face crops have no {', '.join(sorted(unknown))}")
    needed = sorted({name for field in fields for name in _NEEDED[field]})
    whole = self.source.read(number, needed) if needed else {}
    to_crop = face_transform(whole["landmarks"], size) if needed else np.eye(2, 3)
    made: Record = {}
    for field in fields:
      if field == "record":
        made[field] = np.asarray(number, np.int32)
      elif field == "keep_mask":
        made[field] = keep_mask(whole["face_mask"], to_crop, size)
      else:  # only a frame goes on beyond its border
        made[field] = crop_image(whole[field], to_crop, size, extend=field == "frame")
    return made


# The fields of the whole frame that each field of a crop is made of.
_NEEDED = {
  "frame": ("frame", "landmarks"),
  "pose": ("pose", "landmarks"),
  "keep_mask": ("face_mask", "landmarks"),
  "record": (),
}


def head_source(source: Source, size: int) -> CropSource:
  """Returns the face crops of all records whose landmarks are known, read as they are needed, for training the head.

  Args:
    source: prepared frames with their poses.
    size: height and width S of the crops, in pixels.

  Returns:
    A source with the fields frame and pose (u8 [S S 3]), keep_mask (u8 [S S 1], 0 where the head repaints, else 255)
    and record (int32, the number in `source`).

  Raises:
    UserError: no record has landmarks.
  """
  return CropSource(source, size, records_with_faces(source))
