"""Chooses one of several people in a film: links faces over time, and separates the chosen person from the rest.

Nothing here reads a file. Face boxes are [left, top, width, height] in pixels of the picture.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Bool, Float, Int, NdArray
from anchor_jax.landmarks.filling import gaussian_smooth

Boxes = Float[NdArray, "_ 4"]  # "_": the number of boxes differs from frame to frame

_LONGEST_ABSENCE = 5.0  # seconds for which a face may be hidden or turned away
_LARGEST_STEP = 1.0  # face widths that a face may move between two detections
_LARGEST_GROWTH = 2.0  # ratio of its widths in two detections
_SHORTEST_TRACK = 0.5  # seconds; shorter tracks are false detections
_SMALLEST_NEIGHBOR = 1 / 3  # of the chosen face's width; smaller people are background
_MARGIN = 1.0  # seconds for which others are painted out before their first and after their last detection
_CROWDED = 2.0  # face widths between two faces below which people overlap
_BORDER_SMOOTHING = 0.25  # seconds, standard deviation
_REACH = 2.5  # face widths that `at` may lie from a face


class Face(NamedTuple):
  """One face over time.

  Attributes:
    frames: [K] numbers of the frames in which it was found, rising.
    boxes: [K 4] its boxes there.
  """

  frames: Int[NdArray, " K"]
  boxes: Boxes

  @property
  def width(self) -> float:
    """Its median width in pixels."""
    return float(np.median(self.boxes[:, 2]))

  @property
  def area(self) -> float:
    """Sum of the areas of all its boxes; the person with the largest sum fills most of the film."""
    return float((self.boxes[:, 2] * self.boxes[:, 3]).sum())

  def at(self, frames: Int[NdArray, " T"]) -> Float[NdArray, "T 2"]:
    """Returns its middle (x) and width in these frames, interpolated; constant beyond both ends."""
    middle = self.boxes[:, 0] + self.boxes[:, 2] / 2
    values = [np.interp(frames, self.frames, each) for each in (middle, self.boxes[:, 2])]
    return np.stack(values, axis=1).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class ChosenPerson:
  """The chosen person in a film of T frames that shows several people.

  Attributes:
    count: the most people seen at one time.
    place: middle (x, y) of the person's face in its first detection, as shares of the picture's width and height.
    columns: [T 2] the person's columns of the picture: first, and last + 1.
    crowded: [T] whether somebody is so near that no column separates them from the person.
  """

  count: int
  place: tuple[float, float]
  columns: Int[NdArray, "T 2"]
  crowded: Bool[NdArray, " T"]


def find_person(
  found: Sequence[tuple[int, Boxes]],
  frames: int,
  fps: float | int,
  size: tuple[int, int],
  *,
  cuts: Sequence[int] = (),
  at: tuple[float, float] | None = None,
  before: Float[NdArray, "2"] | None = None,
) -> ChosenPerson | None:
  """Returns one person of a film, chosen by size or place; None if nobody else is seen.

  By default it is the person whose face fills most of each shot. With `at` it is the person at that point when the film
  begins, and after each cut the one nearest to the last place. People whose face is less than a third as wide, or is
  seen for less than half a second, count as background. The border to each neighbor divides the distance between both
  faces in proportion to their widths.

  Args:
    found: (number of the frame, boxes of the faces in it), in order; frames may be skipped.
    frames: number of frames of the film.
    fps: frames per second.
    size: width and height of its pictures in pixels.
    cuts: numbers of the frames that start a new shot.
    at: a point (x, y) on the person when the film begins: shares of width and height if both are at most 1, else
      pixels.
    before: for a part of a film, in whose first shot the person was already chosen: middle (x) and width of the face
      there. It takes the place of `at` in that shot.

  Raises:
    UserError: nobody is at that point.
  """
  columns = np.tile(np.array([0, size[0]]), (frames, 1))
  crowded, most_people, place, last = np.zeros(frames, bool), 0, None, before
  edges = [0, *cuts, frames]
  for first, end in itertools.pairwise(edges):
    faces = link([(number, boxes) for number, boxes in found if first <= number < end], fps)
    if first == 0 and at is not None and before is None:
      chosen = _at_point(faces, at, size, fps)
    elif not faces:
      continue
    elif last is not None and (at is not None or (first == 0 and before is not None)):
      chosen = min(faces, key=lambda face: np.abs(face.at(face.frames[:1])[0] - last).sum())
    else:
      chosen = max(faces, key=lambda face: face.area)
    last = chosen.at(chosen.frames[-1:])[0]
    if place is None:
      left, top, width, height = chosen.boxes[0]
      place = float((left + width / 2) / size[0]), float((top + height / 2) / size[1])
    neighbors = [face for face in faces if face is not chosen and face.width > _SMALLEST_NEIGHBOR * chosen.width]
    columns[first:end], crowded[first:end], count = _separate(chosen, neighbors, first, end, fps, size[0])
    most_people = max(most_people, count)
  return None if most_people < 2 or place is None else ChosenPerson(most_people, place, columns, crowded)


def link(found: Sequence[tuple[int, Boxes]], fps: float | int) -> list[Face]:
  """Returns the faces of one shot, tracked over time and seen for at least half a second.

  Between two detections a face moves by at most its width and at most doubles or halves it; it may be missing for 5 s.
  The nearest pairs are linked first.
  """
  paths: list[list[tuple[int, NdArray]]] = []
  for number, boxes in found:
    pairs = []
    for index, path in enumerate(paths):
      last, before = path[-1]
      for place, box in enumerate(boxes):
        unit = (before[2] + box[2]) / 2
        distance = np.linalg.norm(before[:2] + before[2:] / 2 - box[:2] - box[2:] / 2) / unit
        growth = max(before[2] / box[2], box[2] / before[2])
        if distance <= _LARGEST_STEP and growth <= _LARGEST_GROWTH and number - last <= _LONGEST_ABSENCE * fps:
          pairs.append((float(distance), index, place))
    linked_boxes: set[int] = set()
    linked_paths: set[int] = set()
    for _, index, place in sorted(pairs):
      if index not in linked_paths and place not in linked_boxes:
        paths[index].append((number, boxes[place]))
        linked_paths.add(index)
        linked_boxes.add(place)
    paths += [[(number, box)] for place, box in enumerate(boxes) if place not in linked_boxes]
  long_enough = [path for path in paths if path[-1][0] - path[0][0] >= _SHORTEST_TRACK * fps]
  return [Face(np.array([n for n, _ in path]), np.stack([box for _, box in path])) for path in long_enough]


def parse_point(text: str) -> tuple[float, float]:
  """Returns the point in "x,y"; raises UserError if the text is anything else."""
  try:
    x, y = (float(part) for part in text.split(","))
  except ValueError:
    x = y = -1.0
  if not (0 <= x < float("inf") and 0 <= y < float("inf")):
    raise UserError(f"--person-at={text}: give x,y, as shares of the picture (0.25,0.4) or as pixels (480,430)")
  return x, y


def _at_point(faces: Sequence[Face], at: tuple[float, float], size: tuple[int, int], fps: float | int) -> Face:
  """The face at a point when the film begins; a point below a face is on that person's body."""
  x, y = (part * side for part, side in zip(at, size)) if max(at) <= 1 else at
  early = [face for face in faces if face.frames[0] <= fps]

  def distance(face: Face) -> float:
    left, top, width, _ = face.boxes[0].tolist()
    return float(np.hypot(x - left - width / 2, max(0.0, top - y)) / width)

  near = [face for face in early if distance(face) <= _REACH]
  if not near:
    middles = [(face.boxes[0, :2] + face.boxes[0, 2:] / 2) / size for face in early]
    places = ", ".join(f"{middle[0]:.2f},{middle[1]:.2f}" for middle in middles)
    raise UserError(
      f"--person-at={at[0]:g},{at[1]:g}: nobody is there when the film begins"
      + (f"; faces are at {places}" if places else ", and no face is seen")
    )
  return min(near, key=distance)


