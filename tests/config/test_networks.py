import dataclasses
import json

import pytest

from anchor_jax.config.networks import (
  CLIPTextConfig,
  CLIPVisionConfig,
  ControlNetConfig,
  ScheduleConfig,
  UNetConfig,
  VAEConfig,
)
from anchor_jax.config.pixels import RefinerConfig
from anchor_jax.core.errors import UserError

CONFIGS = (UNetConfig, ControlNetConfig, VAEConfig, RefinerConfig, CLIPVisionConfig, CLIPTextConfig, ScheduleConfig)


@pytest.mark.parametrize("kind", CONFIGS)
def test_configurations_survive_a_round_trip_through_json(kind):
  assert kind.from_json(json.loads(json.dumps(kind().to_json()))) == kind()


def test_stable_diffusion_2_is_read():
  fields = {
    "_class_name": "UNet2DConditionModel",
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
    "upcast_attention": True,
    "dual_cross_attention": False,
    "num_class_embeds": None,
    "only_cross_attention": False,
  }
  config = UNetConfig.from_json(fields)
  assert config.heads == (5, 10, 20, 20)
  assert config.use_linear_projection
  schedule = ScheduleConfig.from_json(
    {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction", "clip_sample": False, "beta_end": 0.012}
  )
  assert schedule.prediction_type == "v_prediction"


def test_missing_fields_have_the_defaults_of_the_library_that_wrote_the_file():
  assert UNetConfig.from_json({}).cross_attention_dim == 1280
  assert VAEConfig.from_json({"block_out_channels": [64]}).layers_per_block == 1
  assert ScheduleConfig.from_json({}).beta_schedule == "linear"
  assert ScheduleConfig.from_json({}).set_alpha_to_one


def test_pndm_is_read_as_ddim():
  fields = {
    "_class_name": "PNDMScheduler",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
  }
  assert ScheduleConfig.from_json(fields) == ScheduleConfig()


@pytest.mark.parametrize(
  ("kind", "fields", "message"),
  [
    (UNetConfig, {"class_embed_type": "timestep"}, "class_embed_type='timestep'"),
    (UNetConfig, {"resnet_time_scale_shift": "scale_shift"}, "resnet_time_scale_shift"),
    (UNetConfig, {"dual_cross_attention": True}, "dual_cross_attention"),
    (UNetConfig, {"down_block_types": ["AttnDownBlock2D"] * 4}, "AttnDownBlock2D"),
    (UNetConfig, {"block_out_channels": [320, 640]}, "4 down_block_types for 2 levels"),
    (UNetConfig, {"norm_num_groups": 7}, "no multiple of 7 groups"),
    (UNetConfig, {"attention_head_dim": 7}, "no multiple of 7 heads"),
    (UNetConfig, {"mid_block_type": None}, "mid_block_type has .None."),
    (UNetConfig, {"layers_per_block": [1, 2]}, "layers_per_block needs one entry or 4"),
    (UNetConfig, {"norm_num_groups": "many"}, "norm_num_groups is 'many': it must be an integer"),
    (UNetConfig, {"temporal_kernel": 2}, "not odd"),
    (ControlNetConfig, {"global_pool_conditions": True}, "global_pool_conditions"),
    (VAEConfig, {"shift_factor": 0.1}, "shift_factor"),
    (CLIPTextConfig, {"hidden_act": "relu"}, "relu"),
    (ScheduleConfig, {"trained_betas": [0.1]}, "trained_betas"),
    (ScheduleConfig, {"clip_sample": True}, "clip_sample"),
    (ScheduleConfig, {"prediction_type": "flow"}, "flow"),
    (ScheduleConfig, {"_class_name": "EDMEulerScheduler"}, "EDMEulerScheduler"),
    (UNetConfig, {"block_out_chanels": [320]}, 'Did you mean "block_out_channels"'),
  ],
)
def test_unsupported_fields_are_refused(kind, fields, message):
  with pytest.raises(UserError, match=message):
    kind.from_json(fields)


def test_own_fields_are_written_only_if_they_differ_from_the_default():
  assert not {"remat", "all_frame_attention", "temporal_kernel"} & UNetConfig().to_json().keys()
  config = UNetConfig(temporal_kernel=3, remat="dots_saveable")
  assert UNetConfig.from_json(config.to_json()) == config


def test_with_own_fields_takes_requested_fields_and_keeps_temporal_layers():
  stored = UNetConfig(temporal_attention=True, cross_attention_dim=512)
  requested = UNetConfig(remat=True, temporal_kernel=3, mid_gets_last_residual=True)
  run = stored.with_own_fields(requested)
  assert run == dataclasses.replace(
    stored, remat=True, temporal_kernel=3, mid_gets_last_residual=True, temporal_attention=True
  )
  with pytest.raises(UserError, match="temporal_kernel"):
    UNetConfig(temporal_kernel=5).with_own_fields(requested)


def test_settings_stored_with_weights_are_not_replaced_by_a_run_s_defaults():
  stored = UNetConfig(mid_gets_last_residual=True, attended_frames=3, all_frame_attention=False, remat=True)
  run = stored.with_own_fields(UNetConfig())
  assert run == dataclasses.replace(stored, remat=False)  # which changes no result
  assert stored.with_own_fields(UNetConfig(attended_frames=5)).attended_frames == 5  # requested
  assert RefinerConfig(scale=2).with_own_fields(RefinerConfig()).scale == 2


def test_a_pose_branch_fits_its_unet():
  unet = UNetConfig(in_channels=9, block_out_channels=(8, 16), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), norm_num_groups=4)  # fmt: skip
  branch = ControlNetConfig.from_unet(unet, (4, 8, 8))
  assert branch.in_channels == 4
  assert branch.stem_stride == 4
  assert branch.skip_channels == (8, 8, 8, 8, 16, 16)
