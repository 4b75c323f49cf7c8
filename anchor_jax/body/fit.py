"""Widths of a person's solids, fitted to the person masks of a film, clothes and hair included.

Coordinate descent with shrinking steps: each factor grows or shrinks while the solids' outline gets closer to the
masks. The cost counts missed and spilled pixels in frames spread evenly over the film. Only the outlines of the parts
that a factor moves are redrawn, so a fit takes seconds.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np

from anchor_jax.body.face_mesh import FaceMesh
from anchor_jax.body.pose import HAND, PoseRenderer
from anchor_jax.body.solids import EMPTY, Solid
from anchor_jax.core.shapes import Bool, NdArray
from anchor_jax.landmarks.framing import CropRect
from anchor_jax.landmarks.proportions.evidence import Evidence
from anchor_jax.landmarks.proportions.measures import BodyMeasures
from anchor_jax.landmarks.proportions.widths import LIMITS, TORSO_HEIGHTS, TORSO_LIMITS, Widths
from anchor_jax.landmarks.tracks import Track

FRAMES = 20  # number of frames that are compared
HEIGHT = 96  # at which outlines are compared, pixels
_PROBE = 1.1  # a factor is changed by this much to see what depends on it
_STEPS = (1.2, 1.08, 1.03)
_SWEEPS = 2  # over all factors with each step
# Penalty for leaving a standard body, in squared shoulder widths per frame and squared doubling. A factor that little
# of the picture decides, such as the width of a torso behind arms, stays near 1.
_HOLD = 0.012
_SMOOTH = 0.03  # the same for the ratio of neighboring heights of the torso
_USUAL_HAIR = (1.4, 0.9)
_HAIR = tuple((across, down) for across in (1.15, 1.4, 1.7) for down in (0.3, 0.6, 0.9))
_WIDEST_NECK = 1.3  # with a collar; anything wider is hair
_HAIR_GAIN = 0.002  # least gain of hair, as a share of the masks' area

_PARTS = _TORSO, _HEAD, _ARMS, _HANDS = range(4)
_MOVES = {  # the body parts that each factor moves
  "torso": (_TORSO,), "slope": (_TORSO,), "shoulder": (_TORSO, _ARMS), "elbow": (_ARMS,), "wrist": (_ARMS,),
  "fingers": (_HANDS,), "neck": (_HEAD,), "jaw": (_HEAD,), "skull": (_HEAD,), "hair": (_HEAD,),
}  # fmt: skip


def fit_widths(films: Sequence[tuple[Track, CropRect, BodyMeasures]]) -> Widths | None:
  """Returns the widths with which a person's solids fit the person masks best; None if all masks are empty.

  Args:
    films: films of one person in the same clothes: filled track, crop rectangle, and measures in it.
  """
  outlines = _Outlines(films, FRAMES)
  if not outlines.count:
    return None
  best, cost = _descend(outlines, Widths())
  hair = _first_hair(outlines)
  if hair is not None:
    covered, with_hair = _descend(outlines, Widths(hair=hair))
    best = covered if with_hair < cost - _HAIR_GAIN * outlines.area else best
  return Widths.from_json(best.to_json())  # rounded as in files


def fit_body(body: BodyMeasures, films: Sequence[tuple[Track, CropRect, BodyMeasures]]) -> BodyMeasures:
  """Returns a person's measures with the widths that fit the films, and what they rest on; see `fit_widths`."""
  widths = fit_widths(films)
  if widths is None or body.evidence is None:
    return dataclasses.replace(body, widths=widths)
  evidence = dataclasses.replace(body.evidence, widths=_decided(_Outlines(films, FRAMES), widths))
  return dataclasses.replace(body, widths=widths, evidence=Evidence.from_json(evidence.to_json()))


