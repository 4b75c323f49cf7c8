"""The queue of jobs, in order of request; each job is a file, so that it survives a restart.

FOLDER/people/PERSON/jobs/JOB.json   kind, settings and state
FOLDER/people/PERSON/jobs/JOB.log    output of its commands
FOLDER/people/PERSON/jobs/JOB.lock   locked by its running process, see worker.py; contains the process id
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
from anchor_jax.app.access.people import EVERYONE, LATEST, STUDIO, PeopleFolder, SetAside, is_name, is_owner, new_name
from anchor_jax.core.errors import UserError
from anchor_jax.core.values import Within, from_values
from anchor_jax.files.fields import fields_of
from anchor_jax.files.inputs import read_json
from anchor_jax.files.outputs import new_file

PREPARE, TRAIN, VIDEO, EXPORT = KINDS = ("prepare", "train", "video", "export")
WAITING, RUNNING, STOPPING, DONE, FAILED, CANCELLED = "waiting", "running", "stopping", "done", "failed", "cancelled"
OPEN = (WAITING, RUNNING, STOPPING)
STATES = (*OPEN, DONE, FAILED, CANCELLED)
MAX_QUEUED = 8  # per owner
MAX_QUEUED_IN_ALL = 64  # over all owners
_REMEDY = "the page's operator can repair it, or move the file away"
_MOTION = r"studio:[a-z]{1,40}|person:(studio|[0-9a-f]{16})|upload:[0-9a-f]{16}_1\.(mp4|mov|mkv|webm)"


@dataclasses.dataclass(frozen=True)
class VideoSettings:
  """Settings of a video, set by `workshop.Workshop.make_video`; the defaults apply to older records."""

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
  """Settings of an export."""

  trained: bool = False


@dataclasses.dataclass(frozen=True)
class NoSettings:
  """Settings of all other jobs."""


_SETTINGS = {PREPARE: NoSettings, TRAIN: NoSettings, VIDEO: VideoSettings, EXPORT: ExportSettings}


@dataclasses.dataclass(frozen=True)
class Job:
  """One job.

  Attributes:
    name: name of its files.
    person: name of the person it is for.
    owner: who requested it, and the only one who sees its result.
    kind: one of `KINDS`.
    settings: input of commands.py.
    state: one of `STATES`.
    step: index of the current or next command.
    created, started, ended: seconds since 1970.
    error: error message for users.
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
    """Whether the job is waiting or running."""
    return self.state in OPEN


