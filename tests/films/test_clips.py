"""Which stretches of a film become clips, and how many frames each rule skips."""

import dataclasses

import numpy as np
import pytest
from films import FPS, blurred, dark, disc_shot, messy_film, studio_shot

from anchor_jax.core.errors import UserError
from anchor_jax.films import clips as clips_module
from anchor_jax.films.clips import Findings, examine, read_films
from anchor_jax.films.poses import OpenedFilm, open_film
from anchor_jax.films.stretches import count_skipped
from anchor_jax.films.survey import background_shift, film_cuts, find_cuts, survey
from anchor_jax.landmarks.sidecar import write_posed_video
from anchor_jax.video.read import probe, read_frames


def films_of(path, **options):
  film = open_film(path)
  return read_films([film], [examine(film)], **{"size": 32, "person": "ann"} | options)


@pytest.mark.parametrize("shot", [disc_shot, pytest.param(studio_shot, marks=pytest.mark.slow)])
def test_a_messy_film_is_divided_by_the_rules(tmp_path, shot):
  frames, truth = messy_film(shot)
  write_posed_video(tmp_path / "messy.mp4", frames, FPS)
  (film,) = films_of(tmp_path / "messy.mp4")
  assert [(len(stretch), stretch.shot, stretch.reason) for stretch in film.stretches] == truth
  assert count_skipped(film.stretches) == {"dark": 4, "blurred": 4, "no person": 6, "short": 3}
  used = [stretch for stretch in film.stretches if stretch.used]
  assert [clip.name for clip in film.clips] == [f"messy {number}" for number in range(1, 6)]
  for clip, stretch in zip(film.clips, used, strict=True):
    shown = list(clip.frames)
    assert len(shown) == len(stretch)
    for item, truth_item in zip(shown, frames[stretch.first : stretch.last], strict=True):
      np.testing.assert_allclose(item.landmarks, truth_item.landmarks / 2, atol=1e-4)


def test_a_part_of_a_film_is_used(tmp_path):
  frames = disc_shot(1, 30)
  write_posed_video(tmp_path / "film.mp4", frames, FPS)
  (first,), (last,) = (films_of(tmp_path / "film.mp4", section=part) for part in ((0.0, 0.8), (0.8, 1.0)))
  assert [(len(s), s.reason) for s in first.stretches] == [(24, ""), (6, "outside the part")]
  assert [(len(s), s.reason) for s in last.stretches] == [(24, "outside the part"), (6, "")]
  np.testing.assert_allclose(next(iter(last.clips[0].frames)).landmarks, frames[24].landmarks / 2, atol=1e-4)
  night = [*map(dark, frames[:24]), *frames[24:]]
  write_posed_video(tmp_path / "night.mp4", night, FPS)
  with pytest.raises(UserError, match=r"24 of its frames are dark, 6 of its frames are outside the part"):
    films_of(tmp_path / "night.mp4", section=(0.0, 0.8))


def test_a_film_without_a_usable_stretch_is_an_error(tmp_path):
  write_posed_video(tmp_path / "night.mp4", map(dark, disc_shot(1, 8)), FPS)
  with pytest.raises(UserError, match=r"8 of its frames are dark.*film it again"):
    films_of(tmp_path / "night.mp4")
  nobody = [
    item._replace(person_mask=0 * item.person_mask, landmarks=np.nan * item.landmarks) for item in disc_shot(1, 8)
  ]
  write_posed_video(tmp_path / "room.mp4", nobody, FPS)
  with pytest.raises(UserError, match="no person is found in the video"):
    films_of(tmp_path / "room.mp4")


def test_all_of_a_short_film_is_used(tmp_path):
  frames = [*disc_shot(1, 8)[:3], blurred(disc_shot(1, 8)[3])]  # a single blurred frame is kept
  write_posed_video(tmp_path / "short.mp4", frames, FPS)
  (film,) = films_of(tmp_path / "short.mp4")
  assert [(len(s), s.reason) for s in film.stretches] == [(4, "")] and film.clips[0].name == "short"


