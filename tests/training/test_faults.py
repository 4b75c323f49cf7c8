"""Faults during training, provoked on purpose; nothing is lost."""

import dataclasses
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from launched import losses, start, start_pod, wait_for_step, write_config

from anchor_jax.config.run import MeshConfig, OptimizerConfig
from anchor_jax.core.errors import UserError
from anchor_jax.store.workdir import read_weights
from anchor_jax.train import train

STEPS = 60


@pytest.fixture
def config(tiny_run):
  return tiny_run("vae", steps=STEPS, checkpoint_every=5, keep=50)


@pytest.fixture
def config_file(tmp_path, config):
  """The config as a file that the train command reads."""
  return write_config(tmp_path, config)


@pytest.mark.slow
def test_a_killed_and_preempted_run_ends_as_an_undisturbed_one(tmp_path, config_file):
  process = start(config_file, tmp_path / "undisturbed")  # a process with one device, as below
  output = process.communicate(timeout=300)[0]
  assert process.returncode == 0, output

  process = start(config_file, tmp_path / "run")
  wait_for_step(tmp_path / "run", 8)
  process.send_signal(signal.SIGTERM)
  output = process.communicate(timeout=300)[0]
  assert process.returncode == 128 + signal.SIGTERM and "stopped by SIGTERM after step" in output
  stopped = max(losses(tmp_path / "run"))
  assert (tmp_path / "run/vae/checkpoints" / str(stopped)).is_dir() and stopped < STEPS

  process = start(config_file, tmp_path / "run")
  wait_for_step(tmp_path / "run", stopped + 8)
  process.kill()
  process.communicate()
  assert max(losses(tmp_path / "run")) < STEPS

  process = start(config_file, tmp_path / "run")
  output = process.communicate(timeout=300)[0]
  assert process.returncode == 0, output
  assert losses(tmp_path / "run") == losses(tmp_path / "undisturbed")
  left, right = (read_weights(tmp_path / name / "vae")[0] for name in ("undisturbed", "run"))
  jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(tmp_path, tiny_run, caplog):
  config = tiny_run("vae", steps=4)
  train(config, tmp_path, jax.devices()[:1])
  before = losses(tmp_path)
  for place in (tmp_path / "vae/checkpoints/4/state").rglob("*"):
    if place.is_file():
      place.write_bytes(place.read_bytes()[: place.stat().st_size // 2])
  train(config, tmp_path, jax.devices()[:1])
  assert "checkpoint 4 can't be read" in caplog.text
  assert losses(tmp_path)[4] == before[4]  # steps 3 and 4 were repeated with the same result


@pytest.mark.slow
def test_persistent_non_finite_losses_end_the_run_and_name_the_last_good_checkpoint(tmp_path, tiny_run):
  train(tiny_run("vae", steps=2), tmp_path, jax.devices()[:1])
  bad = OptimizerConfig(learning_rate=1e6, warmup_steps=1, ema=0.5)
  with pytest.raises(UserError, match=r"lower config\.optimizer\.learning_rate; the last good checkpoint is .* step 2"):
    train(tiny_run("vae", steps=40, max_skipped=3, checkpoint_every=0, optimizer=bad), tmp_path, jax.devices()[:1])


@pytest.mark.slow
def test_a_full_disk_stops_the_run_in_one_line_and_damages_no_earlier_checkpoint(tmp_path, config_file):
  process = start(config_file, tmp_path / "run")
  wait_for_step(tmp_path / "run", 12)
  resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (64, 64))  # from now on no file can grow
  output = process.communicate(timeout=300)[0]
  assert process.returncode == 2, output[-3000:]
  assert output.count("error: ") == 1 and "free some space" in output and "Traceback" not in output
  weights, step = read_weights(tmp_path / "run/vae")
  assert step >= 5 and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(weights))


@pytest.mark.slow
@pytest.mark.parametrize(
  "mesh,devices", [(MeshConfig(data=2, fsdp=2), 2), (MeshConfig(data=1, tensor=2), 1)], ids=("rows", "channels")
)
def test_two_processes_train_to_the_losses_of_one(tmp_path, tiny_run, mesh, devices):
  """Each with its shard of a batch, or with the same batch and its shard of the channels."""
  model = tiny_run("body").model
  model = dataclasses.replace(model, image_encoder=dataclasses.replace(model.image_encoder, intermediate_size=2048))
  config = tiny_run("body", steps=4, mesh=mesh, model=model)  # some weights are on no single device in full
  file = write_config(tmp_path, config)
  train(config, tmp_path / "one", jax.devices()[: 2 * devices])
  pod = start_pod(file, tmp_path / "two", 2, devices)
  output = pod.communicate(timeout=400)[0]
  assert pod.returncode == 0, output[-3000:]
  one, two = losses(tmp_path / "one", "body"), losses(tmp_path / "two", "body")
  np.testing.assert_allclose([two[step] for step in one], list(one.values()), rtol=1e-5)


def test_two_processes_restore_the_same_checkpoint(tmp_path):
  """Only one of them finds the damage, in its shard of the arrays; both return to step 2."""
  script = pathlib.Path(__file__).parents[1] / "helpers/restoring_pod.py"
  with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    coordinator = f"127.0.0.1:{listener.getsockname()[1]}"
  environment = {**os.environ, "XLA_FLAGS": "", "JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": str(script.parents[2])}
  pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": environment}
  command = [sys.executable, str(script), str(tmp_path), coordinator]
  pod = [subprocess.Popen([*command, str(process)], **pipes) for process in range(2)]
  for process, output in enumerate([started.communicate(timeout=300)[0] for started in pod]):
    assert pod[process].returncode == 0, output[-3000:]
    assert f"process {process} restored 2 {{'position': 2}} and keeps 2" in output
    assert "checkpoint 4 can't be read" in output
