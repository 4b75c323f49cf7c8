"""The thread that runs jobs, one at a time, with one process per command.

A command's process holds a lock on its job's .lock file, which contains the process id. With it, a restarted server
finds and ends a process that a killed server left behind. The job then resumes: training from its last checkpoint, a
video from its last second.
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
from anchor_jax.app.jobs.progress import COMMAND_MARK, error_in, tail
from anchor_jax.app.jobs.queue import CANCELLED, DONE, FAILED, RUNNING, STOPPING, WAITING, Job, Jobs
from anchor_jax.core.errors import UserError
from anchor_jax.files.inputs import open_input

_GRACE = 20.0  # seconds that a process has to save its work before it is killed
_POLL = 0.1  # seconds


class Worker:
  """Runs jobs until it is stopped."""

  def __init__(self, jobs: Jobs, commands: Callable[[Job], list[Command]], directory: Path):
    """Takes the jobs, a function that returns a job's commands, and their working directory."""
    self._jobs, self._commands, self._directory = jobs, commands, directory
    self._wake, self._stopping = threading.Event(), threading.Event()
    self._current = ""  # name of the running job
    self._taking = threading.Lock()  # held while a job becomes the current one
    self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)

  def start(self) -> None:
    """Ends leftover processes of a killed server, and starts the thread."""
    for job in self._jobs.queue():
      _end_leftover(self._jobs.path(job, ".lock"))
    self._thread.start()

  def stop(self) -> None:
    """Ends the running command; its job waits for the next start."""
    self._stopping.set()
    self._wake.set()
    self._thread.join()

  def wake(self) -> None:
    """Signals a new job or a change of a job."""
    self._wake.set()

  def cancel(self, job: Job) -> None:
    """Cancels a job: a waiting one now, a running one as soon as its process has ended."""
    self._jobs.cancel(job.name)
    self._wake.set()

  def wait_until_ended(self, job: Job) -> None:
    """Blocks until no process runs for a canceled or forgotten job, so that its files can be removed."""
    while self._is_current(job.name) and self._thread.is_alive():
      time.sleep(_POLL)

  def _is_current(self, name: str) -> bool:
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
        self._run_job(job)
      finally:
        self._current = ""

  def _run_job(self, job: Job) -> None:
    try:
      commands = self._commands(job)
      for number in range(job.step, len(commands)):
        self._jobs.change(job.name, step=number)
        code = self._run_command(job, commands[number])
        if code is None:  # stopped
          return
        if code:
          self._fail(job, error_in(tail(self._jobs.path(job, ".log"))))
          return
      self._jobs.change(job.name, state=DONE, ended=time.time())
    except (UserError, OSError) as error:
      self._fail(job, without_paths(str(error)))
    except Exception:  # keep the worker alive for other jobs
      logging.getLogger(__name__).exception("job %s failed unexpectedly", job.name)
      self._fail(job, error_in(""))

  def _fail(self, job: Job, message: str) -> None:
    self._jobs.change(job.name, state=FAILED, ended=time.time(), error=message)

  def _run_command(self, job: Job, command: Command) -> int | None:
    """Runs a command and returns its exit code; None if it was stopped, for the reason in the job's state."""
    log, lock_path = self._jobs.path(job, ".log"), self._jobs.path(job, ".lock")
    with log.open("ab") as output, lock_path.open("w") as lock:
      output.write(f"{COMMAND_MARK}{command.label}\n".encode())
      output.flush()
      fcntl.flock(lock, fcntl.LOCK_EX)
      process = subprocess.Popen(
        command.arguments, cwd=self._directory, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        start_new_session=True, pass_fds=[lock.fileno()],
      )  # fmt: skip
      lock.write(str(process.pid))
      lock.flush()
    while process.poll() is None:
      state = getattr(self._jobs.get(job.name), "state", None)
      if self._stopping.is_set() or state != RUNNING:
        _end(process.pid, lambda: process.poll() is not None, graceful=state is not None)
        process.wait()
        if state == STOPPING:
          self._jobs.change(job.name, state=CANCELLED, ended=time.time())
        elif state == RUNNING:
          self._jobs.change(job.name, state=WAITING)
        return None
      self._wake.wait(_POLL)
      self._wake.clear()
    return process.returncode


def _end(group: int, ended: Callable[[], bool], graceful: bool = True) -> None:
  """Ends a process group: SIGTERM first, so that training saves its step, then SIGKILL."""
  for number in (signal.SIGTERM, signal.SIGKILL)[0 if graceful else 1 :]:
    with contextlib.suppress(ProcessLookupError, PermissionError):
      os.killpg(group, number)
    limit = time.monotonic() + _GRACE
    while time.monotonic() < limit:
      if ended():
        return
      time.sleep(_POLL)


def _end_leftover(lock_path: Path) -> None:
  """Ends the process that still holds a job's lock, if there is one, but never this process's group."""
  try:
    with open_input(lock_path) as lock:
      process = "" if _is_free(lock) else lock.read(20).decode("ascii", "replace").strip()
      if process.isdecimal() and 1 < int(process) < 2**31 and int(process) != os.getpgrp():
        _end(int(process), lambda: _is_free(lock))
  except UserError:  # no lock file
    pass


def _is_free(lock) -> bool:
  """Whether no other process holds the lock on a file; does not keep the lock."""
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  fcntl.flock(lock, fcntl.LOCK_UN)
  return True
