"""How far a job is, read from what its commands print and write: bars, metrics, the partial video."""

import json
import math
import re
from pathlib import Path
from typing import NamedTuple

from anchor_jax.app.access.uploads import without_paths
from anchor_jax.core.errors import UserError
from anchor_jax.files.inputs import open_input

BEGINS = "\n== "  # what stands in a log before the name of each command
_TAIL = 8192  # bytes of a log that are looked at
_METRICS = 2**22  # bytes of a training's metrics
_BAR = re.compile(r"([^\r\n|%]*?):\s+\d+%\|[^|]*\|\s*(\d+)/(\d+) \[[^<\]]*<([\d:?]+)")


class Bar(NamedTuple):
  """A progress bar: what it says, how many of how many are done, and the seconds left (None where not known yet)."""

  label: str
  done: int
  total: int
  left: float | None

  @property
  def share(self) -> float:
    """From 0 to 1."""
    return min(1.0, self.done / self.total) if self.total else 0.0


def tail(log: Path) -> str:
  """Returns the end of what the newest command wrote to a log; "" where there is none yet."""
  return _end_of(log, _TAIL).rpartition(BEGINS)[2]


def _end_of(file: Path, count: int) -> str:
  """The last bytes of a file as text; "" where there is no such file, or none that can be read."""
  try:
    with open_input(file) as opened:
      opened.seek(0, 2)
      opened.seek(max(0, opened.tell() - count))
      return opened.read().decode(errors="replace")
  except (UserError, OSError):
    return ""


def bar_in(text: str) -> Bar | None:
  """Returns the newest bar (tqdm's) in the end of a log; None where there is none."""
  bars = _BAR.findall(text)
  if not bars:
    return None
  label, done, total, left = bars[-1]
  try:
    return Bar(label.strip(), int(done), int(total), _seconds(left))
  except ValueError:  # a name that looks like a bar
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
  """Returns what a command that failed says, for people far away: no path of this machine, no traceback."""
  lines = [line for line in re.split(r"[\r\n]+", text) if line.startswith("error: ")]
  if lines:
    return without_paths(lines[-1].removeprefix("error: "))
  return (
    "this went wrong unexpectedly, perhaps for want of memory; who runs this page finds the reason in the job's log"
  )


def told_in(text: str) -> list[str]:
  """Returns what `prepare` said at its end: how much it found, then a line for each thing worth knowing."""
  lines = [line.strip() for line in re.split(r"[\r\n]+", text)]
  start = max((number for number, line in enumerate(lines) if line.startswith("prepared ")), default=len(lines))
  told = [line for line in lines[start:] if line]
  told = [re.sub(r"^film_(\d+):", r"film \1:", line) for line in told]  # as uploads are named
  return [without_paths(re.sub(r"; look at .*|\((?:look at|purple in) [^)]*\)", "", line)).strip() for line in told]


def loss_curves(metrics: Path) -> dict[str, list[tuple[int, float]]]:
  """Returns the curves of a training, (step, value) in order of the steps: "loss" and "validation_loss".

  A training that went on from a checkpoint has some steps twice; the later ones hold.
  """
  curves: dict[str, dict[int, float]] = {"loss": {}, "validation_loss": {}}
  for line in _end_of(metrics, _METRICS).splitlines():
    try:
      entry = json.loads(line)
    except (ValueError, RecursionError):  # it is being written
      continue
    step = entry.get("step") if isinstance(entry, dict) else None
    if type(step) is not int:
      continue
    for name, curve in curves.items():
      value = entry.get(name)
      if (isinstance(value, float) and math.isfinite(value)) or (type(value) is int and abs(value) < 10**9):
        for later in [known for known in curve if known > step]:
          del curve[later]
        curve[step] = value
  return {name: sorted(curve.items()) for name, curve in curves.items() if curve}
