"""The page's operations, one method each, always on behalf of an owner who sees only their own people and jobs."""

import dataclasses
import logging
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import filelock

from anchor_jax.app.access.intake import Intake
from anchor_jax.app.access.marks import marked_folder
from anchor_jax.app.access.people import (
  EVERYONE,
  SIZES,
  STUDIO,
  NotFound,
  PeopleFolder,
  PersonRecord,
  SetAside,
  is_name,
  new_name,
)
from anchor_jax.app.access.quota import Disk
from anchor_jax.app.access.uploads import Limits, take_films
from anchor_jax.app.jobs.commands import FPS, commands_of, video_path
from anchor_jax.app.jobs.outputs import is_own, is_prepared, metrics, page_file, trained_steps
from anchor_jax.app.jobs.progress import Bar, bar_in, loss_curves, report_lines_in, tail
from anchor_jax.app.jobs.queue import DONE, EXPORT, PREPARE, TRAIN, VIDEO, Job, Jobs
from anchor_jax.app.jobs.worker import Worker
from anchor_jax.core.errors import UserError
from anchor_jax.files.outputs import partial_path
from anchor_jax.studio.performances import MOTIONS
from anchor_jax.video.read import probe

SECONDS = (1, 60)  # of a video
_TRAINED_FIRST = 512  # pixels from which the shipped networks, which see every pixel, would take hours for a video


@dataclasses.dataclass(frozen=True)
class JobProgress:
  """Progress of a job.

  Attributes:
    job: the job.
    ahead: number of jobs before it in the queue; 0 if it runs.
    label: label of the current command.
    bar: the command's progress bar, if it shows one.
  """

  job: Job
  ahead: int
  label: str
  bar: Bar | None


