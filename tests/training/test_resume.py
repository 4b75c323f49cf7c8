"""A run that resumes elsewhere: on other meshes, and in other numbers of processes."""

import dataclasses
import shutil
import signal

import jax
import jax.numpy as jnp
import local_pod
import numpy as np
import pytest
from launched import losses, start_pod, wait_for_step, write_config

from anchor_jax.config.run import MeshConfig
from anchor_jax.core import sharding
from anchor_jax.store.weights import initial_weights, trained_keys
from anchor_jax.store.workdir import read_weights
from anchor_jax.train import train
from anchor_jax.training.checkpoint import Checkpoints
from anchor_jax.training.step import make_optimizer, make_state

MESH, DEVICES = MeshConfig(data=2, fsdp=2), 4
OTHER_MESHES = ((MeshConfig(data=1), 1), (MeshConfig(data=1, fsdp=8), 8), (MeshConfig(data=2, fsdp=2, tensor=2), 8))
STOP, STEPS = 3, 8


@pytest.fixture(scope="module")
def config(tiny_runs):
  return tiny_runs("body", mesh=MESH, checkpoint_every=STOP, steps=STEPS, keep=9)


@pytest.fixture(scope="module")
def uninterrupted(config, tmp_path_factory):
  """An uninterrupted run, with sharded weights although they are small."""
  folder = tmp_path_factory.mktemp("runs") / "uninterrupted"
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sharding, "_SMALLEST_SHARDED", 8)
    train(config, folder, jax.devices()[:DEVICES])
  return folder


def stopped(run, folder):
  """A copy of the run in its state after `STOP` steps."""
  shutil.copytree(run, folder)
  for path in (folder / "body/checkpoints").iterdir():
    if int(path.name) > STOP:
      shutil.rmtree(path)
  (folder / "body/metrics.jsonl").unlink()
  return folder


def assert_continues_as(run, folder):
  expected, found = losses(run, "body"), losses(folder, "body")
  assert list(found) == list(range(STOP + 1, STEPS + 1))
  np.testing.assert_allclose(found[STOP + 1], expected[STOP + 1], rtol=1e-6)
  np.testing.assert_allclose(list(found.values()), [expected[step] for step in found], rtol=1e-5)


def restored(config, folder, devices):
  """The state in a workdir, on a mesh; numpy."""
  _, weights = initial_weights(config)
  optimizer = make_optimizer(config.optimizer, config.steps)
  state = make_state(
    {name: jax.tree.map(jnp.asarray, weights[name]) for name in trained_keys(config)}, optimizer, config
  )
  mesh = sharding.make_mesh(config.mesh.sizes, devices)
  state = jax.device_put(state, sharding.parameter_shardings(state, mesh))
  with Checkpoints(folder / "body") as checkpoints:
    found = checkpoints.restore(state, {"global_next_index": 0})
  assert found is not None
  sharded = [leaf for leaf in jax.tree.leaves(found[0].weights) if not leaf.sharding.is_fully_replicated]
  assert bool(sharded) == (len(devices) > 1)
  return jax.tree.map(np.asarray, found[0])


@pytest.mark.slow
@pytest.mark.parametrize("mesh,count", OTHER_MESHES)
def test_on_another_mesh_the_state_is_bit_identical_and_the_losses_follow(
  uninterrupted, config, tmp_path, mesh, count, monkeypatch
):
  monkeypatch.setattr(sharding, "_SMALLEST_SHARDED", 8)
  folder, moved = stopped(uninterrupted, tmp_path / "run"), dataclasses.replace(config, mesh=mesh)
  state = restored(config, folder, jax.devices()[:DEVICES])
  moved_state = restored(moved, folder, jax.devices()[:count])
  jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(moved_state), jax.tree.leaves(state))
  assert int(moved_state.step) == STOP
  train(moved, folder, jax.devices()[:count])
  assert_continues_as(uninterrupted, folder)


@pytest.mark.slow
@pytest.mark.parametrize("processes,devices", [(2, 2), (4, 1)])
def test_in_another_number_of_processes_the_losses_follow(uninterrupted, config, tmp_path, processes, devices):
  folder = stopped(uninterrupted, tmp_path / "run")
  pod = start_pod(write_config(tmp_path, config), folder, processes, devices)
  output = pod.communicate(timeout=500)[0]
  assert pod.returncode == 0, output[-3000:]
  assert_continues_as(uninterrupted, folder)


@pytest.mark.slow
def test_a_pod_that_lost_a_process_goes_on_in_three_and_in_two_with_the_same_batches(tiny_run, tmp_path):
  config = tiny_run("vae", steps=40, checkpoint_every=4, keep=40)
  config = dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=12))
  train(config, tmp_path / "undisturbed", jax.devices()[:4])
  run, file = tmp_path / "run", write_config(tmp_path, config)
  four = local_pod.start("anchor_jax.train", [f"--config={file}", f"--workdir={run}"], 4, 1)
  wait_for_step(run, 6)
  four[2].kill()
  for index, process in enumerate(four):
    output = process.communicate(timeout=100)[0]
    assert index == 2 or (process.returncode == 2 and output.count("error: process 2 on") == 1), output[-3000:]

  three = start_pod(file, run, 3, 1)
  wait_for_step(run, max(losses(run)) + 6)
  three.send_signal(signal.SIGTERM)
  output = three.communicate(timeout=300)[0]
  assert three.returncode == 128 + signal.SIGTERM, output[-3000:]
  two = start_pod(file, run, 2, 1)
  output = two.communicate(timeout=500)[0]
  assert two.returncode == 0, output[-3000:]
  expected, found = losses(tmp_path / "undisturbed"), losses(run)
  assert list(found) == list(expected)
  np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-4)


@pytest.mark.slow
def test_preempted_processes_save_the_same_step_and_resume(tiny_run, tmp_path):
  config = tiny_run("vae", steps=80, checkpoint_every=0, mesh=MeshConfig(data=2, fsdp=2), preview_every=40)
  config = dataclasses.replace(config, data=dataclasses.replace(config.data, validation=2))
  file = write_config(tmp_path, config)
  output = start_pod(file, tmp_path / "uninterrupted").communicate(timeout=500)[0]
  assert losses(tmp_path / "uninterrupted")[80] > 0, output[-3000:]
  assert (tmp_path / "uninterrupted/vae/preview.png").exists()

  pod = start_pod(file, tmp_path / "run")
  wait_for_step(tmp_path / "run", 8)
  pod.send_signal(signal.SIGTERM)
  output = pod.communicate(timeout=300)[0]
  assert pod.returncode == 128 + signal.SIGTERM, output[-3000:]
  step = max(losses(tmp_path / "run"))
  assert 8 <= step < 80
  for process in (0, 1):
    assert f"[{process}] stopped by SIGTERM after step {step}" in output
  assert (tmp_path / "run/vae/checkpoints" / str(step)).is_dir()

  output = start_pod(file, tmp_path / "run").communicate(timeout=500)[0]
  assert losses(tmp_path / "run") == losses(tmp_path / "uninterrupted"), output[-3000:]
  left, right = (read_weights(tmp_path / name / "vae")[0] for name in ("uninterrupted", "run"))
  jax.tree.map(np.testing.assert_array_equal, left, right)
