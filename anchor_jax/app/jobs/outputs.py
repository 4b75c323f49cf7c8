"""Files that jobs write to a person's folder: reports, checkpoints, pictures, the bundle."""

from pathlib import Path

from anchor_jax.app.access.marks import is_regular
from anchor_jax.app.jobs.commands import BUNDLE, PREPARED, TRAINED, TRAINED_PART

_FILES = {
  "found": f"{PREPARED}/preview.png",
  "appearance": f"{PREPARED}/appearance.png",
  "report": f"{PREPARED}/report.html",
  "training": f"{TRAINED}/{TRAINED_PART}/preview.png",
  "bundle": f"{BUNDLE}.zip",
}


def is_prepared(folder: Path) -> bool:
  """Returns whether the person's film was prepared."""
  return (folder / PREPARED / "meta.json").is_file()


def trained_steps(folder: Path) -> int:
  """Returns the step of the newest checkpoint; 0 if there is none."""
  checkpoints = folder / TRAINED / TRAINED_PART / "checkpoints"
  return max((int(step.name) for step in checkpoints.glob("*") if step.name.isdecimal()), default=0)


def metrics(folder: Path) -> Path:
  """Returns the path of the training metrics."""
  return folder / TRAINED / TRAINED_PART / "metrics.jsonl"


def page_file(folder: Path, name: str) -> Path | None:
  """Returns the path of a file that the page shows, by its name on the page; None for other names."""
  return folder / _FILES[name] if name in _FILES else None


def is_own(path: Path, folder: Path) -> bool:
  """Returns whether the path is a regular file inside a person's folder, also after resolving links."""
  return is_regular(path) and path.resolve().is_relative_to(folder.resolve())
