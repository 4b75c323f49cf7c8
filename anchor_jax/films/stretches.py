"""Divides a film into stretches: those that become clips, and those that are skipped, with the reason."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from anchor_jax.core.shapes import Bool, Int, NdArray, Shaped
from anchor_jax.films.survey import WINDOW, Survey

USED, DARK, GONE, CROWDED, BLURRED, SHORT = "", "dark", "no person", "crowded", "blurred", "short"
OUTSIDE = "outside the part"
GONE_FOR = 0.4  # seconds; shorter gaps in detection are interpolated (landmarks/tracks.py)
_MIN_CLIP = 0.5  # seconds


@dataclasses.dataclass(frozen=True)
class Stretch:
  """Frames `first` to `last` (exclusive) of a film, all from one shot and with one reason.

  Attributes:
    first, last: frame indices.
    shot: index of the shot.
    reason: why it is skipped, one of `DARK`, `GONE`, `CROWDED`, `BLURRED`, `SHORT`, `OUTSIDE`; "" if it is used.
  """

  first: int
  last: int
  shot: int
  reason: str

  @property
  def used(self) -> bool:
    """Whether the stretch becomes a clip."""
    return self.reason == USED

  def __len__(self) -> int:
    return self.last - self.first


def divide(
  film: Survey,
  seen: Bool[NdArray, " T"],
  fps: float | int,
  crowded: Bool[NdArray, " T"] | None = None,
  part: tuple[float, float] = (0.0, 1.0),
) -> list[Stretch]:
  """Returns the stretches that together cover all frames of a film, in order.

  A frame is skipped if it is dark, if the person was not found for 0.4 s or more, if another person is too close, or
  if it is blurred; the first of these reasons wins. Dark and blurred runs under 0.2 s are kept. Each remaining
  contiguous piece of a shot is a clip. Pieces under half a second are skipped too, unless the film has nothing longer.

  Args:
    film: from `survey`.
    seen: whether the person was found, for each frame.
    fps: frames per second.
    crowded: whether another person is too close, for each frame; default never.
    part: the part of the film that is used, as shares of its length; all else is skipped.
  """
  shots, reasons = film.shots, np.full(len(film), USED, dtype="U16")
  for reason, affected, min_seconds in (
    (BLURRED, film.blurred, WINDOW),
    (CROWDED, np.zeros(len(film), bool) if crowded is None else crowded, 0.0),
    (GONE, ~seen, GONE_FOR),
    (DARK, film.dark, WINDOW),
  ):
    for first, last in runs(affected, shots):
      if last - first >= min_seconds * fps and affected[first]:
        reasons[first:last] = reason
  begin, end = (round(share * len(film)) for share in part)
  reasons[:begin] = reasons[end:] = OUTSIDE
  stretches = [Stretch(first, last, int(shots[first]), str(reasons[first])) for first, last in runs(reasons, shots)]
  longest = max((len(stretch) for stretch in stretches if stretch.used), default=0)
  min_frames = min(longest, _MIN_CLIP * fps)
  return [dataclasses.replace(s, reason=SHORT) if s.used and len(s) < min_frames else s for s in stretches]


def runs(values: Shaped[NdArray, " T"], shots: Int[NdArray, " T"] | None = None) -> list[tuple[int, int]]:
  """Returns the first and last (exclusive) index of each run of equal values; shots end runs too."""
  ends = values[1:] != values[:-1]
  if shots is not None:
    ends = ends | (shots[1:] != shots[:-1])
  edges = [0, *(np.flatnonzero(ends) + 1).tolist(), len(values)]
  return list(itertools.pairwise(edges))


def count_skipped(stretches: Sequence[Stretch]) -> dict[str, int]:
  """Returns the number of skipped frames by reason."""
  found: dict[str, int] = {}
  for stretch in stretches:
    if not stretch.used:
      found[stretch.reason] = found.get(stretch.reason, 0) + len(stretch)
  return found
