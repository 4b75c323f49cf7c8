"""A process of a run that fails, dies or hangs ends all processes, and each prints in one line which and why."""

import os
import pathlib
import signal
import subprocess
import sys
import time
import types

import pytest
from local_pod import free_port

from anchor_jax.core import process_errors, sharding
from anchor_jax.core.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[2]
RUN = """
import os, sys, time
sys.path.insert(0, {root!r})
from anchor_jax.core import cli, runtime
from anchor_jax.core.errors import UserError
from anchor_jax.core.process_errors import come_to, end_together, wait_for_processes

@cli.command
def main():
  address, count, index, failing, kind = sys.argv[1:]
  runtime.initialize_distributed(address, int(count), int(index))
  import jax
  from jax.experimental import multihost_utils
  if kind not in ("devices", "late"):
    multihost_utils.sync_global_devices("begin")
  print("started", flush=True)
  with end_together():
    if index == failing and kind == "error":
      raise UserError("the film of this host is damaged")
    if kind == "lost":
      for step in range(3000):
        come_to("batch " + str(step))
        if index == failing and step == 3:
          print("at batch 3", flush=True)
          time.sleep(300)
        come_to("step " + str(step))
        multihost_utils.sync_global_devices("step " + str(step))
    if kind == "devices":
      from anchor_jax.config.run import RunConfig
      from anchor_jax.training.step import training_mesh
      training_mesh(RunConfig())
    if kind == "late":
      if index == failing:
        time.sleep(35)
      wait_for_processes("first collective")
    multihost_utils.sync_global_devices("never" if kind != "late" else "both")

cli.run(main)
"""


