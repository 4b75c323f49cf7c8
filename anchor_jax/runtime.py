"""Sets up JAX before its first use: the other processes of a run, and the compilation cache on disk."""

import os

import jax

from anchor_jax.errors import UserError


def initialize_distributed(coordinator: str | None = None, count: int | None = None, index: int | None = None) -> None:
  """Connects this process to the other processes of the run; call it before anything asks JAX for devices.

  On TPU slices, in GKE and under Slurm, JAX reads the arguments from the environment; elsewhere all three are needed.
  A run of one process needs nothing.

  Args:
    coordinator: HOST:PORT of process 0.
    count: number of processes.
    index: number of this process, 0 to count - 1.

  Raises:
    UserError: some of the three arguments are given, but not all.
  """
  given = [coordinator is not None, count is not None, index is not None]
  if any(given) and not all(given):
    raise UserError("--coordinator, --processes and --process go together: give all three or none")
  if all(given):
    jax.distributed.initialize(coordinator, count, index)
  elif _environment_has_several_processes():
    jax.distributed.initialize()


def _environment_has_several_processes() -> bool:
  hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
  tasks = os.environ.get("SLURM_NTASKS", "1")
  return len(hosts) > 1 or "MEGASCALE_COORDINATOR_ADDRESS" in os.environ or (tasks.isdigit() and int(tasks) > 1)


def enable_compilation_cache() -> None:
  """Makes JAX keep compiled programs in the user's cache folder, unless a folder is set already."""
  if jax.config.jax_compilation_cache_dir is None:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    jax.config.update("jax_compilation_cache_dir", os.path.join(home, "anchor_jax", "programs"))
