"""examples/quickstart.ipynb runs; `make test-wheel` (and CI) runs it with the installed wheel."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_notebook_runs(tmp_path):
  command = [sys.executable, ROOT / "tests" / "helpers" / "run_notebook.py", ROOT / "examples" / "quickstart.ipynb"]
  environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
  done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
  assert done.returncode == 0 and "the notebook ran" in done.stdout, done.stderr[-3000:]
