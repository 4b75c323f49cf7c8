"""Landmarks that were found before, kept in the user's cache folder, so that no film is searched twice.

Each film has a folder of files, which appear when they are complete. The least recently used films are removed first.
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.files.arrays import read_arrays
from anchor_jax.files.cache import cache_home
from anchor_jax.files.inputs import open_input
from anchor_jax.files.outputs import new_file
from anchor_jax.landmarks.tracks import Track

LARGEST = 4 * 2**30  # bytes of all films
_POINTS = ("body", "face", "hands", "triangles", "has_face")
_OPTIONAL = ("columns", "visible")
_IN_USE = 3600.0  # seconds for which a film is not removed after its last use
_PIECES, _PIECE = 64, 2**16  # parts of a film that are compared, and their bytes
# What is found depends on these; a newer version finds it anew.
_SOURCES = ("landmarks/*.py", "landmarks/networks/*.py", "films/poses.py", "films/survey.py", "video/*.py")
_LIBRARIES = ("ai-edge-litert", "av", "numpy", "opencv-python-headless")


def kept_folder() -> Path | None:
  """The folder of all films: ANCHOR_JAX_TRACKS, or anchor_jax/tracks in the user's cache folder; None if that is ""."""
  named = os.environ.get("ANCHOR_JAX_TRACKS")
  if named is not None:
    return Path(named) if named else None
  return cache_home() / "anchor_jax" / "tracks"


class KeptTracks:
  """The tracks that were found in one film; without a cache folder, or if it can't be written, there are none."""

  def __init__(self, film: Path, *facts: Any):
    """Opens the film's folder.

    Args:
      film: the file; what is compared is its content, not its name.
      facts: all else that the tracks depend on.
    """
    folder = kept_folder()
    self._folder: Path | None = None
    if folder is None:
      return
    with contextlib.suppress(OSError, RuntimeError):  # Path.home raises the last one
      folder.mkdir(mode=0o700, parents=True, exist_ok=True)
      own = folder / hashlib.sha256(repr((_version(), _content(film), facts)).encode()).hexdigest()[:24]
      own.mkdir(exist_ok=True)
      os.utime(own)
      _make_room(folder, own)
      self._folder = own

  def read(self, name: str) -> Track | None:
    """Returns a track; None if it was not found before, or its file is damaged."""
    if self._folder is None or not (self._folder / f"{name}.npz").exists():
      return None
    try:
      return track_of(read_arrays(self._folder / f"{name}.npz"))
    except (UserError, ValueError, KeyError, TypeError, IndexError, OverflowError):
      return None

  def write(self, name: str, track: Track) -> None:
    """Keeps a track; does nothing if the folder can't be written."""
    if self._folder is None:
      return
    with contextlib.suppress(OSError, UserError), new_file(self._folder / f"{name}.npz", f"{os.getpid()}") as partial:
      np.savez(partial, allow_pickle=False, **track_arrays(track))


def track_arrays(track: Track) -> dict[str, Any]:
  """Returns a track with gaps as arrays by name; see `track_of`."""
  arrays: dict[str, Any] = {name: getattr(track, name) for name in _POINTS}
  arrays |= joined_files("masks", track.masks)
  arrays["size"] = np.array([track.width, track.height, track.fps], np.float64)
  arrays |= {name: getattr(track, name) for name in _OPTIONAL if getattr(track, name) is not None}
  return arrays | {"cuts": np.array(track.cuts, np.int64)}


def track_of(arrays: dict[str, Any]) -> Track:
  """Returns the track that `track_arrays` took apart; raises ValueError or KeyError if the arrays are no track."""
  width, height, fps = arrays["size"].tolist()
  body, face, hands, triangles, has_face = (arrays[name] for name in _POINTS)
  track = Track(
    int(width), int(height), fps, body, face, hands, triangles, tuple(split_files("masks", arrays)), has_face
  )
  optional = {name: arrays.get(name) for name in _OPTIONAL}
  return dataclasses.replace(track, **optional, cuts=tuple(arrays.get("cuts", np.zeros(0, np.int64)).tolist()))


def joined_files(name: str, files: Sequence[bytes]) -> dict[str, Any]:
  """Returns files as two arrays by name; see `split_files`."""
  lengths = np.array([len(file) for file in files], np.int64)
  return {name: np.frombuffer(b"".join(files), np.uint8), f"{name}/lengths": lengths}


def split_files(name: str, arrays: dict[str, Any]) -> list[bytes]:
  """Returns the files that `joined_files` put together."""
  ends = np.cumsum(arrays[f"{name}/lengths"])
  return [part.tobytes() for part in np.split(arrays[name], ends[:-1])] if len(ends) else []


def _content(film: Path) -> str:
  """A checksum of a film's size and of parts all over it: reading all of a long film would take as long as finding."""
  digest, size = hashlib.sha256(), os.path.getsize(film)
  digest.update(str(size).encode())
  with open_input(film, "video") as file:
    for number in range(_PIECES):
      file.seek(max(0, size - _PIECE) * number // (_PIECES - 1))
      digest.update(file.read(_PIECE))
  return digest.hexdigest()


@functools.cache
def _version() -> str:
  """A checksum of the code that finds landmarks, and the versions of the libraries that it uses."""
  root, digest = Path(__file__).parents[1], hashlib.sha256()
  for pattern in _SOURCES:
    for path in sorted(root.glob(pattern)):
      digest.update(path.read_bytes())
  for name in _LIBRARIES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      digest.update(importlib.metadata.version(name).encode())
  return digest.hexdigest()


def _make_room(folder: Path, own: Path) -> None:
  """Removes the films that were used longest ago, until all together have no more than `LARGEST` bytes."""
  films = sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
  sizes = {path: sum(file.stat().st_size for file in path.iterdir()) for path in films}
  total = sum(sizes.values())
  for path in films:
    if total <= LARGEST:
      return
    if path != own and time.time() - path.stat().st_mtime > _IN_USE:
      shutil.rmtree(path, ignore_errors=True)
      total -= sizes[path]
