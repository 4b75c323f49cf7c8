"""One function for each thing that the page can do, all of them for an owner, who sees only what is hers."""

import dataclasses
import logging
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import filelock

from anchor_jax.app.access.intake import Intake
from anchor_jax.app.access.marks import own_folder
from anchor_jax.app.access.people import EVERYONE, SIZES, STUDIO, Aside, NotFound, People, Person, is_name, new_name
from anchor_jax.app.access.quota import Disk
from anchor_jax.app.access.uploads import Limits, take_films
from anchor_jax.app.jobs.commands import FPS, commands_of, video_path
from anchor_jax.app.jobs.outputs import is_own, is_prepared, metrics, shown_file, trained_steps
from anchor_jax.app.jobs.progress import Bar, bar_in, loss_curves, tail, told_in
from anchor_jax.app.jobs.queue import DONE, EXPORT, PREPARE, TRAIN, VIDEO, Job, Jobs
from anchor_jax.app.jobs.worker import Worker
from anchor_jax.core.errors import UserError
from anchor_jax.files.outputs import partial_path
from anchor_jax.studio.performances import MOTIONS
from anchor_jax.video.read import probe

SECONDS = (1, 60)  # of a video


@dataclasses.dataclass(frozen=True)
class Place:
  """Where a job stands: its place in the line (0: it runs), the command that runs, and its bar where there is one."""

  job: Job
  ahead: int
  label: str
  bar: Bar | None


