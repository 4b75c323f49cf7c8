"""`prepare` fits how clothes slide with the pose once for a person, and keeps it with the body."""

import dataclasses

import numpy as np
import pytest
from films import FPS, disc_shot
from people import make_measures

from anchor_jax.films import clips as clips_module
from anchor_jax.films import cloth as cloth_module
from anchor_jax.films.clips import Findings, read_films
from anchor_jax.films.poses import OpenedFilm
from anchor_jax.films.report import film_report
from anchor_jax.films.survey import survey
from anchor_jax.landmarks.proportions.cloth import FEATURES, ClothShift
from anchor_jax.landmarks.proportions.measures import median_measures
from anchor_jax.landmarks.proportions.widths import Widths
from anchor_jax.landmarks.sidecar import write_posed_video
from anchor_jax.texture.registration.flow import HEIGHT
from anchor_jax.video.read import probe, read_frames

LENGTHS = (24, 30)


@pytest.fixture(autouse=True)
def quick_fit(monkeypatch):
  """Widths are fitted elsewhere, and take seconds."""
  monkeypatch.setattr(clips_module, "fit_body", lambda body, films: body)


@pytest.fixture(scope="module")
def films(tmp_path_factory, standing_track):
  folder, found = tmp_path_factory.mktemp("films"), []
  for length in LENGTHS:
    path = folder / f"{length}.mp4"
    write_posed_video(path, disc_shot(1, length), FPS)
    path.with_suffix(".anchor").rename(folder / f"away_{length}")
    track = dataclasses.replace(standing_track(length, (64, 64)), fps=float(FPS))
    found.append((OpenedFilm(path, probe(path), None), Findings(survey(read_frames(path), FPS), track)))
  return found


def _shift():
  zero = np.zeros(FEATURES, np.float32)
  patterns, shifts = np.float32([[0.1, *zero]]), np.float32([[[1], [0]]])
  return ClothShift(zero, zero + 1, zero, zero, patterns, np.array([64]), shifts, 0.5)


def test_one_shift_for_all_films_of_a_person(films, monkeypatch):
  cloth, asked = _shift(), []

  def fit(frames, features, shoulders):
    asked.append((frames, features, shoulders))
    return cloth

  monkeypatch.setattr(cloth_module, "fit_cloth", fit)
  opened, found = zip(*films)
  read = read_films(opened, found, size=32, person="ann")
  clips = [clip for film in read for clip in film.clips]
  report = film_report("ann", read)
  assert "The pose explains 50 % of how clothes and hair slide over the body." in report
  assert len(asked) == 1 and [clip.measures.cloth for clip in clips] == [cloth, cloth]
  frames, features, shoulders = asked[0]
  assert len(frames) == len(features) == len(shoulders) == sum(LENGTHS)
  assert {frame.frame.shape for frame in frames} == {(HEIGHT, HEIGHT, 3)} and frames[0].surface.any()
  assert set(np.unique(frames[0].person_mask)) == {0, 255}
  assert shoulders[0] == pytest.approx(clips[0].measures.shoulders * HEIGHT)
  (again,) = read_films(opened[1:], found[1:], size=32, person="ann", body=clips[0].measures)
  assert again.clips[0].measures.cloth is cloth and len(asked) == 1  # a later film of the person is not fitted


def test_frames_are_spread_over_long_films(films, monkeypatch):
  asked = []
  monkeypatch.setattr(cloth_module, "FRAMES", 10)
  monkeypatch.setattr(cloth_module, "fit_cloth", lambda *given: asked.extend(given))
  read_films(*zip(*films), size=32, person="ann")
  assert len(asked[0]) == 10 and len(asked[1]) == 10


def test_films_without_masks_have_no_shift(films):
  opened, found = zip(*films)
  bare = [entry._replace(track=dataclasses.replace(entry.track, masks=())) for entry in found]
  (film,) = read_films(opened[:1], bare[:1], size=32, person="ann")
  assert film.clips[0].measures.cloth is None


def test_a_joined_body_has_the_shift_that_was_fitted_with_its_widths():
  cloth = ClothShift.from_json(_shift().to_json())
  with_shift = dataclasses.replace(make_measures(), widths=Widths(), cloth=cloth)
  without = dataclasses.replace(make_measures(), widths=Widths(slope=1.2))
  assert median_measures([with_shift, without], [10, 20]).cloth is None
  assert median_measures([with_shift, without], [20, 10]).cloth is cloth
  assert median_measures([make_measures(), make_measures()], [1, 2]).cloth is None
