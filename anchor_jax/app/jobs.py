"""Jobs: what is to be done, in the order in which it was asked for; each a file, so that they survive the server.

FOLDER/people/PERSON/jobs/JOB.json   what, for whom, how far
FOLDER/people/PERSON/jobs/JOB.log    what its commands printed
FOLDER/people/PERSON/jobs/JOB.lock   locked by its process as long as that lives, see worker.py; holds its id
"""

import dataclasses
import json
import threading
import time
from pathlib import Path
from typing import Any

from anchor_jax.app.people import People, new_name
from anchor_jax.errors import UserError
from anchor_jax.files import new_file

PREPARE, TRAIN, VIDEO, EXPORT = KINDS = ("prepare", "train", "video", "export")
WAITING, RUNNING, STOPPING, DONE, FAILED, CANCELLED = "waiting", "running", "stopping", "done", "failed", "cancelled"
OPEN = (WAITING, RUNNING, STOPPING)
MOST_WAITING = 8  # of one owner


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
  step: int = 0
  created: float = 0.0
  started: float | None = None
  ended: float | None = None
  error: str = ""

  @property
  def open(self) -> bool:
    """Whether it waits or runs."""
    return self.state in OPEN


class Jobs:
  """All jobs of all people. Several threads may use it."""

  def __init__(self, people: People):
    """Reads those that there are; those that ran when the server ended wait again, first in line."""
    self._people, self._lock = people, threading.RLock()
    self._known: dict[str, Job] = {}
    for record in people.folder.glob("*/jobs/*.json"):
      job = Job(**json.loads(record.read_text(encoding="utf-8")))
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
      job = Job(name or new_name(), person, owner, kind, settings, created=time.time())
      self.path(job, ".json").parent.mkdir(parents=True, exist_ok=True)
      self._write(job)
      return job

  def check_room(self, person: str, owner: str, kind: str) -> None:
    """Checks that another job can be added.

    Raises:
      UserError: the owner has too many jobs in the line, or the same one for this person.
    """
    with self._lock:
      mine = [job for job in self._known.values() if job.open and job.owner == owner]
    if len(mine) >= MOST_WAITING:
      raise UserError(f"{MOST_WAITING} jobs of yours wait already: cancel one, or wait for one to end")
    if kind != VIDEO and any(job.person == person and job.kind == kind for job in mine):
      raise UserError("this is in the line already")

  def get(self, name: str) -> Job | None:
    """Returns a job; None where there is none (any more)."""
    with self._lock:
      return self._known.get(name)

  def change(self, name: str, **changes: Any) -> Job | None:
    """Changes a job, on disk too, and returns it; None where it was removed meanwhile."""
    with self._lock:
      if name not in self._known:
        return None
      return self._write(dataclasses.replace(self._known[name], **changes))

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

  def _write(self, job: Job) -> Job:
    with new_file(self.path(job, ".json")) as path:
      path.write_text(json.dumps(dataclasses.asdict(job), indent=1) + "\n", encoding="utf-8")
    self._known[job.name] = job
    return job
