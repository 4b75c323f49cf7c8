"""Which stretches of a film are used, as a clip each, and why others are left out."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from anchor_jax.core.shapes import Bool, Int, NdArray, Shaped
from anchor_jax.films.survey import WINDOW, Survey

USED, DARK, GONE, CROWDED, BLURRED, SHORT = "", "dark", "no person", "crowded", "blurred", "short"
GONE_FOR = 0.4  # seconds: a person who is not found for less long is interpolated (landmarks/tracks.py)
_SHORTEST = 0.5  # seconds of a clip


@dataclasses.dataclass(frozen=True)
class Stretch:
  """Frames `first` to `last` (exclusive) of a film, all of one shot and with one reason.

  Attributes:
    first, last: numbers of frames.
    shot: number of the shot, from 0.
    reason: why it is left out, one of `DARK`, `GONE`, `CROWDED`, `BLURRED`, `SHORT`; "" where it is used.
  """

  first: int
  last: int
  shot: int
  reason: str

  @property
  def used(self) -> bool:
    """Whether it becomes a clip."""
    return self.reason == USED

  def __len__(self) -> int:
    return self.last - self.first


def divide(
  film: Survey, seen: Bool[NdArray, " T"], fps: float | int, crowded: Bool[NdArray, " T"] | None = None
) -> list[Stretch]:
  """Divides a film into stretches: all its frames, in order.

  A frame is left out where it is dark, where the person was not found for more than 0.4 s, where somebody else is too
  near, or where it is blurred; the first of these counts. Dark and blurred stretches of less than 0.2 s stay in. What
  is left of a shot in one piece is a clip; pieces of less than half a second are left out too, unless the film has no
  longer one: then the longest stays.

  Args:
    film: of `survey`.
    seen: whether the person was found in each frame.
    fps: frames per second.
    crowded: whether somebody else is too near in each frame; default in none.
  """
  shots, reasons = film.shots, np.full(len(film), USED, dtype="U16")
  for reason, here, shortest in (
    (BLURRED, film.blurred, WINDOW),
    (CROWDED, np.zeros(len(film), bool) if crowded is None else crowded, 0.0),
    (GONE, ~seen, GONE_FOR),
    (DARK, film.dark, WINDOW),
  ):
    for first, last in runs(here, shots):
      if last - first >= shortest * fps and here[first]:
        reasons[first:last] = reason
  stretches = [Stretch(first, last, int(shots[first]), str(reasons[first])) for first, last in runs(reasons, shots)]
  longest = max((len(stretch) for stretch in stretches if stretch.used), default=0)
  least = min(longest, _SHORTEST * fps)
  return [dataclasses.replace(s, reason=SHORT) if s.used and len(s) < least else s for s in stretches]


def runs(values: Shaped[NdArray, " T"], shots: Int[NdArray, " T"] | None = None) -> list[tuple[int, int]]:
  """Returns first and last (exclusive) number of each run of equal values, which ends also where a shot does."""
  ends = values[1:] != values[:-1]
  if shots is not None:
    ends = ends | (shots[1:] != shots[:-1])
  edges = [0, *(np.flatnonzero(ends) + 1).tolist(), len(values)]
  return list(itertools.pairwise(edges))


def count(stretches: Sequence[Stretch]) -> dict[str, int]:
  """Returns the number of frames left out for each reason that occurs."""
  found: dict[str, int] = {}
  for stretch in stretches:
    if not stretch.used:
      found[stretch.reason] = found.get(stretch.reason, 0) + len(stretch)
  return found
