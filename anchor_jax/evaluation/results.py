"""Measured results as data: JSON lines in results/, and docs/results.md rendered from them.

A line has what, value, unit, command, commit, machine, date, versions and note. `what` is SECTION/ROW/COLUMN, such as
"demo/128-pixels/person_psnr"; the row may be left out or have slashes itself. A section's lines are in
results/SECTION.jsonl, oldest first. Lines are only ever appended: docs/results.md shows the newest of each `what`.

    python -m anchor_jax.evaluation.results   # what `make results` runs
"""

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anchor_jax.core.cli import Parser, command, say
from anchor_jax.core.errors import UserError
from anchor_jax.files.locks import locked
from anchor_jax.files.outputs import new_file

FIELDS = ("what", "value", "unit", "command", "commit", "machine", "date", "versions", "note")
MAX_LINES = 200  # of docs/results.md
_CHECKOUT = Path(__file__).resolve().parents[2]
_PACKAGES = ("jax", "jaxlib", "numpy")
_NAME = re.compile(r"[a-z0-9-]+(/[a-zA-Z0-9_.,:+-]+)+")
_ABSOLUTE_PATH = re.compile(r"(?<![\w.~])/(?:[^\s/=,'\"]+/)+")
_LOCK_SECONDS = 60


def append_results(
  figures: Mapping[str, tuple[float, str]], file: str | os.PathLike | None = None, note: str = ""
) -> list[Path]:
  """Appends one line a figure, and returns the files that were written.

  Command, commit, machine, date and versions are those of this process. Without `file` the lines go into results/ of
  the checkout that this package is imported from; an installed package writes nothing then.

  Args:
    figures: by `what`, the value and its unit ("" where there is none).
    file: takes all lines instead.
    note: what a reader must know to compare the figures.

  Raises:
    UserError: a `what` that is not SECTION/ROW/COLUMN, or a file that can't be written.
  """
  for what in figures:
    if not _NAME.fullmatch(what):
      raise UserError(f"{what} does not name a result: SECTION/ROW/COLUMN, such as demo/128-pixels/person_psnr")
  if file is None and not in_checkout():
    return []
  common = {
    "command": _command(),
    "commit": _commit(),
    "machine": _machine(),
    "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    "versions": _versions(),
    "note": note,
  }
  lines: dict[Path, list[str]] = {}
  for what, (value, unit) in figures.items():
    path = Path(file) if file is not None else _CHECKOUT / "results" / f"{what.split('/')[0]}.jsonl"
    lines.setdefault(path, []).append(json.dumps({"what": what, "value": value, "unit": unit, **common}) + "\n")
  for path, texts in lines.items():
    _append(path, "".join(texts))
  return list(lines)


def in_checkout() -> bool:
  """Whether this package is imported from a checkout, whose results/ takes lines."""
  return (_CHECKOUT / "results").is_dir()


def record_flag(parser: Parser, always: bool = True) -> None:
  """Adds --record, which names the file for `append_results`.

  Args:
    parser: of a command.
    always: the command appends to results/ of a checkout without the flag; otherwise the flag asks for that, and its
      value, "" if none is given, may be left out.
  """
  if always:
    text = "append the figures to FILE, not to results/ of a checkout (elsewhere: none are)"
    parser.add_argument("--record", metavar="FILE.jsonl", help=text)
  else:
    text = "append the figures to FILE, or to results/ of a checkout"
    parser.add_argument("--record", nargs="?", const="", metavar="FILE.jsonl", help=text)


def row_of(path: str | os.PathLike) -> str:
  """Returns a row's name for a file: its name without suffix, after that of its folder."""
  path = Path(os.path.abspath(path))
  return re.sub(r"[^a-zA-Z0-9_.,:+-]+", "-", f"{path.parent.name}-{path.stem}").lstrip("-") or "-"


def report_figures(report: Mapping[str, Any], row: str, contenders: tuple[str, ...] = ("generated",)) -> dict:
  """Returns the figures of a report of `evaluate` by `what`: ROW/REGION_FIGURE, and ROW-CONTENDER/... of a baseline."""
  units = {"psnr": "dB", "flicker": "levels", "flow_error": "levels", "flow_error_of_truth": "levels"}
  return {
    f"{row if name == 'generated' else f'{row}-' + name.replace('_', '-')}/{region}_{figure}": (
      value,
      units.get(figure, ""),
    )
    for region in ("person", "face", "hands", "whole")
    for name in contenders
    for figure, value in report.get(region, {}).get(name, {}).items()
  }


def read_results(folder: str | os.PathLike) -> list[dict[str, Any]]:
  """Returns all lines of a folder's *.jsonl files, in order. Raises UserError for a line that is not a result."""
  results = []
  for path in sorted(Path(folder).glob("*.jsonl")):
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
      try:
        line = json.loads(text)
      except ValueError:
        line = None
      if not isinstance(line, dict) or tuple(line) != FIELDS or not _NAME.fullmatch(str(line["what"])):
        raise UserError(f"{path}:{number} is not a result: a JSON object of {', '.join(FIELDS)}")
      results.append(line)
  return results