def test_cuts_are_found_and_flashes_and_noise_are_not():
  rng = np.random.default_rng(0)
  rooms = rng.integers(0, 256, (3, 9, 16, 3))
  shot = lambda room, frames: np.clip(rooms[room] + rng.integers(-4, 5, (frames, 9, 16, 3)), 0, 255).astype(np.uint8)
  film = np.concatenate([shot(0, 12), shot(1, 9), shot(2, 9)])
  assert find_cuts(film, 25).tolist() == [12, 21]
  flash = np.concatenate([shot(0, 12), np.full((2, 9, 16, 3), 255, np.uint8), shot(0, 12)])
  assert find_cuts(flash, 25).tolist() == []
  assert find_cuts(rng.integers(0, 256, (20, 9, 16, 3), np.uint8), 25).tolist() == []  # constant change
  assert find_cuts(film[:1], 25).tolist() == []


def test_a_dark_title_card_is_a_separate_shot():
  rng = np.random.default_rng(0)
  scene, other = rng.integers(0, 256, (2, 36, 64, 3)).astype(np.uint8)
  film = [scene] * 10 + [scene // 8] * 6 + [scene] * 10 + [other] * 10 + [other // 8] * 2 + [other] * 10
  assert film_cuts(film, 25) == (10, 16, 26)  # two dark frames are too short
  assert film_cuts([scene // 8] * 10, 25) == ()


def test_camera_motion_is_measured():
  rng = np.random.default_rng(0)
  room = np.kron(rng.integers(0, 256, (30, 50, 3)), np.ones((8, 8, 1))).astype(np.uint8)
  y, x = np.indices((180, 320))

  def frame(number, drift):
    picture = room[20:200, 20 + drift * number : 340 + drift * number].copy()
    person = (x - 160 - 20 * np.sin(number)) ** 2 + (y - 110) ** 2 < 60**2
    picture[person] = (200, 120, 80 + 5 * (number % 9))
    return picture

  still = survey((frame(number, 0) for number in range(20)), 10)
  moves = survey((frame(number, 1) for number in range(20)), 10)
  assert still.camera(0, 20) < 0.001
  assert abs(moves.camera(0, 20) - 18 / 320) < 0.003 and abs(moves.camera(0, 10) - 8 / 320) < 0.003
  assert background_shift(np.zeros((180, 320), np.uint8), np.zeros((180, 320), np.uint8)) is None


def test_frames_with_missing_hands_are_counted(tmp_path, monkeypatch, standing_track):
  monkeypatch.setattr(clips_module, "fit_body", lambda body, films: body)  # slow
  write_posed_video(tmp_path / "film.mp4", disc_shot(1, 30), FPS)
  (tmp_path / "film.anchor").rename(tmp_path / "away")
  track = standing_track(30, (64, 64))
  hands, body = track.hands.copy(), track.body.copy()
  hands[3:6, 0] = np.nan  # 0.3 s is interpolated, 0.9 s is not
  hands[10:19, 1] = np.nan
  body[22:25] = np.nan
  info = probe(tmp_path / "film.mp4")
  opened, measured = OpenedFilm(tmp_path / "film.mp4", info, None), survey(read_frames(tmp_path / "film.mp4"), FPS)
  found = dataclasses.replace(standing_track(30, (64, 64), hands=hands, body=body), fps=float(FPS))
  (film,) = read_films([opened], [Findings(measured, found)], size=32, person="ann")
  assert film.guessed == (0, 9) and count_skipped(film.stretches) == {}  # 0.3 s without a person is interpolated
  body[22:27] = np.nan
  found = dataclasses.replace(found, body=body)
  (film,) = read_films([opened], [Findings(measured, found)], size=32, person="ann")
  assert [(len(s), s.reason) for s in film.stretches] == [(22, ""), (5, "no person"), (3, "short")]
  assert len(list(film.clips[0].frames)) == 22
