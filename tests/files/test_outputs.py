import errno
import os

import pytest

from anchor_jax.core.errors import UserError
from anchor_jax.files.manifest import LIST, FolderKind, files_in
from anchor_jax.files.outputs import (
  check_folder,
  check_output_file,
  new_file,
  new_folder,
  partial_path,
  prepare_parent,
  refuse_overwriting,
)

THINGS = FolderKind("things", rebuilt="cache/[0-9]+")


def test_a_file_appears_complete_or_not_at_all(tmp_path):
  path = tmp_path / "deep" / "note.txt"
  with new_file(path) as partial:
    assert partial == partial_path(path) == tmp_path / "deep" / "note.partial.txt"
    partial.write_text("first")
    assert not path.exists()
  with pytest.raises(RuntimeError), new_file(path) as partial:
    partial.write_text("second")
    raise RuntimeError
  assert path.read_text() == "first" and len(list(path.parent.iterdir())) == 1


def test_a_folder_is_replaced_and_never_merged(tmp_path):
  path = tmp_path / "things"
  for name in ("a", "b"):
    with new_folder(path, THINGS) as partial:
      (partial / name).write_text(name)
  assert list(files_in(path)) == [LIST, "b"]
  with pytest.raises(RuntimeError), new_folder(path, THINGS) as partial:
    (partial / "c").write_text("c")
    raise RuntimeError
  assert list(files_in(path)) == [LIST, "b"] and len(list(tmp_path.iterdir())) == 1


def write_things(path):
  with new_folder(path, THINGS) as partial:
    (partial / "below").mkdir()
    for name in ("a.json", "below/b.bin"):
      (partial / name).write_text(name)
  return path


@pytest.mark.parametrize(
  "place,reason",
  [
    ("thesis.txt", "holds thesis.txt, which was not written by this command"),
    ("below/thesis.txt", "holds below/thesis.txt, which was not"),
    ("new/deep/er", "holds new/deep/er, which was not"),
    ("below/b.bin", "holds below/b.bin, which was changed since it was written"),
  ],
)
def test_files_of_others_are_never_deleted(tmp_path, place, reason):
  path = write_things(tmp_path / "things")
  (path / place).parent.mkdir(parents=True, exist_ok=True)
  (path / place).write_text("years")
  for write in (write_things, lambda path: check_folder(path, THINGS)):
    with pytest.raises(UserError, match=reason) as error:
      write(path)
    assert "\n" not in str(error.value)
  assert (path / place).read_text() == "years" and [p.name for p in tmp_path.iterdir()] == ["things"]


def test_links_other_kinds_and_folders_without_a_list_are_not_replaced(tmp_path):
  path = write_things(tmp_path / "things")
  with pytest.raises(UserError, match=r"which something else wrote \(things\)"):
    check_folder(path, FolderKind("others"))
  (path / "a.json").unlink()
  check_folder(path, THINGS)  # missing files lose nothing
  (path / "a.json").symlink_to(path / "below/b.bin")
  with pytest.raises(UserError, match=r"a\.json"):
    check_folder(path, THINGS)
  (path / LIST).unlink()
  with pytest.raises(UserError, match=r"a\.json, which was not written by this command or by an earlier version"):
    check_folder(path, THINGS)
  check_folder(path, FolderKind("things", lambda folder: ("below/b.bin",), r"a\.json"))
  (path / LIST).write_text("{")
  with pytest.raises(UserError, match="which is damaged"):
    check_folder(path, THINGS)


def test_rebuilt_files_and_leftovers_of_an_interrupted_writer_are_deleted(tmp_path):
  path = write_things(tmp_path / "things")
  (path / "cache").mkdir()
  (path / "cache/17").write_text("x")
  with pytest.raises(KeyboardInterrupt), new_folder(path, THINGS) as partial:
    leftovers = [(file.name, file.read_text()) for file in partial.iterdir()]
    raise KeyboardInterrupt
  for name, text in leftovers:  # as a killed writer leaves them
    partial.mkdir()
    (partial / name).write_text(text)
    (partial / "half").write_text("half")
  write_things(path)
  assert list(files_in(tmp_path)) == [f"things/{name}" for name in (LIST, "a.json", "below/b.bin")]


@pytest.mark.parametrize("name", ["things.partial", "things.partial-old"])
def test_folders_of_others_with_a_temporary_name_are_not_deleted(tmp_path, name):
  (tmp_path / name).mkdir()
  (tmp_path / name / "thesis.txt").write_text("years")
  with pytest.raises(UserError, match=rf"{name} holds thesis\.txt"):
    write_things(tmp_path / "things")
  assert (tmp_path / name / "thesis.txt").read_text() == "years"


