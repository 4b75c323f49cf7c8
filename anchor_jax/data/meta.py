"""The contents of a prepared folder's meta.json, with all checks."""

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Annotated, Any

from anchor_jax.core.errors import UserError, one_line
from anchor_jax.core.values import SettingError, Within
from anchor_jax.data.record_fields import FORMAT
from anchor_jax.files.fields import fields_of
from anchor_jax.files.inputs import read_json, regular_file
from anchor_jax.landmarks.proportions.measures import BodyMeasures

META = "meta.json"
_REMEDY = "prepare the folder again"
_MIN_BYTES = 64  # of a record; four small PNG files are longer

Side = Annotated[int, Within(1, 2**14)]
Number = Annotated[int, Within(0, 2**40)]
Share = Annotated[float, Within(-100.0, 100.0)]
_NUMBERS = re.compile(r"\[\s+-?\d[-+.\deE,\s]*\]")  # a list of nothing but numbers, over several lines
_LEAST_ZOOM = 0.01  # of a camera that moves


def meta_text(meta: dict[str, Any]) -> str:
  """Returns the text of a meta.json: indented, each list of numbers in one line."""
  in_one_line = lambda numbers: " ".join(numbers[0].split()).replace("[ ", "[").replace(" ]", "]")
  return _NUMBERS.sub(in_one_line, json.dumps(meta, indent=1)) + "\n"


@dataclasses.dataclass(frozen=True)
class Clip:
  """A video of the folder.

  Attributes:
    name: for people.
    person: number of its person.
    fps: frames per second.
    first: number of its first record.
    frames: number of records.
    square: the crop rectangle in the film's picture, left, top and side, or left, top, width and height; None if it
      does not come from a film.
    cameras: the camera path (texture/background/camera_path.py), a camera for each frame; None if still.
  """

  name: str
  person: Number
  fps: Annotated[float, Within(1e-3, 1000.0)]
  first: Number
  frames: Annotated[int, Within(1, 2**40)]
  square: tuple[Number, ...] | None = None
  cameras: tuple[tuple[Share, Share, Share, Share], ...] | None = None

  def __post_init__(self):
    """Checks the length of the crop rectangle, and that the camera path fits the frames."""
    if self.square is not None and len(self.square) not in (3, 4):
      raise SettingError("square", f"has {len(self.square)} numbers instead of 3 or 4")
    if self.cameras is not None and len(self.cameras) != self.frames:
      raise SettingError("cameras", f"are {len(self.cameras)} for {self.frames} frames")
    if any(abs(complex(*camera[:2])) < _LEAST_ZOOM for camera in self.cameras or ()):
      raise SettingError("cameras", "show nothing")


@dataclasses.dataclass(frozen=True)
class Meta:
  """The fields that are used; folders of earlier versions lack those with a default.

  Attributes:
    format: version of the folder's format.
    size: width and height of the frames in pixels; files have one number for squares.
    fps: frames per second of the first video.
    frames: number of records.
    people: names.
    videos: in the order of their records.
    without_landmarks, without_surface: numbers of the records that lack them.
    files: size in bytes of each file of records.
    measures: body measures of each person as JSON (`BodyMeasures.from_json`); None where unknown.
  """

  format: int
  size: tuple[Side, Side]
  fps: Annotated[float, Within(1e-3, 1000.0)]
  frames: Annotated[int, Within(1, 2**40)]
  people: tuple[str, ...]
  videos: tuple[Clip, ...]
  without_landmarks: tuple[Number, ...]
  files: dict[str, Number]
  without_surface: tuple[Number, ...] | None = None
  measures: tuple[Any, ...] | None = None

  def __post_init__(self):
    """Checks that the fields are consistent."""
    first = 0
    for video in self.videos:
      if video.first != first or video.person >= len(self.people):
        raise SettingError("videos", f"are out of order: {one_line(video, 80)}")
      first += video.frames
    if first != self.frames or not self.videos:
      raise SettingError("frames", f"is {self.frames}, and the videos have {first}")
    for name in ("without_landmarks", "without_surface"):
      if max(getattr(self, name) or (0,)) >= self.frames:
        raise SettingError(name, f"names a record beyond the last of {self.frames}")
    if any(os.path.basename(name) != name for name in self.files):
      raise SettingError("files", "are in other folders")
    if self.frames * _MIN_BYTES > sum(self.files.values()):
      raise SettingError("frames", f"is {self.frames}, in files of {sum(self.files.values())} bytes")
    if self.measures is not None and len(self.measures) != len(self.people):
      raise SettingError("measures", f"are for {len(self.measures)} people instead of {len(self.people)}")

  def body_measures(self) -> list[BodyMeasures | None]:
    """Body measures of each person; None where unknown.

    Raises:
      UserError: they are malformed.
    """
    stored = self.measures or [None] * len(self.people)
    try:
      return [None if values is None else BodyMeasures.from_json(values) for values in stored]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
      raise UserError(f"body measures: {one_line(error)}") from None


def read_meta(folder: Path) -> tuple[dict[str, Any], Meta]:
  """The contents of a prepared folder's meta.json, as they are and as checked fields that match the folder's files.

  Raises:
    UserError: a field is missing, of the wrong type or out of bounds, the format is another one, or the size of a file
      has changed.
  """
  path = folder / META
  values = read_json(path, "description of a prepared folder", _REMEDY, nan=True)
  if isinstance(values, dict) and values.get("format", FORMAT) != FORMAT:
    version = one_line(values["format"], 40)
    raise UserError(f"{folder} has format {version}, this version reads {FORMAT}: prepare it again")
  if isinstance(values, dict) and not isinstance(side := values.get("size", []), list):
    meta = fields_of(Meta, values | {"size": [side, side]}, path, _REMEDY)
  else:
    meta = fields_of(Meta, values, path, _REMEDY)
  for name, size in meta.files.items():
    found = regular_file(folder / name, "file of records").stat().st_size
    if found != size:
      raise UserError(
        f"the prepared folder {folder} is damaged ({name} has {found} bytes instead of {size}): {_REMEDY}"
      )
  return values, meta
