"""Jobs: what is to be done, in the order in which it was asked for; each a file, so that they survive the server.

FOLDER/people/PERSON/jobs/JOB.json   what, for whom, how far
FOLDER/people/PERSON/jobs/JOB.log    what its commands printed
FOLDER/people/PERSON/jobs/JOB.lock   locked by its process as long as that lives, see worker.py; holds its id
"""

import dataclasses
import json
import logging
import re
import threading
import time
from pathlib import Path
from typing import Annotated, Any

from anchor_jax.app.access.marks import is_folder, is_regular
from anchor_jax.app.access.people import EVERYONE, LATEST, STUDIO, Aside, People, is_name, is_owner, new_name
from anchor_jax.core.errors import UserError
from anchor_jax.core.values import Within, from_values
from anchor_jax.files.fields import fields_of
from anchor_jax.files.inputs import read_json
from anchor_jax.files.outputs import new_file

PREPARE, TRAIN, VIDEO, EXPORT = KINDS = ("prepare", "train", "video", "export")
WAITING, RUNNING, STOPPING, DONE, FAILED, CANCELLED = "waiting", "running", "stopping", "done", "failed", "cancelled"
OPEN = (WAITING, RUNNING, STOPPING)
STATES = (*OPEN, DONE, FAILED, CANCELLED)
MOST_WAITING = 8  # of one owner
MOST_IN_LINE = 64  # of all owners
_REMEDY = "whoever runs this page can mend it, or move the file away"
_MOTION = r"studio:[a-z]{1,40}|person:(studio|[0-9a-f]{16})|upload:[0-9a-f]{16}_1\.(mp4|mov|mkv|webm)"


@dataclasses.dataclass(frozen=True)
class VideoSettings:
  """Settings of a video, as `workshop.Workshop.make_video` makes them; what a record lacks is as here."""

  motion: str = "studio:calm"
  label: str = "Video"
  seconds: Annotated[int, Within(1, 3600)] = 4
  frames: Annotated[int, Within(1, 10**6)] = 100
  trained: bool = False
  fast: bool = False

  def __post_init__(self):
    if not re.fullmatch(_MOTION, self.motion):
      raise UserError("there is no such motion")


@dataclasses.dataclass(frozen=True)
class ExportSettings:
  """Settings of a bundle."""

  trained: bool = False


@dataclasses.dataclass(frozen=True)
class NoSettings:
  """Those of all other jobs."""


_SETTINGS = {PREPARE: NoSettings, TRAIN: NoSettings, VIDEO: VideoSettings, EXPORT: ExportSettings}


@dataclasses.dataclass(frozen=True)
class Job:
  """One job.

  Attributes:
    name: of its files.
    person: name of the person it is for.
    owner: who asked for it, and who alone sees what it makes.
    kind: one of `KINDS`.
    settings: what commands.py makes command lines of.
    state: one of the states above.
    step: number of the command that runs or is next, from 0.
    created, started, ended: seconds since 1970.
    error: what went wrong, in words for users.
  """

  name: str
  person: str
  owner: str
  kind: str
  settings: dict[str, Any] = dataclasses.field(default_factory=dict)
  state: str = WAITING
  step: Annotated[int, Within(0, 9)] = 0
  created: Annotated[float, Within(0, LATEST)] = 0.0
  started: Annotated[float | None, Within(0, LATEST)] = None
  ended: Annotated[float | None, Within(0, LATEST)] = None
  error: str = ""

  @property
  def open(self) -> bool:
    """Whether it waits or runs."""
    return self.state in OPEN


