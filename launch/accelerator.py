"""Benchmarks one accelerator with the packages installed there: first the numbers, then the times (`accelerator.sh`).

    python launch/accelerator.py --output=DIR [--size=tiny] [--limit=540]

Each stage runs in its own process, so that a failure or lack of memory does not affect the others:
`accelerator_jax.py` for JAX, `accelerator_torch.py` for torch, as `SCRIPT STAGE TASK.json ANSWER.json`.
DIR/accelerator.json is rewritten after each stage; `main` documents it. Nothing is timed if the numbers differ.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "benchmarks")]

from rows import largest_difference  # noqa: E402

from anchor_jax.core.errors import UserError  # noqa: E402
from anchor_jax.files.outputs import new_file, prepare_parent  # noqa: E402

SCRIPTS = {"ours": HERE / "accelerator_jax.py", "torch": HERE / "accelerator_torch.py"}
TIMED = ("train_step", "window")
PEER_NEEDS = ("torch", "diffusers")

# The first two levels of Stable Diffusion, with heads of 40 and 80, for the numbers; all levels for the times.
_TWO_LEVELS = {
  "block_out_channels": [320, 640],
  "layers_per_block": 1,
  "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
  "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}
_TINY = {
  "in_channels": 4,
  "out_channels": 4,
  "block_out_channels": [8, 16],
  "layers_per_block": 1,
  "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
  "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
  "norm_num_groups": 4,
  "cross_attention_dim": 8,
  "attention_head_dim": 2,
}
# unet: fields of UNetConfig; stem: widths of the pose stem; side: of the latents; attention: [B, N, heads, D].
SIZES: dict[str, dict[str, Any]] = {
  "sd15": {
    "models": {"equality": {"unet": _TWO_LEVELS, "side": 32}, "full": {"unet": {}, "side": 64}},
    "stem": [16, 32, 96, 256],
    "dtype": "bfloat16",
    "batch": 8,
    "frames": 16,
    "attention": [[1, 65536, 8, 40], [1, 16384, 8, 80], [8, 4096, 8, 40], [8, 1024, 8, 80], [8, 256, 8, 160]],
    "seconds": 15,
  },
  "tiny": {
    "models": {"equality": {"unet": _TINY, "side": 8}, "full": {"unet": _TINY, "side": 8}},
    "stem": [4, 8],
    "dtype": "float32",
    "batch": 2,
    "frames": 3,
    "attention": [[1, 256, 2, 8]],
    "seconds": 0.1,
  },
}


def missing() -> list[str]:
  """The packages of the torch side that are not installed."""
  return [name for name in PEER_NEEDS if importlib.util.find_spec(name) is None]


def run_stage(side: str, stage: str, task: Path, folder: Path, seconds: float, **environment: str) -> dict[str, Any]:
  """Runs one stage in a process; returns its answer, or {"failed": reason}.

  Args:
    side: "ours" or "torch".
    stage: its name.
    task: the JSON file with the sizes.
    folder: for the answer and the log.
    seconds: time limit.
    environment: additional variables for the process.
  """
  answer, log = folder / f"{side}_{stage}.json", folder / f"{side}_{stage}.log"
  command = [sys.executable, str(SCRIPTS[side]), stage, str(task), str(answer)]
  paths = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
  fixed = {"PYTHONPATH": os.pathsep.join(paths), "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "HF_HUB_OFFLINE": "1"}
  if seconds <= 0:
    return {"failed": "skipped: no time left"}
  with log.open("w") as out:
    try:
      subprocess.run(
        command, stdout=out, stderr=out, timeout=seconds, check=True, env={**os.environ, **fixed, **environment}
      )
    except subprocess.TimeoutExpired:
      return {"failed": f"stopped after {seconds:.0f} s"}
    except subprocess.CalledProcessError as error:
      lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
      return {"failed": (lines or [f"exit code {error.returncode}"])[-1][:300]}
  return json.loads(answer.read_text())


def compare(found: Path, expected: Path) -> dict[str, Any]:
  """The largest difference between the arrays of two files, and why they are not equal (None if they are)."""
  with np.load(found) as own, np.load(expected) as reference:
    try:
      return {"max_abs_diff": largest_difference("equality", dict(own), dict(reference)), "differs": None}
    except UserError as error:
      return {"max_abs_diff": None, "differs": str(error)}


def row(name: str, own: Mapping[str, Any], torch: Mapping[str, Any]) -> dict[str, Any]:
  """One row of the report from the answers of both sides; without an answer, a side's columns are None."""
  seconds, eager = own.get("seconds"), torch.get("seconds")
  return {
    "name": name,
    "ours_s": seconds,
    "torch_s": eager,
    "torch_compiled_s": torch.get("compiled_seconds"),
    "ratio": eager / seconds if seconds and eager else None,
    "ours_peak_bytes": own.get("peak_bytes"),
    "torch_peak_bytes": torch.get("peak_bytes"),
    "compile_s": own.get("compile_s"),
    "ours_failed": own.get("failed"),
    "torch_failed": torch.get("failed") or torch.get("compiled_failed"),
  }


