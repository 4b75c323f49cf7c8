"""First looks at many films, in several processes, each kept in a file so that a run that was stopped goes on."""

import contextlib
import functools
import hashlib
import json
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from anchor_jax.core.errors import UserError
from anchor_jax.files.arrays import read_arrays
from anchor_jax.files.outputs import new_file
from anchor_jax.films.clips import FilmLook, look_at
from anchor_jax.films.poses import CheckedVideo
from anchor_jax.films.survey import Survey
from anchor_jax.landmarks.people import ChosenPerson
from anchor_jax.landmarks.tracks import Track

_VERSION = 1  # of what is found and how it is kept: other files are made anew
_TRACK = ("body", "face", "hands", "triangles", "has_face")
_SURVEY = ("tiny", "light", "detail", "cuts")
LOOKS = r"[0-9a-f]{24}(\.partial-[0-9]+)?\.npz"  # matches the names of kept looks


def look_at_all(
  videos: Sequence[CheckedVideo],
  folder: str | os.PathLike,
  workers: int = 1,
  *,
  person_at: tuple[float, float] | None = None,
) -> list[FilmLook]:
  """Returns `look_at` of each video; what an earlier run left in `folder` for the same file is read instead.

  Args:
    videos: of `check_video`.
    folder: made if need be; each look is written there when it is complete. Remove it when all is done.
    workers: number of processes; 1 looks in this one. They are spawned, so a script needs
      `if __name__ == "__main__"` around the call.
    person_at: see `look_at`.

  Raises:
    UserError: a video is damaged, nobody is at `person_at`, or the folder can't be written.
  """
  places = [Path(folder) / f"{_key(video, person_at)}.npz" for video in videos]
  missing = {place: video for place, video in zip(places, videos) if _read(place) is None}
  look = functools.partial(_look, person_at=person_at, progress=workers == 1)
  with contextlib.ExitStack() as stack:
    if workers > 1 and len(missing) > 1:
      spawn, count = multiprocessing.get_context("spawn"), min(workers, len(missing))
      pool = ProcessPoolExecutor(count, mp_context=spawn, initializer=cv2.setNumThreads, initargs=(1,))
      stack.callback(pool.shutdown, cancel_futures=True)  # after a mistake in one film the others are not begun
      done = pool.map(look, missing.items())
    else:
      done = map(look, missing.items())
    for _ in tqdm(done, "films", len(videos), initial=len(videos) - len(missing), unit="film", leave=False):
      pass
  looks = [_read(place) for place in places]
  return [look for look in looks if look is not None]


def kept_look(video: CheckedVideo, folder: str | os.PathLike, person_at: tuple[float, float] | None = None) -> FilmLook:
  """Returns `look_at` of a video, from the file that an earlier call left in `folder`, else made now and kept there."""
  place = Path(folder) / f"{_key(video, person_at)}.npz"
  if _read(place) is None:
    _look((place, video), person_at, False)
  look = _read(place)
  assert look is not None
  return look


def _look(item: tuple[Path, CheckedVideo], person_at: tuple[float, float] | None, progress: bool) -> None:
  place, video = item
  write_look(place, look_at(video, person_at=person_at, progress=progress))


def _key(video: CheckedVideo, person_at: tuple[float, float] | None) -> str:
  """A name that is another one when anything changes that the look depends on."""
  file = video.path.stat()
  facts = [_VERSION, str(video.path.absolute()), file.st_size, file.st_mtime_ns, asdict(video.info)]
  text = json.dumps([*facts, video.posed is None, person_at], default=str, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:24]


def write_look(path: Path, look: FilmLook) -> None:
  """Writes a look to an .npz file, which appears when it is complete."""
  survey, track, people = look
  arrays = {f"survey/{name}": getattr(survey, name) for name in _SURVEY}
  places = [(number, *place) for number, place in survey.places.items()]
  arrays["survey/places"] = np.array(places, np.float64).reshape(-1, 4)
  arrays["survey/pictured"] = np.array(list(survey.thumbnails), np.int64)
  arrays |= _joined("survey/thumbnails", list(survey.thumbnails.values()))
  if track is not None:
    arrays |= {f"track/{name}": getattr(track, name) for name in _TRACK}
    arrays |= _joined("track/masks", track.masks)
    arrays["track/size"] = np.array([track.width, track.height, track.fps], np.float64)
    if track.columns is not None:
      arrays["track/columns"] = track.columns
  if people is not None:
    arrays["people/columns"], arrays["people/crowded"] = people.columns, people.crowded
    arrays["people/facts"] = np.array([people.count, *people.place], np.float64)
  with new_file(path, f"partial-{os.getpid()}") as partial:
    np.savez(partial, allow_pickle=False, **arrays)


def _read(path: Path) -> FilmLook | None:
  """The look in a file of `write_look`; None where there is none that can be read."""
  try:
    return _look_of(read_arrays(path))
  except (UserError, ValueError, KeyError, TypeError, IndexError, OverflowError):
    return None


def _look_of(arrays: dict[str, Any]) -> FilmLook:
  tiny, light, detail, cuts = (arrays[f"survey/{name}"] for name in _SURVEY)
  places = {int(n): (int(reference), float(x), float(y)) for n, reference, x, y in arrays["survey/places"]}
  thumbnails = dict(zip(arrays["survey/pictured"].tolist(), _parted(arrays, "survey/thumbnails")))
  survey, track, people = Survey(tiny, light, detail, places, thumbnails, cuts), None, None
  if "track/size" in arrays:
    width, height, fps = arrays["track/size"].tolist()
    body, face, hands, triangles, has_face = (arrays[f"track/{name}"] for name in _TRACK)
    masks, columns = tuple(_parted(arrays, "track/masks")), arrays.get("track/columns")
    track = Track(int(width), int(height), fps, body, face, hands, triangles, masks, has_face, columns)
  if "people/facts" in arrays:
    count, *place = arrays["people/facts"].tolist()
    people = ChosenPerson(int(count), (place[0], place[1]), arrays["people/columns"], arrays["people/crowded"])
  return FilmLook(survey, track, people)


def _joined(name: str, files: Sequence[bytes]) -> dict[str, Any]:
  lengths = np.array([len(file) for file in files], np.int64)
  return {name: np.frombuffer(b"".join(files), np.uint8), f"{name}/lengths": lengths}


def _parted(arrays: dict[str, Any], name: str) -> list[bytes]:
  ends = np.cumsum(arrays[f"{name}/lengths"])
  return [part.tobytes() for part in np.split(arrays[name], ends[:-1])] if len(ends) else []
