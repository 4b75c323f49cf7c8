"""The thread that does the jobs, one at a time, each command in a process of its own.

A command's process holds a lock on its job's .lock file, which also has its process id. A server that starts anew finds
by it what a killed one left running, ends it, and lets the job go on: training from its last checkpoint, a video from
its last second.
"""

import contextlib
import fcntl
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from anchor_jax.app.access.uploads import without_paths
from anchor_jax.app.jobs.commands import Command
from anchor_jax.app.jobs.progress import BEGINS, error_in, tail
from anchor_jax.app.jobs.queue import CANCELLED, DONE, FAILED, RUNNING, STOPPING, WAITING, Job, Jobs
from anchor_jax.core.errors import UserError
from anchor_jax.files.inputs import open_input

_PATIENCE = 20.0  # seconds that a process has to save what it did
_POLL = 0.1


class Worker:
  """Runs jobs until it is stopped."""

  def __init__(self, jobs: Jobs, commands: Callable[[Job], list[Command]], directory: Path):
    """Takes the jobs, what makes commands of one, and the directory that commands run in."""
    self._jobs, self._commands, self._directory = jobs, commands, directory
    self._wake, self._stopping = threading.Event(), threading.Event()
    self._current = ""  # name of the job that is being done
    self._taking = threading.Lock()  # held while a job becomes the current one
    self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)

  def start(self) -> None:
    """Ends what a killed server left running, and starts to work."""
    for job in self._jobs.line():
      _end_left_over(self._jobs.path(job, ".lock"))
    self._thread.start()

  def stop(self) -> None:
    """Ends the command that runs; its job waits again, for the next start."""
    self._stopping.set()
    self._wake.set()
    self._thread.join()

  def wake(self) -> None:
    """Tells that there is a new job."""
    self._wake.set()

  def cancel(self, job: Job) -> None:
    """Cancels a job: one that waits at once, one that runs as soon as its process has ended."""
    self._jobs.cancel(job.name)
    self._wake.set()

  def wait_until_ended(self, job: Job) -> None:
    """Returns once nothing runs for a job that was cancelled or forgotten; for threads that remove its files then."""
    while self._does(job.name) and self._thread.is_alive():
      time.sleep(_POLL)

  def _does(self, name: str) -> bool:
    with self._taking:
      return self._current == name

  def _run(self) -> None:
    while not self._stopping.is_set():
      with self._taking:
        job = self._jobs.take()
        self._current = "" if job is None else job.name
      if job is None:
        self._wake.wait(1.0)
        self._wake.clear()
        continue
      try:
        self._do(job)
      finally:
        self._current = ""

  def _do(self, job: Job) -> None:
    try:
      commands = self._commands(job)
      for number in range(job.step, len(commands)):
        self._jobs.change(job.name, step=number)
        code = self._command(job, commands[number])
        if code is None:  # it was stopped
          return
        if code:
          self._failed(job, error_in(tail(self._jobs.path(job, ".log"))))
          return
      self._jobs.change(job.name, state=DONE, ended=time.time())
    except (UserError, OSError) as error:
      self._failed(job, without_paths(str(error)))
    except Exception:  # one job must not end all others
      logging.getLogger(__name__).exception("job %s failed unexpectedly", job.name)
      self._failed(job, error_in(""))

  def _failed(self, job: Job, why: str) -> None:
    self._jobs.change(job.name, state=FAILED, ended=time.time(), error=why)

  def _command(self, job: Job, command: Command) -> int | None:
    """Runs a command to its end, and returns its exit code; None where it was stopped, and the job's state says why."""
    log, lock = self._jobs.path(job, ".log"), self._jobs.path(job, ".lock")
    with log.open("ab") as output, lock.open("w") as held:
      output.write(f"{BEGINS}{command.label}\n".encode())
      output.flush()
      fcntl.flock(held, fcntl.LOCK_EX)
      process = subprocess.Popen(
        command.arguments, cwd=self._directory, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        start_new_session=True, pass_fds=[held.fileno()],
      )  # fmt: skip
      held.write(str(process.pid))
      held.flush()
    while process.poll() is None:
      state = getattr(self._jobs.get(job.name), "state", None)
      if self._stopping.is_set() or state != RUNNING:
        _end(process.pid, lambda: process.poll() is not None, patient=state is not None)
        process.wait()
        if state == STOPPING:
          self._jobs.change(job.name, state=CANCELLED, ended=time.time())
        elif state == RUNNING:
          self._jobs.change(job.name, state=WAITING)
        return None
      self._wake.wait(_POLL)
      self._wake.clear()
    return process.returncode


def _end(group: int, ended: Callable[[], bool], patient: bool = True) -> None:
  """Ends a group of processes: asks first, so that training saves its step, and insists after a while."""
  for number in (signal.SIGTERM, signal.SIGKILL)[0 if patient else 1 :]:
    with contextlib.suppress(ProcessLookupError, PermissionError):
      os.killpg(group, number)
    limit = time.monotonic() + _PATIENCE
    while time.monotonic() < limit:
      if ended():
        return
      time.sleep(_POLL)


def _end_left_over(lock: Path) -> None:
  """Ends the process that still holds a job's lock, if there is one; never this one's own group."""
  try:
    with open_input(lock) as held:
      process = "" if _is_free(held) else held.read(20).decode("ascii", "replace").strip()
      if process.isdecimal() and 1 < int(process) < 2**31 and int(process) != os.getpgrp():
        _end(int(process), lambda: _is_free(held))
  except UserError:  # there is none, as it should be
    pass


def _is_free(held) -> bool:
  """Whether nobody else holds the lock on a file; it is not kept."""
  try:
    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  fcntl.flock(held, fcntl.LOCK_UN)
  return True
