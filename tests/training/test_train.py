"""The trainer on a tiny person: losses decrease, resuming is exact, sharding changes nothing."""

import dataclasses
import pathlib
import shutil

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from launched import logged, losses
from tiny import drawn_weights, write_untrained

from anchor_jax.config.run import MeshConfig
from anchor_jax.core import sharding
from anchor_jax.core.errors import UserError
from anchor_jax.data.records import open_prepared
from anchor_jax.diffusion.schedule import make_schedule, sampling_timesteps
from anchor_jax.inference.motions import read_motion
from anchor_jax.inference.person import load
from anchor_jax.models.networks import Networks
from anchor_jax.models.pictures import to_signed
from anchor_jax.models.temporal import is_temporal
from anchor_jax.store.weights import ends_at_noise, initial_weights, read_part
from anchor_jax.store.workdir import read_weights
from anchor_jax.train import train as train_on
from anchor_jax.training import loop


def train(config, workdir, **more):
  """Trains on one of the eight devices, unless the config has a mesh."""
  train_on(config, workdir, jax.devices() if config.mesh != MeshConfig() else jax.devices()[:1], **more)


def animate(person, motion, **more):
  return (np.stack(side) for side in zip(*person.animate(motion, with_body=True, **more), strict=True))


def assert_equal(left, right):
  jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  return tmp_path_factory.mktemp("runs")


@pytest.mark.slow
def test_the_autoencoder_learns_and_ends_with_latents_of_unit_mean_square(trained, tiny_run):
  config = tiny_run("vae", steps=12, preview_every=12, checkpoint_every=4)
  config = dataclasses.replace(config, data=dataclasses.replace(config.data, validation=2))
  assert initial_weights(config)[1].keys() == {"vae"}  # no other network is initialized, which would take long
  train(config, trained, profile=True)
  assert list((trained / "vae/profile").rglob("*.xplane.pb"))
  seen = losses(trained, "vae")
  assert np.mean([seen[11], seen[12]]) < 0.9 * seen[1]
  held_out = logged(trained, "vae", "validation_loss")
  assert list(held_out) == [4, 8, 12] and held_out[12] < held_out[4]
  assert read_weights(trained / "vae", step="best")[1] == min(held_out, key=held_out.__getitem__)
  preview = cv2.imread(str(trained / "vae/preview.png"))[..., ::-1].reshape(2, 32, 8, 32, 3)
  records = [open_prepared(config.data.path)[number]["frame"] for number in (8, 9)]  # the two held-out records
  assert all(any((picture == record).all() for record in records) for picture in np.moveaxis(preview[0], 1, 0))
  vae = read_part(trained, "vae")
  assert vae.step == 12
  frames = np.stack([open_prepared(config.data.path)[i]["frame"] for i in range(10)])
  mean, _ = vae.networks.encode_moments(jax.device_put(vae.weights), to_signed(jnp.asarray(frames)))
  assert 0.8 < float(np.mean(np.square(mean))) < 1.2


@pytest.mark.slow
def test_a_resumed_run_gives_the_losses_of_an_uninterrupted_one(tmp_path, tiny_run):
  config = tiny_run("body")
  uninterrupted, resumed = tmp_path / "uninterrupted", tmp_path / "resumed"
  train(config, uninterrupted)
  train(dataclasses.replace(config, steps=2), resumed)
  train(config, resumed)
  assert losses(uninterrupted, "body") == losses(resumed, "body")
  assert_equal(read_weights(uninterrupted / "body"), read_weights(resumed / "body"))


MESHES = (
  MeshConfig(data=8),
  MeshConfig(data=2, fsdp=4),
  MeshConfig(data=1, fsdp=8),
  MeshConfig(data=2, fsdp=2, tensor=2),
  MeshConfig(data=1, fsdp=1, tensor=8),
)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", MESHES)
def test_a_mesh_gives_the_losses_of_one_device(tmp_path, tiny_run, mesh, monkeypatch):
  monkeypatch.setattr(sharding, "_SMALLEST_SHARDED", 8)  # so that even these small weights are sharded
  train(tiny_run("body", steps=5), tmp_path / "one")
  train(tiny_run("body", steps=5, mesh=mesh), tmp_path / "many")
  one, many = losses(tmp_path / "one", "body"), losses(tmp_path / "many", "body")
  np.testing.assert_allclose(list(many.values()), list(one.values()), rtol=1e-5)


