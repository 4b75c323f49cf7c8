"""The workshop: what an owner may do and see; jobs stay queued, since the worker is not started."""

import dataclasses
import json
import zipfile
from pathlib import Path

import pytest
from people import make_posed_frames

from anchor_jax.app.access.marks import MARK
from anchor_jax.app.access.people import EVERYONE, STUDIO, NotFound, PeopleFolder, picture_size
from anchor_jax.app.jobs import pack, workshop
from anchor_jax.app.jobs.commands import commands_of, video_path
from anchor_jax.app.jobs.queue import PREPARE, TRAIN
from anchor_jax.app.jobs.workshop import Workshop
from anchor_jax.config.run import RunConfig
from anchor_jax.config.stored import write_settings
from anchor_jax.core.errors import UserError
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.data.records import build
from anchor_jax.files.outputs import partial_path
from anchor_jax.films.poses import PosedClip
from anchor_jax.landmarks.sidecar import write_posed_video


@pytest.fixture
def shop(tmp_path):
  shop = Workshop(tmp_path / "shop", smoke=True)
  yield shop
  shop._lock.release()


def upload(shop, owner="a"):
  folder = shop.folder.parent / "in"
  write_posed_video(folder / "a.mp4", make_posed_frames(4), 10)
  return send(shop, owner, folder / "a.mp4", *(folder / "a.anchor").iterdir())


def send(shop, owner, *files):
  """Uploads files; returns their tokens."""
  with shop.intake.receiving(owner) as batch:
    for file in files:
      batch.begin(file.name).write(file.read_bytes())
  return [upload.token for upload in batch.files]


def add(shop, owner="a", ready=True, trained=False):
  person = shop.add_person(owner, "Ana", upload(shop, owner), True)
  folder = shop.people.folder_of(person.name)
  if ready:
    for name in ("prepared/meta.json", "prepared/preview.png"):
      (folder / name).parent.mkdir(exist_ok=True)
      (folder / name).write_text("{}")
    shop.jobs.change(shop.jobs.of(person.name, owner, PREPARE)[0].name, state="done")
  if trained:
    (folder / "trained/body/checkpoints/12").mkdir(parents=True)
  return person


def lines(shop, job):
  commands = commands_of(job, shop.people.find(job.person), shop.people, Path("motions"), smoke=True)
  return [" ".join(command.arguments[2:]).replace(str(shop.people.folder), "P") for command in commands]


def test_an_upload_becomes_a_person_whose_film_is_prepared(shop):
  person = add(shop, ready=False)
  (job,) = shop.jobs.queue()
  assert lines(shop, job) == [
    f"anchor_jax.prepare P/{person.name}/films/film_1.mp4 --output=P/{person.name}/prepared --size=128 --person=Ana"
  ]
  with pytest.raises(UserError, match="not ready"):
    shop.train("a", person.name)
  shop.remove_person("a", person.name)
  assert [path.name for path in shop.uploads.iterdir()] == [MARK]


def test_pictures_of_a_person_may_be_portraits(shop):
  person = shop.add_person("a", "Ana", upload(shop), True, picture_size(256, "portrait"))
  assert lines(shop, shop.jobs.queue()[0])[0].endswith("--size=256x384 --person=Ana")
  assert json.loads((shop.people.folder_of(person.name) / "person.json").read_text())["size"] == [256, 384]
  for side, shape in ((100, "square"), (128, "round"), (True, "square")):
    with pytest.raises(UserError, match="choose one of the sizes"):
      picture_size(side, shape)
  with pytest.raises(UserError, match="choose one of the sizes"):
    shop.people.new("Ana", "a", "film", (128, 640), True)


