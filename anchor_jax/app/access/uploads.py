"""Uploads: checked in size, kind and content, then copied under names of our own."""

import contextlib
import dataclasses
import os
import re
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from anchor_jax.app.access.intake import Upload
from anchor_jax.app.access.people import FILMS
from anchor_jax.core.errors import UserError, one_line
from anchor_jax.files.outputs import SIDECAR
from anchor_jax.landmarks.sidecar import open_posed_video
from anchor_jax.video.read import probe

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
    gigabytes: of everything that the page keeps, of all people together.
  """

  megabytes: int = 500
  seconds: int = 600
  side: int = 4096
  gigabytes: float = 100.0


def landmark_model() -> bool:
  """Whether the landmark model is installed, which films without a sidecar need."""
  return find_spec(_LANDMARKS) is not None


def without_paths(text: str, folder: Path | None = None) -> str:
  """Returns a message for people far away: of each path of this machine only its last part is left."""
  if folder is not None:
    text = text.replace(str(folder.absolute()) + os.sep, "/").replace(str(folder) + os.sep, "/")
  return re.sub(r"(?<![\w<])(?:~|\.{1,2})?(?:/[^\s/:;,'\"()]+)*/([^\s/:;,'\"()]*)", r"\1", text)


def take_films(uploaded: Sequence[Upload], folder: Path, stem: str, limits: Limits) -> tuple[str, ...]:
  """Copies uploaded films into a folder as STEM_1.mp4 and so on, and returns these names.

  The folder is made where it is missing, not those above it: a person who is deleted meanwhile stays so.

  One film may come with the files of its sidecar (pose.mkv, masks.mkv, landmarks.npz, sidecar.json, surface.mkv), which
  then go into STEM_1.anchor. The uploads stay as they are: what was refused can be tried again.

  Raises:
    UserError: nothing or too much was uploaded; a file is too large, of another kind, damaged or too long; or its poses
      can't be found without the landmark model. The copies are removed then.
  """
  copies: list[Path] = []
  try:
    films, beside = sort_uploads(uploaded, limits)
    folder.mkdir(exist_ok=True)
    for number, film in enumerate(films, start=1):
      copies.append(_copy(film, folder / f"{stem}_{number}{_suffix(film)}"))
    for file in beside:
      place = folder / f"{stem}_1{SIDECAR}" / file.name
      place.parent.mkdir(exist_ok=True)
      copies.append(_copy(file, place))
    for number, film in enumerate(films):
      _check_named(copies[number], film.name, limits)
  except (UserError, OSError) as error:
    for path in copies:
      path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
      (folder / f"{stem}_1{SIDECAR}").rmdir()
    if isinstance(error, OSError):
      raise
    raise UserError(without_paths(one_line(error, 400), folder)) from None
  return tuple(place.name for place in copies[: len(films)])


def sort_uploads(given: Sequence[Upload], limits: Limits) -> tuple[list[Upload], list[Upload]]:
  """Returns the films and the files of a sidecar among uploaded files, judged by name and size alone.

  Raises:
    UserError: as `take_films`.
  """
  given = [file for file in given if not file.name.startswith(".")]  # a folder's own, such as our list of its files
  beside = [file for file in given if file.name in SIDECAR_FILES]
  films = [file for file in given if file.name not in SIDECAR_FILES]
  if not films:
    raise UserError("upload a film first")
  if len(films) > MOST_FILMS:
    raise UserError(f"{len(films)} films are too many: upload at most {MOST_FILMS}")
  if beside and len(films) > 1:
    raise UserError("poses belong to one film: upload one film with its sidecar's files, or films alone")
  if len({file.name for file in beside}) < len(beside):
    raise UserError("a file of the sidecar is there twice: upload each of them once")
  for file in given:
    if file in films and _suffix(file) not in FILMS:
      raise UserError(f"{file.name} is not a film: upload {', '.join(FILMS[:-1])} or {FILMS[-1]}")
    if not file.size:
      raise UserError(f"{file.name} is empty: upload it again")
    if file.size > limits.megabytes * 10**6:
      raise UserError(f"{file.name} is larger than {limits.megabytes} MB: upload a shorter film")
  return films, beside


def _suffix(film: Upload) -> str:
  return os.path.splitext(film.name)[1].lower()


def _copy(upload: Upload, place: Path) -> Path:
  """Copies an upload from the one descriptor under which it was looked at."""
  with upload.open() as source, place.open("xb") as target:
    shutil.copyfileobj(source, target, 2**20)
  return place


def _check_named(film: Path, name: str, limits: Limits) -> None:
  """As `check_film`; a message shows what the film was called by who uploaded it."""
  try:
    check_film(film, limits)
  except UserError as error:
    raise UserError(str(error).replace(str(film), name)) from None


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