def _decided(outlines: "_Outlines", widths: Widths) -> dict[str, float | tuple[float, ...]]:
  """How far the films decide each factor: the pixels that it moves, against the penalty for half a doubling."""
  outlines.cost(widths, _PARTS)
  outlines.accept()
  shares: dict[str, list[float]] = {}
  for name, place in _factors():
    value = getattr(widths, name)
    if value is None:
      continue
    sides = []
    for ratio in (_PROBE, 1 / _PROBE):
      changed = value * ratio if place is None else (*value[:place], value[place] * ratio, *value[place + 1 :])
      sides.append(outlines.union(dataclasses.replace(widths, **{name: changed}), _MOVES[name]))
    moved = sum(int((wide ^ narrow).sum()) for wide, narrow in zip(*sides)) / (2 * math.log2(_PROBE))
    shares.setdefault(name, []).append(moved / (moved + outlines.scale * _HOLD))
  return {name: share[0] if len(share) == 1 else tuple(share) for name, share in shares.items()}


def _descend(outlines: "_Outlines", best: Widths) -> tuple[Widths, float]:
  """The widths where the search from `best` ends, and their cost."""
  cost = outlines.cost(best, _PARTS)
  outlines.accept()
  for step in _STEPS:
    for _ in range(_SWEEPS):
      before = best
      for name, place in _factors():
        best, cost = _improve(outlines, best, cost, step, name, place)
      if best == before:
        break
  return best, cost


def _first_hair(outlines: "_Outlines") -> tuple[float, float] | None:
  """The hair that improves the fit of a standard body most; None if no candidate helps."""
  bare = outlines.cost(Widths(), _PARTS)
  outlines.accept()
  costs = {hair: outlines.cost(Widths(hair=hair), (_HEAD,)) for hair in _HAIR}
  best = min(costs, key=lambda hair: costs[hair])
  return best if costs[best] < bare - _HAIR_GAIN * outlines.area else None


def _factors() -> list[tuple[str, int | None]]:
  torso: list[tuple[str, int | None]] = [("torso", place) for place in range(len(TORSO_HEIGHTS))]
  arms: list[tuple[str, int | None]] = [(name, None) for name in ("shoulder", "slope", "elbow", "wrist", "fingers")]
  # limbs first, so that the torso does not grow over them
  return [*arms, *torso, ("neck", None), ("jaw", None), ("skull", 0), ("skull", 1), ("hair", 0), ("hair", 1)]


def _improve(
  outlines: "_Outlines", best: Widths, cost: float, step: float, name: str, place: int | None
) -> tuple[Widths, float]:
  """The widths with one factor changed by steps up or down while the cost falls, and their cost."""
  value = getattr(best, name)
  if value is None:
    return best, cost
  for ratio in (step, 1 / step):
    moved = False
    while True:
      value = getattr(best, name)
      old = value if place is None else value[place]
      new = old * ratio
      if name != "hair":
        new = float(np.clip(new, LIMITS[0], _widest(name, place)))
      if new == old or not 0.1 < new < 4:
        break
      changed = new if place is None else (*value[:place], new, *value[place + 1 :])
      option = dataclasses.replace(best, **{name: changed})
      option_cost = outlines.cost(option, _MOVES[name])
      if option_cost >= cost:
        break
      best, cost, moved = option, option_cost, True
      outlines.accept()
    if moved:
      break
  return best, cost


def _widest(name: str, place: int | None) -> float:
  """The upper limit of a factor."""
  if name == "torso" and place is not None:
    return TORSO_LIMITS[place]
  return _WIDEST_NECK if name == "neck" else LIMITS[1]


