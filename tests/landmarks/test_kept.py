"""Landmarks that were found before are read instead of found again; a film that changed is looked at anew."""

import dataclasses
import os

import numpy as np
import pytest
from film_files import pictures, write_film

from anchor_jax.landmarks import kept
from anchor_jax.landmarks.kept import KeptTracks

FRAMES = 6


@pytest.fixture
def film(tmp_path, monkeypatch):
  monkeypatch.setenv("ANCHOR_JAX_TRACKS", str(tmp_path / "tracks"))
  return write_film(tmp_path / "film.mp4", pictures(FRAMES))


@pytest.fixture
def track(standing_track):
  raw = standing_track(FRAMES)
  raw.body[2:4] = np.nan
  columns = np.tile([3, 70], (FRAMES, 1))
  masks = tuple(bytes([number]) * number for number in range(FRAMES))
  sure = np.linspace(0, 1, FRAMES * 33, dtype=np.float32).reshape(FRAMES, 33)
  return dataclasses.replace(raw, cuts=(4,), columns=columns, masks=masks, visible=sure)


def same(one, other):
  for field in dataclasses.fields(one):
    np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), err_msg=field.name)


def test_a_track_comes_back_as_it_was(film, track):
  for each in (track, dataclasses.replace(track, columns=None, visible=None, masks=(), cuts=())):
    KeptTracks(film, "a").write("some", each)
    found = KeptTracks(film, "a").read("some")
    assert found is not None
    same(found, each)
  assert KeptTracks(film, "a").read("others") is None


def test_other_films_and_other_settings_have_tracks_of_their_own(film, track, tmp_path):
  KeptTracks(film, "a").write("some", track)
  assert KeptTracks(film, "b").read("some") is None
  renamed = film.rename(tmp_path / "renamed.mp4")
  assert KeptTracks(renamed, "a").read("some") is not None  # what counts is the content
  data = bytearray(renamed.read_bytes())
  data[len(data) // 2] ^= 1
  renamed.write_bytes(data)
  assert KeptTracks(renamed, "a").read("some") is None


def test_damaged_files_are_as_if_they_were_not_there(film, track):
  tracks = KeptTracks(film)
  tracks.write("some", track)
  (file,) = tracks._folder.iterdir()
  whole = file.read_bytes()
  for content in (b"", whole[:-200], whole[: len(whole) // 2], b"no track"):
    file.write_bytes(content)
    assert tracks.read("some") is None
  tracks.write("some", track)
  same(tracks.read("some"), track)


def test_nothing_is_kept_without_a_folder(film, track, tmp_path, monkeypatch):
  for folder in ("", str(film / "below_a_file")):
    monkeypatch.setenv("ANCHOR_JAX_TRACKS", folder)
    KeptTracks(film).write("some", track)
    assert KeptTracks(film).read("some") is None
  assert not (tmp_path / "tracks").exists()


def test_films_that_were_used_longest_ago_make_room(film, track, tmp_path, monkeypatch):
  for number in range(4):
    KeptTracks(film, number).write("some", track)
    long_ago = 1_000_000_000 + number
    os.utime(KeptTracks(film, number)._folder, (long_ago, long_ago))
  size = sum(file.stat().st_size for file in (tmp_path / "tracks").glob("*/*"))
  monkeypatch.setattr(kept, "LARGEST", size * 5 // 8)
  KeptTracks(film, 4)
  assert [KeptTracks(film, number).read("some") is not None for number in range(4)] == [False, False, True, True]
