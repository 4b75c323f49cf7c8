import subprocess
import sys

import numpy as np
import pytest

from anchor_jax import prepare as door
from anchor_jax.data.records import open_prepared
from anchor_jax.errors import UserError
from anchor_jax.motion.video import VideoWriter
from anchor_jax.studio.film import write_studio_video


@pytest.fixture(scope="module")
def film(tmp_path_factory):
  path = tmp_path_factory.mktemp("film") / "film.mp4"
  count = write_studio_video(
    path, identity_seed=3, motion_seed=4, seconds=0.4, size=64, fps=10, workers=1, progress=None
  )
  assert count == 4
  return path


def test_a_studio_video(film, tmp_path):
  meta = door.prepare([film], tmp_path / "ana", size=32)
  source = open_prepared(tmp_path / "ana")
  assert len(source) == meta["frames"] == 4 and source.has_landmarks.all() and meta["people"] == ["ana"]
  record = source[2]
  assert record["frame"].shape == record["pose"].shape == (32, 32, 3)
  assert 0 < (record["face_mask"] > 0).sum() < (record["person_mask"] > 0).sum()
  assert meta["videos"][0]["square"] == [0, 0, 64]
  again = door.prepare([film], tmp_path / "again", size=32, like=tmp_path / "ana", fps=5, person="Ana")
  assert again["frames"] == 2 and again["people"] == ["Ana"] and again["fps"] == 5


def test_studio_people(tmp_path):
  meta = door.prepare_studio(2, 2, tmp_path / "people", size=32)
  source = open_prepared(tmp_path / "people")
  assert meta["people"] == ["studio 0", "studio 1"] and source.people.tolist() == [0, 0, 1, 1]
  assert np.abs(source[0]["frame"].astype(int) - source[2]["frame"]).mean() > 5


def run(*arguments):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sys, "argv", ["prepare", *map(str, arguments)])
    door.main()


@pytest.mark.parametrize(
  "arguments, told",
  [
    (["FILM/flim.mp4", "--output=OUT/x"], "Did you mean"),
    (["FILM", "--output=OUT/x"], "is a folder"),
    (["OUT/empty.mp4", "--output=OUT/x"], "is empty"),
    (["OUT/cut.mp4", "--output=OUT/x"], "cut off"),
    (["OUT/film.mp4", "--output=OUT/x"], "frames"),
    (["FILM/film.mp4", "--output=OUT/empty.mp4/x"], "cannot write"),
    (["FILM/film.mp4", "--output=OUT"], "something else"),
    (["FILM/film.mp4", "--output=OUT/x", "--size=33"], "multiple of 8"),
    (["FILM/film.mp4", "--output=OUT/x", "--fps=0"], "--fps=0"),
    (["FILM/film.mp4", "--output=OUT/x", "--like=FILM"], "not a prepared folder"),
    (["FILM/film.mp4"], "--output"),
    (["--output=OUT/x"], "name the videos"),
    (["FILM/film.mp4", "--studio=3", "--output=OUT/x"], "not both"),
    (["--studio=0", "--output=OUT/x"], "at least 1"),
    (["FILM/film.mp4", "--outptu=OUT/x", "--output=OUT/x"], "--outptu"),
  ],
)
def test_mistakes_take_one_line(film, tmp_path, capsys, arguments, told):
  data = film.read_bytes()
  (tmp_path / "empty.mp4").write_bytes(b"")
  (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
  with VideoWriter(tmp_path / "film.mp4", 10) as writer:  # another length than its poses
    writer.write(np.zeros((64, 64, 3), np.uint8))
  (tmp_path / "film.anchor").symlink_to(film.with_suffix(".anchor"))
  with pytest.raises(SystemExit) as ended:
    run(*(argument.replace("FILM", str(film.parent)).replace("OUT", str(tmp_path)) for argument in arguments))
  printed = capsys.readouterr()
  assert ended.value.code == 2 and told in printed.err
  assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
  assert not (tmp_path / "x").exists()


def test_an_earlier_folder_survives_a_mistake(film, tmp_path):
  run(film, f"--output={tmp_path / 'ana'}", "--size=32")
  (tmp_path / "cut.mp4").write_bytes(film.read_bytes()[:-200])
  with pytest.raises(UserError):
    door.prepare([film, tmp_path / "nothing.mp4"], tmp_path / "ana")
  assert len(open_prepared(tmp_path / "ana")) == 4


def test_help_shows_an_example():
  done = subprocess.run([sys.executable, "-m", "anchor_jax.prepare", "--help"], capture_output=True, text=True)
  assert done.returncode == 0 and "python -m anchor_jax.prepare ana_1.mp4" in done.stdout
