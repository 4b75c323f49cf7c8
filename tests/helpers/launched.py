"""Runs of the train command in processes of their own, and what they wrote."""

import json
import os
import pathlib
import re
import subprocess
import sys
import time

from anchor_jax.config.run import to_plain

ROOT = pathlib.Path(__file__).resolve().parents[2]


def write_config(folder, config):
  """The config as a file that the train command reads."""
  (folder / "config.json").write_text(json.dumps(to_plain(config)))
  file = folder / "config.py"
  file.write_text(
    "import json, ml_collections\n"
    "def get_config():\n"
    f"  return ml_collections.ConfigDict(json.load(open({str(folder / 'config.json')!r})))\n"
  )
  return file


def start(config_file, workdir, devices=1, **more):
  flags = re.sub(r"device_count=\d+", f"device_count={devices}", os.environ["XLA_FLAGS"])
  environment = {**os.environ, "XLA_FLAGS": flags}
  command = [sys.executable, "-m", "anchor_jax.train", f"--config={config_file}", f"--workdir={workdir}"]
  return subprocess.Popen(
    command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more
  )


def logged(workdir, part, name):
  """{step: value} of one metric."""
  file = workdir / part / "metrics.jsonl"
  lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
  return {line["step"]: line[name] for line in lines if name in line}


def losses(workdir, part="vae"):
  """{step: loss}."""
  return logged(workdir, part, "loss")


def wait_for_step(workdir, step):
  deadline = time.monotonic() + 600
  while max(losses(workdir), default=0) < step:
    assert time.monotonic() < deadline
    time.sleep(0.01)


def start_pod(config_file, workdir, processes=2, devices=2):
  """`start` as several processes on this machine."""
  command = [sys.executable, "launch/local_pod.py", f"--processes={processes}", f"--devices={devices}", "--"]
  flags = [f"--config={config_file}", f"--workdir={workdir}"]
  return subprocess.Popen([*command, *flags], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