@pytest.mark.slow
def test_body_and_head_make_a_person_who_moves(trained, tiny_run):
  body = tiny_run("body", init=str(trained))
  train(body, trained)
  train(tiny_run("head", init=str(trained)), trained)
  person, motion = load(trained), read_motion(pathlib.Path(body.data.path))
  assert person.head is not None and person.head.reference_image.shape == (16, 16, 3)
  frames, without_head = animate(person, motion, seed=3)
  assert frames.shape == without_head.shape == (10, 32, 32, 3) and frames.dtype == np.uint8
  face = np.stack([frame.face_mask[..., 0] for frame in motion.frames(0)]) > 0
  assert np.abs(frames.astype(int) - without_head)[face].max() > 0
  np.testing.assert_array_equal(frames[:, -4:], without_head[:, -4:])  # unchanged far from the face
  again, _ = animate(person, motion, seed=3)
  np.testing.assert_array_equal(again, frames)
  shutil.rmtree(trained / "head")
  alone, same = animate(load(trained), motion, seed=3)
  np.testing.assert_array_equal(alone, same)


def test_impossible_settings_are_refused(tmp_path, tiny_run):
  config = tiny_run("body")
  for changes, message in (
    ({"data": dataclasses.replace(config.data, path="nowhere")}, "no prepared folder"),
    ({"data": dataclasses.replace(config.data, batch_size=3), "mesh": MeshConfig(8)}, "multiple of 8"),
    ({"mesh": MeshConfig(3)}, "doesn't fit 8 devices"),
    ({"init": "nowhere"}, "no folder nowhere"),
  ):
    with pytest.raises(UserError, match=message):
      train(dataclasses.replace(config, **changes), tmp_path)


def test_the_step_is_compiled_while_records_are_read_if_steps_are_left(tmp_path, initialized_runs, monkeypatch):
  config, compilations = initialized_runs("body"), []

  def read(*_):
    raise UserError(f"reading, {len(compilations)} compiling")

  monkeypatch.setattr(loop, "start_compiling", lambda *_: compilations.append(True))
  monkeypatch.setattr(loop, "open_training_data", read)
  with pytest.raises(UserError, match="reading, 1 compiling"):
    train(config, tmp_path)
  shutil.rmtree(tmp_path / "body")
  write_untrained(tmp_path / "body", config, drawn_weights(Networks(config.model)), np.zeros((32, 32, 3), np.uint8))
  (tmp_path / "body/checkpoints/1").rename(tmp_path / "body/checkpoints" / str(config.steps))
  with pytest.raises(UserError, match="reading, 1 compiling"):
    train(config, tmp_path)


@pytest.mark.slow
def test_temporal_blocks_learn_from_clips_and_the_frame_network_stays_fixed(tmp_path, tiny_run):
  model = tiny_run("body").model
  model = dataclasses.replace(model, unet=dataclasses.replace(model.unet, temporal_kernel=3, temporal_attention=True))
  data = dataclasses.replace(tiny_run("body").data, clip_frames=4, batch_size=2)
  config = tiny_run("body", model=model, data=data, only_temporal=True, condition_dropout=0.0)
  before = initial_weights(config)[1]["unet"]
  train(config, tmp_path)
  after = read_weights(tmp_path / "body")[0]["unet"]
  changed = {"temporal": 0, "frame": 0}
  for path, leaf in jax.tree_util.tree_leaves_with_path(after):
    names = tuple(key.key for key in path)
    old = before
    for name in names:
      old = old[name]
    changed["temporal" if is_temporal(names) else "frame"] += bool(np.abs(leaf - np.asarray(old)).max() > 0)
  assert changed["temporal"] > 5 and changed["frame"] == 0


def test_zero_snr_replaces_the_schedule_by_one_that_ends_at_noise(initialized_runs):
  found = initial_weights(initialized_runs("head"))[0].model.schedule
  assert make_schedule(found).alphas_cumprod[-1] > 0
  schedule = initial_weights(initialized_runs("head", zero_snr=True))[0].model.schedule
  noise = dataclasses.replace(found, prediction_type="epsilon", timestep_spacing="leading", set_alpha_to_one=False)
  assert schedule == ends_at_noise(found) == ends_at_noise(noise) and schedule.beta_end == found.beta_end
  tables = make_schedule(schedule)
  assert tables.alphas_cumprod[-1] == 0 and tables.prediction_type == "v_prediction"
  assert sampling_timesteps(schedule, 1).tolist() == [len(tables) - 1]


@pytest.mark.slow
def test_a_trained_head_learns_to_sample_in_one_step(tmp_path, initialized_runs):
  train(initialized_runs("head", last_step=0.0), tmp_path / "ana")
  few = initialized_runs(
    "head",
    init=str(tmp_path / "ana"),
    steps=30,
    checkpoint_every=0,
    last_step=1.0,
    zero_snr=True,
    pixels=1.0,
    sharpness=1.0,
  )
  few = dataclasses.replace(few, sample=dataclasses.replace(few.sample, steps=1, window=1, overlap=0))
  train(few, tmp_path / "fast")
  for name in ("denoising", "refining"):
    seen = list(logged(tmp_path / "fast", "head", name).values())
    assert np.mean(seen[-5:]) < 0.9 * np.mean(seen[:3]), name
  part = read_part(tmp_path / "fast", "head")
  assert part.config.sample.steps == 1 and part.networks.model.schedule.rescale_betas_zero_snr
