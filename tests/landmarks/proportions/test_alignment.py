"""One body a person: films of a person give scale and place, and nothing else."""

import dataclasses

import numpy as np
import pytest

from anchor_jax.landmarks.framing import CropRect
from anchor_jax.landmarks.proportions.alignment import align, join_measures, scale_of
from anchor_jax.landmarks.proportions.evidence import Evidence
from anchor_jax.landmarks.proportions.measures import BodyMeasures, measure
from anchor_jax.landmarks.proportions.widths import Widths

PERSON = BodyMeasures(
  (0.5, 0.4), 0.31, 0.18, 0.45, 0.22, 0.083, 0.26, 0.25, (0.14, 0.16), Widths(torso=(1.2,) * 7, elbow=1.3)
)
LENGTHS = ("shoulders", "neck", "torso", "hips", "palm", "upper_arm", "forearm")


def seen_at(scale, **changes):
  """What a film measures of the person at this scale."""
  lengths = {name: scale * getattr(PERSON, name) for name in LENGTHS}
  face = (scale * PERSON.face[0], scale * PERSON.face[1])
  return dataclasses.replace(PERSON, place=(0.4, 0.5), widths=None, **lengths | {"face": face} | changes)


def test_a_film_from_the_same_camera_shows_the_persons_own_lengths():
  leaning = seen_at(1.02, neck=0.2, forearm=0.15, torso=0.43)
  assert align(PERSON, leaning) == dataclasses.replace(PERSON, place=(0.4, 0.5))


@pytest.mark.parametrize("scale", [0.4, 1.3])
def test_a_film_from_another_camera_keeps_the_proportions(scale):
  # head and shoulders: what is below the picture is guessed, arms are not measured
  found = align(PERSON, seen_at(scale, torso=0.6, hips=0.1, palm=0.02, upper_arm=None, forearm=None))
  for name in LENGTHS:
    assert getattr(found, name) == pytest.approx(scale * getattr(PERSON, name)), name
  assert found.face == pytest.approx(np.multiply(PERSON.face, scale))
  assert found.place == (0.4, 0.5) and found.widths == PERSON.widths


def test_unknown_lengths_do_not_count():
  found = seen_at(1.5, face=None, upper_arm=None)
  assert scale_of(found, PERSON) == pytest.approx(1.5) and align(PERSON, found).face == pytest.approx((0.21, 0.24))
  unknown = dataclasses.replace(PERSON, face=None, forearm=None)
  assert align(unknown, seen_at(1.5)).forearm is None


def test_lengths_that_are_not_shown_hardly_count():
  hidden = Evidence(100, {"face": 1.0} | dict.fromkeys(LENGTHS, 0.0))
  wrong = {name: 0.7 * getattr(PERSON, name) for name in LENGTHS}
  close_up = seen_at(1.4, evidence=hidden, **wrong)
  assert scale_of(close_up, PERSON) == pytest.approx(1.4)
  shown = dataclasses.replace(close_up, evidence=None)
  assert scale_of(shown, PERSON) == pytest.approx(0.7)
  joined = join_measures([close_up, seen_at(1.0)], [100, 30])
  assert joined.upper_arm / joined.face[0] == pytest.approx(PERSON.upper_arm / PERSON.face[0])
  assert joined.evidence is not None and joined.evidence.frames == 100


def test_one_film_alone_is_measured_as_it_is(standing_track):
  track = standing_track(frames=8)
  own = measure(track, CropRect.square(20, 0, 120, 64))
  assert join_measures([own], [8]).to_json() == own.to_json() and own.evidence is not None and own.evidence.frames == 8


def test_several_films_are_joined_at_the_scale_of_the_longest():
  short, near = seen_at(1.0, neck=0.12, upper_arm=0.1), seen_at(2.0, forearm=0.52)
  joined = join_measures([short, seen_at(1.0), near], [20, 100, 90])
  assert joined.shoulders == pytest.approx(PERSON.shoulders) and joined.neck == pytest.approx(PERSON.neck)
  assert joined.forearm == pytest.approx(PERSON.forearm) and joined.upper_arm == pytest.approx(PERSON.upper_arm)
