"""Black bars around a film are cropped; dark rooms, fades and people in front of black are not."""

import dataclasses

import numpy as np
import pytest
from film_files import pictures, write_film

from anchor_jax.films import clips as clips_module
from anchor_jax.films import poses as poses_module
from anchor_jax.films.clips import Film, Findings, read_films
from anchor_jax.films.poses import OpenedFilm
from anchor_jax.films.report import film_facts, film_lines
from anchor_jax.films.stretches import Stretch
from anchor_jax.films.survey import survey
from anchor_jax.inference.backgrounds import open_background
from anchor_jax.landmarks.framing import CropRect
from anchor_jax.video.bars import bars_of, borders_of, find_bars, probe_film
from anchor_jax.video.camera import open_camera
from anchor_jax.video.read import probe, read_frames


def add_bars(frames, left=0, top=0, right=0, bottom=0):
  """The pictures with black bars around them."""
  return [np.pad(frame, ((top, bottom), (left, right), (0, 0))) for frame in frames]


def film(path, frames, **options):
  return write_film(path, frames, options={"g": "5", "crf": "15", **options})


@pytest.mark.parametrize("bars", [(0, 12, 0, 12), (24, 0, 24, 0), (8, 10, 8, 10), (0, 12, 0, 14)])
@pytest.mark.parametrize("key_frames", ["5", "300"])
def test_bars_are_cropped(tmp_path, bars, key_frames):
  frames = pictures(30, (96, 64))
  path = film(tmp_path / "film.mp4", add_bars(frames, *bars), g=key_frames)
  info = probe_film(path)
  assert info.geometry.bars == pytest.approx(bars, abs=1)
  assert abs(info.width - 96) <= 2 and abs(info.height - 64) <= 2
  shown = list(read_frames(path, 7, info))
  assert shown[0].shape == (info.height, info.width, 3) and len(shown) == 23
  full = next(read_frames(path, 7, probe(path)))
  left, top, right, bottom = info.geometry.bars
  np.testing.assert_array_equal(shown[0], full[top : len(full) - bottom, left : full.shape[1] - right])


def fade(frames):
  return [(frame * min(1.0, number / 10)).astype(np.uint8) for number, frame in enumerate(frames)]


def test_a_film_that_fades_in_loses_only_its_bars(tmp_path):
  frames = fade(pictures(40, (96, 64)))
  path = film(tmp_path / "plain.mp4", frames)
  assert find_bars(path, probe(path)) == (0, 0, 0, 0)
  path = film(tmp_path / "framed.mp4", add_bars(frames, top=12, bottom=12))
  assert find_bars(path, probe(path)) == pytest.approx((0, 12, 0, 12), abs=1)


def person(count, center=48, width=96, height=96, room=0):
  """Head and shoulders in front of black: black above, left and right, and nearly symmetric."""
  y, x = np.indices((height, width))
  frames = []
  for number in range(count):
    at = center + 2 * np.sin(number / 3)
    head, body = np.hypot(x - at, y - 36) < 14, (y > 52) & (abs(x - at) < 12 + (y - 52) * 0.5)
    frames.append((np.where(head | body, 170, room)[..., None] * np.ones(3)).astype(np.uint8))
  return frames


def room(count):
  """A dark room: noise below 15, and a lamp in its middle."""
  source = np.random.default_rng(0)
  frames = [source.integers(2, 15, (96, 96, 3), np.uint8) for _ in range(count)]
  for frame in frames:
    frame[24:72, 20:76] = 120
    frame[30:50, 30:60] = 220
  return frames


def partly_barred(count):
  """Bars that end before the film does."""
  frames = add_bars(pictures(count, (96, 64)), top=16, bottom=16)
  frames[-8:] = pictures(8, (96, 96))
  return frames


def captioned(count):
  """A line of text in the lower bar."""
  frames = add_bars(pictures(count, (96, 64)), top=16, bottom=16)
  for frame in frames:
    frame[-8:-4, 20:76] = 220
  return frames


