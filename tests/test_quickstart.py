"""examples/quickstart.ipynb, cell by cell, with a film of one second and networks of eight channels."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
# In a process of its own, with one device: programs for eight take several times as long to compile.
RUN = """
import json, pathlib, sys
sys.path.insert(0, {helpers!r})
from tiny import tiny_model
from anchor_jax.config import SampleConfig

if __name__ == "__main__":  # rendering starts processes that import this module again
  cells = [cell for cell in json.loads(pathlib.Path({notebook!r}).read_text())["cells"] if cell["cell_type"] == "code"]
  assert "parameters" in cells[0]["metadata"]["tags"] and not any(cell["outputs"] for cell in cells)
  small = {{"init": "", "steps": 1, "preview_every": 0, "data.batch_size": 8, "data.crop": 16, "data.validation": 0}}
  sample = SampleConfig("dpm++2m", 2, window=4, overlap=1, guidance=1.0, conditioning_scale=1.0)
  names = {{}}
  exec("".join(cells[0]["source"]), names)
  assert set(names) >= {{"SIZE", "SECONDS", "FRAMES", "SETTINGS"}}
  settings = {{p: {{**small, "model": tiny_model(inpaint=p == "head"), "sample": sample}} for p in ("body", "head")}}
  names.update(SIZE=32, SECONDS=1, FRAMES=5, SETTINGS=settings)
  for cell in cells[1:]:
    exec("".join(cell["source"]), names)
  assert names["report"]["frames"] == 5 and "generated" in names["report"]["person"]
  assert names["aj"].load(names["runs"] / "saved").parts.keys() == {{"body", "head"}}
"""


def test_the_notebook_runs(tmp_path):
  flags = "--xla_force_host_platform_device_count=1 --xla_backend_optimization_level=0"
  script = tmp_path / "run.py"
  notebook = ROOT / "examples" / "quickstart.ipynb"
  script.write_text(RUN.format(helpers=str(ROOT / "tests" / "helpers"), notebook=str(notebook)))
  environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
  done = subprocess.run(
    [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr[-3000:]
  runs = tmp_path / "runs" / "quickstart"
  assert (runs / "generated.mp4").is_file() and (runs / "bundle" / "generate.py").is_file()