def test_large_pictures_need_training_first(shop):
  person = shop.add_person("a", "Ana", upload(shop), True, picture_size(512))
  prepared = shop.people.folder_of(person.name) / "prepared"
  build([PosedClip("clip", "ana", 10.0, list(make_posed_frames(2, 512)))], prepared, FrameSize(512, 512))
  for request in (lambda: shop.make_video("a", person.name, "studio:calm", 2), lambda: shop.export("a", person.name)):
    with pytest.raises(UserError, match="need training first"):
      request()
  assert "studio_512.py" in lines(shop, shop.train("a", person.name))[0]
  (prepared.parent / "trained/body/checkpoints/12").mkdir(parents=True)
  assert "--checkpoint=P/" in lines(shop, shop.make_video("a", person.name, "studio:calm", 2))[1]
  with pytest.raises(UserError, match="need training first"):
    shop.make_video("a", person.name, "studio:calm", 2, trained=False)


def test_pictures_of_a_person_may_have_the_shape_of_the_film(shop):
  person = shop.add_person("a", "Ana", upload(shop), True, picture_size(256, "film"))
  assert lines(shop, shop.jobs.queue()[0])[0].endswith("--size=auto:256 --person=Ana")
  assert PeopleFolder(shop.people.folder.parent).get(person.name, "a").size == "auto:256"
  prepared = shop.people.folder_of(person.name) / "prepared"
  build([PosedClip("clip", "ana", 10.0, list(make_posed_frames(2, (320, 192))))], prepared, FrameSize(192, 320))
  assert "studio_256.py" in lines(shop, shop.train("a", person.name))[0]
  motion, _ = lines(shop, shop.make_video("a", person.name, "studio:calm", 2))
  assert "--size=192x320" in motion
  (prepared / "meta.json").write_text('{"size": "large"}')
  with pytest.raises(UserError, match="damaged"):
    lines(shop, shop.make_video("a", person.name, "studio:calm", 2))


def test_people_from_films_are_learned_with_lpips_and_runs_keep_their_loss(shop):
  ana = add(shop)
  job = shop.train("a", ana.name)
  command = lambda weights: commands_of(job, ana, shop.people, Path("motions"), lpips=weights)[0]
  flags = lambda weights: [flag for flag in command(weights).arguments if "lpips" in flag]
  assert flags(None) == []
  assert flags(Path("w.safetensors")) == ["--config.lpips=0.5", "--config.lpips_weights=w.safetensors"]
  assert "--config.steps=400" in command(None).arguments
  large = dataclasses.replace(ana, size=256)
  assert "--config.steps" not in str(commands_of(job, large, shop.people, Path("motions"))[0].arguments)
  trained = shop.people.folder_of(ana.name) / "trained/body"
  trained.mkdir(parents=True)
  write_settings(trained, RunConfig())
  assert flags(Path("w.safetensors")) == []
  write_settings(trained, RunConfig(lpips=0.25, lpips_weights="gone"))
  assert flags(None) == ["--config.lpips=0.25", "--config.lpips_weights=gone"]
  example = dataclasses.replace(ana, kind="example")
  (trained / "config.json").unlink()
  of_example = str(commands_of(job, example, shop.people, Path("motions"), lpips=Path("w")))
  assert "lpips" not in of_example and "--config.steps" not in of_example


def test_without_consent_no_person_is_added(shop, tmp_path):
  with pytest.raises(UserError, match="agrees"):
    shop.add_person("a", "Ana", upload(shop), False)
  with pytest.raises(UserError, match="not a video"):
    bad = tmp_path / "b.mp4"
    bad.write_bytes(b"no film")
    shop.add_person("a", "Ana", send(shop, "a", bad), True)
  assert not list(shop.people.folder.iterdir()) and not shop.jobs.queue()


def test_videos_use_shipped_weights_before_training_and_own_ones_after_it(shop):
  person = add(shop)
  before = shop.make_video("a", person.name, "studio:calm", 2)
  motion, video = lines(shop, before)
  assert motion.startswith("anchor_jax.app.jobs.studio --output=motions/calm_128_2s.mp4 --motion=calm --size=128")
  assert video == (
    f"anchor_jax.generate --checkpoint=studio --appearance=P/{person.name}/prepared --no-head"
    f" --motion=motions/calm_128_2s.mp4 --output=P/{person.name}/videos/{before.name}.mp4 --resume --frames=50"
  )
  (shop.people.folder_of(person.name) / "trained/body/checkpoints/12").mkdir(parents=True)
  after = shop.make_video("a", person.name, "studio:calm", 2, fast=True)
  assert f"--checkpoint=P/{person.name}/trained --no-head" in lines(shop, after)[1]
  assert "--fast" in lines(shop, after)[1]
  untrained = shop.make_video("a", person.name, "studio:calm", 2, trained=False)
  assert "--checkpoint=studio" in lines(shop, untrained)[1]


