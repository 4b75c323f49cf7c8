"""What the jobs of a person left in the folder: what was found, steps of training, pictures, the bundle."""

from pathlib import Path

from anchor_jax.app.access.marks import is_regular
from anchor_jax.app.jobs.commands import BUNDLE, PREPARED, TRAINED, TRAINED_PART

_PLACES = {
  "found": f"{PREPARED}/preview.png",
  "appearance": f"{PREPARED}/appearance.png",
  "report": f"{PREPARED}/report.html",
  "training": f"{TRAINED}/{TRAINED_PART}/preview.png",
  "bundle": f"{BUNDLE}.zip",
}


def is_prepared(folder: Path) -> bool:
  """Whether the film of the person with this folder was looked at."""
  return (folder / PREPARED / "meta.json").is_file()


def trained_steps(folder: Path) -> int:
  """How many steps of training are kept; 0 where there are none."""
  checkpoints = folder / TRAINED / TRAINED_PART / "checkpoints"
  return max((int(step.name) for step in checkpoints.glob("*") if step.name.isdecimal()), default=0)


def metrics(folder: Path) -> Path:
  """Where training writes its metrics."""
  return folder / TRAINED / TRAINED_PART / "metrics.jsonl"


def shown_file(folder: Path, what: str) -> Path | None:
  """Returns one of the files that the page shows; None where `what` is none of them."""
  return folder / _PLACES[what] if what in _PLACES else None


def is_own(path: Path, folder: Path) -> bool:
  """Whether this is a regular file in a person's folder, and no link on the way leads elsewhere."""
  return is_regular(path) and path.resolve().is_relative_to(folder.resolve())
