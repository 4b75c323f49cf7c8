"""Examines many films in several processes; each result is saved to a file, so that an interrupted run can resume."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from anchor_jax.core.errors import UserError
from anchor_jax.files.arrays import read_arrays
from anchor_jax.files.outputs import new_file
from anchor_jax.films.clips import Findings, examine
from anchor_jax.films.poses import OpenedFilm
from anchor_jax.films.survey import Survey
from anchor_jax.landmarks.kept import joined_files, split_files, track_arrays, track_of
from anchor_jax.landmarks.people import ChosenPerson

_VERSION = 2  # of the findings and their file format; files of other versions are ignored
_SURVEY = ("tiny", "light", "detail", "cuts")
FINDINGS_FILES = r"[0-9a-f]{24}(\.partial-[0-9]+)?\.npz"  # pattern of the file names


def examine_all(films: Sequence[OpenedFilm], folder: str | os.PathLike, workers: int = 1) -> list[Findings]:
  """Returns `examine` of each film; results that an earlier run saved to `folder` for the same file are reused.

  Args:
    films: from `open_film`.
    folder: where each result is saved as soon as it is complete; created if needed. The caller removes it when done.
    workers: number of processes; 1 works in this one. More are spawned, so a script needs
      `if __name__ == "__main__"` around the call.

  Raises:
    UserError: a film is damaged, nobody is at its `person_at`, or the folder can't be written.
  """
  paths = [Path(folder) / f"{_key(film)}.npz" for film in films]
  missing = {path: film for path, film in zip(paths, films) if _read(path) is None}
  work = functools.partial(_examine_to_file, progress=workers == 1)
  with contextlib.ExitStack() as stack:
    if workers > 1 and len(missing) > 1:
      spawn, count = multiprocessing.get_context("spawn"), min(workers, len(missing))
      pool = ProcessPoolExecutor(count, mp_context=spawn, initializer=cv2.setNumThreads, initargs=(1,))
      stack.callback(pool.shutdown, cancel_futures=True)  # after an error in one film, do not start the others
      done = pool.map(work, missing.items())
    else:
      done = map(work, missing.items())
    for _ in tqdm(done, "films", len(films), initial=len(films) - len(missing), unit="film", leave=False):
      pass
  return [found for found in map(_read, paths) if found is not None]


def examine_once(film: OpenedFilm, folder: str | os.PathLike) -> Findings:
  """Returns `examine` of a film, reading the result of an earlier call from `folder` or saving it there."""
  path = Path(folder) / f"{_key(film)}.npz"
  if _read(path) is None:
    _examine_to_file((path, film), False)
  found = _read(path)
  assert found is not None
  return found


def _examine_to_file(item: tuple[Path, OpenedFilm], progress: bool) -> None:
  path, film = item
  write_findings(path, examine(film, progress=progress))


def _key(film: OpenedFilm) -> str:
  """A file name that changes with anything the findings depend on."""
  file = film.path.stat()
  facts = [_VERSION, str(film.path.absolute()), file.st_size, file.st_mtime_ns, dataclasses.asdict(film.info)]
  facts += [film.posed is None, film.person_at, *([] if film.landmarks == "mediapipe" else [film.landmarks])]
  text = json.dumps(facts, default=str, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:24]


def write_findings(path: Path, findings: Findings) -> None:
  """Writes findings to an .npz file, which appears when it is complete."""
  survey, track, chosen, cameras = findings
  arrays = {f"survey/{name}": getattr(survey, name) for name in _SURVEY}
  places = [(number, *place) for number, place in survey.places.items()]
  arrays["survey/places"] = np.array(places, np.float64).reshape(-1, 4)
  arrays["survey/pictured"] = np.array(list(survey.thumbnails), np.int64)
  arrays |= joined_files("survey/thumbnails", list(survey.thumbnails.values()))
  if track is not None:
    arrays |= {f"track/{name}": array for name, array in track_arrays(track).items() if name != "cuts"}
  if cameras is not None:
    arrays["cameras"] = cameras
  if chosen is not None:
    arrays["people/columns"], arrays["people/crowded"] = chosen.columns, chosen.crowded
    arrays["people/facts"] = np.array([chosen.count, *chosen.place], np.float64)
  with new_file(path, f"partial-{os.getpid()}") as partial:
    np.savez(partial, allow_pickle=False, **arrays)


def _read(path: Path) -> Findings | None:
  """The findings in a file of `write_findings`; None if it is missing or unreadable."""
  try:
    return _findings_of(read_arrays(path))
  except (UserError, ValueError, KeyError, TypeError, IndexError, OverflowError):
    return None


def _findings_of(arrays: dict[str, Any]) -> Findings:
  tiny, light, detail, cuts = (arrays[f"survey/{name}"] for name in _SURVEY)
  places = {int(n): (int(reference), float(x), float(y)) for n, reference, x, y in arrays["survey/places"]}
  thumbnails = dict(zip(arrays["survey/pictured"].tolist(), split_files("survey/thumbnails", arrays)))
  survey, track, chosen = Survey(tiny, light, detail, places, thumbnails, cuts), None, None
  if "track/size" in arrays:
    track = track_of(
      {name.removeprefix("track/"): array for name, array in arrays.items() if name.startswith("track/")}
    )
  if "people/facts" in arrays:
    count, *place = arrays["people/facts"].tolist()
    chosen = ChosenPerson(int(count), (place[0], place[1]), arrays["people/columns"], arrays["people/crowded"])
  return Findings(survey, track, chosen, arrays.get("cameras"))
