"""Runs examples/quickstart.ipynb cell by cell with a film of one second and networks of eight channels.

  python run_notebook.py NOTEBOOK

A program, not a test: rendering starts processes that import the main module again, and JAX with one device compiles
several times faster than with the eight of the tests.
"""

import json
import os
import pathlib
import sys

if __name__ == "__main__":
  os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=1 --xla_backend_optimization_level=0"
  sys.modules["pytest"] = None  # `make test-wheel` runs this where it is not installed
  from tiny import tiny_model

  from anchor_jax.config.run import SampleConfig

  cells = [cell for cell in json.loads(pathlib.Path(sys.argv[1]).read_text())["cells"] if cell["cell_type"] == "code"]
  assert "parameters" in cells[0]["metadata"]["tags"] and not any(cell["outputs"] for cell in cells)
  small = {"init": "", "steps": 1, "preview_every": 0, "data.batch_size": 8, "data.crop": 16, "data.validation": 0}
  sample = SampleConfig("dpm++2m", 2, window=4, overlap=1, guidance=1.0, conditioning_scale=1.0)
  names: dict = {}
  exec("".join(cells[0]["source"]), names)
  assert set(names) >= {"SIZE", "SECONDS", "FRAMES", "SETTINGS"}
  settings = {p: {**small, "model": tiny_model(inpaint=p == "head"), "sample": sample} for p in ("body", "head")}
  names.update(SIZE=32, SECONDS=1, FRAMES=5, SETTINGS=settings)
  for cell in cells[1:]:
    exec("".join(cell["source"]), names)
  runs = names["runs"]
  assert names["report"]["frames"] == 5 and "generated" in names["report"]["person"]
  assert names["aj"].load(runs / "saved").parts.keys() == {"body", "head"}
  assert (runs / "generated.mp4").is_file() and (runs / "bundle" / "generate.py").is_file()
  print("the notebook ran")
