"""What a job runs: the package's own commands, one after another, each of which can be stopped and started again."""

import sys
from pathlib import Path
from typing import NamedTuple

from anchor_jax.app.access.people import People, Person
from anchor_jax.app.jobs.queue import EXPORT, PREPARE, TRAIN, VIDEO, Job
from anchor_jax.app.jobs.studio import motion_path
from anchor_jax.core.errors import UserError

PREPARED, TRAINED, BUNDLE = "prepared", "trained", "bundle"
TRAINED_PART = "body"  # a head gains nothing in as few steps (docs/results.md, study)
FPS = 25  # of studio motions
_CONFIGS = {128: "studio_finetune.py", 256: "studio_256.py"}  # by the size of the pictures
_SMOKE_TRAINING = {
  "steps": 12,
  "log_every": 1,
  "checkpoint_every": 2,
  "preview_every": 4,
  "data.batch_size": 2,
  "data.validation": 2,
}


class Command(NamedTuple):
  """One command of a job: what is shown while it runs, and its arguments."""

  label: str
  arguments: tuple[str, ...]


def commands_of(job: Job, person: Person, people: People, motions: Path, smoke: bool = False) -> list[Command]:
  """Returns the commands of a job.

  Args:
    job, person: what is to be done, and for whom.
    people: where the folders are.
    motions: the folder of studio motions.
    smoke: tiny numbers.

  Raises:
    UserError: another person, whose motion is wanted, is not there any more.
  """
  folder = people.folder_of(person.name)
  if job.kind == PREPARE:
    return _prepare(person, folder, smoke)
  if job.kind == TRAIN:
    return [Command("learning her", _module("train", *_training(person, folder, smoke)))]
  if job.kind == VIDEO:
    return _video(job, person, people, motions)
  if job.kind == EXPORT:
    bundle = folder / BUNDLE
    platforms = ("--platforms=cpu",) if smoke else ()
    written = _module("export", *_who(folder, job.settings["trained"]), f"--output={bundle}", *platforms)
    zipped = ("-m", "anchor_jax.app.jobs.pack", f"--folder={bundle}", f"--output={bundle}.zip")
    return [Command("writing the bundle", written), Command("packing it", (sys.executable, *zipped))]
  raise UserError(f"there is no job of kind {job.kind}")


def video_path(job: Job, people: People) -> Path:
  """Returns where a job's video is, or will be."""
  return people.folder_of(job.person) / "videos" / f"{job.name}.mp4"


def _module(name: str, *arguments: str) -> tuple[str, ...]:
  return sys.executable, "-m", f"anchor_jax.{name}", *arguments


def _prepare(person: Person, folder: Path, smoke: bool) -> list[Command]:
  films = [str(folder / "films" / name) for name in person.films]
  steps = []
  if not person.real:
    seconds = "2" if smoke and person.kind == "example" else "12"
    arguments = (f"--output={films[0]}", f"--person={person.kind}", f"--size={person.size}", f"--seconds={seconds}")
    steps.append(Command("filming a studio person", _module("app.jobs.studio", *arguments, "--fps=10")))
  prepared = (f"--output={folder / PREPARED}", f"--size={person.size}", f"--person={person.label}")
  return [*steps, Command("looking at the film", _module("prepare", *films, *prepared))]


def _motion(place: Path, name: str, size: int, seconds: int) -> Command:
  arguments = (f"--output={place}", f"--motion={name}", f"--size={size}", f"--seconds={seconds}", f"--fps={FPS}")
  return Command("filming the motion", _module("app.jobs.studio", *arguments))


def _training(person: Person, folder: Path, smoke: bool) -> list[str]:
  changes = {"data.path": folder / PREPARED, **(_SMOKE_TRAINING if smoke else {})}
  settings = [f"--config.{name}={value}" for name, value in changes.items()]
  return [f"--config={_CONFIGS[person.size]}:{TRAINED_PART}", f"--workdir={folder / TRAINED}", *settings]


def _who(folder: Path, trained: bool) -> tuple[str, ...]:
  """The flags that say which networks show her: her own, or the shipped ones, which see her film."""
  own = f"--checkpoint={folder / TRAINED}"
  return (own,) if trained else ("--checkpoint=studio", f"--appearance={folder / PREPARED}")


def _video(job: Job, person: Person, people: People, motions: Path) -> list[Command]:
  wanted, steps = job.settings, []
  kind, _, name = wanted["motion"].partition(":")
  sound: tuple[str, ...] = ()
  if kind == "studio":
    motion = motion_path(motions, name, person.size, wanted["seconds"])
    steps.append(_motion(motion, name, person.size, wanted["seconds"]))
  elif kind == "upload":
    motion = people.folder_of(person.name) / "motions" / name
  else:
    other = people.find(name)
    if other is None:
      raise UserError("the person whose motion you chose is not there any more: choose another motion")
    motion, sound = people.folder_of(other.name) / "films" / other.films[0], ("--no-audio",)  # her voice stays hers
  flags = [*_who(people.folder_of(person.name), wanted["trained"]), "--no-head", f"--motion={motion}", *sound]
  flags += [f"--output={video_path(job, people)}", "--resume", f"--frames={wanted['frames']}"]
  if wanted.get("fast"):
    flags.append("--fast")
  return [*steps, Command("making the video", _module("generate", *flags))]
