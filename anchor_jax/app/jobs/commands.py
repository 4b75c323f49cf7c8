"""The command lines of a job: the package's own commands, each of which can be interrupted and resumed."""

import sys
from pathlib import Path
from typing import NamedTuple

from anchor_jax.app.access.people import PeopleFolder, PersonRecord
from anchor_jax.app.jobs.queue import EXPORT, PREPARE, TRAIN, VIDEO, Job
from anchor_jax.app.jobs.studio import motion_path
from anchor_jax.config.run import FILM_STEPS, LPIPS_WEIGHT
from anchor_jax.config.stored import read_settings
from anchor_jax.core.errors import UserError
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.data.meta import read_meta

PREPARED, TRAINED, BUNDLE = "prepared", "trained", "bundle"
TRAINED_PART = "body"  # a head gains nothing in this few steps (docs/results.md, study)
FPS = 25  # of studio motions
_CONFIGS = {
  128: "studio_finetune.py",
  256: "studio_256.py",
  512: "studio_512.py",
}  # by the shorter side of the pictures
_SMOKE_TRAINING = {
  "steps": 12,
  "log_every": 1,
  "checkpoint_every": 2,
  "preview_every": 4,
  "data.batch_size": 2,
  "data.validation": 2,
}


class Command(NamedTuple):
  """One command of a job: a label to show while it runs, and its arguments."""

  label: str
  arguments: tuple[str, ...]


def commands_of(
  job: Job,
  person: PersonRecord,
  people: PeopleFolder,
  motions: Path,
  smoke: bool = False,
  lpips: Path | None = None,
) -> list[Command]:
  """Returns the commands of a job.

  Args:
    job: the job.
    person: the person it is for.
    people: all people, for their folders.
    motions: the folder of studio motions.
    smoke: use tiny settings.
    lpips: weights of LPIPS; None leaves it out of the loss.

  Raises:
    UserError: the job uses another person's motion, and that person was deleted.
  """
  folder = people.folder_of(person.name)
  if job.kind == PREPARE:
    return _prepare(person, folder, smoke)
  if job.kind == TRAIN:
    return [Command("training", _module("train", *_training(person, folder, smoke, lpips)))]
  if job.kind == VIDEO:
    return _video(job, person, people, motions)
  if job.kind == EXPORT:
    bundle = folder / BUNDLE
    platforms = ("--platforms=cpu",) if smoke else ()
    export = _module("export", *_model_flags(folder, job.settings["trained"]), f"--output={bundle}", *platforms)
    pack = _module("app.jobs.pack", f"--folder={bundle}", f"--output={bundle}.zip")
    return [Command("writing the bundle", export), Command("zipping the bundle", pack)]
  raise UserError(f"there is no job of kind {job.kind}")


def video_path(job: Job, people: PeopleFolder) -> Path:
  """Returns the path of a job's video, which may not exist yet."""
  return people.folder_of(job.person) / "videos" / f"{job.name}.mp4"


def _module(name: str, *arguments: str) -> tuple[str, ...]:
  return sys.executable, "-m", f"anchor_jax.{name}", *arguments


def _prepare(person: PersonRecord, folder: Path, smoke: bool) -> list[Command]:
  films = [str(folder / "films" / name) for name in person.films]
  size, steps = person.size if isinstance(person.size, str) else FrameSize.of(person.size), []
  if not person.real:
    seconds = "2" if smoke and person.kind == "example" else "12"
    arguments = (f"--output={films[0]}", f"--person={person.kind}", f"--size={size}", f"--seconds={seconds}")
    steps.append(Command("rendering a studio person", _module("app.jobs.studio", *arguments, "--fps=10")))
  prepared = (f"--output={folder / PREPARED}", f"--size={size}", f"--person={person.label}")
  return [*steps, Command("preparing the film", _module("prepare", *films, *prepared))]


def _prepared_size(person: PersonRecord, people: PeopleFolder) -> FrameSize:
  """The size of the person's frames; of pictures that have the film's shape, the prepared folder knows it."""
  if not isinstance(person.size, str):
    return FrameSize.of(person.size)
  return FrameSize.from_json(read_meta(people.folder_of(person.name) / PREPARED)[0]["size"])


def _motion(path: Path, name: str, size: FrameSize, seconds: int) -> Command:
  arguments = (f"--output={path}", f"--motion={name}", f"--size={size}", f"--seconds={seconds}", f"--fps={FPS}")
  return Command("rendering the motion", _module("app.jobs.studio", *arguments))


def _training(person: PersonRecord, folder: Path, smoke: bool, lpips: Path | None) -> list[str]:
  changes: dict[str, Path | str | float] = {"data.path": folder / PREPARED}
  if person.real and (steps := FILM_STEPS.get(_CONFIGS[person.side])):
    changes["steps"] = steps
  changes |= _SMOKE_TRAINING if smoke else {}
  started = folder / TRAINED / TRAINED_PART
  if (started / "config.json").exists():  # a run keeps the loss that it was started with
    stored = read_settings(started)
    changes |= {"lpips": stored.lpips, "lpips_weights": stored.lpips_weights} if stored.lpips else {}
  elif person.real and lpips is not None:
    changes |= {"lpips": LPIPS_WEIGHT, "lpips_weights": lpips}
  settings = [f"--config.{name}={value}" for name, value in changes.items()]
  return [
    f"--config={_CONFIGS[person.side]}:{TRAINED_PART}",
    f"--workdir={folder / TRAINED}",
    *settings,
  ]


def _model_flags(folder: Path, trained: bool) -> tuple[str, ...]:
  """The flags for the networks: the person's own, or the shipped ones with the texture of the person's film."""
  own = f"--checkpoint={folder / TRAINED}"
  return (own,) if trained else ("--checkpoint=studio", f"--appearance={folder / PREPARED}")


def _video(job: Job, person: PersonRecord, people: PeopleFolder, motions: Path) -> list[Command]:
  settings, steps = job.settings, []
  kind, _, name = settings["motion"].partition(":")
  sound: tuple[str, ...] = ()
  if kind == "studio":
    size = _prepared_size(person, people)
    motion = motion_path(motions, name, size, settings["seconds"])
    steps.append(_motion(motion, name, size, settings["seconds"]))
  elif kind == "upload":
    motion = people.folder_of(person.name) / "motions" / name
  else:
    other = people.find(name)
    if other is None:
      raise UserError("the person whose motion you chose was deleted: choose another motion")
    motion, sound = people.folder_of(other.name) / "films" / other.films[0], ("--no-audio",)  # not another one's voice
  flags = [*_model_flags(people.folder_of(person.name), settings["trained"]), "--no-head", f"--motion={motion}", *sound]
  flags += [f"--output={video_path(job, people)}", "--resume", f"--frames={settings['frames']}"]
  if settings.get("fast"):
    flags.append("--fast")
  return [*steps, Command("generating the video", _module("generate", *flags))]
