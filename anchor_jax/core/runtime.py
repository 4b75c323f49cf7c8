"""Configures JAX before its first use: processes of a run, CPU cores as devices, the compilation cache on disk."""

import contextlib
import hashlib
import logging
import os
import platform
from pathlib import Path

import filelock
import jax

from anchor_jax.core.coordinator import service_apart
from anchor_jax.core.errors import UserError
from anchor_jax.files.cache import cache_home

log = logging.getLogger(__name__)

_MAX_CPU_DEVICES = 8
_BREAK_EVEN = 100  # steps; results/speed.jsonl
_MAX_BYTES = 2 * 10**9  # of compiled programs on disk


def initialize_distributed(
  coordinator: str | None = None, count: int | None = None, index: int | None = None, heartbeat: int = 50
) -> None:
  """Connects this process to the other processes of the run; call it before any use of JAX's devices.

  On TPU slices, in GKE and under Slurm, JAX reads the arguments from the environment; elsewhere all three are needed.
  A run of one process needs none.

  Args:
    coordinator: HOST:PORT of process 0.
    count: number of processes.
    index: number of this process, 0 to count - 1.
    heartbeat: seconds without a heartbeat of a process after which JAX ends the others.

  Raises:
    UserError: some of the three arguments are given, but not all.
  """
  given = [coordinator is not None, count is not None, index is not None]
  if any(given) and not all(given):
    raise UserError("--coordinator, --processes and --process go together: give all three or none")
  if all(given):
    with service_apart():
      jax.distributed.initialize(coordinator, count, index, heartbeat_timeout_seconds=heartbeat)
  elif _environment_has_several_processes():
    with service_apart():
      jax.distributed.initialize(heartbeat_timeout_seconds=heartbeat)


def _environment_has_several_processes() -> bool:
  hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
  tasks = os.environ.get("SLURM_NTASKS", "1")
  return len(hosts) > 1 or "MEGASCALE_COORDINATOR_ADDRESS" in os.environ or (tasks.isdigit() and int(tasks) > 1)


def cpu_devices(batch_size: int, accumulate: int = 1, cores: int | None = None) -> int:
  """Returns the number of devices to divide the CPU into: at most 8 and its cores, and a divisor of the batch.

  Args:
    batch_size: images per batch.
    accumulate: number of accumulation parts of a batch.
    cores: cores available to this process; None asks the system.
  """
  if cores is None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
  divides = lambda devices: batch_size % (devices * accumulate) == 0
  return max(filter(divides, range(1, min(cores, _MAX_CPU_DEVICES) + 1)), default=1)


def divide_cpu(steps: int, batch_size: int, accumulate: int = 1) -> None:
  """Makes JAX see the CPU as several devices, so that training uses all cores; call it before any use of devices.

  XLA runs a convolution on one core, so the batch is sharded over one device per core. Does nothing for runs of fewer
  than 100 steps, where the longer compilation would cost more than it saves, or if the number of devices is set
  (JAX_NUM_CPU_DEVICES, XLA_FLAGS). Accelerators are not affected.
  """
  is_set = jax.config.jax_num_cpu_devices > 0 or "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
  if steps >= _BREAK_EVEN and not is_set:
    jax.config.update("jax_num_cpu_devices", cpu_devices(batch_size, accumulate))


def enable_compilation_cache() -> Path | None:
  """Enables JAX's compilation cache on disk; returns its folder, or None if there can be none.

  The folder is anchor_jax/programs/CPU below XDG_CACHE_HOME (default ~/.cache), where CPU identifies the instruction
  set: machines that share a home have a folder each. It is limited to 2 GB; the least recently used programs are
  removed first. JAX's own settings take precedence: JAX_COMPILATION_CACHE_DIR for another folder,
  JAX_ENABLE_COMPILATION_CACHE=false for no cache, JAX_COMPILATION_CACHE_MAX_SIZE (in bytes) and
  JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS.

  Loading a program runs code from its file, so a folder that other users can write to is not used. Nor is one that
  can't be written or locked; every run then compiles.
  """
  set_default = lambda name, value: name.upper() in os.environ or jax.config.update(name, value)
  set_default("jax_persistent_cache_min_compile_time_secs", 0.02)  # JAX's default of 1.0 excludes most programs
  if jax.config.jax_compilation_cache_dir is not None:
    return Path(jax.config.jax_compilation_cache_dir) if jax.config.jax_compilation_cache_dir else None
  if not jax.config.jax_enable_compilation_cache:
    return None
  try:
    folder = cache_home() / "anchor_jax" / "programs" / _cpu()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_own(folder)
    _remove_incomplete(folder)
  except (OSError, RuntimeError, NotImplementedError) as error:  # Path.home and locks raise the last two
    log.info("compiled programs are not saved: %s", error)
    return None
  set_default("jax_compilation_cache_max_size", _MAX_BYTES)
  jax.config.update("jax_compilation_cache_dir", str(folder))
  return folder


def _cpu() -> str:
  """Returns a short name that differs between CPUs with different instruction sets."""
  facts = {platform.machine(), platform.processor()}
  with contextlib.suppress(OSError):  # only Linux has this file
    for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
      name, _, value = line.partition(":")
      if name.strip() in ("model name", "flags", "Features", "CPU implementer", "CPU part"):
        facts.add(value.strip())
  return hashlib.sha256("\n".join(sorted(facts)).encode()).hexdigest()[:12]


def _check_own(folder: Path) -> None:
  """Raises PermissionError if a folder can't be written, or if another user can write to it."""
  if not os.access(folder, os.W_OK | os.X_OK):
    raise PermissionError(f"{folder} can't be written")
  status = folder.stat()
  if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
    raise PermissionError(f"{folder} belongs to another user, or others may write to it")


def _remove_incomplete(folder: Path) -> None:
  """Removes incompletely written programs, which JAX would report as damaged in every run.

  JAX writes a program, then its time of use, both under this lock. A program without a time of use is incomplete, and
  makes JAX's own removal of old programs fail.
  """
  with filelock.FileLock(folder / ".lockfile", timeout=5):
    for program in folder.glob("*-cache"):
      if not program.with_name(f"{program.name.removesuffix('-cache')}-atime").exists():
        program.unlink()
