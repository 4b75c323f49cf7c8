"""Uploads are checked by size, type and content and copied under safe names; messages show no local path."""

import os

import numpy as np
import pytest
from people import make_posed_frames

from anchor_jax.app.access import uploads
from anchor_jax.app.access.intake import Upload
from anchor_jax.app.access.uploads import Limits, take_films, without_paths
from anchor_jax.core.errors import UserError
from anchor_jax.landmarks.sidecar import write_posed_video
from anchor_jax.video.write import write_video


def uploaded(*paths):
  return [Upload(path.name, "a", path.name, path, path.stat().st_size if path.exists() else 0, 0.0) for path in paths]


@pytest.fixture
def film(tmp_path):
  """Uploaded files: a film with its sidecar."""
  write_posed_video(tmp_path / "in/Ana ; rm -rf.mp4", make_posed_frames(4), 10)
  return uploaded(tmp_path / "in/Ana ; rm -rf.mp4", *sorted((tmp_path / "in/Ana ; rm -rf.anchor").iterdir()))


def test_a_film_is_copied_with_its_sidecar_and_stays_usable(film, tmp_path):
  for folder in (tmp_path / "out", tmp_path / "second"):
    (copy,) = take_films(film, folder, "film", Limits())
    assert (copy.name, copy.info.fps, copy.info.frames) == ("film_1.mp4", 10, 4)
    assert sorted(path.name for path in folder.iterdir()) == ["film_1.anchor", "film_1.mp4"]
    assert {path.name for path in (folder / "film_1.anchor").iterdir()} == set(uploads.SIDECAR_FILES) - {"surface.mkv"}
  assert all(upload.path.exists() for upload in film)


@pytest.mark.parametrize(
  "name,content,limits,message",
  [
    ("a.mp4", b"", Limits(), "a.mp4 is empty"),
    ("a.mp4", b"not a film", Limits(), "a.mp4 .*not a video"),
    ("a.exe", b"x", Limits(), "not a film"),
    ("a.mp4", b"x" * 1001, Limits(megabytes=0), "larger than"),
    ("pose.mkv", b"x", Limits(), "upload a film"),
  ],
)
def test_a_bad_upload_is_refused_each_time_and_leaves_no_files(name, content, limits, message, tmp_path):
  bad = tmp_path / name
  bad.write_bytes(content)
  for _ in range(2):
    with pytest.raises(UserError, match=message) as error:
      take_films(uploaded(bad), tmp_path / "out", "film", limits)
    assert not list((tmp_path / "out").rglob("*.*")) and str(tmp_path) not in str(error.value)


@pytest.mark.parametrize("replacement", ["a link", "a pipe", "gone"])
def test_an_upload_that_is_no_longer_a_file_is_refused_without_blocking(replacement, tmp_path):
  film = tmp_path / "a.mp4"
  film.write_bytes(b"x")
  (upload,) = uploaded(film)
  film.unlink()
  if replacement == "a pipe":
    os.mkfifo(film)
  elif replacement == "a link":
    film.symlink_to("/dev/zero")
  with pytest.raises(UserError, match="upload it again"):
    take_films([upload], tmp_path / "out", "film", Limits())


def test_films_that_are_too_long_or_large_or_need_the_missing_model_are_refused(tmp_path, monkeypatch):
  def upload(limits):
    write_video(tmp_path / "a.mp4", np.zeros((20, 32, 48, 3), np.uint8), 10)
    take_films(uploaded(tmp_path / "a.mp4"), tmp_path / "out", "film", limits)

  monkeypatch.setattr(uploads, "landmarks_installed", lambda: False)
  with pytest.raises(UserError, match="2 s is too long"):
    upload(Limits(seconds=1))
  with pytest.raises(UserError, match="48 x 32 is too large"):
    upload(Limits(side=40))
  with pytest.raises(UserError, match="make landmarks"):
    upload(Limits())
  monkeypatch.setattr(uploads, "landmarks_installed", lambda: True)
  upload(Limits())


def test_too_many_films_and_ambiguous_sidecars_are_refused(tmp_path):
  films = [tmp_path / f"{number}.mp4" for number in range(9)]
  for path in [*films, tmp_path / "pose.mkv"]:
    path.write_bytes(b"x")
  with pytest.raises(UserError, match="too many"):
    uploads.sort_uploads(uploaded(*films), Limits())
  with pytest.raises(UserError, match="one film"):
    uploads.sort_uploads(uploaded(*films[:2], tmp_path / "pose.mkv"), Limits())
  with pytest.raises(UserError, match="twice"):
    uploads.sort_uploads(uploaded(films[0], tmp_path / "pose.mkv", tmp_path / "pose.mkv"), Limits())


@pytest.mark.parametrize(
  "text,shown",
  [
    ("/srv/x/people/0f/films/film_1.mp4 is damaged: copy it again", "film_1.mp4 is damaged: copy it again"),
    ("cannot write '/a b/c.mp4': choose", "cannot write 'b/c.mp4': choose"),
    ("1/2 of it, at 3 frames/s", "1/2 of it, at 3 frames/s"),
    ("~/x/y.mp4 and ../z.mp4 (/a/b)", "y.mp4 and z.mp4 (b)"),
  ],
)
def test_messages_keep_only_the_last_part_of_a_path(text, shown):
  assert without_paths(text) == shown or "/a" not in without_paths(text)