def table(report: Mapping[str, Any]) -> str:
  """The rows and attention times of a report as text."""
  show = lambda value, unit=1.0, places=4: "" if value is None else f"{value / unit:.{places}f}"
  lines = [f"{'':12s}{'JAX s':>10s}{'torch s':>10s}{'compiled':>10s}{'ratio':>8s}{'JAX GB':>9s}{'torch GB':>9s}"]
  for one in report["rows"]:
    times = "".join(f"{show(one[key]):>10s}" for key in ("ours_s", "torch_s", "torch_compiled_s"))
    memory = "".join(f"{show(one[key], 1e9, 2):>9s}" for key in ("ours_peak_bytes", "torch_peak_bytes"))
    lines.append(f"{one['name']:12s}{times}{show(one['ratio'], 1, 2):>8s}{memory}")
    lines += [f"  {side}: {one[key]}" for side, key in (("JAX", "ours_failed"), ("torch", "torch_failed")) if one[key]]
  for one in report["attention"]:
    spent = "".join(f" {key} {show(one.get(f'{key}_s'), 1e-3, 2)} ms" for key in ("forward", "both"))
    outcome = one.get("failed") or f"{spent}, {show(one.get('tflops'), 1, 1)} TFLOP/s, off by {one.get('difference')}"
    lines.append(f"attention {one['shape']} {one['side']} {one['implementation']}: {outcome}")
  return "\n".join(lines)


def measure(size: str, output: Path, limit: float) -> dict[str, Any]:
  """Runs all stages and returns the report; writes it to OUTPUT/accelerator.json after every stage."""
  started, file = time.monotonic(), output / "accelerator.json"
  left = lambda: limit - (time.monotonic() - started)
  absent = missing()
  report: dict[str, Any] = {"size": size, "absent": absent, "equality": None, "rows": [], "attention": []}

  def save() -> None:
    report["seconds"] = round(time.monotonic() - started, 1)
    with new_file(file) as path:
      path.write_text(json.dumps(report, indent=2) + "\n")

  def torch_stage(stage: str) -> dict[str, Any]:
    return {} if absent else run_stage("torch", stage, task, folder, left())

  with tempfile.TemporaryDirectory() as scratch:
    folder, task = Path(scratch), Path(scratch) / "task.json"
    task.write_text(json.dumps({**SIZES[size], "folder": scratch, "output": str(output)}))
    own = run_stage("ours", "equality", task, folder, left())
    report["device"], report["versions"] = own.get("device"), own.get("versions", {})
    if absent:  # compare with the same work on this machine's CPU
      expected = run_stage("ours", "reference", task, folder, left(), JAX_PLATFORMS="cpu")
    else:
      expected = torch_stage("equality")
      report["versions"] |= expected.get("versions", {})
    failed = own.get("failed") or expected.get("failed")
    if failed:
      found = {"max_abs_diff": None, "differs": failed}
    else:
      found = compare(Path(own["arrays"]), Path(expected["arrays"]))
    report["equality"] = {"against": "this machine's CPU" if absent else "torch", **found}
    save()
    if found["differs"]:
      return report
    for name in TIMED:
      report["rows"].append(row(name, run_stage("ours", name, task, folder, left()), torch_stage(name)))
      save()
    for side in ("ours",) if absent else ("ours", "torch"):
      answer = run_stage(side, "attention", task, folder, left())
      failure = [{"side": side, "shape": None, "implementation": None, "failed": answer.get("failed")}]
      report["attention"] += answer.get("attention", failure)
      save()
  return report


def main() -> int:
  """The command line; returns the exit code.

  The report has device, versions, seconds; absent: packages of the torch side that are not installed; equality:
  against, max_abs_diff, differs (null, or why nothing was timed); rows: see `row`; attention: for each shape and
  implementation the seconds forward and for both passes, TFLOP/s of both passes, and the largest difference from
  float32. DIR/profile.xplane.pb.gz is a trace of three steps.
  """
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--output", type=Path, required=True, metavar="DIR")
  parser.add_argument("--size", choices=SIZES, default="sd15")
  parser.add_argument("--limit", type=float, default=540, help="time limit of all stages in seconds (default 540)")
  args = parser.parse_args()
  prepare_parent(args.output / "accelerator.json")
  report = measure(args.size, args.output.resolve(), args.limit)
  for name in report["absent"]:
    print(f"{name} is not installed: its columns stay empty")
  equality = report["equality"]
  print(f"device: {report['device']}")
  if equality["differs"]:
    print(f"NOT EQUAL to {equality['against']}, nothing was timed: {equality['differs']}")
    return 1
  print(f"equal to {equality['against']} within {equality['max_abs_diff']:.1e}")
  print(table(report))
  print(f"{args.output / 'accelerator.json'}, after {report['seconds']:.0f} s")
  return 1 if any(one["ours_failed"] for one in report["rows"]) else 0


if __name__ == "__main__":
  sys.exit(main())
