"""Findings of many films: saved to files by several processes; a resumed run writes the same bytes."""

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
from anchor_jax.films import findings as module
from anchor_jax.films.clips import Findings
from anchor_jax.films.findings import examine_all, write_findings
from anchor_jax.films.poses import open_film
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
def uninterrupted(films, tmp_path_factory):
  """The content of a folder that was prepared without interruption."""
  folder = tmp_path_factory.mktemp("uninterrupted") / "ana"
  prepare(films, folder, size=32)
  return content(folder)


def test_findings_round_trip_through_a_file(tmp_path, standing_track):
  measured = survey((item.frame for item in disc_shot(1, 8)), FPS)
  columns = np.stack([np.arange(8), np.arange(8) + 40], axis=1)
  masks = tuple(cv2.imencode(".png", np.full((64, 64), number, np.uint8))[1].tobytes() for number in range(8))
  track = dataclasses.replace(standing_track(8, (64, 64)), masks=masks, columns=columns)
  chosen = ChosenPerson(2, (0.25, 0.4), columns, np.arange(8) > 5)
  for findings in (Findings(measured, None), Findings(measured, track), Findings(measured, track, chosen)):
    write_findings(tmp_path / "one.npz", findings)
    found = module._read(tmp_path / "one.npz")
    assert found is not None
    assert (found.survey.places, found.survey.thumbnails) == (measured.places, measured.thumbnails)
    for actual, expected in zip(found, findings, strict=True):
      assert (actual is None) == (expected is None)
      if expected is None:
        continue
      for name in getattr(expected, "_fields", None) or [field.name for field in dataclasses.fields(expected)]:
        np.testing.assert_array_equal(getattr(actual, name), getattr(expected, name))
  (tmp_path / "one.npz").write_bytes((tmp_path / "one.npz").read_bytes()[:-100])
  assert module._read(tmp_path / "one.npz") is None


def test_an_interrupted_run_resumes_to_the_same_bytes(films, uninterrupted, tmp_path, monkeypatch):
  examine, examined = module.examine, []

  def interrupted(film, **options):
    examined.append(film.path.name)
    if len(examined) == 3:
      raise KeyboardInterrupt
    return examine(film, **options)

  monkeypatch.setattr(module, "examine", interrupted)
  with pytest.raises(KeyboardInterrupt):
    prepare(films, tmp_path / "ana", size=32)
  assert not (tmp_path / "ana").exists() and len(list((tmp_path / "ana.looks").iterdir())) == 2
  prepare(films, tmp_path / "ana", size=32)
  assert examined == ["0.mp4", "1.mp4", "2.mp4", "2.mp4", "3.mp4"]
  assert content(tmp_path / "ana") == uninterrupted and [path.name for path in tmp_path.iterdir()] == ["ana"]
  # a film that was modified is examined again
  examine_all([open_film(films[0])], tmp_path / "looks")
  os.utime(films[0], ns=(0, 0))
  examine_all([open_film(film) for film in films[:2]], tmp_path / "looks")
  assert examined[5:] == ["0.mp4", "0.mp4", "1.mp4"]
  with pytest.raises(UserError, match="--workers=0: at least 1"):
    prepare(films, tmp_path / "none", workers=0)


@pytest.mark.slow
def test_several_processes_killed_anywhere_resume_to_the_same_bytes(films, uninterrupted, tmp_path):
  command = [sys.executable, "-m", "anchor_jax.prepare", *map(str, films), "--size=32", "--workers=2"]
  command.append(f"--output={tmp_path / 'ana'}")
  saved = []
  for wait in (2.0, 4.0, 6.0, 8.0, None):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    if wait is None:
      assert process.wait(300) == 0, process.stderr and process.stderr.read()
    else:
      time.sleep(wait)
      os.killpg(process.pid, signal.SIGKILL)
      process.wait()
      saved.append(len(list((tmp_path / "ana.looks").glob("*.npz"))) if (tmp_path / "ana.looks").exists() else 0)
  assert content(tmp_path / "ana") == uninterrupted, saved
