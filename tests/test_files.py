import errno
import os

import pytest

from anchor_jax.errors import UserError
from anchor_jax.files import new_file, new_folder, partial_path, prepare_parent, refuse_overwriting


def test_a_file_appears_whole_or_not_at_all(tmp_path):
  path = tmp_path / "deep" / "note.txt"
  with new_file(path) as partial:
    assert partial == partial_path(path) == tmp_path / "deep" / "note.partial.txt"
    partial.write_text("first")
    assert not path.exists()
  with pytest.raises(RuntimeError), new_file(path) as partial:
    partial.write_text("second")
    raise RuntimeError
  assert path.read_text() == "first" and len(list(path.parent.iterdir())) == 1


def test_a_folder_is_replaced_as_a_whole(tmp_path):
  path = tmp_path / "things"
  for name in ("a", "b"):
    with new_folder(path) as partial:
      (partial / name).write_text(name)
  assert [p.name for p in path.iterdir()] == ["b"]
  with pytest.raises(RuntimeError), new_folder(path) as partial:
    (partial / "c").write_text("c")
    raise RuntimeError
  assert [p.name for p in path.iterdir()] == ["b"] and len(list(tmp_path.iterdir())) == 1


def test_what_the_system_refuses_takes_one_line(tmp_path):
  (tmp_path / "file").write_text("x")
  with pytest.raises(UserError, match="cannot write"), new_file(tmp_path / "file" / "x"):
    pass
  with pytest.raises(UserError, match="is a folder"), new_file(tmp_path):
    pass
  with pytest.raises(UserError, match="is a file"), new_folder(tmp_path / "file"):
    pass
  with pytest.raises(UserError, match="disk is full"), new_file(tmp_path / "big"):
    raise OSError(errno.ENOSPC, "No space left on device")
  assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_outputs_replace_no_device_and_are_written_through_no_link_or_pipe(tmp_path):
  os.mkfifo(tmp_path / "pipe")
  (tmp_path / "null").symlink_to("/dev/null")
  for name in ("pipe", "null"):
    with pytest.raises(UserError, match="no regular file"), new_file(tmp_path / name):
      pass
  (tmp_path / "hers").write_text("hers")
  (tmp_path / "a.partial.txt").symlink_to("hers")
  os.mkfifo(tmp_path / "b.partial.txt")
  for name in ("a.txt", "b.txt"):
    with new_file(tmp_path / name) as partial:
      partial.write_text("new")  # would wait for a reader of the pipe
    assert (tmp_path / name).read_text() == "new"
  assert (tmp_path / "hers").read_text() == "hers"


def _linked(tmp_path):
  """A video with a sidecar, a prepared folder, and links to them."""
  for folder in ("film/clip.anchor", "film/prepared", "out"):
    (tmp_path / folder).mkdir(parents=True)
  (tmp_path / "film" / "clip.mp4").write_text("film")
  (tmp_path / "film" / "prepared" / "meta.json").write_text("{}")
  (tmp_path / "out" / "soft.mp4").symlink_to(tmp_path / "film" / "clip.mp4")
  os.link(tmp_path / "film" / "clip.mp4", tmp_path / "out" / "hard.mp4")
  (tmp_path / "out" / "films").symlink_to(tmp_path / "film")
  (tmp_path / "film" / "late.partial.mp4").symlink_to(tmp_path / "film" / "clip.mp4")


@pytest.mark.parametrize(
  "output, given",
  [
    ("film/clip.mp4", "film/clip.mp4"),
    ("film/../film/clip.mp4", "film/clip.mp4"),
    ("out/soft.mp4", "film/clip.mp4"),
    ("film/clip.mp4", "out/soft.mp4"),
    ("out/hard.mp4", "film/clip.mp4"),
    ("out/films/clip.mp4", "film/clip.mp4"),
    ("film/late.mp4", "film/clip.mp4"),  # what is written first is late.partial.mp4
    ("film/late.mp4", "film/late.partial.mp4"),
    ("film", "film/clip.mp4"),
    ("out/films", "film/clip.mp4"),
    ("out", "out/soft.mp4"),
    ("film/clip.anchor", "film/clip.mp4"),
    ("film/clip.anchor/pose.mkv", "film/clip.mp4"),
    ("film/prepared", "film/prepared"),
    ("film/prepared/clip.mp4", "film/prepared"),
    (".", "film/clip.mp4"),
  ],
)
def test_no_input_is_overwritten(tmp_path, monkeypatch, output, given):
  _linked(tmp_path)
  monkeypatch.chdir(tmp_path)
  for place, source in ((output, given), (tmp_path / output, given), (output, tmp_path / given)):
    with pytest.raises(UserError, match="would overwrite an input") as error:
      refuse_overwriting(place, ["nothing.mp4", source])
    assert "\n" not in str(error.value)


def test_outputs_beside_inputs_are_allowed(tmp_path):
  _linked(tmp_path)
  inputs = [tmp_path / "film" / "clip.mp4", tmp_path / "film" / "prepared", tmp_path / "nothing.mp4"]
  for output in ("film/other.mp4", "film/clip.avi", "film/prepared2", "out/new/clip.mp4", "nothing.mp4", "film/clip"):
    refuse_overwriting(tmp_path / output, inputs)


@pytest.mark.parametrize("name", ["n" * 300, "n" * 250 + ".mp4", "a/" * 3000 + "x.mp4"])
def test_names_that_are_too_long_take_one_line(tmp_path, name):
  for write in (prepare_parent, lambda path: new_file(path).__enter__(), lambda path: new_folder(path).__enter__()):
    with pytest.raises(UserError, match="too long"):
      write(tmp_path / name)


def test_paths_without_a_name(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match="is a folder"), new_file("."):
    pass
  with pytest.raises(UserError, match="cannot be an output"):
    prepare_parent("/")
  assert partial_path(".").parent == tmp_path.parent
