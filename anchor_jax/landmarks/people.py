"""Which of several people a film is about: faces linked over time, one person chosen, what of the picture is hers.

Nothing here reads a file: boxes of faces come in, [left, top, width, height] in pixels of the picture.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Bool, Float, Int, NdArray
from anchor_jax.landmarks.tracks import gaussian

Boxes = Float[NdArray, "_ 4"]  # any number of them, also another in each frame

_LOST = 5.0  # seconds for which a face may be hidden or turned away
_STEP = 1.0  # widths of the face by which it may move from one sighting to the next
_ALIKE = 2.0  # times as wide it may become
_SEEN = 0.5  # seconds for which a face must be followed to be somebody's, not a mistake
_BESIDE = 1 / 3  # of her face's width: who looks smaller is part of the room
_ROOM = 1.0  # seconds for which others are painted out before they are first and after they are last seen
_NEAR = 2.0  # widths of a face between two middles: who is nearer overlaps
_CALM = 0.25  # seconds, standard deviation of the smoothing of the borders
_HIT = 2.5  # widths of a face: how far from somebody's face a given point may be


class Face(NamedTuple):
  """Somebody's face over time.

  Attributes:
    frames: [K] numbers of the frames in which it was found, rising.
    boxes: [K 4] where.
  """

  frames: Int[NdArray, " K"]
  boxes: Boxes

  @property
  def width(self) -> float:
    """Its usual width in pixels."""
    return float(np.median(self.boxes[:, 2]))

  @property
  def area(self) -> float:
    """Sum of the areas of all its boxes: the largest person is the one who fills most of the film."""
    return float((self.boxes[:, 2] * self.boxes[:, 3]).sum())

  def at(self, frames: Int[NdArray, " T"]) -> Float[NdArray, "T 2"]:
    """Its middle (x) and its width in some frames, interpolated, and constant beyond both ends."""
    middle = self.boxes[:, 0] + self.boxes[:, 2] / 2
    values = [np.interp(frames, self.frames, each) for each in (middle, self.boxes[:, 2])]
    return np.stack(values, axis=1).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class People:
  """What is found of the people in a film of T frames in which there are several.

  Attributes:
    count: the most that are seen at one time.
    place: middle (x, y) of the chosen one's face where it is first seen, as shares of the picture's width and height.
    columns: [T 2] the columns of the picture that are hers: the first, and the one after the last.
    crowded: [T] whether another one is so near that no column parts them.
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
) -> People | None:
  """Chooses one person of a film and returns what of its pictures is hers; None where nobody else is seen.

  It is the one whose face fills most of each shot. With `at` it is the one at that point when the film begins, and
  after each cut the one who is nearest to where she was. People whose face is less than a third as wide as hers, or is
  seen for less than half a second, are part of the room. The border to each neighbour divides the way between both
  faces by their widths.

  Args:
    found: (number of the frame, boxes of the faces in it), in order; frames may be left out.
    frames: number of frames of the film.
    fps: frames per second.
    size: width and height of its pictures in pixels.
    cuts: numbers of the frames that begin a new shot.
    at: a point (x, y) on the person when the film begins: shares of width and height if both are at most 1, else
      pixels.

  Raises:
    UserError: nobody is at that point.
  """
  columns = np.tile(np.array([0, size[0]]), (frames, 1))
  crowded, several, place, last = np.zeros(frames, bool), 0, None, None
  edges = [0, *cuts, frames]
  for first, end in itertools.pairwise(edges):
    faces = link([(number, boxes) for number, boxes in found if first <= number < end], fps)
    if first == 0 and at is not None:
      chosen = _at_point(faces, at, size, fps)
    elif not faces:
      continue
    elif at is not None and last is not None:
      chosen = min(faces, key=lambda face: np.abs(face.at(face.frames[:1])[0] - last).sum())
    else:
      chosen = max(faces, key=lambda face: face.area)
    last = chosen.at(chosen.frames[-1:])[0]
    if place is None:
      left, top, width, height = chosen.boxes[0]
      place = float((left + width / 2) / size[0]), float((top + height / 2) / size[1])
    others = [face for face in faces if face is not chosen and face.width > _BESIDE * chosen.width]
    columns[first:end], crowded[first:end], most = _own_columns(chosen, others, first, end, fps, size[0])
    several = max(several, most)
  return None if several < 2 or place is None else People(several, place, columns, crowded)


