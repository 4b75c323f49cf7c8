"""Looks at many films: kept in files, by several processes, and a run that was stopped ends as one that was not."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from films import FPS, disc_shot

from anchor_jax.core.errors import UserError
from anchor_jax.films import looks as module
from anchor_jax.films.clips import FilmLook
from anchor_jax.films.looks import look_at_all, write_look
from anchor_jax.films.poses import check_video
from anchor_jax.films.survey import survey
from anchor_jax.landmarks.people import ChosenPerson
from anchor_jax.landmarks.sidecar import write_posed_video
from anchor_jax.prepare import prepare


@pytest.fixture(scope="module")
def films(tmp_path_factory):
  folder = tmp_path_factory.mktemp("films")
  for number in range(4):
    write_posed_video(folder / f"{number}.mp4", disc_shot(number, 8), FPS)
  return sorted(folder.glob("*.mp4"))


def content(folder):
  return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def whole(films, tmp_path_factory):
  folder = tmp_path_factory.mktemp("whole") / "ana"
  prepare(films, folder, size=32)
  return content(folder)


def test_what_is_kept_is_what_was_found(tmp_path, standing_track):
  seen = survey((item.frame for item in disc_shot(1, 8)), FPS)
  columns = np.stack([np.arange(8), np.arange(8) + 40], axis=1)
  masks = tuple(cv2.imencode(".png", np.full((64, 64), number, np.uint8))[1].tobytes() for number in range(8))
  track = dataclasses.replace(standing_track(8, (64, 64)), masks=masks, columns=columns)
  people = ChosenPerson(2, (0.25, 0.4), columns, np.arange(8) > 5)
  for look in (FilmLook(seen, None), FilmLook(seen, track), FilmLook(seen, track, people)):
    write_look(tmp_path / "one.npz", look)
    again = module._read(tmp_path / "one.npz")
    assert again is not None
    assert (again.survey.places, again.survey.thumbnails) == (seen.places, seen.thumbnails)
    for made, wanted in zip(again, look, strict=True):
      assert (made is None) == (wanted is None)
      fields = (
        () if wanted is None else getattr(wanted, "_fields", None) or [f.name for f in dataclasses.fields(wanted)]
      )
      for name in fields:
        np.testing.assert_array_equal(getattr(made, name), getattr(wanted, name))
  (tmp_path / "one.npz").write_bytes((tmp_path / "one.npz").read_bytes()[:-100])
  assert module._read(tmp_path / "one.npz") is None


def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(films, whole, tmp_path, monkeypatch):
  look, looked_at = module.look_at, []

  def stopped(video, **options):
    looked_at.append(video.path.name)
    if len(looked_at) == 3:
      raise KeyboardInterrupt
    return look(video, **options)

  monkeypatch.setattr(module, "look_at", stopped)
  with pytest.raises(KeyboardInterrupt):
    prepare(films, tmp_path / "ana", size=32)
  assert not (tmp_path / "ana").exists() and len(list((tmp_path / "ana.looks").iterdir())) == 2
  prepare(films, tmp_path / "ana", size=32)
  assert looked_at == ["0.mp4", "1.mp4", "2.mp4", "2.mp4", "3.mp4"]
  assert content(tmp_path / "ana") == whole and [path.name for path in tmp_path.iterdir()] == ["ana"]
  # a film that has changed since is looked at again
  look_at_all([check_video(films[0])], tmp_path / "looks")
  os.utime(films[0], ns=(0, 0))
  look_at_all([check_video(film) for film in films[:2]], tmp_path / "looks")
  assert looked_at[5:] == ["0.mp4", "0.mp4", "1.mp4"]
  with pytest.raises(UserError, match="--workers=0: at least 1"):
    prepare(films, tmp_path / "none", workers=0)


@pytest.mark.slow
def test_killed_anywhere_several_processes_end_with_the_same_bytes(films, whole, tmp_path):
  command = [sys.executable, "-m", "anchor_jax.prepare", *map(str, films), "--size=32", "--workers=2"]
  command.append(f"--output={tmp_path / 'ana'}")
  kept = []
  for wait in (2.0, 4.0, 6.0, 8.0, None):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    if wait is None:
      assert process.wait(300) == 0, process.stderr and process.stderr.read()
    else:
      time.sleep(wait)
      os.killpg(process.pid, signal.SIGKILL)
      process.wait()
      kept.append(len(list((tmp_path / "ana.looks").glob("*.npz"))) if (tmp_path / "ana.looks").exists() else 0)
  assert content(tmp_path / "ana") == whole, kept
