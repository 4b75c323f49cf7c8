"""The workshop: what an owner may do and see; jobs stay in the line, since nothing is started here."""

import zipfile
from pathlib import Path

import pytest
from people import make_posed_frames

from anchor_jax.app.access.marks import MARK
from anchor_jax.app.access.people import EVERYONE, STUDIO, NotFound, People
from anchor_jax.app.jobs import pack, workshop
from anchor_jax.app.jobs.commands import commands_of, video_path
from anchor_jax.app.jobs.queue import PREPARE, TRAIN
from anchor_jax.app.jobs.workshop import Workshop
from anchor_jax.core.errors import UserError
from anchor_jax.files.outputs import partial_path
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
  """Uploads files, and returns their tokens."""
  with shop.intake.receiving(owner) as batch:
    for file in files:
      batch.begin(file.name).write(file.read_bytes())
  return [upload.token for upload in batch.files]


def add(shop, owner="a", ready=True, trained=False):
  person = shop.add_person(owner, "Ana", upload(shop, owner), True)
  folder = shop.people.folder_of(person.name)
  if ready:
    for place in ("prepared/meta.json", "prepared/preview.png"):
      (folder / place).parent.mkdir(exist_ok=True)
      (folder / place).write_text("{}")
    shop.jobs.change(shop.jobs.of(person.name, owner, PREPARE)[0].name, state="done")
  if trained:
    (folder / "trained/body/checkpoints/12").mkdir(parents=True)
  return person


def lines(shop, job):
  commands = commands_of(job, shop.people.find(job.person), shop.people, Path("motions"), smoke=True)
  return [" ".join(command.arguments[2:]).replace(str(shop.people.folder), "P") for command in commands]


def test_an_upload_becomes_a_person_whose_film_is_looked_at(shop):
  person = add(shop, ready=False)
  (job,) = shop.jobs.line()
  assert lines(shop, job) == [
    f"anchor_jax.prepare P/{person.name}/films/film_1.mp4 --output=P/{person.name}/prepared --size=128 --person=Ana"
  ]
  with pytest.raises(UserError, match="not ready"):
    shop.train("a", person.name)
  shop.remove_person("a", person.name)
  assert [path.name for path in shop.uploads.iterdir()] == [MARK]


def test_without_consent_nothing_is_kept_of_an_upload(shop, tmp_path):
  with pytest.raises(UserError, match="agrees"):
    shop.add_person("a", "Ana", upload(shop), False)
  with pytest.raises(UserError, match="not a video"):
    bad = tmp_path / "b.mp4"
    bad.write_bytes(b"no film")
    shop.add_person("a", "Ana", send(shop, "a", bad), True)
  assert not list(shop.people.folder.iterdir()) and not shop.jobs.line()


def test_a_video_before_training_is_of_the_shipped_weights_and_after_it_of_her_own(shop):
  person = add(shop)
  before = shop.make_video("a", person.name, "studio:calm", 2)
  filmed, made = lines(shop, before)
  assert filmed.startswith("anchor_jax.app.jobs.studio --output=motions/calm_128_2s.mp4 --motion=calm --size=128")
  assert made == (
    f"anchor_jax.generate --checkpoint=studio --appearance=P/{person.name}/prepared --no-head"
    f" --motion=motions/calm_128_2s.mp4 --output=P/{person.name}/videos/{before.name}.mp4 --resume --frames=50"
  )
  (shop.people.folder_of(person.name) / "trained/body/checkpoints/12").mkdir(parents=True)
  after = shop.make_video("a", person.name, "studio:calm", 2, fast=True)
  assert f"--checkpoint=P/{person.name}/trained --no-head" in lines(shop, after)[1]
  assert "--fast" in lines(shop, after)[1]
  again = shop.make_video("a", person.name, "studio:calm", 2, trained=False)
  assert "--checkpoint=studio" in lines(shop, again)[1]


def test_an_uploaded_motion_and_another_person_s_motion(shop):
  person, other = add(shop), add(shop)
  mine = shop.make_video("a", person.name, "upload", 60, uploaded=upload(shop))
  assert f"--motion=P/{person.name}/motions/{mine.name}_1.mp4" in lines(shop, mine)[0]
  hers = shop.make_video("a", person.name, f"person:{other.name}", 1)
  assert f"--motion=P/{other.name}/films/film_1.mp4 --no-audio" in lines(shop, hers)[0]
  assert hers.settings["frames"] == 10
  for motion in ("", "studio:../x", "person:../x", f"person:{'0' * 16}"):
    with pytest.raises(UserError):
      shop.make_video("a", person.name, motion, 1)
  shop.remove_person("a", other.name)
  with pytest.raises(UserError, match="not there any more"):
    lines(shop, hers)


def test_training_is_the_package_s_own_and_only_the_owner_s(shop):
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
  assert [other.kind for other in shop.jobs.line()] == []


