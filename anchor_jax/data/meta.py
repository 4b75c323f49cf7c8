"""What meta.json of a prepared folder holds, every field checked once."""

import dataclasses
import os
from pathlib import Path
from typing import Annotated, Any

from anchor_jax.core.errors import UserError, one_line
from anchor_jax.core.values import SettingError, Within
from anchor_jax.data.record_fields import FORMAT
from anchor_jax.files.fields import fields_of
from anchor_jax.files.inputs import read_json, regular_file
from anchor_jax.landmarks.measures import BodyMeasures

META = "meta.json"
_REMEDY = "prepare the folder again"
_LEAST = 64  # bytes of a record: four small PNG files are longer

Number = Annotated[int, Within(0, 2**40)]


@dataclasses.dataclass(frozen=True)
class Clip:
  """A video of the folder: its name, the number of its person, its first record and how many it has.

  `square` is the crop's left, top and side in the film's picture; None where it was made from no film.
  """

  name: str
  person: Number
  fps: Annotated[float, Within(1e-3, 1000.0)]
  first: Number
  frames: Annotated[int, Within(1, 2**40)]
  square: tuple[Number, Number, Number] | None = None


@dataclasses.dataclass(frozen=True)
class Meta:
  """The fields that are read; folders of earlier versions lack those with a default.

  Attributes:
    size: height and width of the frames, pixels.
    fps: of the first video.
    frames: number of records.
    people: names.
    videos: in order.
    without_landmarks, without_surface: numbers of records.
    files: bytes of each file of records.
    measures: of each person, as of `BodyMeasures.from_json`; None where not known.
  """

  format: int
  size: Annotated[int, Within(1, 2**14)]
  fps: Annotated[float, Within(1e-3, 1000.0)]
  frames: Annotated[int, Within(1, 2**40)]
  people: tuple[str, ...]
  videos: tuple[Clip, ...]
  without_landmarks: tuple[Number, ...]
  files: dict[str, Number]
  without_surface: tuple[Number, ...] | None = None
  measures: tuple[Any, ...] | None = None

  def __post_init__(self):
    """Checks that the fields fit each other."""
    first = 0
    for video in self.videos:
      if video.first != first or video.person >= len(self.people):
        raise SettingError("videos", f"are not in order: {one_line(video, 80)}")
      first += video.frames
    if first != self.frames or not self.videos:
      raise SettingError("frames", f"is {self.frames}, and the videos have {first}")
    for name in ("without_landmarks", "without_surface"):
      if max(getattr(self, name) or (0,)) >= self.frames:
        raise SettingError(name, f"names a record beyond the {self.frames} that there are")
    if any(os.path.basename(name) != name for name in self.files):
      raise SettingError("files", "are in other folders")
    if self.frames * _LEAST > sum(self.files.values()):
      raise SettingError("frames", f"is {self.frames}, in files of {sum(self.files.values())} bytes")
    if self.measures is not None and len(self.measures) != len(self.people):
      raise SettingError("measures", f"are those of {len(self.measures)} people")

  def bodies(self) -> list[BodyMeasures | None]:
    """Measures of each person's body; None where they are not known.

    Raises:
      UserError: they are none.
    """
    stored = self.measures or [None] * len(self.people)
    try:
      return [None if values is None else BodyMeasures.from_json(values) for values in stored]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
      raise UserError(f"measures of a body: {one_line(error)}") from None


def read_meta(folder: Path) -> tuple[dict[str, Any], Meta]:
  """Returns what meta.json of a prepared folder holds, and its fields, which fit the files beside it.

  Raises:
    UserError: a field is missing, of another type or out of bounds, of another format, or a file is not as it was.
  """
  path = folder / META
  values = read_json(path, "description of a prepared folder", _REMEDY, nan=True)
  if isinstance(values, dict) and values.get("format", FORMAT) != FORMAT:
    version = one_line(values["format"], 40)
    raise UserError(f"{folder} has format {version}, this version reads {FORMAT}: prepare it again")
  meta = fields_of(Meta, values, path, _REMEDY)
  for name, size in meta.files.items():
    there = regular_file(folder / name, "file of records").stat().st_size
    if there != size:
      raise UserError(
        f"the prepared folder {folder} is damaged ({name} has {there} bytes instead of {size}): {_REMEDY}"
      )
  return values, meta
