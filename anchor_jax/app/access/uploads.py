"""Checks the size, type and content of uploads, and copies them under safe names."""

import contextlib
import dataclasses
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from anchor_jax.app.access.intake import Upload
from anchor_jax.app.access.people import FILMS
from anchor_jax.core.errors import UserError, one_line
from anchor_jax.files.outputs import SIDECAR
from anchor_jax.landmarks.networks.files import landmarks_installed
from anchor_jax.landmarks.sidecar import open_posed_video
from anchor_jax.video.read import VideoInfo, probe

SIDECAR_FILES = ("pose.mkv", "masks.mkv", "surface.mkv", "landmarks.npz", "sidecar.json")
MAX_FILMS = 8


@dataclasses.dataclass(frozen=True)
class Limits:
  """Limits of uploads and storage.

  Attributes:
    megabytes: size of one file.
    seconds: length of one film.
    side: longer side of the picture, in pixels.
    gigabytes: everything that the page stores, for all people together.
  """

  megabytes: int = 500
  seconds: int = 600
  side: int = 4096
  gigabytes: float = 100.0


def has_landmark_model() -> bool:
  """Returns whether the landmark model, which films without a sidecar need, is installed."""
  return landmarks_installed()


def without_paths(text: str, folder: Path | None = None) -> str:
  """Returns a message for remote users, with each path on this machine reduced to its last part."""
  if folder is not None:
    text = text.replace(str(folder.absolute()) + os.sep, "/").replace(str(folder) + os.sep, "/")
  return re.sub(r"(?<![\w<])(?:~|\.{1,2})?(?:/[^\s/:;,'\"()]+)*/([^\s/:;,'\"()]*)", r"\1", text)


class StoredFilm(NamedTuple):
  """A film that was copied from an upload: its file name in the folder, and its properties."""

  name: str
  info: VideoInfo


def take_films(uploaded: Sequence[Upload], folder: Path, stem: str, limits: Limits) -> tuple[StoredFilm, ...]:
  """Copies uploaded films into a folder as STEM_1.mp4 and so on; returns the copies.

  Creates the folder but not its parents, so that a person deleted in the meantime does not come back.

  A single film may come with the files of its sidecar (pose.mkv, masks.mkv, landmarks.npz, sidecar.json, surface.mkv),
  which go to STEM_1.anchor. The uploads themselves stay, so that a refused request can be repeated.

  Raises:
    UserError: too few or too many files; a file is too large, of another type, damaged or too long; or its poses can't
      be found because the landmark model is missing. The copies are removed.
  """
  copies: list[Path] = []
  try:
    films, sidecar = sort_uploads(uploaded, limits)
    folder.mkdir(exist_ok=True)
    for number, film in enumerate(films, start=1):
      copies.append(_copy(film, folder / f"{stem}_{number}{_suffix(film)}"))
    for file in sidecar:
      path = folder / f"{stem}_1{SIDECAR}" / file.name
      path.parent.mkdir(exist_ok=True)
      copies.append(_copy(file, path))
    infos = [_probe_named(path, film.name, limits) for path, film in zip(copies, films)]
  except (UserError, OSError) as error:
    for path in copies:
      path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
      (folder / f"{stem}_1{SIDECAR}").rmdir()
    if isinstance(error, OSError):
      raise
    raise UserError(without_paths(one_line(error, 400), folder)) from None
  return tuple(StoredFilm(path.name, info) for path, info in zip(copies, infos))


def sort_uploads(uploads: Sequence[Upload], limits: Limits) -> tuple[list[Upload], list[Upload]]:
  """Returns the films and the sidecar files among uploads, judged by name and size only.

  Raises:
    UserError: as `take_films`.
  """
  uploads = [file for file in uploads if not file.name.startswith(".")]  # hidden files, such as our list of files
  sidecar = [file for file in uploads if file.name in SIDECAR_FILES]
  films = [file for file in uploads if file.name not in SIDECAR_FILES]
  if not films:
    raise UserError("upload a film first")
  if len(films) > MAX_FILMS:
    raise UserError(f"{len(films)} films are too many: upload at most {MAX_FILMS}")
  if sidecar and len(films) > 1:
    raise UserError("a sidecar belongs to one film: upload one film with its sidecar's files, or films only")
  if len({file.name for file in sidecar}) < len(sidecar):
    raise UserError("a file of the sidecar was uploaded twice: upload each of them once")
  for file in uploads:
    if file in films and _suffix(file) not in FILMS:
      raise UserError(f"{file.name} is not a film: upload {', '.join(FILMS[:-1])} or {FILMS[-1]}")
    if not file.size:
      raise UserError(f"{file.name} is empty: upload it again")
    if file.size > limits.megabytes * 10**6:
      raise UserError(f"{file.name} is larger than {limits.megabytes} MB: upload a shorter film")
  return films, sidecar


def _suffix(film: Upload) -> str:
  return os.path.splitext(film.name)[1].lower()


def _copy(upload: Upload, path: Path) -> Path:
  """Copies an upload through one file descriptor, so that it can't be swapped after the check."""
  with upload.open() as source, path.open("xb") as target:
    shutil.copyfileobj(source, target, 2**20)
  return path


def _probe_named(film: Path, name: str, limits: Limits) -> VideoInfo:
  """`probe_upload`, with the film's original name in its messages."""
  try:
    return probe_upload(film, limits)
  except UserError as error:
    raise UserError(str(error).replace(str(film), name)) from None


def probe_upload(film: Path, limits: Limits) -> VideoInfo:
  """Returns the properties of an uploaded film that can be used.

  Raises:
    UserError: the film can't be read, is too long or too large, or its poses can't be found.
  """
  posed = (film.parent / f"{film.stem}{SIDECAR}").is_dir()
  info = open_posed_video(film).info if posed else probe(film)
  if info.seconds > limits.seconds:
    raise UserError(f"a film of {info.seconds:.0f} s is too long: at most {limits.seconds} s")
  if max(info.width, info.height) > limits.side:
    raise UserError(f"a picture of {info.width} x {info.height} is too large: at most {limits.side} pixels a side")
  if not posed and not has_landmark_model():
    raise UserError("the landmark model, which finds poses in films, is not installed: run `make landmarks` once")
  return info