def _separate(
  chosen: Face, neighbors: Sequence[Face], first: int, end: int, fps: float | int, width: int
) -> tuple[Int[NdArray, "T 2"], Bool[NdArray, " T"], int]:
  """The person's columns, crowded frames, and most people at one time, of frames `first` to `end` (exclusive)."""
  frames = np.arange(first, end)
  person = chosen.at(frames)
  left, right = np.zeros(len(frames), np.float32), np.full(len(frames), width, np.float32)
  crowded, people = np.zeros(len(frames), bool), np.ones(len(frames), int)
  for face in neighbors:
    neighbor = face.at(frames)
    begins, ends = face.frames[0], face.frames[-1]
    people += (frames >= begins) & (frames <= ends)
    present = (frames >= begins - _MARGIN * fps) & (frames <= ends + _MARGIN * fps)
    offset, widths = neighbor[:, 0] - person[:, 0], neighbor[:, 1] + person[:, 1]
    border = (person[:, 0] + offset * person[:, 1] / widths)[:, None, None]
    border = gaussian_smooth(border, _BORDER_SMOOTHING * fps)[:, 0, 0]
    crowded |= present & (np.abs(offset) < _CROWDED * widths / 2)
    left = np.where(present & (offset < 0), np.maximum(left, border), left)
    right = np.where(present & (offset >= 0), np.minimum(right, border), right)
  columns = np.stack([np.ceil(left), np.maximum(np.floor(right), np.ceil(left) + 1)], axis=1)
  return np.clip(columns, 0, width).astype(np.int64), crowded, int(people.max())
