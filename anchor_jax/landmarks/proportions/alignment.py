"""One body a person: measures joined over several films, and aligned to the scale of each.

The proportions of a body belong to the person. A film gives only its scale and the person's place in it, so films of
one person show the same solids, however short they are and whatever they leave out of the picture.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from anchor_jax.landmarks.proportions.evidence import join_evidence
from anchor_jax.landmarks.proportions.measures import BodyMeasures, median_measures, weighted_median
from anchor_jax.landmarks.proportions.retarget import SAME_SCALE

# How much each length counts in the scale of a film; limbs and hands are often foreshortened or hidden.
_WEIGHTS = {
  "shoulders": 1.0, "face": 1.0, "neck": 0.5, "torso": 0.5, "hips": 0.5,
  "upper_arm": 0.5, "forearm": 0.25, "palm": 0.25,
}  # fmt: skip


def scale_of(film: BodyMeasures, person: BodyMeasures) -> float:
  """Returns a film's scale: its lengths over the person's, as a median that no single length decides.

  Lengths that a film does not show count little. The scale is 1 if the difference is no larger than between films from
  the same camera.
  """
  ratios: list[float] = []
  weights: list[float] = []
  for name, weight in _WEIGHTS.items():
    known = zip(_numbers(getattr(film, name)), _numbers(getattr(person, name)))
    more = [math.log(of_film / of_person) for of_film, of_person in known]
    ratios += more
    weights += [weight * min(film.seen(name), person.seen(name))] * len(more)
  scale = math.exp(weighted_median(ratios, weights))
  return 1.0 if abs(scale - 1) < SAME_SCALE else scale


def align(person: BodyMeasures, film: BodyMeasures) -> BodyMeasures:
  """Returns a person's measures at the scale of one film, with the place that the film shows.

  Args:
    person: the person's measures, from any camera.
    film: what was measured in the film.
  """
  return dataclasses.replace(_scaled(person, scale_of(film, person)), place=film.place)


def join_measures(films: Sequence[BodyMeasures], frames: Sequence[int]) -> BodyMeasures:
  """Returns one person's measures over several films, at the scale of the longest one, rounded as in files.

  Args:
    films: what was measured in each film.
    frames: their numbers of frames, at least 1.
  """
  longest = films[int(np.argmax(frames))]
  joined = median_measures([_scaled(film, 1 / scale_of(film, longest)) for film in films], frames)
  known = [film.evidence for film in films if film.evidence is not None]
  joined = dataclasses.replace(joined, evidence=join_evidence(known) if known else None)
  return BodyMeasures.from_json(joined.to_json())


def _numbers(value: float | tuple[float, float] | None) -> tuple[float, ...]:
  """One length, or width and height; none if unknown."""
  return value if isinstance(value, tuple) else () if value is None else (value,)


def _scaled(body: BodyMeasures, scale: float) -> BodyMeasures:
  """All lengths times a factor."""

  def scaled(value: float | tuple[float, float] | None) -> float | tuple[float, float] | None:
    if isinstance(value, tuple):
      return value[0] * scale, value[1] * scale
    return None if value is None else value * scale

  return body if scale == 1 else dataclasses.replace(body, **{name: scaled(getattr(body, name)) for name in _WEIGHTS})
