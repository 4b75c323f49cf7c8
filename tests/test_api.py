"""The library API: importing it is quick and loads nothing heavy; every public name resolves."""

import importlib
import inspect
import subprocess
import sys

import pytest

import anchor_jax as aj
from anchor_jax.core import cli


def test_importing_the_package_loads_nothing_heavy():
  code = (
    "import sys, time; start = time.process_time(); import anchor_jax as aj; took = time.process_time() - start\n"
    "heavy = {'jax', 'flax', 'numpy', 'cv2', 'orbax', 'av', 'ml_collections'} & set(sys.modules)\n"
    "assert not heavy, heavy; assert took < 0.3, took\n"
    "assert 'load' in dir(aj) and 'train' in dir(aj)\n"
    "aj.UserError; assert 'jax' not in sys.modules"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr


def test_public_names_resolve_even_after_importing_all_commands():
  for name in ("bench", "convert", "demo", "evaluate", "export", "generate", "prepare", "train", "verify"):
    importlib.import_module(f"anchor_jax.{name}")
  for name in aj.__all__:
    value = getattr(aj, name)
    assert callable(value), name
    assert value.__doc__ and (value.__doc__.strip()), name
  assert "workdir" in inspect.signature(importlib.import_module("anchor_jax.train").train).parameters


def test_command_modules_can_be_called_as_functions(tmp_path):
  importlib.import_module("anchor_jax.prepare")
  try:
    aj.prepare([tmp_path / "none.mp4"], tmp_path / "out")
  except aj.UserError as error:
    assert "no video" in str(error)
  else:
    raise AssertionError("prepare did not run")
  assert isinstance(aj.prepare, cli._CallableModule)


def test_impossible_file_names_give_one_line_errors(tmp_path):
  reference, light = (importlib.import_module(f"anchor_jax.{name}") for name in ("inference.reference", "store.light"))
  reads = (aj.load, aj.read_motion, reference.read_reference, light.read_light_decoder)
  writes = (lambda name: aj.prepare([tmp_path / "none.mp4"], name), lambda name: aj.write_video(name, [], 25))
  for function in (*reads, *writes):
    for name in ("x" * 5000, f"{tmp_path}/a\0b", "y/" * 5000):
      with pytest.raises(aj.UserError) as refused:
        function(name)
      assert "\n" not in str(refused.value) and len(str(refused.value)) < 2000


def test_unknown_name_raises_attribute_error():
  assert not hasattr(aj, "paint")
