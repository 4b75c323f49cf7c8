"""A person small enough to train in a test: 32 pixels, networks of eight channels."""

import dataclasses
import importlib.util
import pathlib

import pytest

from anchor_jax.architecture import CLIPVisionConfig, ControlNetConfig, ScheduleConfig, UNetConfig, VAEConfig
from anchor_jax.config import DataConfig, ModelConfig, OptimizerConfig, RunConfig, SampleConfig
from anchor_jax.data.dataset import PosedClip, build

_SPEC = importlib.util.spec_from_file_location(
  "data_people", pathlib.Path(__file__).parents[1] / "data" / "conftest.py"
)
assert _SPEC and _SPEC.loader
_PEOPLE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_PEOPLE)


def tiny_model(latent: int = 2, inpaint: bool = False) -> ModelConfig:
  unet = UNetConfig(
    in_channels=2 * latent + 1 if inpaint else latent,
    out_channels=latent,
    block_out_channels=(8, 8),
    layers_per_block=1,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    norm_num_groups=4,
    cross_attention_dim=8,
    attention_head_dim=1,
  )
  return ModelConfig(
    unet,
    ControlNetConfig.of_unet(unet, (4, 4, 8)),
    VAEConfig.of_widths((8, 8, 8), layers_per_block=1, norm_num_groups=4, latent_channels=latent, scaling_factor=1.0),
    CLIPVisionConfig(
      hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=16, patch_size=8
    ),
    ScheduleConfig(prediction_type="v_prediction", timestep_spacing="trailing", set_alpha_to_one=True),
  )


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
  folder = tmp_path_factory.mktemp("data") / "ana"
  build([PosedClip("clip", "ana", 10.0, list(_PEOPLE.make_posed_frames(10)))], folder, 32)
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