def test_uploaded_motions_and_motions_of_other_people(shop):
  person, other = add(shop), add(shop)
  uploaded = shop.make_video("a", person.name, "upload", 60, uploaded=upload(shop))
  assert f"--motion=P/{person.name}/motions/{uploaded.name}_1.mp4" in lines(shop, uploaded)[0]
  driven = shop.make_video("a", person.name, f"person:{other.name}", 1)
  assert f"--motion=P/{other.name}/films/film_1.mp4 --no-audio" in lines(shop, driven)[0]
  assert driven.settings["frames"] == 10
  for motion in ("", "studio:../x", "person:../x", f"person:{'0' * 16}"):
    with pytest.raises(UserError):
      shop.make_video("a", person.name, motion, 1)
  shop.remove_person("a", other.name)
  with pytest.raises(UserError, match="was deleted"):
    lines(shop, driven)


def test_training_runs_the_packages_command_and_only_for_the_owner(shop):
  person = add(shop)
  job = shop.train("a", person.name)
  assert lines(shop, job)[0].startswith(
    f"anchor_jax.train --config=studio_finetune.py:body --workdir=P/{person.name}/trained"
    f" --config.data.path=P/{person.name}/prepared"
  )
  with pytest.raises(NotFound):
    shop.train("b", person.name)
  with pytest.raises(NotFound):
    shop.cancel("b", job.name)
  shop.cancel("a", job.name)
  assert shop.jobs.queue() == []


def test_a_real_person_without_consent_is_not_trained(shop):
  person = shop.people.add(shop.people.new("Ana", "a", "film", 128, True))
  object.__setattr__(person, "consent", None)
  with pytest.raises(UserError, match="agrees"):
    shop.train("a", person.name)


def test_another_owner_sees_no_files(shop):
  person = add(shop, trained=True)
  folder, job = shop.people.folder_of(person.name), shop.make_video("a", person.name, "studio:calm", 1)
  video = video_path(job, shop.people)
  video.parent.mkdir()
  for path in (video, folder / "bundle.zip", folder / "trained/body/preview.png"):
    path.write_bytes(b"x")
  for what in ("found", "training", "bundle", job.name):
    assert shop.file("a", person.name, what).is_file()
    with pytest.raises(NotFound):
      shop.file("b", person.name, what)
  assert shop.videos("a", person) == [job] and shop.videos("b", person) == []
  for what in ("..", "person.json", "0" * 16, "../../token"):
    with pytest.raises(NotFound):
      shop.file("a", person.name, what)
  with pytest.raises(NotFound):
    shop.live("b", person.name, job.name)


def test_videos_of_the_studio_person_are_private_and_the_person_stays(shop):
  shop.people.add(shop.people.new("Studio person", EVERYONE, "studio", 128))
  (shop.people.folder_of(STUDIO) / "prepared").mkdir()
  (shop.people.folder_of(STUDIO) / "prepared/meta.json").write_text("{}")
  job = shop.make_video("a", STUDIO, "studio:calm", 1)
  assert shop.videos("a", shop.people.find(STUDIO)) == [job] and not shop.videos("b", shop.people.find(STUDIO))
  for change in (shop.train, shop.remove_person, shop.export):
    with pytest.raises(UserError, match="everyone's"):
      change("a", STUDIO)


