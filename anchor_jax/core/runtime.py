"""Sets up JAX before its first use: other processes of a run, CPU cores as devices, the compilation cache on disk."""

import contextlib
import hashlib
import logging
import os
import platform
from pathlib import Path

import filelock
import jax

from anchor_jax.core.errors import UserError

log = logging.getLogger(__name__)

_MOST_CPU_DEVICES = 8
_EARNS_BACK = 100  # steps; docs/measurements.md, One core or all
_MOST_BYTES = 2 * 10**9  # of compiled programs on disk


def initialize_distributed(
  coordinator: str | None = None, count: int | None = None, index: int | None = None, heartbeat: int = 30
) -> None:
  """Connects this process to the other processes of the run; call it before anything asks JAX for devices.

  On TPU slices, in GKE and under Slurm, JAX reads the arguments from the environment; elsewhere all three are needed.
  A run of one process needs nothing.

  Args:
    coordinator: HOST:PORT of process 0.
    count: number of processes.
    index: number of this process, 0 to count - 1.
    heartbeat: seconds without a sign of life from a process, after which JAX ends the others.

  Raises:
    UserError: some of the three arguments are given, but not all.
  """
  given = [coordinator is not None, count is not None, index is not None]
  if any(given) and not all(given):
    raise UserError("--coordinator, --processes and --process go together: give all three or none")
  if all(given):
    jax.distributed.initialize(coordinator, count, index, heartbeat_timeout_seconds=heartbeat)
  elif _environment_has_several_processes():
    jax.distributed.initialize(heartbeat_timeout_seconds=heartbeat)


def _environment_has_several_processes() -> bool:
  hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
  tasks = os.environ.get("SLURM_NTASKS", "1")
  return len(hosts) > 1 or "MEGASCALE_COORDINATOR_ADDRESS" in os.environ or (tasks.isdigit() and int(tasks) > 1)


def cpu_devices(batch_size: int, accumulate: int = 1, cores: int | None = None) -> int:
  """Into how many devices to divide the CPU for training: at most its cores and 8, and so that they share a batch.

  Args:
    batch_size: images of a batch.
    accumulate: equal parts that a batch is computed in, one after another.
    cores: that this process may use; None asks the system.
  """
  if cores is None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
  shared = lambda devices: batch_size % (devices * accumulate) == 0
  return max(filter(shared, range(1, min(cores, _MOST_CPU_DEVICES) + 1)), default=1)


def divide_cpu(steps: int, batch_size: int, accumulate: int = 1) -> None:
  """Makes JAX see the CPU as several devices, so that training uses all cores; call it before JAX is asked for devices.

  XLA runs a convolution on one core. With a batch sharded over as many devices as there are cores, each convolves its
  share. Does nothing for runs of less than 100 steps, which would not earn back the longer compilation, or where the
  number of devices is given (JAX_NUM_CPU_DEVICES, XLA_FLAGS), and leaves accelerators as they are.
  """
  given = jax.config.jax_num_cpu_devices > 0 or "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
  if steps >= _EARNS_BACK and not given:
    jax.config.update("jax_num_cpu_devices", cpu_devices(batch_size, accumulate))


def enable_compilation_cache() -> Path | None:
  """Makes JAX keep compiled programs on disk, so that the next run loads them; returns the folder, None if it can't.

  The folder is anchor_jax/programs/CPU below XDG_CACHE_HOME (default ~/.cache), where CPU names the instruction set
  that programs for the CPU were compiled for: a home that several machines share has one folder for each. It takes at
  most 2 GB; what was not used for longest goes first. JAX's own settings come first: JAX_COMPILATION_CACHE_DIR names
  another folder, JAX_ENABLE_COMPILATION_CACHE=false keeps nothing, JAX_COMPILATION_CACHE_MAX_SIZE (in bytes) and
  JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS hold as they are given.

  Loading a program runs code from its file, so a folder that others may write to is not used. Nor is one that can't be
  written or locked; the programs are then compiled in every run.
  """
  set_default = lambda name, value: name.upper() in os.environ or jax.config.update(name, value)
  set_default("jax_persistent_cache_min_compile_time_secs", 0.02)  # JAX's own 1.0 leaves most programs out
  if jax.config.jax_compilation_cache_dir is not None:
    return Path(jax.config.jax_compilation_cache_dir) if jax.config.jax_compilation_cache_dir else None
  if not jax.config.jax_enable_compilation_cache:
    return None
  try:
    folder = _cache_home() / "anchor_jax" / "programs" / _cpu()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_own(folder)
    _remove_incomplete(folder)
  except (OSError, RuntimeError, NotImplementedError) as error:  # Path.home and locks raise the last two
    log.info("compiled programs are not kept: %s", error)
    return None
  set_default("jax_compilation_cache_max_size", _MOST_BYTES)
  jax.config.update("jax_compilation_cache_dir", str(folder))
  return folder


def _cache_home() -> Path:
  home = Path(os.environ.get("XDG_CACHE_HOME", ""))
  return home if home.is_absolute() else Path.home() / ".cache"


def _cpu() -> str:
  """A short name that differs between CPUs with different instruction sets."""
  facts = {platform.machine(), platform.processor()}
  with contextlib.suppress(OSError):  # Linux alone has this file
    for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
      name, _, value = line.partition(":")
      if name.strip() in ("model name", "flags", "Features", "CPU implementer", "CPU part"):
        facts.add(value.strip())
  return hashlib.sha256("\n".join(sorted(facts)).encode()).hexdigest()[:12]


def _check_own(folder: Path) -> None:
  """Raises PermissionError for a folder that can't be written, or that someone else could have put a program into."""
  if not os.access(folder, os.W_OK | os.X_OK):
    raise PermissionError(f"{folder} can't be written")
  status = folder.stat()
  if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
    raise PermissionError(f"{folder} belongs to another user, or others may write to it")


def _remove_incomplete(folder: Path) -> None:
  """Removes programs whose writer was stopped half way, which JAX would find damaged in every run.

  JAX writes a program first and its time of use second, both under this lock; a program without the second is not
  complete, and makes JAX's own removal of old programs fail.
  """
  with filelock.FileLock(folder / ".lockfile", timeout=5):
    for program in folder.glob("*-cache"):
      if not program.with_name(f"{program.name.removesuffix('-cache')}-atime").exists():
        program.unlink()
