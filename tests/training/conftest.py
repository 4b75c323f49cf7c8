"""A person small enough to train in a test."""

import dataclasses

import pytest
from globes import film
from people import make_measures, make_posed_frames
from tiny import drawn_weights, tiny_model

from anchor_jax.config.run import DataConfig, OptimizerConfig, RunConfig, SampleConfig
from anchor_jax.data.records import build
from anchor_jax.films.poses import PosedClip
from anchor_jax.models.networks import Networks
from anchor_jax.store.weights import write_folder


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
  folder = tmp_path_factory.mktemp("data") / "ana"
  build([PosedClip("clip", "ana", 10.0, list(make_posed_frames(10)))], folder, 32)
  return folder


@pytest.fixture(scope="session")
def tiny_runs(prepared):
  def make(part: str, **changes) -> RunConfig:
    config = RunConfig(
      part=part,
      steps=4,
      log_every=1,
      checkpoint_every=2,
      condition_dropout=0.5,
      model=tiny_model(inpaint=part == "head"),
      data=DataConfig(str(prepared), batch_size=8, crop=16, in_memory=True, cache=part == "head"),
      optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=1, ema=0.5),
      sample=SampleConfig("dpm++2m", 2, window=4, overlap=1, guidance=1.5, conditioning_scale=1.0),
    )
    return dataclasses.replace(config, **changes)

  return make


@pytest.fixture(scope="session")
def initialized_runs(tiny_runs, tmp_path_factory):
  """tiny_runs that start from a folder of weights, which saves compiling a program to draw them."""
  folders = {}

  def make(part: str, **changes) -> RunConfig:
    if part not in folders:
      folders[part] = tmp_path_factory.mktemp("init") / part
      networks = Networks(tiny_runs(part).model)
      weights = drawn_weights(networks)
      write_folder(folders[part], networks, weights, tuple(weights), "float32")
    return tiny_runs(part, **{"init": str(folders[part]), **changes})

  return make


@pytest.fixture
def tiny_run(tiny_runs):
  return tiny_runs


@pytest.fixture(scope="session")
def globes(tmp_path_factory):
  folder = tmp_path_factory.mktemp("data") / "globe"
  build([PosedClip("clip", "ana", 4.0, film(), measures=make_measures())], folder, 32)
  return folder