class _Outlines:
  """Person masks of chosen frames, and the outlines of torso, head, arms and hands in them."""

  def __init__(self, films: Sequence[tuple[Track, CropRect, BodyMeasures]], count: int):
    total = sum(len(track) for track, _, _ in films)
    chosen = set(np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist())
    self._frames: list[tuple[int, int]] = []
    self._renderers: list[PoseRenderer] = []
    self._masks: list[Bool[NdArray, "H W"]] = []
    self._faces: dict[int, Bool[NdArray, "H W"]] = {}
    start = 0
    for track, crop, measures in films:
      small = dataclasses.replace(crop, size=crop.size.with_height(HEIGHT))
      self._renderers.append(PoseRenderer(track, small, measures))
      for number in range(len(track)) if track.masks else ():
        if start + number in chosen:
          mask = small.mask(track.mask(number)) > 0
          if mask.any():
            self._frames.append((len(self._renderers) - 1, number))
            self._masks.append(mask)
      start += len(track)
    shoulders = [films[film][2].shoulders * HEIGHT for film, _ in self._frames]
    self.scale = float(np.square(shoulders).sum())
    self.count, self.area = len(self._frames), int(sum(mask.sum() for mask in self._masks))
    self._accepted = [[np.zeros_like(mask)] * len(_PARTS) for mask in self._masks]
    self._latest = self._accepted

  def cost(self, widths: Widths, parts: Sequence[int]) -> float:
    """Returns the missed and spilled pixels plus penalties; only `parts` are drawn, the rest is as last accepted."""
    self._latest, cost = [], 0
    for frame, mask in enumerate(self._masks):
      drawn = list(self._accepted[frame])
      for part in parts:
        drawn[part] = self._outline(frame, part, widths)
      self._latest.append(drawn)
      cost += int((functools.reduce(np.logical_or, drawn) ^ mask).sum())
    factors = [*widths.torso, *widths.skull, widths.slope, widths.shoulder, widths.elbow, widths.wrist]
    factors += [widths.fingers, widths.neck, widths.jaw]
    uneven = np.square(np.diff(np.log2(widths.torso))).sum()
    if widths.hair is not None:
      factors += np.divide(widths.hair, _USUAL_HAIR).tolist()
    return cost + self.scale * float(_HOLD * np.square(np.log2(factors)).sum() + _SMOOTH * uneven)

  def _outline(self, frame: int, part: int, widths: Widths) -> Bool[NdArray, "H W"]:
    (film, number), shape = self._frames[frame], self._masks[frame].shape
    renderer = self._renderers[film]
    renderer.widths = widths
    if part == _TORSO:
      return outline([solid for solid, _ in renderer.torso(number)], shape)
    if part == _HEAD:
      solids = [solid for solid, _ in renderer.head(number)]
      if frame not in self._faces:  # the mesh is the slowest solid, and no factor moves it
        self._faces[frame] = outline([solid for solid in solids if isinstance(solid, FaceMesh)], shape)
      return self._faces[frame] | outline([solid for solid in solids if not isinstance(solid, FaceMesh)], shape)
    solids = [solid for solid, kind in renderer.arms(number) if (kind == HAND) == (part == _HANDS)]
    return outline(solids, shape)

  def union(self, widths: Widths, parts: Sequence[int]) -> list[Bool[NdArray, "H W"]]:
    """Returns the outline of the body in each frame; `parts` are drawn with other widths, the rest is as accepted."""
    self.cost(widths, parts)
    return [functools.reduce(np.logical_or, drawn) for drawn in self._latest]

  def accept(self) -> None:
    """Makes the outlines of the latest `cost` the base for further ones."""
    self._accepted = self._latest


def outline(solids: Sequence[Solid], shape: tuple[int, ...]) -> Bool[NdArray, "H W"]:
  """Returns True at the pixels whose centers any of the solids covers, in a picture of this height and width."""
  drawn = np.zeros(shape, bool)
  for solid in solids:
    left, top, right, bottom = solid.bounds()
    x0, x1 = max(int(np.floor(left)), 0), min(int(np.ceil(right)) + 1, shape[1])
    y0, y1 = max(int(np.floor(top)), 0), min(int(np.ceil(bottom)) + 1, shape[0])
    if x0 < x1 and y0 < y1:
      x, y = (np.arange(a, b, dtype=np.float32) + np.float32(0.5) for a, b in ((x0, x1), (y0, y1)))
      drawn[y0:y1, x0:x1] |= solid.hit(x[None], y[:, None]).depth > EMPTY
  return drawn