def render(folder: str | os.PathLike) -> str:
  """Returns docs/results.md: the newest line of each `what`, a table for each section that sections.json describes.

  Raises:
    UserError: the page has more than `MAX_LINES` lines.
  """
  described = json.loads(Path(folder, "sections.json").read_text(encoding="utf-8"))
  tables: dict[str, dict[str, dict[str, dict]]] = {}
  for line in read_results(folder):  # later lines replace earlier ones
    section, *row, column = line["what"].split("/")
    tables.setdefault(section, {}).setdefault("/".join(row) or section, {})[column] = line
  page = [
    "# Results",
    "",
    "Rendered by `make results` from [results/](../results/): the newest measurement of each row. Command, machine,",
    "versions and note of a figure are in its line there, e.g. `grep demo/128-pixels/ results/demo.jsonl`.",
    "",
  ]
  for section, title in described.items():
    page += [f"## {title}", *_table(section, tables.get(section, {})), ""]
  if others := [f"[{name}](../results/{name}.jsonl)" for name in sorted(tables.keys() - described.keys())]:
    page += ["## Also measured", "", "Not tabulated here: " + ", ".join(others) + "."]
  text = "\n".join(page).rstrip() + "\n"
  if text.count("\n") > MAX_LINES:
    raise UserError(f"the page has {text.count(chr(10))} lines, more than {MAX_LINES}: drop a section of sections.json")
  return text


def _table(section: str, rows: Mapping[str, Mapping[str, dict]]) -> list[str]:
  """The lines of a section's table."""
  columns = list(dict.fromkeys(column for row in rows.values() for column in row))
  units = {column: next(row[column]["unit"] for row in rows.values() if column in row) for column in columns}
  heads = [column.replace("_", " ") + (f" ({units[column]})" if units[column] else "") for column in columns]
  lines = [f"| {section} | {' | '.join(heads)} | measured |", "| --- " * (len(columns) + 2) + "|"]
  digits = {
    column: max(_decimals(row[column]["value"]) for row in rows.values() if column in row) for column in columns
  }
  for name, row in rows.items():
    cells = [_number(row[column]["value"], digits[column]) if column in row else "" for column in columns]
    newest = max(row.values(), key=lambda line: line["date"])
    lines.append(f"| {name} | {' | '.join(cells)} | {newest['date']} {newest['commit'][:7]} |".replace("  |", " |"))
  return lines


def _number(value: float, decimals: int) -> str:
  """The value as text; small ones with an exponent."""
  return f"{value:.2g}" if 0 < abs(value) < 1e-3 else f"{value:,.{decimals}f}"


def _decimals(value: float) -> int:
  """Decimals of a value that is rounded to four significant digits."""
  _, _, decimals = f"{value:.4g}".partition(".")
  return 0 if "e" in decimals else len(decimals)


def _append(path: Path, text: str) -> None:
  """Appends under the file's lock, for which it waits."""
  until = time.monotonic() + _LOCK_SECONDS
  while True:
    try:
      with locked(path):
        with open(path, "a", encoding="utf-8") as stream:
          stream.write(text)
      return
    except UserError:
      if time.monotonic() > until:
        raise
      time.sleep(0.2)
    except OSError as error:
      raise UserError(f"results can't be appended to {path}: {error.strerror or error}") from None


def _command() -> str:
  """The command line of this process; absolute paths are cut to their last name."""
  program = Path(sys.argv[0])
  try:
    place = program.resolve().relative_to(_CHECKOUT).with_suffix("")
    words = ["python", "-m", ".".join(place.parts)] if place.parts[0] == "anchor_jax" else ["python", f"{place}.py"]
  except ValueError:
    words = [program.name]
  return _ABSOLUTE_PATH.sub("", shlex.join([*words, *sys.argv[1:]]))


def _commit() -> str:
  """The commit of the checkout, with a + where tracked files were changed; "" outside a checkout."""
  git = lambda *words: subprocess.run(["git", *words], cwd=_CHECKOUT, capture_output=True, text=True, check=False)
  try:
    head = git("rev-parse", "--show-toplevel", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results", ":!docs/results.md")
  except OSError:  # no git
    return ""
  top, _, commit = head.stdout.strip().partition("\n")
  if head.returncode or Path(top).resolve() != _CHECKOUT:
    return ""
  return commit[:12] + "+" * bool(changed.stdout.strip())


def _machine() -> str:
  """Cores and model of the CPU, and the accelerators that JAX uses in this process."""
  count = getattr(os, "process_cpu_count", os.cpu_count)()
  try:
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
  except OSError:
    text = ""
  model = re.search(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE)
  machine = f"{count} cores of {model[1].strip() if model else platform.machine()}"
  jax = sys.modules.get("jax")
  kinds = [device.device_kind for device in jax.devices() if device.platform != "cpu"] if jax else []
  return "; ".join([machine, *(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds))])


def _versions() -> dict[str, str]:
  """Versions of Python and of the packages that decide numbers and times."""
  found = {"python": platform.python_version()}
  for name in _PACKAGES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      found[name] = importlib.metadata.version(name)
  return found


@command
def main() -> None:
  """The command line."""
  parser = Parser("anchor_jax.evaluation.results", __doc__)
  parser.add_argument("--results", type=Path, default=_CHECKOUT / "results", metavar="DIR", help="lines to read")
  parser.add_argument("--output", type=Path, default=_CHECKOUT / "docs/results.md", metavar="FILE.md")
  args = parser.parse_args()
  text = render(args.results)
  with new_file(args.output) as path:
    path.write_text(text, encoding="utf-8")
  say(f"{args.output}: {text.count(chr(10))} lines")


if __name__ == "__main__":
  main()
