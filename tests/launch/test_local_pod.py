"""The local pod: its processes find each other, and none is left behind."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

SUM_OVER_PROCESSES = """
import sys
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
coordinator, processes, process = (argument.partition("=")[2] for argument in sys.argv[-3:])
jax.distributed.initialize(coordinator, int(processes), int(process))
mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
local = np.full(jax.local_device_count(), 10.0 ** jax.process_index(), np.float32)
total = jax.make_array_from_process_local_data(NamedSharding(mesh, PartitionSpec("data")), local)
print("arguments", *sys.argv[1:-3])
print("sum", float(jax.jit(lambda x: x.sum(), out_shardings=NamedSharding(mesh, PartitionSpec()))(total)))
"""

SECOND_FAILS = """
import sys, time
if sys.argv[-1] == "--process=1":
  sys.exit(3)
time.sleep(600)
"""

FAILS_TWICE = """
import pathlib, sys
starts = pathlib.Path(__file__).with_name("starts")
if sys.argv[-1] == "--process=1":
  starts.write_text((starts.read_text() if starts.exists() else "") + "x")
  sys.exit(3 if len(starts.read_text()) < 3 else 0)
"""

SAVES_WHEN_ASKED_TO_STOP = """
import signal, sys, time
def leave(*_):
  print("saved")
  sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print("ready")
time.sleep(600)
"""


# A launcher so slow that its processes are up before it watches them.
SLOW_TO_WATCH = """
import sys, time
import local_pod
watch = local_pod.watch
local_pod.watch = lambda *arguments: (time.sleep(1), watch(*arguments))[1]
sys.exit(local_pod.main())
"""


def start(
  folder: pathlib.Path, code: str, *arguments: str, launcher: pathlib.Path = ROOT / "launch/local_pod.py"
) -> subprocess.Popen:
  (folder / "trained.py").write_text(code, encoding="utf-8")
  return subprocess.Popen(
    [sys.executable, launcher, "--processes=2", "--devices=2", "--module=trained", *arguments],
    env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT / 'launch'}"},
    stdout=subprocess.PIPE,
    text=True,
  )


def test_processes_see_all_devices_and_their_arguments(tmp_path):
  pod = start(tmp_path, SUM_OVER_PROCESSES, "--", "--workdir=x", "--config.a=b c")
  lines = pod.communicate(timeout=300)[0].splitlines()
  assert pod.returncode == 0
  for index in (0, 1):
    assert f"[{index}] sum 22.0" in lines  # two devices with 1 each, two with 10 each
    assert f"[{index}] arguments --workdir=x --config.a=b c" in lines


def test_the_failure_of_one_process_stops_all_and_is_the_exit_code(tmp_path):
  pod = start(tmp_path, SECOND_FAILS)
  pod.communicate(timeout=300)  # otherwise the first would sleep on
  assert pod.returncode == 3


@pytest.mark.parametrize("restarts,code", [(0, 3), (1, 3), (5, 0)])
def test_a_pod_that_fails_starts_again(tmp_path, restarts, code):
  pod = start(tmp_path, FAILS_TWICE, f"--restarts={restarts}")
  output = pod.communicate(timeout=300)[0]
  assert pod.returncode == code
  assert len((tmp_path / "starts").read_text()) == min(restarts, 2) + 1
  assert output.count("it starts again") == min(restarts, 2)


@pytest.mark.parametrize("slow", [False, True])
def test_a_signal_reaches_every_process(tmp_path, slow):
  (tmp_path / "slow.py").write_text(SLOW_TO_WATCH)
  options = {"launcher": tmp_path / "slow.py"} if slow else {}
  pod = start(tmp_path, SAVES_WHEN_ASKED_TO_STOP, "--restarts=3", **options)  # a signal is no failure
  assert pod.stdout is not None
  assert sorted(pod.stdout.readline() for _ in range(2)) == ["[0] ready\n", "[1] ready\n"]
  pod.send_signal(signal.SIGTERM)
  rest = pod.communicate(timeout=300)[0].splitlines()
  assert sorted(rest) == ["[0] saved", "[1] saved"]
  assert pod.returncode == 128 + signal.SIGTERM
