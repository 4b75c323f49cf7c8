"""Uploads: checked in size, kind and content, then moved under names of our own."""

import dataclasses
import os
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from anchor_jax.errors import UserError, one_line
from anchor_jax.files import SIDECAR
from anchor_jax.motion.sidecar import open_posed_video
from anchor_jax.motion.video import probe

FILMS = (".mp4", ".mov", ".mkv", ".webm")
SIDECAR_FILES = ("pose.mkv", "masks.mkv", "surface.mkv", "landmarks.npz", "sidecar.json")
MOST_FILMS = 8
_LANDMARKS = "mediapipe"


@dataclasses.dataclass(frozen=True)
class Limits:
  """How large uploads may be.

  Attributes:
    megabytes: of one file.
    seconds: of one film.
    side: longer side of the picture, in pixels.
  """

  megabytes: int = 500
  seconds: int = 600
  side: int = 4096


def landmark_model() -> bool:
  """Whether the landmark model is installed, which films without a sidecar need."""
  return find_spec(_LANDMARKS) is not None


def without_paths(text: str, folder: Path | None = None) -> str:
  """Returns a message for people far away: of each path of this machine only its last part is left."""
  if folder is not None:
    text = text.replace(str(folder.absolute()) + os.sep, "/").replace(str(folder) + os.sep, "/")
  return re.sub(r"(?<![\w<])(?:~|\.{1,2})?(?:/[^\s/:;,'\"()]+)*/([^\s/:;,'\"()]*)", r"\1", text)


def take_films(uploaded: Sequence[str | os.PathLike], folder: Path, stem: str, limits: Limits) -> tuple[str, ...]:
  """Moves uploaded films into a folder as STEM_1.mp4 and so on, and returns these names.

  One film may come with the files of its sidecar (pose.mkv, masks.mkv, landmarks.npz, sidecar.json, surface.mkv), which
  then go into STEM_1.anchor.

  Raises:
    UserError: nothing or too much was uploaded; a file is too large, of another kind, damaged or too long; or its poses
      can't be found without the landmark model. What was uploaded is removed then.
  """
  given = [Path(path) for path in uploaded]
  moved: list[Path] = []
  try:
    films, beside = sort_uploads(given, limits)
    folder.mkdir(parents=True, exist_ok=True)
    for number, film in enumerate(films, start=1):
      place = folder / f"{stem}_{number}{film.suffix.lower()}"
      os.replace(film, place)
      moved.append(place)
    for file in beside:
      place = folder / f"{stem}_1{SIDECAR}" / file.name
      place.parent.mkdir(exist_ok=True)
      os.replace(file, place)
      moved.append(place)
    for place in moved[: len(films)]:
      check_film(place, limits)
  except UserError as error:
    for path in [*given, *moved]:
      path.unlink(missing_ok=True)
    raise UserError(without_paths(one_line(error, 400), folder)) from None
  return tuple(place.name for place in moved[: len(films)])


def sort_uploads(given: Sequence[Path], limits: Limits) -> tuple[list[Path], list[Path]]:
  """Returns the films and the files of a sidecar among uploaded files, judged by name and size alone.

  Raises:
    UserError: as `take_films`.
  """
  beside = [path for path in given if path.name in SIDECAR_FILES]
  films = [path for path in given if path.name not in SIDECAR_FILES]
  if not films:
    raise UserError("upload a film first")
  if len(films) > MOST_FILMS:
    raise UserError(f"{len(films)} films are too many: upload at most {MOST_FILMS}")
  if beside and len(films) > 1:
    raise UserError("poses belong to one film: upload one film with its sidecar's files, or films alone")
  for path in given:
    if path in films and path.suffix.lower() not in FILMS:
      raise UserError(f"{_short(path)} is not a film: upload {', '.join(FILMS[:-1])} or {FILMS[-1]}")
    size = path.stat().st_size
    if not size:
      raise UserError(f"{_short(path)} is empty: upload it again")
    if size > limits.megabytes * 10**6:
      raise UserError(f"{_short(path)} is larger than {limits.megabytes} MB: upload a shorter film")
  return films, beside


def check_film(film: Path, limits: Limits) -> None:
  """Checks that a film can be read, is not too long or too large, and that its poses can be found.

  Raises:
    UserError: it isn't so.
  """
  posed = (film.parent / f"{film.stem}{SIDECAR}").is_dir()
  info = open_posed_video(film).info if posed else probe(film)
  if info.seconds > limits.seconds:
    raise UserError(f"a film of {info.seconds:.0f} s is too long: at most {limits.seconds} s")
  if max(info.width, info.height) > limits.side:
    raise UserError(f"a picture of {info.width} x {info.height} is too large: at most {limits.side} pixels a side")
  if not posed and not landmark_model():
    raise UserError("the landmark model, which finds poses in films, is not installed here: run `make landmarks` once")


def _short(path: Path) -> str:
  return one_line(path.name, 40)
