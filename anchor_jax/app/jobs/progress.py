"""Reads a job's progress from what its commands print and write: progress bars, errors, reports, metrics."""

import json
import math
import re
from pathlib import Path
from typing import NamedTuple

from anchor_jax.app.access.uploads import without_paths
from anchor_jax.core.errors import UserError
from anchor_jax.files.inputs import open_input

COMMAND_MARK = "\n== "  # precedes each command's label in a log
_TAIL = 8192  # bytes read from the end of a log
_METRICS = 2**22  # bytes read from the end of a training's metrics
_BAR = re.compile(r"([^\r\n|%]*?):\s+\d+%\|[^|]*\|\s*(\d+)/(\d+) \[[^<\]]*<([\d:?]+)")


class Bar(NamedTuple):
  """A progress bar: its label, units done and in total, and the seconds left (None if not known yet)."""

  label: str
  done: int
  total: int
  left: float | None

  @property
  def share(self) -> float:
    """Share done, from 0 to 1."""
    return min(1.0, self.done / self.total) if self.total else 0.0


def tail(log: Path) -> str:
  """Returns the end of the newest command's output in a log; "" if there is none yet."""
  return _end_of(log, _TAIL).rpartition(COMMAND_MARK)[2]


def _end_of(file: Path, count: int) -> str:
  """The last bytes of a file as text; "" if it is missing or unreadable."""
  try:
    with open_input(file) as opened:
      opened.seek(0, 2)
      opened.seek(max(0, opened.tell() - count))
      return opened.read().decode(errors="replace")
  except (UserError, OSError):
    return ""


def bar_in(text: str) -> Bar | None:
  """Returns the newest tqdm bar in the end of a log; None if there is none."""
  bars = _BAR.findall(text)
  if not bars:
    return None
  label, done, total, left = bars[-1]
  try:
    return Bar(label.strip(), int(done), int(total), _seconds(left))
  except ValueError:  # a name that looks like a bar, but is not
    return None


def _seconds(clock: str) -> float | None:
  """Seconds of tqdm's "1:02:03" or "02:03"; None for "?"."""
  if "?" in clock:
    return None
  seconds = 0
  for part in clock.split(":"):
    seconds = 60 * seconds + int(part)
  return float(seconds)


def error_in(text: str) -> str:
  """Returns a failed command's error for remote users, without paths or traceback."""
  lines = [line for line in re.split(r"[\r\n]+", text) if line.startswith("error: ")]
  if lines:
    return without_paths(lines[-1].removeprefix("error: "))
  return "something went wrong unexpectedly (out of memory?); the page's operator finds the reason in the job's log"


def report_lines_in(text: str) -> list[str]:
  """Returns the final report of `prepare`: the number of frames, then a line per film and note."""
  lines = [line.strip() for line in re.split(r"[\r\n]+", text)]
  start = max((number for number, line in enumerate(lines) if line.startswith("prepared ")), default=len(lines))
  report = [re.sub(r"^film_(\d+):", r"film \1:", line) for line in lines[start:] if line]  # film_1 is the upload's name
  return [without_paths(re.sub(r"; look at .*|\((?:look at|purple in) [^)]*\)", "", line)).strip() for line in report]


def loss_curves(metrics: Path) -> dict[str, list[tuple[int, float]]]:
  """Returns the curves "loss" and "validation_loss" of a training, as (step, value) in order of steps.

  A training that resumed from a checkpoint logs some steps twice; the later ones replace the earlier.
  """
  curves: dict[str, dict[int, float]] = {"loss": {}, "validation_loss": {}}
  for line in _end_of(metrics, _METRICS).splitlines():
    try:
      entry = json.loads(line)
    except (ValueError, RecursionError):  # the line is being written
      continue
    step = entry.get("step") if isinstance(entry, dict) else None
    if type(step) is not int:
      continue
    for name, curve in curves.items():
      value = entry.get(name)
      if (isinstance(value, float) and math.isfinite(value)) or (type(value) is int and abs(value) < 10**9):
        for later in [logged for logged in curve if logged > step]:
          del curve[later]
        curve[step] = value
  return {name: sorted(curve.items()) for name, curve in curves.items() if curve}
