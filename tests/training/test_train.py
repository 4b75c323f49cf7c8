"""The trainer on a person small enough: what it learns, that it goes on exactly, that sharding changes nothing."""

import dataclasses
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anchor_jax.config import MeshConfig, OptimizerConfig
from anchor_jax.data.dataset import open_prepared
from anchor_jax.data.motion import read_motion
from anchor_jax.errors import UserError
from anchor_jax.models.networks import to_signed
from anchor_jax.pipeline import animate as frames_of
from anchor_jax.pipeline import load_person
from anchor_jax.train import train as train_on
from anchor_jax.training.checkpoint import read_weights
from anchor_jax.training.weights import read_part

pytestmark = pytest.mark.slow  # minutes on 2 cores: each test compiles several programs for eight devices


def train(config, workdir):
  """Trains on one of the eight devices, unless the config asks for more."""
  train_on(config, workdir, jax.devices() if config.mesh != MeshConfig() else jax.devices()[:1])


def animate(*arguments, **more):
  return (np.stack(side) for side in zip(*frames_of(*arguments, **more), strict=True))


def losses(workdir, part):
  lines = [json.loads(line) for line in (workdir / part / "metrics.jsonl").read_text().splitlines()]
  return {line["step"]: line["loss"] for line in lines if "step" in line}


def assert_equal(left, right):
  jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  return tmp_path_factory.mktemp("runs")


def test_the_autoencoder_learns_and_ends_with_latents_of_unit_size(trained, tiny_run):
  config = tiny_run("vae", steps=12, preview_every=12)
  train(config, trained)
  seen = losses(trained, "vae")
  assert np.mean([seen[11], seen[12]]) < 0.9 * seen[1]
  assert (trained / "vae" / "preview.png").exists()
  _, networks, weights, step = read_part(trained, "vae")
  assert step == 12
  frames = np.stack([open_prepared(config.data.path)[i]["frame"] for i in range(10)])
  mean, _ = networks.encode_moments(jax.device_put(weights), to_signed(jnp.asarray(frames)))
  assert 0.8 < float(np.mean(np.square(mean))) < 1.2


def test_a_run_that_stopped_goes_on_as_if_it_had_not(tmp_path, tiny_run):
  config = tiny_run("body")
  whole, parts = tmp_path / "whole", tmp_path / "parts"
  train(config, whole)
  train(dataclasses.replace(config, steps=2), parts)
  train(config, parts)
  assert losses(whole, "body") == losses(parts, "body")
  assert_equal(read_weights(whole / "body"), read_weights(parts / "body"))


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, tiny_run, caplog):
  config = tiny_run("vae")
  train(config, tmp_path)
  before = losses(tmp_path, "vae")
  for place in (tmp_path / "vae/checkpoints/4/state").rglob("*"):
    if place.is_file():
      place.write_bytes(place.read_bytes()[: place.stat().st_size // 2])
  train(config, tmp_path)
  assert "checkpoint 4 can't be read" in caplog.text
  assert losses(tmp_path, "vae")[4] == before[4]  # steps 3 and 4 were done again, and came out the same


@pytest.mark.parametrize("mesh", [MeshConfig(8, 1, 1), MeshConfig(2, 4, 1), MeshConfig(1, 8, 1)])
def test_a_mesh_gives_the_losses_of_one_device(tmp_path, tiny_run, mesh, monkeypatch):
  from anchor_jax import parallel

  monkeypatch.setattr(parallel, "_SMALLEST_SHARDED", 8)  # so that even these small ones are shared out
  train(tiny_run("vae"), tmp_path / "one")
  train(tiny_run("vae", mesh=mesh), tmp_path / "many")
  one, many = losses(tmp_path / "one", "vae"), losses(tmp_path / "many", "vae")
  np.testing.assert_allclose(list(many.values()), list(one.values()), rtol=1e-4)


def test_body_and_head_make_a_person_who_moves(trained, tiny_run):
  body = tiny_run("body", init=str(trained))
  train(body, trained)
  train(tiny_run("head", init=str(trained)), trained)
  person, motion = load_person(trained), read_motion(pathlib.Path(body.data.path))
  assert person.head is not None and person.head.appearance.shape == (16, 16, 3)
  frames, without_head = animate(person, motion, seed=3)
  assert frames.shape == without_head.shape == (10, 32, 32, 3) and frames.dtype == np.uint8
  face = np.stack([frame.face_mask[..., 0] for frame in motion.frames(0)]) > 0
  assert np.abs(frames.astype(int) - without_head)[face].max() > 0
  np.testing.assert_array_equal(frames[:, -4:], without_head[:, -4:])  # far from the face nothing changes
  again, _ = animate(person, motion, seed=3)
  np.testing.assert_array_equal(again, frames)
  shutil.rmtree(trained / "head")
  alone, same = animate(load_person(trained), motion, seed=3)
  np.testing.assert_array_equal(alone, same)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, tiny_run):
  config = tiny_run("vae", optimizer=OptimizerConfig(learning_rate=1e30, warmup_steps=0))
  with pytest.raises(UserError, match=r"lower config\.optimizer\.learning_rate"):
    train(config, tmp_path)


def test_refuses_what_cannot_work(tmp_path, tiny_run):
  config = tiny_run("body")
  for changes, message in (
    ({"data": dataclasses.replace(config.data, path="nowhere")}, "no prepared folder"),
    ({"data": dataclasses.replace(config.data, batch_size=3), "mesh": MeshConfig(8)}, "multiple of 8"),
    ({"mesh": MeshConfig(3, 1, 1)}, "doesn't fit 8 devices"),
    ({"init": "nowhere"}, "no folder nowhere"),
  ):
    with pytest.raises(UserError, match=message):
      train(dataclasses.replace(config, **changes), tmp_path)
