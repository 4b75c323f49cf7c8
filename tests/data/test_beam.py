"""The Beam pipeline over many films, and its steps called one by one."""

import numpy as np
import pytest
from films import FPS, disc_shot

from anchor_jax import prepare as command
from anchor_jax.core.errors import UserError
from anchor_jax.data.beam import find_landmarks, join, prepare_with_beam, tasks_of, write_shard
from anchor_jax.data.record_fields import FIELDS
from anchor_jax.data.records import open_prepared
from anchor_jax.landmarks.sidecar import write_posed_video

OPTIONS = {"size": 32, "fps": None, "landmarks": "mediapipe", "cut_off": False, "person_at": None}


@pytest.fixture(scope="module")
def films(tmp_path_factory):
  folder = tmp_path_factory.mktemp("films")
  for number in range(10):
    (folder / f"{number // 2}").mkdir(exist_ok=True)
    frames = disc_shot(number, 6 + number) if number != 4 else disc_shot(4, 8) + disc_shot(40, 8)  # one with a cut
    write_posed_video(folder / f"{number // 2}" / f"{number}.mp4", frames, FPS)
  return sorted(folder.glob("*/*.mp4"))


def step_by_step(films, output, **options):
  """Runs the pipeline's steps without Beam, in another order."""
  tasks = tasks_of(films, output, **{"person": None, **OPTIONS, **options})
  found = [find_landmarks(task) for task in tasks[::-1]]
  return join(tasks, [write_shard(film, found) for film in found], found)


def content(folder):
  return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_records_are_equal_to_those_of_prepare(films, tmp_path):
  meta = step_by_step(films[3:6], tmp_path / "many", person="Ana")
  command.prepare(films[3:6], tmp_path / "one", size=32, person="Ana")
  many, one = open_prepared(tmp_path / "many"), open_prepared(tmp_path / "one")
  assert len([name for name in meta["files"] if "of-00003" in name]) == 3
  for name in ("videos", "people", "measures", "films", "frames", "without_surface", "without_landmarks"):
    assert many.meta[name] == one.meta[name], name
  for number in (0, 9, 20, len(one) - 1):
    for name in FIELDS:
      np.testing.assert_array_equal(many[number][name], one[number][name])


def test_each_film_is_a_person_and_broken_films_are_reported(films, tmp_path):
  broken = tmp_path / "3" / "1.mp4"
  broken.parent.mkdir()
  broken.write_bytes(b"no film")
  meta = step_by_step([films[0], broken, films[1], films[0]], tmp_path / "many")
  assert meta["people"] == ["0", "0/1"] and list(meta["left_out"]) == [str(broken)]
  source = open_prepared(tmp_path / "many")
  assert source.people.tolist() == [0] * 6 + [1] * 7 and source[6]["person"] == 1 == source[6]["video"]
  assert not list(tmp_path.glob("*looks*"))
  with pytest.raises(UserError, match="none of the films"):
    step_by_step([broken], tmp_path / "none")


def test_a_beam_run_over_ten_films_is_repeatable(films, tmp_path):
  pytest.importorskip("apache_beam")
  meta = prepare_with_beam(films, tmp_path / "beam", ["--direct_num_workers=1"], person=None, **OPTIONS)
  assert len(meta["people"]) == len(meta["files"]) == 10 and meta["frames"] == 111 and len(meta["videos"]) == 11
  first = content(tmp_path / "beam")
  prepare_with_beam(films, tmp_path / "beam", person=None, **OPTIONS)
  assert content(tmp_path / "beam") == first
  step_by_step(films, tmp_path / "steps")
  assert content(tmp_path / "steps") == first
