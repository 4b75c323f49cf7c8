"""An error in one process of a run ends all processes, and each prints it."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
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
from anchor_jax.core.process_errors import end_together, wait_for_processes

@cli.command
def main():
  address, index, failing, kind = sys.argv[1:]
  runtime.initialize_distributed(address, 2, int(index))
  import jax
  from jax.experimental import multihost_utils
  if kind not in ("devices", "late"):
    multihost_utils.sync_global_devices("begin")
  print("started", flush=True)
  with end_together():
    if index == failing and kind == "error":
      raise UserError("the film of this host is damaged")
    if index == failing and kind == "killed":
      time.sleep(300)
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


def start(tmp_path, failing, kind, devices=(1, 1)):
  (tmp_path / "run.py").write_text(RUN.format(root=str(ROOT)))
  address = f"127.0.0.1:{free_port()}"
  return [
    subprocess.Popen(
      [sys.executable, str(tmp_path / "run.py"), address, str(index), str(failing), kind],
      env={**os.environ, "XLA_FLAGS": "", "JAX_NUM_CPU_DEVICES": str(devices[index])},
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    for index in range(2)
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
@pytest.mark.parametrize("failing", [0, 1])
def test_a_killed_host_ends_the_others_within_a_minute(tmp_path, failing):
  pod = start(tmp_path, failing, "killed")
  wait_for_start(pod)
  start_time = time.monotonic()
  pod[failing].send_signal(signal.SIGKILL)
  ended(pod, 60)
  assert time.monotonic() - start_time < 60 and pod[1 - failing].returncode != 0


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

  def key_value_set(self, key, value):
    if key in self.values:
      raise RuntimeError("ALREADY_EXISTS")
    self.values[key] = value

  def key_value_try_get(self, key):
    return self.values[key]

  def key_value_dir_get(self, prefix):
    return [item for item in self.values.items() if item[0].startswith(prefix)]


def test_another_process_s_error_is_printed_before_the_exit(monkeypatch, capsys):
  class Exited(BaseException):
    pass

  def leave(code):
    raise Exited(code)

  store = Store()
  store.key_value_set("anchor_jax/failed", "3\nhost-3\nno space left")
  monkeypatch.setattr(os, "_exit", leave)
  with pytest.raises(Exited, match="2"):
    process_errors._watch(store, threading.Event())
  assert capsys.readouterr().err == "error: process 3 on host-3 failed: no space left\n"
  assert "anchor_jax/read/0" in store.values