def test_a_real_person_without_consent_is_not_trained(shop):
  person = shop.people.add(shop.people.new("Ana", "a", "film", 128, True))
  object.__setattr__(person, "consent", None)
  with pytest.raises(UserError, match="agrees"):
    shop.train("a", person.name)


def test_another_owner_sees_no_file_of_hers(shop):
  person = add(shop, trained=True)
  folder, job = shop.people.folder_of(person.name), shop.make_video("a", person.name, "studio:calm", 1)
  video = video_path(job, shop.people)
  video.parent.mkdir()
  for place in (video, folder / "bundle.zip", folder / "trained/body/preview.png"):
    place.write_bytes(b"x")
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


def test_videos_of_the_studio_person_are_each_owner_s_own_and_she_stays(shop):
  shop.people.add(shop.people.new("Studio person", EVERYONE, "studio", 128))
  (shop.people.folder_of(STUDIO) / "prepared").mkdir()
  (shop.people.folder_of(STUDIO) / "prepared/meta.json").write_text("{}")
  job = shop.make_video("a", STUDIO, "studio:calm", 1)
  assert shop.videos("a", shop.people.find(STUDIO)) == [job] and not shop.videos("b", shop.people.find(STUDIO))
  for change in (shop.train, shop.remove_person, shop.export):
    with pytest.raises(UserError, match="everyone's"):
      change("a", STUDIO)


def test_removing_leaves_nothing(shop):
  person = add(shop)
  job = shop.make_video("a", person.name, "upload", 1, uploaded=upload(shop))
  video = video_path(job, shop.people)
  video.parent.mkdir()
  for place in (video, partial_path(video)):
    place.write_bytes(b"x")
  shop.remove_video("a", job.name)
  left = {path.name for path in shop.people.folder_of(person.name).rglob("*") if job.name in path.name}
  assert not left and shop.jobs.get(job.name) is None
  shop.train("a", person.name)
  shop.make_video("a", person.name, "upload", 1, uploaded=upload(shop))
  shop.remove_person("a", person.name)
  assert not list(shop.people.folder.iterdir()) and not shop.jobs.line()
  assert [path.name for path in shop.uploads.iterdir()] == [MARK]


def test_a_person_who_is_deleted_while_a_motion_is_copied_stays_deleted(shop, monkeypatch):
  person, sent = add(shop), upload(shop)
  copy = workshop.take_films

  def late(*arguments):
    shop.remove_person("a", person.name)
    return copy(*arguments)

  monkeypatch.setattr(workshop, "take_films", late)
  with pytest.raises(NotFound):
    shop.make_video("a", person.name, "upload", 1, uploaded=sent)
  assert not list(shop.people.folder.iterdir()) and not shop.jobs.line()
  with pytest.raises(NotFound):
    shop.remove_person("a", person.name)


def test_a_person_who_can_not_be_deleted_is_still_there(shop, monkeypatch):
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
  assert not People(shop.folder).visible("a") and not list(shop.people.folder.iterdir())


def test_a_link_is_not_shown(shop, tmp_path):
  person = add(shop)
  picture = shop.people.folder_of(person.name) / "prepared/preview.png"
  assert shop.file("a", person.name, "found") == picture
  picture.unlink()
  picture.symlink_to("/etc/passwd")
  with pytest.raises(NotFound):
    shop.file("a", person.name, "found")
  (tmp_path / "preview.png").write_bytes(b"x")
  for place in picture.parent.iterdir():
    place.unlink()
  picture.parent.rmdir()
  picture.parent.symlink_to(tmp_path)
  with pytest.raises(NotFound):
    shop.file("a", person.name, "found")


def test_the_line_is_shown_though_a_job_in_it_can_not_be_done(shop, monkeypatch):
  person = add(shop)
  job = shop.train("a", person.name)

  def fails(*_):
    raise KeyError("x")

  monkeypatch.setattr(workshop, "commands_of", fails)
  assert shop.place(job).label == ""


def test_a_second_server_in_the_same_folder_is_refused(shop):
  with pytest.raises(UserError, match="in use"):
    Workshop(shop.folder)


def test_the_place_in_the_line_is_told(shop):
  person = add(shop)
  first, second = shop.train("a", person.name), shop.make_video("a", person.name, "studio:calm", 1)
  assert (first.kind, shop.place(first).ahead, shop.place(second).ahead) == (TRAIN, 0, 1)
  assert shop.place(second).label == "filming the motion" and shop.place(second).bar is None


def test_a_bundle_is_packed_once(tmp_path):
  (tmp_path / "bundle/sub").mkdir(parents=True)
  (tmp_path / "bundle/sub/a.txt").write_text("a")
  for _ in range(2):
    pack.pack(tmp_path / "bundle", tmp_path / "bundle.zip")
  assert zipfile.ZipFile(tmp_path / "bundle.zip").namelist() == ["bundle/sub/a.txt"]
  assert not (tmp_path / "bundle").exists()
