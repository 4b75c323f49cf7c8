"""The compilation cache, and the division of the CPU into devices."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from anchor_jax.core import runtime

OPTIONS = (
  "jax_compilation_cache_dir",
  "jax_compilation_cache_max_size",
  "jax_enable_compilation_cache",
  "jax_persistent_cache_min_compile_time_secs",
)


@pytest.fixture
def home(tmp_path, monkeypatch):
  """An empty user cache folder, with JAX's options as in a new process."""
  before = {name: getattr(jax.config, name) for name in OPTIONS}
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  for name in OPTIONS:
    monkeypatch.delenv(name.upper(), raising=False)
  jax.config.update("jax_compilation_cache_dir", None)
  yield tmp_path
  for name, value in before.items():
    jax.config.update(name, value)


def test_programs_are_saved_in_the_user_s_cache_folder_up_to_a_size(home):
  folder = runtime.enable_compilation_cache()
  assert folder is not None and folder.parent == home / "anchor_jax" / "programs"
  assert pathlib.Path(jax.config.jax_compilation_cache_dir) == folder
  assert folder.stat().st_mode & 0o777 == 0o700
  assert 0 < jax.config.jax_compilation_cache_max_size < 10**10
  assert jax.config.jax_persistent_cache_min_compile_time_secs < 0.1


def test_each_kind_of_cpu_has_its_own_folder(home, monkeypatch):
  first = runtime.enable_compilation_cache()
  jax.config.update("jax_compilation_cache_dir", None)
  monkeypatch.setattr(pathlib.Path, "read_text", lambda *_, **__: "model name\t: another\nflags\t: fpu sse avx512f\n")
  second = runtime.enable_compilation_cache()
  assert first is not None and second is not None and first != second and first.parent == second.parent


def test_jax_s_own_settings_take_precedence(home, monkeypatch):
  jax.config.update("jax_compilation_cache_dir", str(home / "mine"))
  monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "3")
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 3.0)
  size = jax.config.jax_compilation_cache_max_size
  assert runtime.enable_compilation_cache() == home / "mine"
  assert jax.config.jax_persistent_cache_min_compile_time_secs == 3.0
  assert jax.config.jax_compilation_cache_max_size == size
  jax.config.update("jax_compilation_cache_dir", None)
  jax.config.update("jax_enable_compilation_cache", False)
  assert runtime.enable_compilation_cache() is None and jax.config.jax_compilation_cache_dir is None


def test_a_folder_that_cannot_be_trusted_or_created_is_not_used(home):
  folder = runtime.enable_compilation_cache()
  assert folder is not None
  for spoil in (lambda: folder.chmod(0o777), lambda: (folder.rmdir(), folder.write_text(""))):
    jax.config.update("jax_compilation_cache_dir", None)
    for file in folder.glob("*"):
      file.unlink()
    spoil()
    assert runtime.enable_compilation_cache() is None
    assert jax.config.jax_compilation_cache_dir is None


def test_incompletely_written_programs_are_removed(home):
  folder = runtime.enable_compilation_cache()
  assert folder is not None
  for name in ("full-cache", "full-atime", "half-cache"):
    (folder / name).write_bytes(b"12345678")
  jax.config.update("jax_compilation_cache_dir", None)
  assert runtime.enable_compilation_cache() == folder
  assert {file.name for file in folder.glob("*-*")} == {"full-cache", "full-atime"}


def test_the_next_process_loads_compiled_programs(tmp_path):
  code = """
import collections, json, sys, jax
from anchor_jax.core.runtime import enable_compilation_cache
seen = collections.Counter()
jax.monitoring.register_event_listener(lambda name, **_: seen.update([name.rpartition("/")[2]]))
enable_compilation_cache()
value = jax.jit(lambda x: jax.lax.fori_loop(0, 3, lambda i, x: x @ x + jax.numpy.sin(x), x))(jax.numpy.eye(8))
print(json.dumps([float(value.sum()), seen["cache_hits"], seen["cache_misses"]]))
"""
  settings = {"XDG_CACHE_HOME": str(tmp_path), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
  environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"} | settings
  start = lambda: subprocess.run(
    [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
  )
  (first, hits, misses), (second, more_hits, more_misses) = (json.loads(start().stdout) for _ in range(2))
  assert first == second and hits == 0 and misses > 0
  assert more_hits == misses and more_misses == 0


@pytest.mark.parametrize(
  "batch, accumulate, cores, devices", [(8, 1, 2, 2), (8, 4, 4, 2), (6, 1, 4, 3), (64, 1, 96, 8), (5, 2, 4, 1)]
)
def test_the_number_of_cpu_devices_divides_the_batch(batch, accumulate, cores, devices):
  assert runtime.cpu_devices(batch, accumulate, cores) == devices


@pytest.mark.parametrize(
  "flags, steps, devices", [("", 100, "2"), ("", 99, "1"), ("--xla_force_host_platform_device_count=3", 100, "3")]
)
def test_long_runs_divide_the_cpu_unless_devices_are_set(flags, steps, devices):
  code = "from anchor_jax.core import runtime; runtime.cpu_devices = lambda *_: 2; runtime.divide_cpu(STEPS, 8)\n"
  code += "import jax; print(jax.device_count())"
  code = code.replace("STEPS", str(steps))
  environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
  done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
  assert done.stdout.strip() == devices
