"""The page's folder is untrusted input: damaged files are set aside and reported, and nothing is deleted."""

import json
import os

import pytest

from anchor_jax.app.access.people import STUDIO, PeopleFolder
from anchor_jax.app.jobs.queue import DONE, Jobs
from anchor_jax.app.jobs.workshop import Workshop
from anchor_jax.core.errors import UserError

# As the page wrote them before folders were marked.
STUDIO_RECORD = {"label": "Studio person", "owner": "", "kind": "studio", "size": 128, "films": ["film_1.mp4"],
                 "created": 1.0, "consent": None}  # fmt: skip
ANA, JOB, OWNER = "0123456789abcdef", "00112233445566ff", "a" * 32
ANA_RECORD = STUDIO_RECORD | {"label": "Ana <b>", "owner": OWNER, "kind": "film", "consent": 2.5}
JOB_RECORD = {
  "name": JOB, "person": ANA, "owner": OWNER, "kind": "video", "state": DONE, "step": 1, "created": 3.0, "started": 4.0,
  "ended": 5.0, "error": "",
  "settings": {"motion": "studio:calm", "label": "Calm talk", "seconds": 4, "frames": 100, "trained": True,
               "fast": False},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
  """A folder of an earlier version: people, a job, and Gradio's uploads."""
  for name, record in ((STUDIO, STUDIO_RECORD), (ANA, ANA_RECORD)):
    (tmp_path / "people" / name / "jobs").mkdir(parents=True)
    (tmp_path / "people" / name / "person.json").write_text(json.dumps(record))
  (tmp_path / f"people/{ANA}/jobs/{JOB}.json").write_text(json.dumps(JOB_RECORD))
  (tmp_path / "uploads" / ("f" * 64)).mkdir(parents=True)
  (tmp_path / "uploads" / ("f" * 64) / "film.mp4").write_bytes(b"film")
  return tmp_path


def opened(folder):
  shop = Workshop(folder, smoke=True)
  shop._lock.release()
  return shop


def everything(folder):
  return {path for path in folder.rglob("*") if path.is_file() and path.name not in ("lock", ".of-the-page")}


def test_pictures_may_be_portraits(folder):
  (folder / f"people/{ANA}/person.json").write_text(json.dumps(ANA_RECORD | {"size": [128, 192]}))
  assert opened(folder).people.find(ANA).size == (128, 192)


def test_a_folder_of_an_earlier_version_is_read_and_its_uploads_stay(folder):
  before = everything(folder)
  shop = opened(folder)
  assert [person.label for person in shop.people.visible(OWNER)] == ["Studio person", "Ana <b>"]
  assert shop.jobs.get(JOB).settings == JOB_RECORD["settings"]
  assert everything(folder) == before and shop.uploads.name == "uploads-2"
  assert [one.path.name for one in shop.aside()] == ["uploads"]


@pytest.mark.parametrize(
  "change",
  [
    *({"label": label} for label in (3, "", "a\nb", "x" * 41, None)),
    *({"owner": owner} for owner in (None, "", "../x", "A" * 32)),
    *({"kind": kind} for kind in ("studio", "x", 1)),
    *({"size": size} for size in (127, 128.0, "128", True, [128, 640], [128])),
    *({"films": films} for films in (None, "film_1.mp4", ["../../x.mp4"], ["/dev/zero"], [1])),
    *({"created": created} for created in ("now", 1e300, None)),
    {"consent": "yes"},
  ],
  ids=str,
)
def test_a_damaged_person_is_set_aside_and_the_others_are_read(folder, change):
  record = folder / f"people/{ANA}/person.json"
  record.write_text(json.dumps(ANA_RECORD | change))
  before = everything(folder)
  shop = opened(folder)
  assert [person.name for person in shop.people.visible(OWNER)] == [STUDIO] and everything(folder) == before
  (one,) = shop.people.aside
  assert one.path.name == ANA and "damaged" in one.reason
  assert one.owner == (OWNER if "owner" not in change else None)


@pytest.mark.parametrize("content", ["", "[]", "3", "{", "[" * 100_000, '{"label": NaN}', "\0", None, "pipe", "link"])
def test_a_missing_or_malformed_record_is_set_aside(folder, content):
  record = folder / f"people/{ANA}/person.json"
  record.unlink()
  if content == "pipe":
    os.mkfifo(record)
  elif content == "link":
    record.symlink_to("/dev/zero")
  elif content is not None:
    record.write_text(content)
  people = PeopleFolder(folder)
  assert people.find(ANA) is None and [one.path.name for one in people.aside] == [ANA]
  assert people.folder_of(ANA).is_dir()


@pytest.mark.parametrize(
  "change",
  [
    *({"name": name} for name in ("../x", "1" * 16, STUDIO, 1)),
    *({"person": person} for person in (STUDIO, "../x")),
    *({"owner": owner} for owner in ("", None, "../x")),
    *({"kind": kind} for kind in ("x", None)),
    *({"state": state} for state in ("x", None, 1)),
    *({"step": step} for step in (-1, 10**9, "1", 1.5)),
    *({"settings": settings} for settings in (None, [], {"motion": "upload:../../x.mp4"}, {"motion": "studio:../x"})),
    *({"settings": {name: value}} for name, value in (("seconds", 0), ("frames", "9"), ("trained", 1), ("label", 3))),
    {"error": None},
    {"created": "x"},
  ],
  ids=str,
)
def test_a_damaged_job_is_set_aside_and_the_others_are_read(folder, change):
  (folder / f"people/{ANA}/jobs/{JOB}.json").write_text(json.dumps(JOB_RECORD | change))
  (folder / f"people/{ANA}/jobs/{'2' * 16}.json").write_text(json.dumps(JOB_RECORD | {"name": "2" * 16}))
  before = everything(folder)
  shop = opened(folder)
  assert [job.name for job in shop.jobs.of(ANA, OWNER)] == ["2" * 16] and everything(folder) == before
  (one,) = shop.jobs.aside
  assert one.owner == OWNER and "damaged" in one.reason


def test_job_files_that_are_pipes_or_folders_are_set_aside(folder):
  os.mkfifo(folder / f"people/{ANA}/jobs/{'3' * 16}.json")
  (folder / f"people/{ANA}/jobs/{'4' * 16}.json").mkdir()
  assert len(Jobs(PeopleFolder(folder)).aside) == 2


def test_unmarked_folders_are_left_alone(folder):
  for name in ("people/thesis/a.txt", "people/fedcba9876543210/a.txt", "people/.gone-left/a.txt", "uploads/a.txt"):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("mine")
  (folder / f"people/.gone-{'5' * 16}").mkdir()
  (folder / f"people/.gone-{'5' * 16}/a.txt").write_text("mine")
  (folder / "people/linked").symlink_to(folder / "uploads")
  before = everything(folder)
  for _ in range(2):
    shop = opened(folder)
  assert everything(folder) == before and all(one.path.name in one.reason for one in shop.aside())
  assert {one.path.name for one in shop.people.aside} == {
    "thesis",
    "fedcba9876543210",
    ".gone-left",
    f".gone-{'5' * 16}",
  }


def test_a_damaged_studio_person_is_set_aside_and_recreated(folder):
  (folder / "people/studio/person.json").write_text("{")
  shop = opened(folder)
  shop._worker.start = lambda: None
  shop.start()
  assert shop.people.find(STUDIO) is not None
  (renamed,) = [path for path in shop.people.folder.iterdir() if path.name.startswith("studio.aside-")]
  assert (renamed / "person.json").read_text() == "{" and [one.path for one in shop.people.aside] == [renamed]


def test_an_unmarked_folder_called_studio_is_not_touched(folder):
  (folder / "people/studio/person.json").unlink()
  with pytest.raises(UserError, match="not a folder of this page"):
    opened(folder).start()
  assert (folder / "people/studio/jobs").is_dir()


def test_a_damaged_token_is_an_error(folder):
  from anchor_jax.app.access.owners import Gate

  (folder / "token").write_text("")
  with pytest.raises(UserError, match="is damaged"):
    Gate(folder, False)