class Workshop:
  """Everything behind the page. Thread-safe."""

  def __init__(self, folder: Path, limits: Limits | None = None, smoke: bool = False, lpips: Path | None = None):
    """Opens the page's folder, creating it if needed.

    Args:
      folder: where everything is stored.
      limits: limits of uploads and storage.
      smoke: use tiny settings, to try the page.
      lpips: weights of LPIPS, for the loss of people from uploaded films; None leaves it out.

    Raises:
      UserError: another server uses the folder.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    self._lock = filelock.FileLock(folder / "lock")
    try:
      self._lock.acquire(timeout=0)
    except filelock.Timeout:
      raise UserError(f"{folder} is in use: stop the other page first, or choose another --folder") from None
    self.folder, self.limits, self.smoke, self._lpips = folder, limits or Limits(), smoke, lpips
    self._motions = folder / "motions"
    self._motions.mkdir(exist_ok=True)
    self.uploads, unmarked = marked_folder(folder, "uploads")
    self.disk = Disk(folder, self.limits.gigabytes)
    self.intake = Intake(self.uploads, self.limits.megabytes, self.disk)
    self.people = PeopleFolder(folder)
    self.jobs = Jobs(self.people)
    reason = "not marked as this page's (an earlier version's, or yours), so it is left alone: remove it if you like"
    self._aside = [SetAside(path, None, f"{path}: {reason}") for path in unmarked]
    self._worker = Worker(self.jobs, self._commands, folder)
    self._stopping = threading.Event()
    self._changing = threading.RLock()  # held while people and jobs are added or removed

  def start(self) -> None:
    """Starts the worker, after creating the studio person if there is none yet."""
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
    """Stops the worker; unfinished jobs resume at the next start."""
    self._stopping.set()
    self._worker.stop()
    self._lock.release()

  def _sweep(self) -> None:
    """Removes expired uploads until the page is stopped."""
    while not self._stopping.wait(60.0):
      self.intake.sweep()

  def aside(self) -> list[SetAside]:
    """Returns the files and folders that the page can't use and leaves alone."""
    return [*self._aside, *self.people.aside, *self.jobs.aside]

  # ---- people --------------------------------------------------------------------------------------------------------

  def add_person(
    self,
    owner: str,
    label: str,
    uploaded: Sequence[str | Path],
    consent: bool,
    size: int | tuple[int, int] | str = SIZES[0],
  ) -> PersonRecord:
    """Adds a person from uploaded films, and queues preparation of the films.

    Args:
      owner: the person's owner.
      label: the owner's name for the person.
      uploaded: tokens of the uploads, which stay in the intake.
      consent: whether the person's consent is confirmed.
      size: of the pictures, from `people.picture_size`.

    Raises:
      UserError: no consent, no name, no room, or an unusable upload.
    """
    person = self.people.new(label, owner, "film", size, consent)
    self.jobs.check_room(person.name, owner, PREPARE)
    uploads = self.intake.find_all(owner, uploaded)
    self.disk.check(sum(upload.size for upload in uploads))
    folder = self.people.begin(person)
    try:
      films = take_films(uploads, folder / "films", "film", self.limits)
      person = self._publish(dataclasses.replace(person, films=tuple(film.name for film in films)))
    except BaseException:
      self.people.discard(person)
      raise
    self.intake.mark_used(uploads, person.name)
    return person

  def add_example(self, owner: str, label: str, size: int | tuple[int, int] | str = SIZES[0]) -> PersonRecord:
    """Adds a person from a studio film, to try the page without a film."""
    person = self.people.new(label or "Example", owner, "example", size)
    self.jobs.check_room(person.name, owner, PREPARE)
    self.people.begin(person)
    try:
      return self._publish(dataclasses.replace(person, films=("film_1.mp4",)))
    except BaseException:
      self.people.discard(person)
      raise

  def _publish(self, person: PersonRecord) -> PersonRecord:
    """Publishes a new person and queues preparation: both or neither."""
    with self._changing:
      self.people.check_room(person.owner)  # again: another request may have been faster
      self.jobs.check_room(person.name, person.owner, PREPARE)
      self.people.publish(person)
      try:
        self._enqueue(person.name, person.owner, PREPARE)
      except BaseException:
        self.people.remove(person)
        raise
    return person

  def remove_person(self, owner: str, name: str) -> None:
    """Removes a person with all files, after ending running jobs.

    Raises:
      UserError: this owner has no such person, or not everything could be removed.
    """
    with self._changing:
      person = self._own_person(owner, name)
      self.people.hide(name)  # so that no new job starts
      jobs = [job for job in self.jobs.queue() if job.person == name]
      self.jobs.forget(name)
    self._worker.wake()
    for job in jobs:
      self._worker.wait_until_ended(job)
    self.intake.forget(name)
    self.people.remove(person)

  def is_ready(self, person: PersonRecord) -> bool:
    """Returns whether the person's film was prepared, which videos and training require."""
    return is_prepared(self.people.folder_of(person.name))

  def trained_steps(self, person: PersonRecord) -> int:
    """Returns the step of the person's newest checkpoint; 0 if never trained."""
    return trained_steps(self.people.folder_of(person.name))

  def curves(self, person: PersonRecord) -> dict[str, list[tuple[int, float]]]:
    """Returns the loss curves of the person's training; see `progress.loss_curves`."""
    return loss_curves(metrics(self.people.folder_of(person.name)))

  def report_lines(self, owner: str, person: PersonRecord) -> list[str]:
    """Returns the report of `prepare` on the person's film, line by line; empty until the film is prepared."""
    for job in self.jobs.of(person.name, owner, PREPARE):
      if job.state == DONE:
        return report_lines_in(tail(self.jobs.path(job, ".log")))
    return []

  # ---- jobs ----------------------------------------------------------------------------------------------------------

  def train(self, owner: str, name: str) -> Job:
    """Queues training of a person, or its continuation.

    Raises:
      UserError: the person is everyone's, not ready, or a real person without consent.
    """
    person = self._own_person(owner, name)
    if person.real and person.consent is None:
      raise UserError("confirm first that the person in the film agrees to this")
    self._check_ready(person)
    return self._enqueue(name, owner, TRAIN)

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
    """Queues a video.

    Args:
      owner: who requests it.
      name: name of the person.
      motion: "studio:NAME", "person:NAME", or "upload".
      seconds: maximum length.
      uploaded: tokens of the motion's film, for "upload".
      trained: use the person's own training, if there is one.
      fast: use the light decoder.

    Raises:
      UserError: the person is not ready, or the motion can't be used.
    """
    person = self.people.get(name, owner)
    self._check_ready(person)
    trained = self._check_trained(person, trained)
    if not SECONDS[0] <= seconds <= SECONDS[1]:
      raise UserError(f"a video must have {SECONDS[0]} to {SECONDS[1]} seconds")
    self.jobs.check_room(name, owner, VIDEO)
    job, fps, folder = new_name(), float(FPS), self.people.folder_of(name)
    kind, _, source = motion.partition(":")
    if kind == "studio" and source in MOTIONS:
      label = MOTIONS[source].label
    elif kind == "person":
      other = self.people.get(source, owner)
      self._check_ready(other)
      label, fps = f"As {other.label}", probe(self.people.folder_of(source) / "films" / other.films[0]).fps
    elif motion == "upload":
      uploads = self.intake.find_all(owner, uploaded)
      self.disk.check(sum(upload.size for upload in uploads))
      try:
        film = take_films(uploads, folder / "motions", job, self.limits)[0]
        motion, label, fps = f"upload:{film.name}", "Own motion", film.info.fps
        queued = self._enqueue_video(owner, person, job, motion, label, seconds, fps, trained=trained, fast=fast)
      except BaseException as error:
        self._remove_motion(name, job)
        if isinstance(error, OSError) and self.people.find(name) is None:  # the person was deleted in the meantime
          raise NotFound("there is no such person (anymore)") from None
        raise
      self.intake.mark_used(uploads, job, name)
      return queued
    else:
      raise UserError("choose a motion first")
    return self._enqueue_video(owner, person, job, motion, label, seconds, fps, trained=trained, fast=fast)

  def _enqueue_video(
    self,
    owner: str,
    person: PersonRecord,
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
      "trained": trained,
      "fast": fast,
    }
    return self._enqueue(person.name, owner, VIDEO, job, **settings)

  def export(self, owner: str, name: str) -> Job:
    """Queues export of a person as a bundle, which runs without this package."""
    person = self._own_person(owner, name)
    self._check_ready(person)
    return self._enqueue(name, owner, EXPORT, trained=self._check_trained(person))

  def _check_trained(self, person: PersonRecord, wanted: bool = True) -> bool:
    """Returns whether to use the person's training: if there is one and it is wanted; large pictures need it."""
    trained = wanted and self.trained_steps(person) > 0
    if not trained and person.side >= _TRAINED_FIRST:
      raise UserError(f"pictures of {person.side} pixels need training first: train this person, and use the training")
    return trained

  def cancel(self, owner: str, job: str) -> None:
    """Cancels a job; training saves its progress."""
    self._worker.cancel(self._own_job(owner, job))

  def remove_video(self, owner: str, job: str) -> None:
    """Removes a video, its job, and the motion uploaded for it."""
    found = self._own_job(owner, job)
    if found.kind != VIDEO:
      raise NotFound("there is no such video (anymore)")
    self._worker.cancel(found)
    self._worker.wait_until_ended(found)
    video = video_path(found, self.people)
    for path in (video, partial_path(video)):
      path.unlink(missing_ok=True)
    self._remove_motion(found.person, found.name)
    self.jobs.remove(found)
    self.intake.forget(found.name)

  def _remove_motion(self, person: str, job: str) -> None:
    for path in (self.people.folder_of(person) / "motions").glob(f"{job}_*"):
      shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

  def videos(self, owner: str, person: PersonRecord) -> list[Job]:
    """Returns this owner's video jobs of a person, newest first, in any state."""
    return [job for job in self.jobs.of(person.name, owner, VIDEO) if job.owner == owner]

  def progress(self, job: Job) -> JobProgress:
    """Returns the progress of a job."""
    queue = [queued.name for queued in self.jobs.queue()]
    ahead = queue.index(job.name) if job.name in queue else 0
    person = self.people.find(job.person)
    try:
      commands = [] if person is None else self._commands(job)
    except UserError:
      commands = []
    except Exception:  # all users see the queue, so one broken job must not hide it
      logging.getLogger(__name__).exception("job %s has no commands", job.name)
      commands = []
    label = commands[job.step].label if job.step < len(commands) else ""
    return JobProgress(job, ahead, label, bar_in(tail(self.jobs.path(job, ".log"))))

  # ---- files ---------------------------------------------------------------------------------------------------------

  def file(self, owner: str, name: str, what: str) -> Path:
    """Returns the path of a file that a browser requests.

    Args:
      owner: the browser's owner.
      name: name of the person.
      what: "found", "appearance" or "report" (from `prepare`), "training" (the preview), "bundle", or the name of a
        video's job.

    Raises:
      NotFound: no such file, or another owner's.
    """
    person = self.people.get(name, owner)
    folder = self.people.folder_of(person.name)
    path = page_file(folder, what) or video_path(self._video(owner, name, what), self.people)
    if not is_own(path, folder):
      raise NotFound("there is no such file (yet)")
    return path

  def live(self, owner: str, name: str, job: str) -> tuple[Path, Path]:
    """Returns the partial and the final path of a video that is being generated."""
    path = video_path(self._video(owner, name, job), self.people)
    return partial_path(path), path

  def is_open(self, job: str) -> bool:
    """Returns whether a job is waiting or running."""
    found = self.jobs.get(job)
    return found is not None and found.open

  def _video(self, owner: str, name: str, job: str) -> Job:
    found = self._own_job(owner, job)
    if found.person != name or found.kind != VIDEO:
      raise NotFound("there is no such video (anymore)")
    return found

  def _own_person(self, owner: str, name: str) -> PersonRecord:
    person = self.people.get(name, owner)
    if person.owner != owner:
      raise UserError("the studio person is everyone's and can't be changed: add your own person")
    return person

  def _own_job(self, owner: str, name: str) -> Job:
    job = self.jobs.get(name) if is_name(name) else None
    if job is None or job.owner != owner:
      raise NotFound("there is no such job (anymore)")
    return job

  def _check_ready(self, person: PersonRecord) -> None:
    if not self.is_ready(person):
      raise UserError(f"{person.label} is not ready yet: wait until the film is prepared")

  def _enqueue(self, person: str, owner: str, kind: str, name: str = "", **settings) -> Job:
    self.disk.check()
    with self._changing:
      job = self.jobs.add(person, owner, kind, name, **settings)
    self._worker.wake()
    return job

  def _commands(self, job: Job) -> list:
    person = self.people.find(job.person)
    if person is None:
      raise NotFound("there is no such person (anymore)")
    return commands_of(job, person, self.people, self._motions, self.smoke, self._lpips)
