"""launch/accelerator.sh: its report with torch, without torch, and after failures; slow: the real stages, tiny."""

import json
import os
import pathlib
import subprocess
import sys

import accelerator
import numpy as np
import pytest

SCRIPT = pathlib.Path(accelerator.__file__).with_name("accelerator.sh")
SIDE = """
import json, sys, numpy as np
stage, task, answer = sys.argv[1:]
if stage == FAILS:
  sys.exit("out of memory")
if stage in ("equality", "reference"):
  np.savez(answer + ".npz", forward=np.arange(3.0) + (NOISE if stage == OTHER else 0))
  found = {"arrays": answer + ".npz", "device": "a chip", "versions": {NAME: "1"}}
elif stage == "attention":
  found = {"attention": [{"side": NAME, "shape": [1, 2, 1, 8], "implementation": "plain", "both_s": 0.5}]}
else:
  found = {"seconds": SECONDS, "compiled_seconds": 0.5, "peak_bytes": 10**9}
open(answer, "w").write(json.dumps(found))
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
  """Measures with fake sides: (absent packages, noise, the torch stage that fails) -> report."""

  def call(absent=(), noise=0.0, fails=""):
    for name, seconds in (("ours", 1.0), ("torch", 2.0)):
      text = SIDE.replace("NAME", repr(name)).replace("SECONDS", repr(seconds)).replace("NOISE", repr(noise))
      other = "reference" if absent else "equality" if name == "torch" else ""
      text = text.replace("OTHER", repr(other)).replace("FAILS", repr(fails if name == "torch" else ""))
      (tmp_path / f"{name}.py").write_text(text)
      monkeypatch.setitem(accelerator.SCRIPTS, name, tmp_path / f"{name}.py")
    monkeypatch.setattr(accelerator, "missing", lambda: list(absent))
    report = accelerator.measure("tiny", tmp_path, limit=60)
    assert json.loads((tmp_path / "accelerator.json").read_text()) == report
    assert accelerator.table(report)
    return report

  return call


def test_rows_compare_with_torch(run):
  report = run()
  assert report["equality"] == {"against": "torch", "max_abs_diff": 0.0, "differs": None}
  assert [row["name"] for row in report["rows"]] == ["train_step", "window"]
  assert all(
    (row["ratio"], row["torch_compiled_s"], row["ours_peak_bytes"]) == (2, 0.5, 10**9) for row in report["rows"]
  )
  assert [one["side"] for one in report["attention"]] == ["ours", "torch"]
  assert report["device"] == "a chip" and report["versions"] == {"ours": "1", "torch": "1"}


def test_without_torch_its_columns_are_empty_and_the_cpu_is_the_reference(run):
  report = run(absent=["diffusers"])
  assert report["absent"] == ["diffusers"] and report["equality"]["against"] == "this machine's CPU"
  assert all(row["torch_s"] is None and row["ratio"] is None and row["ours_s"] == 1 for row in report["rows"])
  assert [one["side"] for one in report["attention"]] == ["ours"]


@pytest.mark.parametrize("absent", [[], ["torch", "diffusers"]])
def test_nothing_is_timed_if_the_numbers_differ(run, absent):
  report = run(absent, noise=0.1)
  assert "forward differs by 0.1" in report["equality"]["differs"] and not report["rows"]


def test_a_failing_stage_is_one_line_and_does_not_affect_the_others(run):
  report = run(fails="train_step")
  assert [(row["torch_failed"], row["torch_s"]) for row in report["rows"]] == [("out of memory", None), (None, 2.0)]


def test_a_stage_stops_at_its_time_limit(tmp_path, monkeypatch):
  (tmp_path / "slow.py").write_text("import time; time.sleep(30)")
  monkeypatch.setitem(accelerator.SCRIPTS, "ours", tmp_path / "slow.py")
  assert accelerator.run_stage("ours", "window", tmp_path / "task", tmp_path, 0.2) == {"failed": "stopped after 0 s"}
  assert "skipped" in accelerator.run_stage("ours", "window", tmp_path / "task", tmp_path, -1)["failed"]


def test_missing_packages_are_reported_in_one_line(tmp_path):
  (tmp_path / "wheels").mkdir()
  for environment, message in (({"PYTHON": "false"}, "set PYTHON"), ({"WHEELS": str(tmp_path / "none")}, "none")):
    done = subprocess.run(
      ["bash", SCRIPT, tmp_path / "out"], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode and message in done.stderr and not (tmp_path / "out").exists()
  assert subprocess.run(["bash", SCRIPT], capture_output=True, check=False).returncode == 2


@pytest.mark.slow
def test_the_real_stages_at_a_tiny_size(tmp_path):
  environment = {**os.environ, "PYTHON": sys.executable, "JAX_PLATFORMS": "cpu"}
  environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
  done = subprocess.run(
    ["bash", SCRIPT, tmp_path / "out", "--size=tiny"], env=environment, capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stdout + done.stderr
  report = json.loads((tmp_path / "out" / "accelerator.json").read_text())
  assert report["equality"]["differs"] is None and report["equality"]["max_abs_diff"] < 1e-4
  assert all(row["ours_s"] > 0 and (report["absent"] or row["ratio"]) for row in report["rows"])
  jax_rows = [one for one in report["attention"] if one["side"] == "ours"]
  assert {one["implementation"] for one in jax_rows} == {"pieces", "plain", "chunked"}
  assert all(np.isfinite(one["difference"]) and one["difference"] < 1e-5 for one in jax_rows)
  assert (tmp_path / "out" / "profile.xplane.pb.gz").exists()