def start(tmp_path, failing, kind, devices=(1, 1)):  # one process for each entry of devices
  (tmp_path / "run.py").write_text(RUN.format(root=str(ROOT)))
  address = f"127.0.0.1:{free_port()}"
  return [
    subprocess.Popen(
      [sys.executable, str(tmp_path / "run.py"), address, str(len(devices)), str(index), str(failing), kind],
      env={**os.environ, "XLA_FLAGS": "", "JAX_NUM_CPU_DEVICES": str(devices[index])},
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    for index in range(len(devices))
  ]  # fmt: skip


def wait_for_start(pod):
  for process in pod:
    while process.stdout.readline() not in ("started\n", ""):
      pass


def ended(pod, timeout):
  try:
    return [process.communicate(timeout=timeout) for process in pod]
  finally:
    for process in pod:
      process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_on_one_host_ends_all_hosts_with_its_message(tmp_path, failing):
  pod = start(tmp_path, failing, "error")
  wait_for_start(pod)
  start_time = time.monotonic()
  errors = [error for _, error in ended(pod, 60)]
  assert time.monotonic() - start_time < 60
  assert [process.returncode for process in pod] == [2, 2]
  assert "error: the film of this host is damaged" in errors[failing].splitlines()
  assert f"error: process {failing} on " in errors[1 - failing]
  assert errors[1 - failing].count("the film of this host is damaged") == 1


@pytest.mark.slow
@pytest.mark.parametrize("failing", [0, 2])
@pytest.mark.parametrize(
  "number,reason",
  [
    (signal.SIGKILL, "it has given no sign of life for 15 s"),
    (signal.SIGSTOP, "it has given no sign of life for 15 s"),
    (None, "it hangs at batch 3, while others wait for it"),
  ],
  ids=("killed", "stopped", "hanging"),
)
def test_a_lost_process_ends_the_others_within_a_minute_in_one_line(tmp_path, failing, number, reason):
  """Also process 0, in which JAX would run the service through which the others hear of it."""
  pod = start(tmp_path, failing, "lost", (1, 1, 1))
  wait_for_start(pod)
  assert pod[failing].stdout.readline() == "at batch 3\n"
  start_time = time.monotonic()
  if number is not None:
    pod[failing].send_signal(number)
  others = [process for index, process in enumerate(pod) if index != failing]
  try:
    errors = [process.communicate(timeout=100)[1].splitlines() for process in others]
    assert time.monotonic() - start_time < 60 and [process.returncode for process in others] == [2, 2], errors
  finally:
    for process in pod:
      process.kill()
  for lines in errors:
    (line,) = [line for line in lines if not line.startswith("[Gloo]")]
    assert line.startswith(f"error: process {failing} on ") and line.endswith(f" failed: {reason}")


@pytest.mark.slow
def test_a_late_process_is_waited_for(tmp_path):
  pod = start(tmp_path, 1, "late")
  errors = [error for _, error in ended(pod, 200)]
  assert [process.returncode for process in pod] == [0, 0], errors


@pytest.mark.slow
def test_processes_with_different_device_counts_are_refused_in_one_line(tmp_path):
  errors = [error for _, error in ended(start(tmp_path, 0, "devices", (1, 2)), 100)]
  for error in errors:
    assert "process 1 has 2 devices and process 0 has 1: give every process the same number" in error
    assert "Traceback" not in error


def test_all_processes_need_the_same_number_of_devices():
  of = lambda *indices: [types.SimpleNamespace(process_index=index) for index in indices]
  for devices in (of(0), of(0, 0, 1, 1), of(0, 1, 2)):
    sharding.check_processes(devices)
  with pytest.raises(UserError, match="process 1 has 2 devices and process 0 has 1"):
    sharding.check_processes(of(0, 1, 1))


def test_a_single_process_raises_its_own_error():
  with pytest.raises(UserError, match="mine"):
    with process_errors.end_together():
      raise UserError("mine")


class Store:
  """A stand-in for the coordination service's key-value store."""

  def __init__(self):
    self.values = {}

  def key_value_set(self, key, value, allow_overwrite=False):
    if key in self.values and not allow_overwrite:
      raise RuntimeError("ALREADY_EXISTS")
    self.values[key] = value

  def key_value_try_get(self, key):
    return self.values[key]

  def key_value_dir_get(self, prefix):
    return [item for item in self.values.items() if item[0].startswith(prefix)]


class Exited(BaseException):
  """In place of the end of the process."""


@pytest.fixture
def store(monkeypatch):
  def leave(code):
    raise Exited(code)

  monkeypatch.setattr(os, "_exit", leave)
  monkeypatch.setattr(process_errors, "_place", (0, "the start"))
  return Store()


def sign(store, index, number, place, name="batch 3", ended=False):
  text = process_errors.Sign(number, ended, place, name, f"host-{index}").text()
  store.key_value_set(f"anchor_jax/alive/{index}", text, allow_overwrite=True)


def test_another_process_s_error_is_printed_before_the_exit(store, capsys):
  store.key_value_set("anchor_jax/failed", "3\nhost-3\nno space left")
  with pytest.raises(Exited, match="2"):
    process_errors.Watch(store, 0, 4).run()
  assert capsys.readouterr().err == "error: process 3 on host-3 failed: no space left\n"
  assert "anchor_jax/read/0" in store.values


def test_a_process_that_reports_its_own_error_is_not_ended_by_another_s(store, monkeypatch):
  monkeypatch.setattr(process_errors, "_GRACE_S", 0.0)
  store.key_value_set("anchor_jax/failed", "3\nhost-3\nno space left")
  watch = process_errors.Watch(store, 0, 4)
  watch.report("mine")
  watch._exit_if_told()
  assert store.values["anchor_jax/failed"].endswith("no space left")


def test_a_process_counts_as_dead_after_15_seconds_without_a_sign(store):
  watch = process_errors.Watch(store, 0, 3)
  assert watch._find(0.0) is None and watch._find(14.0) is None  # process 2 has not started to sign
  assert watch._find(16.0) == (2, "an unknown host", "it has given no sign of life for 15 s")
  sign(store, 2, number=1, place=0)
  assert watch._find(100.0) is None
  sign(store, 2, number=2, place=0)
  assert watch._find(110.0) is None and watch._find(124.0) is None
  assert watch._find(126.0) == (2, "host-2", "it has given no sign of life for 15 s")
  sign(store, 2, number=3, place=0, ended=True)
  assert watch._find(127.0) is None and watch._find(900.0) is None


def test_the_process_that_all_wait_for_counts_as_hanging(store):
  watch = process_errors.Watch(store, 0, 3)
  process_errors.come_to("batch 3")
  process_errors.come_to("step 3")

  def find(now, place):
    sign(store, 2, number=int(now), place=place, name=f"place {place}")
    return watch._find(now)

  sign(store, 1, number=1, place=1)
  assert find(10.0, 1) is None and find(49.0, 1) is None
  assert find(51.0, 2) is None and find(200.0, 2) is None  # it waits in the same step as this process
  process_errors.come_to("batch 4")
  sign(store, 1, number=2, place=1)
  index, host, reason = find(300.0, 2)  # process 1, which hangs, is further behind than the watched process
  assert (index, host, reason) == (1, "host-1", "it hangs at batch 3, while others wait for it")


def test_long_work_that_was_seen_before_is_waited_for(store):
  watch = process_errors.Watch(store, 0, 2)
  for place in range(1, 10):
    process_errors.come_to(f"place {place}")
  times = [*range(0, 31, 5), *range(31, 121, 5)]  # 30 s in place 1, then place 2
  for number, now in enumerate(times):
    sign(store, 1, number, place=1 + (now > 30))
    assert watch._find(float(now)) is None, now
  sign(store, 1, 99, place=2)
  assert watch._find(125.0) == (1, "host-1", "it hangs at batch 3, while others wait for it")