def test_files_that_appear_during_writing_are_not_deleted_and_neither_are_the_new_ones(tmp_path):
  path = write_things(tmp_path / "things")
  with pytest.raises(UserError, match=r"holds thesis\.txt.*the new files are in .*things\.partial"):
    with new_folder(path, THINGS) as partial:
      (partial / "new").write_text("new")
      (path / "thesis.txt").write_text("years")
  assert (path / "thesis.txt").read_text() == "years" and (partial / "new").read_text() == "new"


def test_a_link_to_a_folder_remains_a_link(tmp_path):
  path = write_things(tmp_path / "disk")
  (tmp_path / "things").symlink_to(path)
  write_things(tmp_path / "things")
  assert (tmp_path / "things").is_symlink() and (path / "a.json").exists()
  assert sorted(p.name for p in tmp_path.iterdir()) == ["disk", "things"]


def test_operating_system_errors_are_one_line(tmp_path):
  (tmp_path / "file").write_text("x")
  with pytest.raises(UserError, match="cannot write"), new_file(tmp_path / "file" / "x"):
    pass
  with pytest.raises(UserError, match="is a folder"), new_file(tmp_path):
    pass
  with pytest.raises(UserError, match="is a file"), new_folder(tmp_path / "file", THINGS):
    pass
  with pytest.raises(UserError, match="disk is full"), new_file(tmp_path / "big"):
    raise OSError(errno.ENOSPC, "No space left on device")
  assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_devices_are_not_replaced_and_links_and_pipes_not_followed(tmp_path):
  os.mkfifo(tmp_path / "pipe")
  (tmp_path / "null").symlink_to("/dev/null")
  for name in ("pipe", "null"):
    with pytest.raises(UserError, match="not a regular file"), new_file(tmp_path / name):
      pass
  (tmp_path / "notes").write_text("notes")
  (tmp_path / "a.partial.txt").symlink_to("notes")
  os.mkfifo(tmp_path / "b.partial.txt")
  for name in ("a.txt", "b.txt"):
    with new_file(tmp_path / name) as partial:
      partial.write_text("new")  # would block on the pipe
    assert (tmp_path / name).read_text() == "new"
  assert (tmp_path / "notes").read_text() == "notes"


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
  "output, source",
  [
    ("film/clip.mp4", "film/clip.mp4"),
    ("film/../film/clip.mp4", "film/clip.mp4"),
    ("out/soft.mp4", "film/clip.mp4"),
    ("film/clip.mp4", "out/soft.mp4"),
    ("out/hard.mp4", "film/clip.mp4"),
    ("out/films/clip.mp4", "film/clip.mp4"),
    ("film/late.mp4", "film/clip.mp4"),  # written as late.partial.mp4 first
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
def test_inputs_are_not_overwritten(tmp_path, monkeypatch, output, source):
  _linked(tmp_path)
  monkeypatch.chdir(tmp_path)
  for target, path in ((output, source), (tmp_path / output, source), (output, tmp_path / source)):
    with pytest.raises(UserError, match="would overwrite an input") as error:
      refuse_overwriting(target, ["nothing.mp4", path])
    assert "\n" not in str(error.value)


def test_outputs_beside_inputs_are_allowed(tmp_path):
  _linked(tmp_path)
  inputs = [tmp_path / "film" / "clip.mp4", tmp_path / "film" / "prepared", tmp_path / "nothing.mp4"]
  for output in ("film/other.mp4", "film/clip.avi", "film/prepared2", "out/new/clip.mp4", "nothing.mp4", "film/clip"):
    refuse_overwriting(tmp_path / output, inputs)


@pytest.mark.parametrize("name", ["n" * 300, "n" * 250 + ".mp4", "a/" * 3000 + "x.mp4"])
def test_too_long_names_are_refused_in_one_line(tmp_path, name):
  for write in (
    prepare_parent,
    lambda path: new_file(path).__enter__(),
    lambda path: new_folder(path, THINGS).__enter__(),
  ):
    with pytest.raises(UserError, match="too long"):
      write(tmp_path / name)


def test_paths_without_a_name_are_refused(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match="is a folder"), new_file("."):
    pass
  with pytest.raises(UserError, match="cannot be an output"):
    prepare_parent("/")
  assert partial_path(".").parent == tmp_path.parent


def test_outputs_need_a_valid_suffix_and_replace_only_earlier_outputs(tmp_path):
  path, film = tmp_path / "report.json", tmp_path / "film.mp4"
  film.write_text("film")
  with pytest.raises(UserError, match=r"--output=.*film\.mp4: name a file that ends in \.json"):
    check_output_file("--output", film, (".json",), lambda path: True)
  check_output_file("--output", path, (".json",), lambda path: False)
  path.write_text("")
  check_output_file("--output", path, (".json",), lambda path: False)
  path.write_text("{}")
  check_output_file("--output", path, (".json",), lambda path: True)
  with pytest.raises(UserError, match="was not written by this command"):
    check_output_file("--output", path, (".json",), lambda path: False)