class Workshop:
  """Everything behind the page. Several threads may use it."""

  def __init__(self, folder: Path, limits: Limits | None = None, smoke: bool = False):
    """Opens a folder, made where it is missing.

    Args:
      folder: of all people.
      limits: of uploads.
      smoke: tiny numbers, for a try.

    Raises:
      UserError: another server uses it.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    self._lock = filelock.FileLock(folder / "lock")
    try:
      self._lock.acquire(timeout=0)
    except filelock.Timeout:
      raise UserError(f"{folder} is in use: end the other page first, or choose another --folder") from None
    self.folder, self.limits, self.smoke = folder, limits or Limits(), smoke
    self._motions = folder / "motions"
    self._motions.mkdir(exist_ok=True)
    self.uploads, others = own_folder(folder, "uploads")
    self.disk = Disk(folder, self.limits.gigabytes)
    self.intake = Intake(self.uploads, self.limits.megabytes, self.disk)
    self.people = People(folder)
    self.jobs = Jobs(self.people)
    why = "it does not carry the mark of this page and stays (an earlier version's, or yours): remove it if you like"
    self._aside = [Aside(place, None, f"{place}: {why}") for place in others]
    self._worker = Worker(self.jobs, self._commands, folder)
    self._stopping = threading.Event()
    self._changing = threading.RLock()  # held while people and jobs are added and removed

  def start(self) -> None:
    """Starts to work; the studio person is made first, where there is none yet."""
    person = self.people.find(STUDIO)
    if person is None:
      self.people.set_aside(STUDIO)
      person = self.people.new("Studio person", EVERYONE, "studio", SIZES[0])
      person = self.people.add(dataclasses.replace(person, films=("film_1.mp4",)))
    if not self.is_ready(person) and not any(job.open for job in self.jobs.of(STUDIO, EVERYONE, PREPARE)):
      self.jobs.add(STUDIO, EVERYONE, PREPARE)
    self._worker.start()
    threading.Thread(target=self._sweep, name="uploads", daemon=True).start()

  def stop(self) -> None:
    """Stops working; what is not done goes on at the next start."""
    self._stopping.set()
    self._worker.stop()
    self._lock.release()

  def _sweep(self) -> None:
    """Removes uploads that nobody used, until the page is stopped."""
    while not self._stopping.wait(60.0):
      self.intake.sweep()

  def aside(self) -> list[Aside]:
    """What was found in the folder and not taken; all of it stays as it is."""
    return [*self._aside, *self.people.aside, *self.jobs.aside]

  # ---- people --------------------------------------------------------------------------------------------------------

  def add_person(
    self, owner: str, label: str, uploaded: Sequence[str | Path], consent: bool, size: int = SIZES[0]
  ) -> Person:
    """Makes a person of uploaded films, which are looked at next.

    Args:
      owner: whose person this is.
      label: what the owner calls the person.
      uploaded: tokens of the intake's; the uploads stay there.
      consent: whether the person agrees.
      size: of the pictures.

    Raises:
      UserError: no consent, no name, no room, or an upload that can't be used.
    """
    person = self.people.new(label, owner, "film", size, consent)
    self.jobs.check_room(person.name, owner, PREPARE)
    uploads = self.intake.find_all(owner, uploaded)
    self.disk.check(sum(upload.size for upload in uploads))
    folder = self.people.begin(person)
    try:
      films = take_films(uploads, folder / "films", "film", self.limits)
      person = self._keep(dataclasses.replace(person, films=films))
    except BaseException:
      self.people.drop(person)
      raise
    self.intake.mark_used(uploads, person.name)
    return person

  def add_example(self, owner: str, label: str, size: int = SIZES[0]) -> Person:
    """Makes a person of a studio film, for a try without a film of one's own."""
    person = self.people.new(label or "Example", owner, "example", size)
    self.jobs.check_room(person.name, owner, PREPARE)
    self.people.begin(person)
    try:
      return self._keep(dataclasses.replace(person, films=("film_1.mp4",)))
    except BaseException:
      self.people.drop(person)
      raise

  def _keep(self, person: Person) -> Person:
    """Keeps a person whose folder was begun, and puts the look at the film into the line: both or none."""
    with self._changing:
      self.people.check_room(person.owner)  # once more: others may have been faster
      self.jobs.check_room(person.name, person.owner, PREPARE)
      self.people.keep(person)
      try:
        self._begin(person.name, person.owner, PREPARE)
      except BaseException:
        self.people.remove(person)
        raise
    return person

  def remove_person(self, owner: str, name: str) -> None:
    """Removes a person and everything made of the person; what runs is ended first.

    Raises:
      UserError: there is no such person of this owner, or not everything could be removed.
    """
    with self._changing:
      person = self._own(owner, name)
      self.people.hide(name)  # from here on nothing new begins
      jobs = [job for job in self.jobs.line() if job.person == name]
      self.jobs.forget(name)
    self._worker.wake()
    for job in jobs:
      self._worker.wait_until_ended(job)
    self.intake.forget(name)
    self.people.remove(person)

  def is_ready(self, person: Person) -> bool:
    """Whether her film was looked at, so that she can be shown."""
    return is_prepared(self.people.folder_of(person.name))

  def trained_steps(self, person: Person) -> int:
    """How many steps of training are kept; 0 where she was never trained."""
    return trained_steps(self.people.folder_of(person.name))

  def curves(self, person: Person) -> dict[str, list[tuple[int, float]]]:
    """The curves of her training; see `progress.loss_curves`."""
    return loss_curves(metrics(self.people.folder_of(person.name)))

  def told(self, owner: str, person: Person) -> list[str]:
    """What was found in her film, and what was dropped, line by line; nothing until it was looked at."""
    for job in self.jobs.of(person.name, owner, PREPARE):
      if job.state == DONE:
        return told_in(tail(self.jobs.path(job, ".log")))
    return []

  # ---- jobs ----------------------------------------------------------------------------------------------------------

  def train(self, owner: str, name: str) -> Job:
    """Trains a person, or goes on with it.

    Raises:
      UserError: she is everyone's, not ready, or a real person without consent.
    """
    person = self._own(owner, name)
    if person.real and person.consent is None:
      raise UserError("confirm first that the person in the film agrees to this")
    self._check_ready(person)
    return self._begin(name, owner, TRAIN)

  def make_video(
    self,
    owner: str,
    name: str,
    motion: str,
    seconds: float,
    *,
    uploaded: Sequence[str | Path] = (),
    trained: bool = True,
    fast: bool = False,
  ) -> Job:
    """Makes a video.

    Args:
      owner: who wants it.
      name: of the person.
      motion: "studio:NAME", "person:NAME", or "upload".
      seconds: at most so long.
      uploaded: the motion's film, for "upload".
      trained: with what she learned in training, if she was trained; otherwise as before.
      fast: with the light decoder.

    Raises:
      UserError: she is not ready, or the motion can't be used.
    """
    person = self.people.get(name, owner)
    self._check_ready(person)
    if not SECONDS[0] <= seconds <= SECONDS[1]:
      raise UserError(f"a video has {SECONDS[0]} to {SECONDS[1]} seconds")
    self.jobs.check_room(name, owner, VIDEO)
    job, fps, folder = new_name(), float(FPS), self.people.folder_of(name)
    kind, _, which = motion.partition(":")
    if kind == "studio" and which in MOTIONS:
      label = MOTIONS[which].label
    elif kind == "person":
      other = self.people.get(which, owner)
      self._check_ready(other)
      label, fps = f"As {other.label}", probe(self.people.folder_of(which) / "films" / other.films[0]).fps
    elif motion == "upload":
      uploads = self.intake.find_all(owner, uploaded)
      self.disk.check(sum(upload.size for upload in uploads))
      try:
        taken = take_films(uploads, folder / "motions", job, self.limits)[0]
        motion, label, fps = f"upload:{taken}", "Own motion", probe(folder / "motions" / taken).fps
        made = self._make(owner, person, job, motion, label, seconds, fps, trained=trained, fast=fast)
      except BaseException as error:
        self._remove_motion(name, job)
        if isinstance(error, OSError) and self.people.find(name) is None:  # the person was deleted meanwhile
          raise NotFound("there is no such person (any more)") from None
        raise
      self.intake.mark_used(uploads, job, name)
      return made
    else:
      raise UserError("choose a motion first")
    return self._make(owner, person, job, motion, label, seconds, fps, trained=trained, fast=fast)

  def _make(
    self,
    owner: str,
    person: Person,
    job: str,
    motion: str,
    label: str,
    seconds: float,
    fps: float,
    trained: bool,
    fast: bool,
  ) -> Job:
    settings = {
      "motion": motion,
      "label": label,
      "seconds": round(seconds),
      "frames": max(1, round(seconds * fps)),
      "trained": trained and self.trained_steps(person) > 0,
      "fast": fast,
    }
    return self._begin(person.name, owner, VIDEO, job, **settings)

  def export(self, owner: str, name: str) -> Job:
    """Writes a bundle of a person, to be used without this package."""
    person = self._own(owner, name)
    self._check_ready(person)
    return self._begin(name, owner, EXPORT, trained=self.trained_steps(person) > 0)

  def cancel(self, owner: str, job: str) -> None:
    """Cancels a job; what was trained until then is kept."""
    self._worker.cancel(self._own_job(owner, job))

  def remove_video(self, owner: str, job: str) -> None:
    """Removes a video, its job, and the motion that was uploaded for it."""
    found = self._own_job(owner, job)
    if found.kind != VIDEO:
      raise NotFound("there is no such video (any more)")
    self._worker.cancel(found)
    self._worker.wait_until_ended(found)
    video = video_path(found, self.people)
    for place in (video, partial_path(video)):
      place.unlink(missing_ok=True)
    self._remove_motion(found.person, found.name)
    self.jobs.remove(found)
    self.intake.forget(found.name)

  def _remove_motion(self, person: str, job: str) -> None:
    for place in (self.people.folder_of(person) / "motions").glob(f"{job}_*"):
      shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)

  def videos(self, owner: str, person: Person) -> list[Job]:
    """The videos of a person that this owner made, the newest first; also those that are not done yet."""
    return [job for job in self.jobs.of(person.name, owner, VIDEO) if job.owner == owner]

  def place(self, job: Job) -> Place:
    """Where a job stands."""
    line = [other.name for other in self.jobs.line()]
    ahead = line.index(job.name) if job.name in line else 0
    person = self.people.find(job.person)
    try:
      commands = [] if person is None else self._commands(job)
    except UserError:
      commands = []
    except Exception:  # the line is everybody's: one job in it must not take it from all
      logging.getLogger(__name__).exception("job %s has no commands", job.name)
      commands = []
    label = commands[job.step].label if job.step < len(commands) else ""
    return Place(job, ahead, label, bar_in(tail(self.jobs.path(job, ".log"))))

  # ---- files ---------------------------------------------------------------------------------------------------------

  def file(self, owner: str, name: str, what: str) -> Path:
    """Returns a file that a browser asks for.

    Args:
      owner: whose browser it is.
      name: of the person.
      what: "found", "appearance" or "report" (of her films), "training" (the preview), "bundle", or a job's name (its
        video).

    Raises:
      NotFound: there is none, or it belongs to somebody else.
    """
    person = self.people.get(name, owner)
    folder = self.people.folder_of(person.name)
    path = shown_file(folder, what) or video_path(self._video(owner, name, what), self.people)
    if not is_own(path, folder):
      raise NotFound("there is no such file (yet)")
    return path

  def live(self, owner: str, name: str, job: str) -> tuple[Path, Path]:
    """Returns the partial file of a video that is being made, and the file that it becomes."""
    path = video_path(self._video(owner, name, job), self.people)
    return partial_path(path), path

  def is_open(self, job: str) -> bool:
    """Whether a job waits or runs."""
    found = self.jobs.get(job)
    return found is not None and found.open

  def _video(self, owner: str, name: str, job: str) -> Job:
    found = self._own_job(owner, job)
    if found.person != name or found.kind != VIDEO:
      raise NotFound("there is no such video (any more)")
    return found

  def _own(self, owner: str, name: str) -> Person:
    person = self.people.get(name, owner)
    if person.owner != owner:
      raise UserError("the studio person is everyone's and stays as she is: make a person of your own")
    return person

  def _own_job(self, owner: str, name: str) -> Job:
    job = self.jobs.get(name) if is_name(name) else None
    if job is None or job.owner != owner:
      raise NotFound("this is not there (any more)")
    return job

  def _check_ready(self, person: Person) -> None:
    if not self.is_ready(person):
      raise UserError(f"{person.label} is not ready yet: wait until her film was looked at")

  def _begin(self, person: str, owner: str, kind: str, name: str = "", **settings) -> Job:
    self.disk.check()
    with self._changing:
      job = self.jobs.add(person, owner, kind, name, **settings)
    self._worker.wake()
    return job

  def _commands(self, job: Job) -> list:
    person = self.people.find(job.person)
    if person is None:
      raise NotFound("there is no such person (any more)")
    return commands_of(job, person, self.people, self._motions, self.smoke)
