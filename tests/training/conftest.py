"""A person small enough to train in a test."""

import dataclasses

import pytest
from people import make_posed_frames
from tiny import tiny_model

from anchor_jax.config import DataConfig, OptimizerConfig, RunConfig, SampleConfig
from anchor_jax.data.records import build
from anchor_jax.motion.clips import PosedClip


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


@pytest.fixture
def tiny_run(tiny_runs):
  return tiny_runs