class Jobs:
  """All jobs of all people. Thread-safe.

  Attributes:
    aside: job files that could not be read; they stay.
  """

  def __init__(self, people: PeopleFolder):
    """Reads the jobs of all people; jobs that were running when the server ended wait again, first in the queue."""
    self._people, self._lock = people, threading.RLock()
    self._known: dict[str, Job] = {}
    self.aside: list[SetAside] = []
    for person in people.everyone():
      folder = people.folder_of(person.name) / "jobs"
      for record in sorted(folder.glob("*.json")) if is_folder(folder) else ():
        try:
          job = _read(record, person.name)
        except UserError as error:
          self.aside.append(SetAside(record, person.owner or None, str(error)))
        else:
          self._known[job.name] = job
    for job in list(self._known.values()):
      if job.state == RUNNING:
        self.change(job.name, state=WAITING)
      elif job.state == STOPPING:
        self.change(job.name, state=CANCELLED, ended=time.time())

  def path(self, job: Job, suffix: str) -> Path:
    """Returns the path of a job's record (".json"), ".log" or ".lock"."""
    return self._people.folder_of(job.person) / "jobs" / f"{job.name}{suffix}"

  def add(self, person: str, owner: str, kind: str, name: str = "", **settings: Any) -> Job:
    """Appends a job to the queue, and returns it.

    Args:
      person: name of the person.
      owner: who requests it.
      kind: one of `KINDS`.
      name: name of the job, if files with that name exist already; default a new one.
      settings: settings of the job.

    Raises:
      UserError: see `check_room`; or no such person.
    """
    with self._lock:
      self.check_room(person, owner, kind)
      if self._people.find(person) is None:
        raise UserError("there is no such person (anymore)")
      job = Job(name or new_name(), person, owner, kind, settings, created=time.time())
      self.path(job, ".json").parent.mkdir(parents=True, exist_ok=True)
      self._write(job)
      self._known[job.name] = job
      return job

  def check_room(self, person: str, owner: str, kind: str) -> None:
    """Checks that another job can be added.

    Raises:
      UserError: the queue is full, the owner has too many jobs in it, or the same job for this person.
    """
    queue = self.queue()
    own = [job for job in queue if job.owner == owner]
    if len(own) >= MAX_QUEUED:
      raise UserError(f"you have {MAX_QUEUED} jobs in the queue already: cancel one, or wait for one to end")
    if len(queue) >= MAX_QUEUED_IN_ALL:
      raise UserError(f"the queue is full, with {MAX_QUEUED_IN_ALL} jobs of all users: try again later")
    if kind != VIDEO and any(job.person == person and job.kind == kind for job in own):
      raise UserError("this job is already in the queue")

  def get(self, name: str) -> Job | None:
    """Returns a job; None if there is none (anymore)."""
    with self._lock:
      return self._known.get(name)

  def change(self, name: str, **changes: Any) -> Job | None:
    """Changes a job, also on disk, and returns it; None if it was removed.

    If the disk can't be written, the change lasts until the next start.
    """
    with self._lock:
      if name not in self._known:
        return None
      job = self._known[name] = dataclasses.replace(self._known[name], **changes)
      try:
        self._write(job)
      except UserError as error:
        logging.getLogger(__name__).error("the state of a job is not saved: %s", error)
      return job

  def cancel(self, name: str) -> Job | None:
    """Cancels a waiting job, or marks a running one to be stopped; returns its new state."""
    with self._lock:
      job = self._known.get(name)
      if job is not None and job.state == WAITING:
        return self.change(name, state=CANCELLED, ended=time.time())
      if job is not None and job.state == RUNNING:
        return self.change(name, state=STOPPING)
      return job

  def queue(self) -> list[Job]:
    """Returns the open jobs: the running one, then the waiting ones in order."""
    with self._lock:
      open_jobs = [job for job in self._known.values() if job.open]
    return sorted(open_jobs, key=lambda job: (job.state == WAITING, job.started is None, job.created))

  def of(self, person: str, owner: str, kind: str | None = None) -> list[Job]:
    """Returns a person's jobs that an owner sees, newest first: the owner's, and those without owner (the studio's)."""
    with self._lock:
      visible = [job for job in self._known.values() if job.person == person and job.owner in (owner, "")]
    return sorted((job for job in visible if kind in (None, job.kind)), key=lambda job: -job.created)

  def take(self) -> Job | None:
    """Returns the next waiting job, now marked as running; None if none waits."""
    with self._lock:
      waiting = [job for job in self.queue() if job.state == WAITING]
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
    """Forgets all jobs of a person; their files go with the person's folder."""
    with self._lock:
      for job in [job for job in self._known.values() if job.person == person]:
        del self._known[job.name]

  def _write(self, job: Job) -> None:
    with new_file(self.path(job, ".json")) as path:
      path.write_text(json.dumps(dataclasses.asdict(job), indent=1) + "\n", encoding="utf-8")


def _read(record: Path, person: str) -> Job:
  """Returns the job in a file.

  Raises:
    UserError: the file is not as the page writes it.
  """
  if not is_regular(record):
    raise UserError(f"{record} is not a job's file: {_REMEDY}")
  job: Job = fields_of(Job, read_json(record, "record", _REMEDY), record, _REMEDY)
  wrong = [
    name
    for name, valid in {
      "name": job.name == record.stem and is_name(job.name) and job.name != STUDIO,
      "person": job.person == person,
      "owner": is_owner(job.owner) or (job.owner == EVERYONE and person == STUDIO),
      "kind": job.kind in KINDS,
      "state": job.state in STATES,
    }.items()
    if not valid
  ]
  if wrong:
    raise UserError(f"{record} is damaged (the {wrong[0]}): {_REMEDY}")
  try:
    settings = from_values(_SETTINGS[job.kind], job.settings, "settings", ignore_unknown=True)
  except UserError as error:
    raise UserError(f"{record} is damaged ({error}): {_REMEDY}") from None
  return dataclasses.replace(job, settings=dataclasses.asdict(settings))
