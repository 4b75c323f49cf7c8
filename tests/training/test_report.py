"""Reports of a run: rates without pauses, utilization of the chip, and TensorBoard files."""

import dataclasses
import json
import re
import types

import numpy as np
import pytest

from anchor_jax.compiler.chips import Chip, chip_of
from anchor_jax.compiler.estimate import Estimate
from anchor_jax.training import report as report_module
from anchor_jax.training.compiling import StepCost
from anchor_jax.training.report import Report


@pytest.fixture
def clock(monkeypatch):
  now = [0.0]
  monkeypatch.setattr(report_module, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
  return now


def test_rates_and_utilization_exclude_compiling_and_pauses(tmp_path, clock):
  chip = Chip(flops=100.0, memory=1)
  with Report(tmp_path, steps=9, start=0, batch_size=4, name="body") as report:
    clock[0] = 70.0
    report.compiled(70.0, flops=25.0, chip=chip)  # at most four steps per second
    clock[0] += 2.0
    report.log(4, {"loss": 0.5})
    clock[0] += 1.0
    report.log(5, {"validation_loss": 0.25})
    clock[0] += 100.0
    report.paused(5)
    clock[0] += 1.0
    report.log(6, {"loss": 0.4})
    report.picture(6, np.zeros((8, 8, 3), np.uint8))
  compiled, *logged = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
  assert compiled == {"compile_seconds": 70.0, "step_flops": 25.0}
  rates = [(line["images_per_second"], line["utilisation"]) for line in logged]
  assert rates == [(8.0, 0.5), (4.0, 0.25), (4.0, 0.25)]
  assert logged[1]["validation_loss"] == 0.25
  assert (tmp_path / "preview.png").exists()
  assert sum(len(file.read_bytes()) for file in (tmp_path / "tensorboard").iterdir()) > 500


def test_other_processes_write_nothing(tmp_path):
  with Report(tmp_path / "other", steps=1, start=0, batch_size=1, name="body", active=False) as report:
    report.log(1, {"loss": 1.0})
    report.picture(1, np.zeros((8, 8, 3), np.uint8))
  assert not [path for path in (tmp_path / "other").rglob("*") if path.is_file()]


def test_chips_are_known_by_the_name_of_their_device():
  device = lambda kind: types.SimpleNamespace(device_kind=kind)
  assert chip_of(device("TPU v5 lite")).memory == 16 * 10**9
  assert chip_of(device("NVIDIA H100 80GB HBM3")).flops == 989e12
  assert chip_of(device("cpu")) is None


def test_the_table_says_if_a_step_does_not_fit():
  cost = StepCost(16, "TPU v5 lite", 9 * 10**9, 8 * 10**9, 16 * 10**9, 1e12, {"all-gather": 10**9}, 3.0)
  assert not cost.fits and "17.00 GB of 16 GB: DOES NOT FIT" in cost.table()
  timed = dataclasses.replace(cost, batch=32, peak=10e12, estimate=Estimate({"copies": 0.4}, {}, 0.0, 0, 0))
  assert re.search(r"all chips +80\.0\n.*share of the peak +25\.0 %", timed.table())