@pytest.mark.parametrize(
  "scene", [person, lambda count: person(count, room=4), room, partly_barred, captioned, lambda n: fade(person(n))]
)
def test_black_areas_that_are_not_bars_stay(tmp_path, scene):
  path = film(tmp_path / "film.mp4", scene(30))
  assert find_bars(path, probe(path)) == (0, 0, 0, 0)
  assert probe_film(path) == probe(path)


def test_a_single_bar_does_not_count():
  borders = [borders_of(frame) for frame in add_bars(pictures(6), top=10)]
  assert {found.top for found in borders if found is not None} == {10}
  assert bars_of([found for found in borders if found is not None], 64, 58) == (0, 0, 0, 0)


def test_dark_pictures_are_not_judged():
  assert borders_of(np.zeros((40, 60, 3), np.uint8)) is None and borders_of(np.full((40, 60, 3), 25, np.uint8)) is None


def test_crops_are_saved_relative_to_the_full_picture(tmp_path, monkeypatch, standing_track):
  """So --like means the same part of the picture for folders from before and after bar cropping."""
  monkeypatch.setattr(clips_module, "fit_body", lambda body, films: body)  # slow
  path = film(tmp_path / "film.mp4", add_bars(pictures(30, (64, 64)), left=32, right=32))
  clips = {}
  for info, crop in ((probe_film(path), None), (probe(path), CropRect.square(32, 0, 64, 32))):
    findings = Findings(survey(read_frames(path, info=info), 25), standing_track(30, (info.width, info.height)))
    (found,) = read_films([OpenedFilm(path, info, None)], [findings], size=32, person="ann", crop=crop)
    clips[crop] = found.clips[0]
    if crop is None:
      assert info.width == 64
  first, second = clips.values()
  assert first.crop == second.crop == (32, 0, 64)
  for one, other in zip(first.frames, second.frames, strict=True):
    np.testing.assert_array_equal(one.frame, other.frame)


def test_person_at_is_relative_to_the_full_picture(tmp_path, monkeypatch, standing_track):
  path = film(tmp_path / "film.mp4", add_bars(pictures(30, (96, 64)), left=48, right=48))
  info = probe_film(path)
  faces = [(number, np.array([[8, 10, 12, 12], [70, 10, 12, 12]], np.float32)) for number in range(0, 30, 2)]
  monkeypatch.setattr(poses_module, "find_faces", lambda *_, **__: faces)
  track = standing_track(30, (96, 64))
  columns_of = lambda path, info, **options: dataclasses.replace(track, columns=options["columns"])
  monkeypatch.setattr(poses_module, "track_video", columns_of)
  for point in ((0.65, 0.3), (125, 18)):
    found, chosen = poses_module.find_track(OpenedFilm(path, info, None, person_at=point))
    assert chosen is not None and chosen.place == pytest.approx(((48 + 76) / 192, 16 / 64), abs=0.02)
    assert found.columns is not None and (found.columns[:, 1] == 96).all() and (found.columns[:, 0] > 30).all()


def test_cropped_bars_are_reported(tmp_path):
  """In a line of output and in meta.json."""
  path = film(tmp_path / "film.mp4", add_bars(pictures(30, (64, 64)), top=12, bottom=12))
  facts = Film("film", probe_film(path), survey(read_frames(path), 25), [Stretch(0, 30, 0, "")], None, [])
  (entry,) = film_facts([facts])
  assert entry["bars"] == [0, 12, 0, 12] and entry["stored"] == [64, 88] and not entry["mirrored"]
  assert film_lines([entry]) == ["film: black bars are cropped: 0 columns left, 0 right, 12 rows above, 12 below"]


def test_backgrounds_and_camera_films_are_cropped_too(tmp_path):
  path = film(tmp_path / "film.mp4", add_bars(pictures(30, (64, 64)), left=32, right=32))
  assert next(open_background(str(path)).frames(32, 25, 0)).min() > 20
  path = film(tmp_path / "wide.mp4", add_bars(pictures(30, (96, 64)), top=16, bottom=16))
  camera = open_camera(path, sleep=lambda _: None)
  image = camera.read()
  assert image is not None and image.shape == (64, 96, 3)
