"""Runs one training as several processes on this machine, each with its own CPU devices, as on a pod.

Example, two processes with two devices each (everything after `--` goes to anchor_jax.train):
  python launch/local_pod.py --processes=2 --devices=2 -- \
    --config=configs/studio_finetune.py:body --workdir=runs/pod --config.data.path=data/ana

Each line of output starts with the number of its process. If a process fails, the others are stopped, and the exit code
is that of the failed process. Ctrl-C and SIGTERM go to every process, so that training can save a checkpoint. With
--restarts=3 the pod is started again after a failure, at most three times; training continues from its last checkpoint.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time

GRACE_S = 30.0  # from SIGTERM to SIGKILL; long enough to save a checkpoint


def free_port() -> int:
  """A free port for the coordinator."""
  with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    return listener.getsockname()[1]


def start(module: str, arguments: list[str], processes: int, devices: int) -> list[subprocess.Popen]:
  """Starts `python -m MODULE ARGUMENTS` once per process, with the flags that connect them."""
  environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices), "PYTHONUNBUFFERED": "1"}
  # A device count in XLA_FLAGS, as tests set it, would override JAX_NUM_CPU_DEVICES.
  flags = environment.pop("XLA_FLAGS", "").split()
  other_flags = [flag for flag in flags if "host_platform_device_count" not in flag]
  if other_flags:
    environment["XLA_FLAGS"] = " ".join(other_flags)
  coordinator = f"127.0.0.1:{free_port()}"
  return [
    subprocess.Popen(
      [
        *(sys.executable, "-m", module, *arguments),
        *(f"--coordinator={coordinator}", f"--processes={processes}", f"--process={index}"),
      ],
      env=environment,
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,  # universal newlines: a carriage return of a progress bar ends a line
      errors="replace",
      start_new_session=True,  # Ctrl-C reaches only this process, which forwards it once
    )
    for index in range(processes)
  ]


def echo(index: int, process: subprocess.Popen) -> None:
  """Prints the output of a process line by line, each line with its index."""
  assert process.stdout is not None
  for line in process.stdout:
    sys.stdout.write(f"[{index}] {line.rstrip()}\n")
    sys.stdout.flush()


def stop(running: list[subprocess.Popen], number: int) -> None:
  """Sends signal `number` to the process group of every running process."""
  for process in running:
    if process.poll() is None:
      os.killpg(process.pid, number)


def catch_signals() -> list[int]:
  """Returns a list to which every SIGINT and SIGTERM of this process is appended from now on."""
  caught: list[int] = []
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: caught.append(number))
  return caught


def watch(running: list[subprocess.Popen], caught: list[int]) -> tuple[bool, int]:
  """Waits for all processes; the first failure, or a caught signal, stops the others.

  Returns:
    Whether a signal was caught, and the exit code.
  """
  signaled, code, deadline = False, 0, None
  while None in (codes := [process.poll() for process in running]):
    while caught:
      signaled, number = True, caught.pop(0)
      code, deadline = code or 128 + number, deadline or time.monotonic() + GRACE_S
      stop(running, signal.SIGTERM)
    failed = next((number for number in codes if number), 0)
    if failed and deadline is None:
      code, deadline = failed if failed > 0 else 128 - failed, time.monotonic() + GRACE_S
      stop(running, signal.SIGTERM)
    if deadline is not None and time.monotonic() > deadline:
      stop(running, signal.SIGKILL)
    time.sleep(0.1)
  return signaled, code or next((number if number > 0 else 128 - number for number in codes if number), 0)


def main() -> int:
  """The command line."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--processes", type=int, default=2, help="processes to start (default 2)")
  parser.add_argument("--devices", type=int, default=2, help="CPU devices of each process (default 2)")
  parser.add_argument(
    "--module", default="anchor_jax.train", help="module that each process runs (default anchor_jax.train)"
  )
  parser.add_argument("--restarts", type=int, default=0, help="times to start again after a failure (default 0)")
  parser.add_argument("arguments", nargs="*", help="after `--`: the arguments of the module")
  options = parser.parse_args()
  if options.processes < 1 or options.devices < 1:
    parser.error("--processes and --devices must be 1 or more")
  if options.restarts < 0:
    parser.error("--restarts must be 0 or more")
  caught = catch_signals()  # before any process starts, so that a signal never leaves one behind
  for left in range(options.restarts, -1, -1):
    stopped, code = run_once(options, caught)
    if not code or stopped or not left:
      break
    sys.stdout.write(f"the pod failed with exit code {code}: it starts again ({left - 1} restarts left)\n")
  return code


def run_once(options: argparse.Namespace, caught: list[int]) -> tuple[bool, int]:
  """Runs the pod to its end; returns whether a signal of `caught` stopped it, and its exit code."""
  running = start(options.module, options.arguments, options.processes, options.devices)
  readers = [threading.Thread(target=echo, args=pair, daemon=True) for pair in enumerate(running)]
  for reader in readers:
    reader.start()
  try:
    return watch(running, caught)
  finally:
    stop(running, signal.SIGKILL)
    for reader in readers:
      reader.join(timeout=5)


if __name__ == "__main__":
  sys.exit(main())