class Jobs:
  """All jobs of all people. Several threads may use it."""

  def __init__(self, people: People):
    """Reads those of people who are there; those that ran when the server ended wait again, first in line.

    `aside` has those that could not be read; their files stay.
    """
    self._people, self._lock = people, threading.RLock()
    self._known: dict[str, Job] = {}
    self.aside: list[Aside] = []
    for person in people.everyone():
      folder = people.folder_of(person.name) / "jobs"
      for record in sorted(folder.glob("*.json")) if is_folder(folder) else ():
        try:
          job = _read(record, person.name)
        except UserError as error:
          self.aside.append(Aside(record, person.owner or None, str(error)))
        else:
          self._known[job.name] = job
    for job in list(self._known.values()):
      if job.state == RUNNING:
        self.change(job.name, state=WAITING)
      elif job.state == STOPPING:
        self.change(job.name, state=CANCELLED, ended=time.time())

  def path(self, job: Job, suffix: str) -> Path:
    """Returns one of a job's files: its record (".json"), its log or its lock."""
    return self._people.folder_of(job.person) / "jobs" / f"{job.name}{suffix}"

  def add(self, person: str, owner: str, kind: str, name: str = "", **settings: Any) -> Job:
    """Puts a job at the end of the line, and returns it.

    Args:
      person: name of the person.
      owner: who asks.
      kind: one of `KINDS`.
      name: for the job, where files of that name are there already; default a new one.
      settings: of the job.

    Raises:
      UserError: see `check_room`.
    """
    with self._lock:
      self.check_room(person, owner, kind)
      if self._people.find(person) is None:
        raise UserError("there is no such person (any more)")
      job = Job(name or new_name(), person, owner, kind, settings, created=time.time())
      self.path(job, ".json").parent.mkdir(parents=True, exist_ok=True)
      self._write(job)
      self._known[job.name] = job
      return job

  def check_room(self, person: str, owner: str, kind: str) -> None:
    """Checks that another job can be added.

    Raises:
      UserError: the line is full, the owner has too many jobs in it, or the same one for this person.
    """
    line = self.line()
    mine = [job for job in line if job.owner == owner]
    if len(mine) >= MOST_WAITING:
      raise UserError(f"{MOST_WAITING} jobs of yours wait already: cancel one, or wait for one to end")
    if len(line) >= MOST_IN_LINE:
      raise UserError(f"{MOST_IN_LINE} jobs of all who use this page wait already: try again when some have ended")
    if kind != VIDEO and any(job.person == person and job.kind == kind for job in mine):
      raise UserError("this is in the line already")

  def get(self, name: str) -> Job | None:
    """Returns a job; None where there is none (any more)."""
    with self._lock:
      return self._known.get(name)

  def change(self, name: str, **changes: Any) -> Job | None:
    """Changes a job, on disk too, and returns it; None where it was removed meanwhile.

    Where the disk can't be written, the change holds until the next start.
    """
    with self._lock:
      if name not in self._known:
        return None
      job = self._known[name] = dataclasses.replace(self._known[name], **changes)
      try:
        self._write(job)
      except UserError as error:
        logging.getLogger(__name__).error("the state of a job is not kept: %s", error)
      return job

  def cancel(self, name: str) -> Job | None:
    """Cancels a job, at once if it waits, otherwise as soon as its process has ended; returns it as it is then."""
    with self._lock:
      job = self._known.get(name)
      if job is not None and job.state == WAITING:
        return self.change(name, state=CANCELLED, ended=time.time())
      if job is not None and job.state == RUNNING:
        return self.change(name, state=STOPPING)
      return job

  def line(self) -> list[Job]:
    """The open jobs: the one that runs, then those that wait, in the order in which their turn comes."""
    with self._lock:
      waiting = [job for job in self._known.values() if job.open]
    return sorted(waiting, key=lambda job: (job.state == WAITING, job.started is None, job.created))

  def of(self, person: str, owner: str, kind: str | None = None) -> list[Job]:
    """The jobs that an owner sees of a person, the newest first; those of nobody (the studio's) are everyone's."""
    with self._lock:
      seen = [job for job in self._known.values() if job.person == person and job.owner in (owner, "")]
    return sorted((job for job in seen if kind in (None, job.kind)), key=lambda job: -job.created)

  def take(self) -> Job | None:
    """Returns the job whose turn it is, as running now; None where none waits."""
    with self._lock:
      waiting = [job for job in self.line() if job.state == WAITING]
      if not waiting:
        return None
      return self.change(waiting[0].name, state=RUNNING, started=waiting[0].started or time.time())

  def remove(self, job: Job) -> None:
    """Removes a job's files."""
    with self._lock:
      self._known.pop(job.name, None)
    for suffix in (".json", ".log", ".lock"):
      self.path(job, suffix).unlink(missing_ok=True)

  def forget(self, person: str) -> None:
    """Forgets all jobs of a person, whose folder is removed with them."""
    with self._lock:
      for job in [job for job in self._known.values() if job.person == person]:
        del self._known[job.name]

  def _write(self, job: Job) -> None:
    with new_file(self.path(job, ".json")) as path:
      path.write_text(json.dumps(dataclasses.asdict(job), indent=1) + "\n", encoding="utf-8")


def _read(record: Path, person: str) -> Job:
  """Returns a job from its file.

  Raises:
    UserError: it is not as the page writes it.
  """
  if not is_regular(record):
    raise UserError(f"{record} is no file of a job: {_REMEDY}")
  job: Job = fields_of(Job, read_json(record, "record", _REMEDY), record, _REMEDY)
  wrong = [
    name
    for name, right in {
      "name": job.name == record.stem and is_name(job.name) and job.name != STUDIO,
      "person": job.person == person,
      "owner": is_owner(job.owner) or (job.owner == EVERYONE and person == STUDIO),
      "kind": job.kind in KINDS,
      "state": job.state in STATES,
    }.items()
    if not right
  ]
  if wrong:
    raise UserError(f"{record} is damaged (the {wrong[0]}): {_REMEDY}")
  try:
    settings = from_values(_SETTINGS[job.kind], job.settings, "settings", ignore_unknown=True)
  except UserError as error:
    raise UserError(f"{record} is damaged ({error}): {_REMEDY}") from None
  return dataclasses.replace(job, settings=dataclasses.asdict(settings))
