"""Reads the lists of the paper's own implementation: body_train.json and head_train.json, a JSON object a line.

A line of body_train.json names a picture of the person ("target"), the render of her body mesh ("source"), and a random
other picture ("reference", which our loader chooses itself). A line of head_train.json names the same for crops of the
face that are aligned to the FFHQ template, and "mask", white where a crop stays, black where the face is repainted.
The pictures of a folder are the frames of one video, in the order of their names; the lists are in no order.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from anchor_jax.body.face_crop import face_template
from anchor_jax.core.errors import UserError, one_line
from anchor_jax.files.inputs import natural, read_bytes, strict_json
from anchor_jax.films.poses import PosedClip
from anchor_jax.landmarks.framing import square_around
from anchor_jax.landmarks.sidecar import PosedFrame
from anchor_jax.video.picture import read_picture

FPS = 30.0  # of the implementation's videos
_DRAWN = 8  # a render is black where the mesh is not; lossy files are nearly so


def read_reference_list(
  path: str | os.PathLike, size: int, person: str, fps: float | int = FPS
) -> tuple[list[PosedClip], int]:
  """Returns the clips of a list, and how many frames they have; a frame is read when it is iterated.

  Of a body, the person's mask is where her mesh is, and face mask, landmarks and surface are not known. Of head crops,
  the landmarks are those of the template that they are aligned to.

  Args:
    path: the list. Paths in it may be absolute or relative to it; of folders that were moved, the ends are looked for
      below the list's folder.
    size: height and width of the frames, pixels; of pictures that are not square the middle is taken.
    person: who is in it, unless its lines say so ("person").
    fps: frames per second.

  Raises:
    UserError: no such list, a line that is none of these, or a picture that is not there.
  """
  path = Path(path)
  videos: dict[tuple[str, Path], dict[Path, tuple[Path, Path | None]]] = {}
  for number, entry in _entries(path):
    found = {name: _place(path, entry[name], number) for name in ("target", "source", "mask") if name in entry}
    who = str(entry.get("person", person))
    videos.setdefault((who, found["target"].parent), {})[found["target"]] = found["source"], found.get("mask")
  clips, total = [], 0
  for (who, folder), frames in sorted(videos.items(), key=lambda item: (item[0][0], natural(item[0][1]))):
    ordered = sorted(frames.items(), key=lambda item: natural(item[0]))
    # "image" and "raw_aligned" are the same in all of them: what they lie in tells videos apart
    clips.append(PosedClip(f"{folder.parent.name}/{folder.name}", who, float(fps), _frames(ordered, size)))
    total += len(ordered)
  return clips, total


def _entries(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
  try:
    lines = read_bytes(path, "list").decode().splitlines()
  except UnicodeDecodeError as error:
    raise UserError(f"cannot read the list {path}: {one_line(error)}") from None
  for number, line in enumerate(lines, start=1):
    if not line.strip():
      continue
    try:
      entry = strict_json(line)
    except ValueError:
      entry = None
    if not isinstance(entry, dict) or not all(isinstance(entry.get(name), str) for name in ("source", "target")):
      raise UserError(f'{path}, line {number}: give a JSON object with "source" and "target", as in body_train.json')
    yield number, entry


def _place(path: Path, named: str, number: int) -> Path:
  """The file that a line names."""
  parts = Path(named).parts
  places = [
    Path(named),
    *(path.parent.joinpath(*parts[first:]) for first in range(Path(named).is_absolute(), len(parts))),
  ]
  if not Path(named).is_absolute():
    places = [*places[1:], places[0]]
  for place in places:
    if os.path.isfile(place):  # unlike Path.is_file, False also for names that the system refuses
      return place
  raise UserError(f"{path}, line {number}: there is no picture {named}, also not below {path.parent}")


def _frames(pictures: list[tuple[Path, tuple[Path, Path | None]]], size: int) -> Iterator[PosedFrame]:
  for target, (source, mask) in pictures:
    frame, pose = (read_picture(path) for path in (target, source))
    pose = cv2.resize(pose, frame.shape[1::-1], interpolation=cv2.INTER_AREA)
    middle = frame.shape[1] / 2, frame.shape[0] / 2
    square = square_around(frame.shape[1], frame.shape[0], middle, size)
    frame, pose = np.ascontiguousarray(square.image(frame)), np.ascontiguousarray(square.image(pose))
    person = np.where(pose.max(axis=-1) > _DRAWN, 255, 0).astype(np.uint8)
    if mask is None:
      yield PosedFrame(frame, pose, person, np.zeros_like(person), np.full((5, 2), np.nan, np.float32))
      continue
    kept = cv2.resize(read_picture(mask)[..., 0], (size, size), interpolation=cv2.INTER_AREA)
    face = np.where(kept > 127, 0, 255).astype(np.uint8)
    yield PosedFrame(frame, pose, np.maximum(person, face), face, face_template(size).astype(np.float32))