def link(found: Sequence[tuple[int, Boxes]], fps: float | int) -> list[Face]:
  """Returns the faces of one shot, each followed over time, those that are seen for half a second at least.

  From one sighting to the next a face moves by its width at most, and becomes twice as wide at most; for 5 s it may be
  out of sight. The nearest pairs are linked first.
  """
  paths: list[list[tuple[int, NdArray]]] = []
  for number, boxes in found:
    pairs = []
    for index, path in enumerate(paths):
      seen, before = path[-1]
      for place, box in enumerate(boxes):
        unit = (before[2] + box[2]) / 2
        far = np.linalg.norm(before[:2] + before[2:] / 2 - box[:2] - box[2:] / 2) / unit
        alike = max(before[2] / box[2], box[2] / before[2])
        if far <= _STEP and alike <= _ALIKE and number - seen <= _LOST * fps:
          pairs.append((float(far), index, place))
    taken: set[int] = set()
    grown: set[int] = set()
    for _, index, place in sorted(pairs):
      if index not in grown and place not in taken:
        paths[index].append((number, boxes[place]))
        grown.add(index)
        taken.add(place)
    paths += [[(number, box)] for place, box in enumerate(boxes) if place not in taken]
  long_enough = [path for path in paths if path[-1][0] - path[0][0] >= _SEEN * fps]
  return [Face(np.array([n for n, _ in path]), np.stack([box for _, box in path])) for path in long_enough]


def parse_point(text: str) -> tuple[float, float]:
  """Reads "x,y". Raises UserError where it is none."""
  try:
    x, y = (float(part) for part in text.split(","))
  except ValueError:
    x = y = -1.0
  if not (0 <= x < float("inf") and 0 <= y < float("inf")):
    raise UserError(f"--person-at={text}: give x,y, as shares of the picture (0.25,0.4) or as pixels (480,430)")
  return x, y


def _at_point(faces: Sequence[Face], at: tuple[float, float], size: tuple[int, int], fps: float | int) -> Face:
  """Who is at a point when the film begins; what is below a face is the body's."""
  x, y = (part * side for part, side in zip(at, size)) if max(at) <= 1 else at
  early = [face for face in faces if face.frames[0] <= fps]

  def far(face: Face) -> float:
    left, top, width, _ = face.boxes[0].tolist()
    return float(np.hypot(x - left - width / 2, max(0.0, top - y)) / width)

  near = [face for face in early if far(face) <= _HIT]
  if not near:
    middles = [(face.boxes[0, :2] + face.boxes[0, 2:] / 2) / size for face in early]
    told = ", ".join(f"{middle[0]:.2f},{middle[1]:.2f}" for middle in middles)
    raise UserError(
      f"--person-at={at[0]:g},{at[1]:g}: nobody is there when the film begins"
      + (f"; faces are at {told}" if told else ", and no face is seen")
    )
  return min(near, key=far)


def _own_columns(
  chosen: Face, others: Sequence[Face], first: int, end: int, fps: float | int, width: int
) -> tuple[Int[NdArray, "T 2"], Bool[NdArray, " T"], int]:
  """Columns and crowded frames of `first` to `end` (exclusive), and how many people are seen at one time there."""
  frames = np.arange(first, end)
  own = chosen.at(frames)
  left, right = np.zeros(len(frames), np.float32), np.full(len(frames), width, np.float32)
  crowded, seen = np.zeros(len(frames), bool), np.ones(len(frames), int)
  for other in others:
    its = other.at(frames)
    begins, ends = other.frames[0], other.frames[-1]
    seen += (frames >= begins) & (frames <= ends)
    here = (frames >= begins - _ROOM * fps) & (frames <= ends + _ROOM * fps)
    way, both = its[:, 0] - own[:, 0], its[:, 1] + own[:, 1]
    border = gaussian((own[:, 0] + way * own[:, 1] / both)[:, None, None], _CALM * fps)[:, 0, 0]
    crowded |= here & (np.abs(way) < _NEAR * both / 2)
    left = np.where(here & (way < 0), np.maximum(left, border), left)
    right = np.where(here & (way >= 0), np.minimum(right, border), right)
  columns = np.stack([np.ceil(left), np.maximum(np.floor(right), np.ceil(left) + 1)], axis=1)
  return np.clip(columns, 0, width).astype(np.int64), crowded, int(seen.max())
