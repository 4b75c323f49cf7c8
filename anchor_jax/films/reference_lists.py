"""Reads the training lists of the paper's own implementation: body_train.json and head_train.json, in JSON Lines.

A line of body_train.json names an image of the person ("target"), a render of the body mesh ("source"), and a random
other image ("reference", ignored here because our loader picks its own). A line of head_train.json names the same for
face crops aligned to the FFHQ template, plus "mask", white where the crop stays and black where the face is repainted.
The images of one folder are the frames of one video, ordered by name; the lists are shuffled.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from anchor_jax.body.face_crop import face_template
from anchor_jax.core.errors import UserError, one_line
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.files.inputs import natural, read_bytes, strict_json
from anchor_jax.films.poses import PosedClip
from anchor_jax.landmarks.framing import rect_around
from anchor_jax.landmarks.sidecar import PosedFrame
from anchor_jax.video.picture import read_picture

FPS = 30.0  # frame rate of the paper's videos
_DRAWN = 8  # gray levels; a render is black outside the mesh, or nearly so in a lossy file


def read_reference_list(
  path: str | os.PathLike, size: int | FrameSize, person: str, fps: float | int = FPS
) -> tuple[list[PosedClip], int]:
  """Returns the clips of a list and their total number of frames; frames are read during iteration.

  For bodies, the person mask covers the rendered mesh; face mask, landmarks and surface map are unknown. For head
  crops, the landmarks are those of the template they are aligned to.

  Args:
    path: the list. Its paths may be absolute or relative to it. If folders were moved, the last parts of each path are
      tried below the list's folder.
    size: width and height of the frames in pixels, or the side of squares; images of other proportions are cropped
      around their middle.
    person: name of the person, unless the lines have one ("person").
    fps: frames per second.

  Raises:
    UserError: no such list, a malformed line, a missing image, or head crops that are not to be square.
  """
  path = Path(path)
  size = FrameSize.of(size)
  videos: dict[tuple[str, Path], dict[Path, tuple[Path, Path | None]]] = {}
  for number, entry in _entries(path):
    files = {name: _find(path, entry[name], number) for name in ("target", "source", "mask") if name in entry}
    if "mask" in files and not size.is_square:
      raise UserError(f"{path} lists crops of heads, which are squares: give --size={min(size)}")
    name = str(entry.get("person", person))
    videos.setdefault((name, files["target"].parent), {})[files["target"]] = files["source"], files.get("mask")
  clips, total = [], 0
  for (name, folder), frames in sorted(videos.items(), key=lambda item: (item[0][0], natural(item[0][1]))):
    ordered = sorted(frames.items(), key=lambda item: natural(item[0]))
    # Every video's folder is called "image" or "raw_aligned", so the parent's name is needed too.
    clips.append(PosedClip(f"{folder.parent.name}/{folder.name}", name, float(fps), _frames(ordered, size)))
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


def _find(path: Path, name: str, number: int) -> Path:
  """The file that a line of the list names."""
  parts, absolute = Path(name).parts, Path(name).is_absolute()
  below = [path.parent.joinpath(*parts[first:]) for first in range(absolute, len(parts))]
  for candidate in [Path(name), *below] if absolute else [*below, Path(name)]:
    if os.path.isfile(candidate):  # unlike Path.is_file, False also for names that the system refuses
      return candidate
  raise UserError(f"{path}, line {number}: there is no picture {name}, nor one below {path.parent}")


def _frames(pictures: list[tuple[Path, tuple[Path, Path | None]]], size: FrameSize) -> Iterator[PosedFrame]:
  for target, (source, mask) in pictures:
    frame, pose = (read_picture(path) for path in (target, source))
    pose = cv2.resize(pose, frame.shape[1::-1], interpolation=cv2.INTER_AREA)
    center = frame.shape[1] / 2, frame.shape[0] / 2
    crop = rect_around(frame.shape[1], frame.shape[0], center, size)
    frame, pose = np.ascontiguousarray(crop.image(frame)), np.ascontiguousarray(crop.image(pose))
    person = np.where(pose.max(axis=-1) > _DRAWN, 255, 0).astype(np.uint8)
    if mask is None:
      yield PosedFrame(frame, pose, person, np.zeros_like(person), np.full((5, 2), np.nan, np.float32))
      continue
    keep = cv2.resize(read_picture(mask)[..., 0], size, interpolation=cv2.INTER_AREA)
    face = np.where(keep > 127, 0, 255).astype(np.uint8)
    yield PosedFrame(frame, pose, np.maximum(person, face), face, face_template(size.width).astype(np.float32))
