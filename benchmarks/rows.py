"""Compares one piece of work here with the same work in a peer process: numbers first, then times in turn.

The peer is any program that answers lines of JSON on its input with lines of JSON on its output, one at a time:

    {"do": "load", "kind": KIND, "folder": DIR}   reads weights and inputs -> {}
    {"do": "output", "file": FILE.npz}            computes once, writes named arrays -> {}
    {"do": "time", "compiled": false}             computes once -> {"seconds": S}
    {"do": "compile"}                             prepares its compiled form -> {"reason": null, or why there is none}

An answer with "error" ends the run.
"""

import dataclasses
import json
import math
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anchor_jax.core.errors import UserError

TOLERANCE = 1e-4  # of the largest value of an array: gradients pass through some 60 layers in another order of sums


@dataclasses.dataclass(frozen=True)
class Work:
  """One row's work on this side.

  Attributes:
    name: of the row.
    kind: what the peer is to do.
    folder: where weights and inputs lie for the peer.
    outputs: computes once and returns the arrays to compare, by name; called once, before `run`.
    run: computes once and returns when the result is there.
    gflop: floating point operations in 1e9, or None.
  """

  name: str
  kind: str
  folder: Path
  outputs: Callable[[], Mapping[str, Any]]
  run: Callable[[], None]
  gflop: float | None = None


class Peer:
  """A peer process; a context manager that ends it."""

  def __init__(self, command: Sequence[str]):
    """Starts it."""
    self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

  def __enter__(self) -> "Peer":
    return self

  def __exit__(self, *_: object) -> None:
    self._process.kill()
    self._process.communicate()

  def ask(self, do: str, **fields: Any) -> dict[str, Any]:
    """Returns the answer to one request. Raises UserError if it is an error or none comes."""
    assert self._process.stdin is not None and self._process.stdout is not None
    try:
      self._process.stdin.write(json.dumps({"do": do, **fields}) + "\n")
      self._process.stdin.flush()
      line = self._process.stdout.readline()
    except BrokenPipeError:
      line = ""
    if not line:
      raise UserError(f"the peer ended before it answered {do!r}; what it printed says why (make bench installs torch)")
    answer = json.loads(line)
    if "error" in answer:
      raise UserError(f"the peer failed at {do!r}: {answer['error']}")
    return answer


def largest_difference(name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> float:
  """The largest absolute difference between arrays of the same names.

  Raises:
    UserError: other names or shapes, or a difference above `TOLERANCE` of an array's largest value.
  """
  if set(ours) != set(theirs):
    raise UserError(f"{name}: here are {sorted(ours)}, there {sorted(theirs)}; nothing was timed")
  largest = 0.0
  for key in sorted(ours):
    here, there = np.asarray(ours[key], np.float64), np.asarray(theirs[key], np.float64)
    if here.shape != there.shape:
      raise UserError(f"{name}: {key} is {here.shape} here and {there.shape} there; nothing was timed")
    difference = float(np.abs(here - there).max())
    if not difference <= TOLERANCE * float(np.abs(there).max()):  # also where one is not finite
      raise UserError(f"{name}: {key} differs by {difference:.2g}, so this is not the same work; nothing was timed")
    largest = max(largest, difference)
  return largest


def measure(
  work: Work, peer: Peer, rounds: int, compiled: str | None = None, deadline: float = math.inf
) -> dict[str, Any]:
  """Returns a row: medians of runs in turn, after the outputs of both were compared.

  Args:
    work: of this side.
    peer: the other side.
    rounds: number of runs on each side.
    compiled: why the peer's compiled form is left out; None to try it.
    deadline: of time.monotonic(), from which on no more than 3 rounds are made.

  Returns:
    name, ours_s, torch_s, torch_compiled_s (None with `torch_compiled_reason`), ratio (torch_s / ours_s), max_abs_diff,
    gflop, ratio_of_best (that of the shortest times), and ours_all_s, torch_all_s with every time in order.

  Raises:
    UserError: the outputs differ, or the peer fails.
  """
  peer.ask("load", kind=work.kind, folder=str(work.folder))
  file = work.folder / f"{work.kind}_peer.npz"
  peer.ask("output", file=str(file))
  with np.load(file) as theirs:
    difference = largest_difference(work.name, work.outputs(), dict(theirs))

  reason = peer.ask("compile")["reason"] if compiled is None else compiled
  work.run()  # what either side does once only is not timed
  peer.ask("time", compiled=False)
  ours, torch, torch_compiled = [], [], []
  for done in range(rounds):
    if done >= 3 and time.monotonic() > deadline:
      break
    started = time.perf_counter()
    work.run()
    ours.append(time.perf_counter() - started)
    torch.append(peer.ask("time", compiled=False)["seconds"])
    if reason is None:
      torch_compiled.append(peer.ask("time", compiled=True)["seconds"])
  ours_s, torch_s = statistics.median(ours), statistics.median(torch)
  return {
    "name": work.name,
    "ours_s": ours_s,
    "torch_s": torch_s,
    "torch_compiled_s": statistics.median(torch_compiled) if torch_compiled else None,
    "torch_compiled_reason": reason,
    "ratio": torch_s / ours_s,
    "max_abs_diff": difference,
    "gflop": work.gflop,
    "ratio_of_best": min(torch) / min(ours),
    "ours_all_s": ours,
    "torch_all_s": torch,
  }


def figures(row: Mapping[str, Any]) -> dict[str, tuple[float, str]]:
  """The figures of a row as results, by bench/NAME/FIGURE."""
  found = {
    "gflop": (row["gflop"], "GFLOP"),
    "ours": (row["ours_s"], "s"),
    "torch": (row["torch_s"], "s"),
    "torch_compiled": (row["torch_compiled_s"], "s"),
    "speedup_over_torch": (row["ratio"], ""),
    "speedup_of_best": (row["ratio_of_best"], ""),
    "largest_difference": (row["max_abs_diff"], ""),
  }
  return {f"bench/{row['name']}/{name}": figure for name, figure in found.items() if figure[0] is not None}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
  """The rows as a Markdown table."""
  lines = [
    "| work | GFLOP | here | torch, eager | torch, compiled | ratio | of the best | largest difference |",
    "| --- " * 8 + "|",
  ]
  for row in rows:
    compiled, gflop = row["torch_compiled_s"], row["gflop"]
    fields = (
      row["name"],
      "" if gflop is None else f"{gflop:.1f}",
      f"{row['ours_s']:.3f} s",
      f"{row['torch_s']:.3f} s",
      "" if compiled is None else f"{compiled:.3f} s",
      f"{row['ratio']:.2f}",
      f"{row['ratio_of_best']:.2f}",
      f"{row['max_abs_diff']:.1e}",
    )
    lines.append(f"| {' | '.join(fields)} |")
  reasons = {row["torch_compiled_reason"] for row in rows} - {None}
  return "\n".join(lines + [f"torch, compiled: {reason}" for reason in sorted(reasons)])
