"""A restarted run continues as it was, even if config.init has changed, and refuses changed settings."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from tiny import drawn_weights, write_untrained

from anchor_jax.config.run import MeshConfig, RunConfig
from anchor_jax.core.errors import UserError
from anchor_jax.data.records import open_prepared
from anchor_jax.formats.diffusers import load_schedule, save_schedule
from anchor_jax.models.networks import Networks
from anchor_jax.store import weights as store
from anchor_jax.store.weights import initial_weights
from anchor_jax.train import train
from anchor_jax.training import loop
from anchor_jax.training.batches import initial_model


class Reached(Exception):
  """Raised when a run would read its records; holds what the run was about to use."""


@pytest.fixture
def reached(monkeypatch):
  """run(config, workdir) trains up to reading records -> (config, networks, weights, number of compilations)."""
  compiled = []

  def stop(config, records, networks, weights, *_):
    raise Reached(config, networks, weights, len(compiled))

  monkeypatch.setattr(loop, "start_compiling", lambda *_: compiled.append(True))
  monkeypatch.setattr(loop, "open_training_data", stop)

  def run(config, workdir):
    with pytest.raises(Reached) as error:
      train(config, workdir, jax.devices()[:1])
    return error.value.args

  run.compiled = compiled
  return run


@pytest.fixture(scope="module")
def trained(initialized_runs, tmp_path_factory):
  """(config, workdir after one step, its weights); tests may damage the folder config.init."""
  folder = tmp_path_factory.mktemp("runs")
  config = initialized_runs("body", init=str(folder / "init"))
  weights = drawn_weights(Networks(config.model), seed=1)
  write_untrained(folder / "ana" / "body", config, weights, np.zeros((32, 32, 3), np.uint8))
  shutil.copytree(initialized_runs("body").init, config.init)
  return config, folder / "ana", weights


@pytest.fixture
def started(trained, tmp_path):
  """As `trained`, with a separate copy of the workdir."""
  return trained[0], shutil.copytree(trained[1], tmp_path / "ana"), trained[2]


def test_init_is_not_read_once_there_is_a_checkpoint(started, reached):
  """A changed or missing folder of models must not affect the run."""
  config, workdir, weights = started
  place = loop.Path(config.init) / "scheduler"
  save_schedule(place, dataclasses.replace(load_schedule(place), beta_end=0.5, prediction_type="epsilon"))
  (vae := loop.Path(config.init) / "vae" / "config.json").write_text(vae.read_text().replace("1.0", "7.0"))
  for gone in (False, True):
    if gone:
      shutil.rmtree(config.init)
    used, networks, found, _ = reached(config, workdir)
    assert networks.model == used.model == config.model
    jax.tree.map(np.testing.assert_array_equal, found["vae"], weights["vae"])
    assert found.keys() == {"unet", "controlnet", "null_context", "vae", "image_encoder"}
    assert jax.tree.map(np.shape, found["unet"]) == jax.tree.map(np.shape, weights["unet"])


def test_changed_settings_are_refused_before_anything_is_compiled_or_written(started, reached):
  config, workdir, _ = started
  settings = workdir / "body" / "config.json"
  before = settings.read_bytes()
  for name, value in {
    "zero_snr": True,
    "seed": 1,
    "lora.rank": 2,
    "lora.alpha": 8.0,
    "optimizer.ema": 0.9,
    "optimizer.schedule": "cosine",
    "data.batch_size": 4,
  }.items():
    group, _, field = name.rpartition(".")
    inner = dataclasses.replace(getattr(config, group), **{field: value}) if group else value
    with pytest.raises(UserError, match=rf"config\.{name}=.* \(now .*\)"):
      train(dataclasses.replace(config, **{group or field: inner}), workdir, jax.devices()[:1])
  assert not reached.compiled and settings.read_bytes() == before


def test_a_run_continues_with_more_steps_another_mesh_and_moved_records(started, reached, tmp_path):
  config, workdir, _ = started
  films = tmp_path / "old", tmp_path / "new"
  shutil.copytree(config.data.path, films[0])
  original = dataclasses.replace(config, data=dataclasses.replace(config.data, path=str(films[0])))
  records = open_prepared(films[0])
  loop.write_started_run(workdir / "body", original, loop.records_identity(records.folder, records.meta))
  films[0].rename(films[1])
  moved = dataclasses.replace(original, data=dataclasses.replace(original.data, path=str(films[1])))
  moved = dataclasses.replace(moved, steps=99, mesh=MeshConfig(data=1, fsdp=1))
  assert reached(moved, workdir)[0].data.path == str(films[1])


def test_another_person_s_film_is_refused(started, reached, tmp_path, globes):
  config, workdir, _ = started
  other = dataclasses.replace(config, data=dataclasses.replace(config.data, path=str(globes)))
  with pytest.raises(UserError, match=f"make {config.data.path} a link to it"):  # of an earlier version
    train(other, workdir, jax.devices()[:1])
  records = open_prepared(config.data.path)
  loop.write_started_run(workdir / "body", config, loop.records_identity(records.folder, records.meta))
  with pytest.raises(UserError, match=f"{globes} holds other records"):
    train(other, workdir, jax.devices()[:1])
  assert not reached.compiled


def test_a_part_that_starts_from_its_own_workdir_can_start_over(trained, tmp_path):
  """If it was stopped before its first checkpoint, its empty folder is not what it starts from."""
  _, workdir, weights = trained
  shutil.copytree(workdir / "body", tmp_path / "body")
  (tmp_path / "head" / "checkpoints").mkdir(parents=True)
  (tmp_path / "head" / "config.json").write_text("{}")
  sizes, found = store._read_trained(tmp_path, "head")
  assert found.keys() == {"vae", "image_encoder"} == sizes.keys()
  jax.tree.map(np.testing.assert_array_equal, found["vae"], weights["vae"])
  assert initial_model(RunConfig("head", str(tmp_path))).vae == trained[0].model.vae
  shutil.rmtree(tmp_path / "body")
  with pytest.raises(UserError, match=r"holds nothing that head can start from: train its vae or body first"):
    initial_weights(RunConfig("head", str(tmp_path)))
