"""The face crops of a prepared folder: the head's training data."""

from collections.abc import Sequence

import numpy as np

from anchor_jax.body.face_crop import crop_image, face_transform, keep_mask
from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Int, NdArray
from anchor_jax.data.sources import Record, Source


def records_with_faces(source: Source) -> Int[NdArray, " N"]:
  """Numbers of the records with known landmarks.

  Raises:
    UserError: there are none.
  """
  records = np.flatnonzero(source.has_landmarks)
  if not len(records):
    raise UserError("no face is found in any frame: the head needs a video that shows the person's face")
  return records


class CropSource:
  """The face crops of records with known landmarks, cropped on reading; see `head_source`.

  Attributes:
    source: the full frames.
    size: height and width S of the crops in pixels.
    records: numbers of the records in `source`.
    people, videos, has_landmarks: as in `Source`.
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
    """The named fields of a record."""
    number, size = int(self.records[index]), self.size
    if unknown := set(fields) - set(_INPUTS):
      raise KeyError(f"face crops have no {', '.join(sorted(unknown))}")
    inputs = sorted({name for field in fields for name in _INPUTS[field]})
    record = self.source.read(number, inputs) if inputs else {}
    to_crop = face_transform(record["landmarks"], size) if inputs else np.eye(2, 3)
    crop: Record = {}
    for field in fields:
      if field == "record":
        crop[field] = np.asarray(number, np.int32)
      elif field == "keep_mask":
        crop[field] = keep_mask(record["face_mask"], to_crop, size)
      else:  # photographs are mirrored at their border, pose renders continue in black
        crop[field] = crop_image(record[field], to_crop, size, extend=field == "frame")
    return crop


# The fields of the full frame that each field of a crop is computed from.
_INPUTS = {
  "frame": ("frame", "landmarks"),
  "pose": ("pose", "landmarks"),
  "keep_mask": ("face_mask", "landmarks"),
  "record": (),
}


def head_source(source: Source, size: int) -> CropSource:
  """The face crops of all records with known landmarks, read lazily.

  Args:
    source: prepared frames with their poses.
    size: height and width S of the crops in pixels.

  Returns:
    A source with the fields frame and pose (u8 [S S 3]), keep_mask (u8 [S S 1], 0 where the head repaints, else 255)
    and record (int32, the number in `source`).

  Raises:
    UserError: no record has landmarks.
  """
  return CropSource(source, size, records_with_faces(source))
