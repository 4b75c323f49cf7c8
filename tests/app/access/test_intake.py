"""Stored uploads: each belongs to one visitor, even with equal bytes, within limits."""

import pytest

from anchor_jax.app.access import intake as module
from anchor_jax.app.access import quota
from anchor_jax.app.access.intake import MAX_FILES, Intake, display_name
from anchor_jax.app.access.marks import MARK, marked_folder
from anchor_jax.app.access.quota import Disk
from anchor_jax.core.errors import UserError


@pytest.fixture
def folder(tmp_path):
  return marked_folder(tmp_path, "uploads")[0]


@pytest.fixture
def intake(folder, tmp_path):
  return Intake(folder, 1, Disk(tmp_path, 1))


def send(intake, owner, name, data):
  with intake.receiving(owner) as batch:
    batch.begin(name).write(data)
  return batch.files[0].token


def files(folder):
  return [path for path in folder.iterdir() if path.name != MARK]


def test_equal_uploads_of_two_visitors_are_separate(intake):
  ana, bea = (send(intake, owner, "a.mp4", b"film") for owner in ("a", "b"))
  assert ana != bea
  intake.mark_used([intake.find("a", ana)], "x")
  intake.forget("x")
  with intake.find("b", bea).open() as file:
    assert file.read() == b"film"
  for owner, token in (("b", ana), ("a", bea), ("a", ana)):
    with pytest.raises(UserError, match="upload it again"):
      intake.find(owner, token)


@pytest.mark.parametrize("token", ["", "/etc/passwd", "../token", "uploads/x", None, 3, ["x"], {"path": "x"}, "x\0"])
def test_anything_but_a_token_is_refused(intake, token):
  with pytest.raises(UserError, match="upload it again"):
    intake.find("a", token)


def test_an_interrupted_upload_leaves_no_files(intake, folder):
  with pytest.raises(KeyboardInterrupt):
    with intake.receiving("a") as batch:
      batch.begin("a.mp4").write(b"x")
      batch.begin("b.mp4").write(b"x")
      raise KeyboardInterrupt
  assert not files(folder) and not intake._bytes and not intake._in_progress


def test_a_file_is_cut_off_as_soon_as_it_is_too_large(intake, folder):
  with pytest.raises(UserError, match=r"a\.mp4 is larger than 1 MB"):
    with intake.receiving("a") as batch:
      batch.begin("a.mp4")
      for _ in range(1000):
        batch.write(b"x" * 100_000)
  assert not files(folder)


def test_visitors_have_shares_of_the_room_and_there_is_a_total(intake, monkeypatch):
  monkeypatch.setattr(module, "_VISITOR_SHARE", 1)
  monkeypatch.setattr(module, "_TOTAL_SHARES", 2)
  large = b"x" * 600_000
  first = send(intake, "a", "a.mp4", large)
  with pytest.raises(UserError, match="too many of your uploads"):
    send(intake, "a", "b.mp4", large)
  intake.mark_used([intake.find("a", first)], "somebody")
  send(intake, "a", "b.mp4", large)  # used uploads make room
  send(intake, "b", "b.mp4", large)
  send(intake, "c", "c.mp4", large)
  with pytest.raises(UserError, match="in an hour"):
    send(intake, "d", "d.mp4", large)
  monkeypatch.setattr(module, "LIFETIME", -1.0)
  send(intake, "d", "d.mp4", large)


def test_many_files_and_many_uploads_at_once_are_refused(intake, monkeypatch):
  with pytest.raises(UserError, match="too many"):
    with intake.receiving("a") as batch:
      for _ in range(MAX_FILES + 1):
        batch.begin("")
  monkeypatch.setattr(module, "_MAX_CONCURRENT", 1)
  monkeypatch.setattr(module, "_MAX_CONCURRENT_IN_ALL", 2)
  with intake.receiving("a"), intake.receiving("b"):
    for owner in ("a", "c"):
      with pytest.raises(UserError, match="in progress"):
        with intake.receiving(owner):
          pass
  with pytest.raises(UserError, match="too many"):
    intake.find_all("a", ["x"] * (MAX_FILES + 1))


def test_the_disk_has_a_limit_and_a_reserve(folder, tmp_path, monkeypatch):
  (tmp_path / "people").mkdir()
  (tmp_path / "people/large").write_bytes(b"x" * 1000)
  with pytest.raises(UserError, match="its limit of 1e-06 GB"):
    send(Intake(folder, 1, Disk(tmp_path, 1e-6)), "a", "a.mp4", b"x")
  monkeypatch.setattr(quota, "_RESERVE", 10**18)
  with pytest.raises(UserError, match="nearly full"):
    send(Intake(folder, 1, Disk(tmp_path, 1)), "a", "a.mp4", b"x")
  assert not files(folder)


def test_a_start_empties_only_the_marked_folder(folder, tmp_path):
  token = send(Intake(folder, 1, Disk(tmp_path, 1)), "a", "a.mp4", b"film")
  (folder / "thesis.txt").write_text("mine")
  with pytest.raises(UserError):
    Intake(folder, 1, Disk(tmp_path, 1)).find("a", token)
  assert [path.name for path in files(folder)] == ["thesis.txt"]

  (tmp_path / "other/uploads/0123456789abcdef").mkdir(parents=True)
  (tmp_path / "other/uploads/thesis.txt").write_text("mine")
  found, passed_over = marked_folder(tmp_path / "other", "uploads")
  assert (found.name, [path.name for path in passed_over]) == ("uploads-2", ["uploads"])
  assert marked_folder(tmp_path / "other", "uploads")[0] == found
  (tmp_path / "linked").mkdir()
  (tmp_path / "linked/uploads").symlink_to(folder)
  assert marked_folder(tmp_path / "linked", "uploads")[0].name == "uploads-2"


@pytest.mark.parametrize(
  "name,shown",
  [("../../etc/a.mp4", "a.mp4"), ("C:\\x\\a.mp4", "a.mp4"), ("", "file"), ("a\r\nb.mp4", "a\\r\\nb.mp4")],
)
def test_upload_names_are_printable_and_without_folders(name, shown, intake):
  assert display_name(name) == shown
  assert "/" not in send(intake, "a", name, b"x").partition("/")[2]
  assert len(display_name("x" * 999 + ".mp4")) == 64 and display_name("x" * 999 + ".mp4").endswith(".mp4")
