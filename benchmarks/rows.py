"""Compares a workload here with the same workload in a peer process: first the numbers, then the times.

The peer is any program that answers each line of JSON on its input with a line of JSON on its output:

    {"do": "load", "kind": KIND, "folder": DIR}   reads weights and inputs -> {}
    {"do": "output", "file": FILE.npz}            runs once, writes named arrays -> {}
    {"do": "time", "compiled": false}             runs once -> {"seconds": S}
    {"do": "compile"}                             compiles the workload -> {"reason": null, or why it failed}

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

TOLERANCE = 1e-4  # of an array's largest value: gradients of about 60 layers, summed in another order


@dataclasses.dataclass(frozen=True)
class Work:
  """The workload of one row, on this side.

  Attributes:
    name: of the row.
    kind: the peer's name for the workload.
    folder: with weights and inputs for the peer.
    outputs: runs once and returns the arrays to compare, by name; called once, before `run`.
    run: runs once and waits for the result.
    gflop: floating-point operations in 1e9, or None.
  """

  name: str
  kind: str
  folder: Path
  outputs: Callable[[], Mapping[str, Any]]
  run: Callable[[], None]
  gflop: float | None = None


class Peer:
  """A peer process, and a context manager that ends it."""

  def __init__(self, command: Sequence[str]):
    """Starts the process."""
    self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

  def __enter__(self) -> "Peer":
    return self

  def __exit__(self, *_: object) -> None:
    self._process.kill()
    self._process.communicate()

  def ask(self, do: str, **fields: Any) -> dict[str, Any]:
    """Returns the answer to one request. Raises UserError if the answer is an error or missing."""
    assert self._process.stdin is not None and self._process.stdout is not None
    try:
      self._process.stdin.write(json.dumps({"do": do, **fields}) + "\n")
      self._process.stdin.flush()
      line = self._process.stdout.readline()
    except BrokenPipeError:
      line = ""
    if not line:
      raise UserError(f"the peer ended before it answered {do!r}; see its output above (make bench installs torch)")
    answer = json.loads(line)
    if "error" in answer:
      raise UserError(f"the peer failed at {do!r}: {answer['error']}")
    return answer


def largest_difference(name: str, found: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
  """The largest absolute difference between arrays of the same names.

  Raises:
    UserError: names or shapes differ, or a difference exceeds `TOLERANCE` of an array's largest value.
  """
  if set(found) != set(expected):
    raise UserError(f"{name}: arrays {sorted(found)} here and {sorted(expected)} in the peer; nothing was timed")
  largest = 0.0
  for key in sorted(found):
    own, peers = np.asarray(found[key], np.float64), np.asarray(expected[key], np.float64)
    if own.shape != peers.shape:
      raise UserError(f"{name}: {key} is {own.shape} here and {peers.shape} in the peer; nothing was timed")
    difference = float(np.abs(own - peers).max())
    if not difference <= TOLERANCE * float(np.abs(peers).max()):  # also false for NaN
      raise UserError(f"{name}: {key} differs by {difference:.2g}, so the workloads differ; nothing was timed")
    largest = max(largest, difference)
  return largest


def measure(
  work: Work, peer: Peer, rounds: int, compiled: str | None = None, deadline: float = math.inf
) -> dict[str, Any]:
  """Returns a row: compares the outputs of both sides, then takes the medians of alternating runs.

  Args:
    work: the workload on this side.
    peer: the other side.
    rounds: number of runs on each side.
    compiled: why the peer's compiled form is skipped; None to try it.
    deadline: in time.monotonic(); after it, a row has at most 3 rounds.

  Returns:
    name, ours_s, torch_s, torch_compiled_s (None with `torch_compiled_reason`), ratio (torch_s / ours_s), max_abs_diff,
    gflop, ratio_of_best (ratio of the shortest times), and ours_all_s, torch_all_s with all times in order.

  Raises:
    UserError: the outputs differ, or the peer fails.
  """
  peer.ask("load", kind=work.kind, folder=str(work.folder))
  file = work.folder / f"{work.kind}_peer.npz"
  peer.ask("output", file=str(file))
  with np.load(file) as expected:
    difference = largest_difference(work.name, work.outputs(), dict(expected))

  reason = peer.ask("compile")["reason"] if compiled is None else compiled
  work.run()  # warm up both sides
  peer.ask("time", compiled=False)
  own, torch, torch_compiled = [], [], []
  for done in range(rounds):
    if done >= 3 and time.monotonic() > deadline:
      break
    started = time.perf_counter()
    work.run()
    own.append(time.perf_counter() - started)
    torch.append(peer.ask("time", compiled=False)["seconds"])
    if reason is None:
      torch_compiled.append(peer.ask("time", compiled=True)["seconds"])
  ours_s, torch_s = statistics.median(own), statistics.median(torch)
  return {
    "name": work.name,
    "ours_s": ours_s,
    "torch_s": torch_s,
    "torch_compiled_s": statistics.median(torch_compiled) if torch_compiled else None,
    "torch_compiled_reason": reason,
    "ratio": torch_s / ours_s,
    "max_abs_diff": difference,
    "gflop": work.gflop,
    "ratio_of_best": min(torch) / min(own),
    "ours_all_s": own,
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
    "| work | GFLOP | JAX | torch, eager | torch, compiled | ratio | ratio of best | largest difference |",
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