def test_removing_leaves_no_files(shop):
  person = add(shop)
  job = shop.make_video("a", person.name, "upload", 1, uploaded=upload(shop))
  video = video_path(job, shop.people)
  video.parent.mkdir()
  for path in (video, partial_path(video)):
    path.write_bytes(b"x")
  shop.remove_video("a", job.name)
  left = {path.name for path in shop.people.folder_of(person.name).rglob("*") if job.name in path.name}
  assert not left and shop.jobs.get(job.name) is None
  shop.train("a", person.name)
  shop.make_video("a", person.name, "upload", 1, uploaded=upload(shop))
  shop.remove_person("a", person.name)
  assert not list(shop.people.folder.iterdir()) and not shop.jobs.queue()
  assert [path.name for path in shop.uploads.iterdir()] == [MARK]


def test_a_person_deleted_while_a_motion_is_copied_stays_deleted(shop, monkeypatch):
  person, tokens = add(shop), upload(shop)
  take_films = workshop.take_films

  def delete_first(*arguments):
    shop.remove_person("a", person.name)
    return take_films(*arguments)

  monkeypatch.setattr(workshop, "take_films", delete_first)
  with pytest.raises(NotFound):
    shop.make_video("a", person.name, "upload", 1, uploaded=tokens)
  assert not list(shop.people.folder.iterdir()) and not shop.jobs.queue()
  with pytest.raises(NotFound):
    shop.remove_person("a", person.name)


def test_a_failed_deletion_is_reported_and_finished_later(shop, monkeypatch):
  person = add(shop)

  def refuse(*_):
    raise PermissionError("no")

  with monkeypatch.context() as patch:
    patch.setattr(Path, "rename", refuse)
    with pytest.raises(UserError, match="can't be deleted now"):
      shop.remove_person("a", person.name)
  assert shop.people.get(person.name, "a") == person
  with monkeypatch.context() as patch:
    patch.setattr("shutil.rmtree", refuse)
    with pytest.raises(UserError, match="not everything"):
      shop.remove_person("a", person.name)
  assert not shop.people.visible("a") and list(shop.people.folder.iterdir())
  assert not PeopleFolder(shop.folder).visible("a") and not list(shop.people.folder.iterdir())


def test_links_out_of_a_folder_are_not_followed(shop, tmp_path):
  person = add(shop)
  picture = shop.people.folder_of(person.name) / "prepared/preview.png"
  assert shop.file("a", person.name, "found") == picture
  picture.unlink()
  picture.symlink_to("/etc/passwd")
  with pytest.raises(NotFound):
    shop.file("a", person.name, "found")
  (tmp_path / "preview.png").write_bytes(b"x")
  for path in picture.parent.iterdir():
    path.unlink()
  picture.parent.rmdir()
  picture.parent.symlink_to(tmp_path)
  with pytest.raises(NotFound):
    shop.file("a", person.name, "found")


def test_a_broken_job_does_not_hide_the_queue(shop, monkeypatch):
  person = add(shop)
  job = shop.train("a", person.name)

  def fails(*_):
    raise KeyError("x")

  monkeypatch.setattr(workshop, "commands_of", fails)
  assert shop.progress(job).label == ""


def test_a_second_server_on_the_same_folder_is_refused(shop):
  with pytest.raises(UserError, match="in use"):
    Workshop(shop.folder)


def test_progress_has_the_number_of_jobs_ahead(shop):
  person = add(shop)
  first, second = shop.train("a", person.name), shop.make_video("a", person.name, "studio:calm", 1)
  assert (first.kind, shop.progress(first).ahead, shop.progress(second).ahead) == (TRAIN, 0, 1)
  assert shop.progress(second).label == "rendering the motion" and shop.progress(second).bar is None


def test_a_bundle_is_packed_once(tmp_path):
  (tmp_path / "bundle/sub").mkdir(parents=True)
  (tmp_path / "bundle/sub/a.txt").write_text("a")
  for _ in range(2):
    pack.pack(tmp_path / "bundle", tmp_path / "bundle.zip")
  assert zipfile.ZipFile(tmp_path / "bundle.zip").namelist() == ["bundle/sub/a.txt"]
  assert not (tmp_path / "bundle").exists()
