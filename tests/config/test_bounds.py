"""Bounds of every number and name: a sweep over the settings of all groups and networks."""

import dataclasses
import json
import typing

import pytest

from anchor_jax.config.networks import (
  CLIPTextConfig,
  CLIPVisionConfig,
  ControlNetConfig,
  ScheduleConfig,
  UNetConfig,
  VAEConfig,
)
from anchor_jax.config.pixels import LightDecoderConfig, RefinerConfig
from anchor_jax.config.run import OptimizerConfig, RunConfig, run_config
from anchor_jax.core.errors import UserError

NETWORKS = (
  *(UNetConfig, ControlNetConfig, VAEConfig, CLIPVisionConfig, CLIPTextConfig, ScheduleConfig, RefinerConfig),
  LightDecoderConfig,
)
NAN, INFINITE = float("nan"), float("inf")
HUGE = (10**12, 1e300, INFINITE, NAN, 10**400)
PROBES = (0, -1, *HUGE, "", "no such name", "x" * 5000, None, True, (), (0, 0), (-1,), (10**12,), ("",), ("a",), (NAN,))

# Settings that may be 0, and settings that may be negative; all other numbers are above 0.
ZERO = """
  seed condition_dropout condition_jitter last_step pixels sharpness lpips snr_gamma
  log_every checkpoint_every preview_every
  data.validation data.workers optimizer.warmup_steps optimizer.b1 optimizer.b2 optimizer.weight_decay optimizer.ema
  lora.rank lora.alpha sample.overlap sample.guidance sample.conditioning_scale sample.guidance_interval
  freq_shift downsample_padding attended_frames steps_offset layers_per_block
""".split()
NEGATIVE = "sample.guidance sample.conditioning_scale mesh.data mesh.fsdp mesh.tensor mesh.frames".split()
TEXTS = "init lpips_weights data.path lora.targets autoencoder".split()  # any string; files and layers decide
EMPTY = "init lpips_weights data.path data.pose_channels optimizer.clip_networks autoencoder".split()


def run_fields(kind=RunConfig, prefix=""):
  """(dotted name, type) of every setting that is not a group; networks are swept separately."""
  for name, hint in typing.get_type_hints(kind).items():
    if name == "model" or name not in kind.__dataclass_fields__:
      continue
    if dataclasses.is_dataclass(hint):
      yield from run_fields(hint, f"{prefix}{name}.")
    else:
      yield f"{prefix}{name}", hint


RUN = dict(run_fields())


def accepted(name, values, read):
  """Whether the values are accepted; if not, the refusal is one short line."""
  try:
    read(values)
  except UserError as error:
    assert "\n" not in str(error) and len(str(error)) < 700, f"{name}: {len(str(error))}"
    return False
  return True


def assert_bounded(name, value, zero_allowed):
  entries = value if isinstance(value, tuple) else (value,)
  assert entries or name in EMPTY, f"{name} may be empty"
  for entry in entries:
    if isinstance(entry, str):
      assert name in TEXTS or (not entry and name in EMPTY), f"{name} may be {entry[:20]!r}"
    elif entry is not None and not isinstance(entry, bool):
      # a clip of infinity does not clip
      assert abs(entry) < 2**32 or name == "optimizer.clip", f"{name} may be {entry}"
      assert entry != 0 or zero_allowed, f"{name} may be 0"
      assert entry >= 0 or name in NEGATIVE, f"{name} may be {entry}"


@pytest.mark.parametrize("name", RUN)
def test_every_setting_of_a_run_has_bounds(name):
  group, _, key = name.rpartition(".")
  for value in PROBES:
    values = {group: {key: value}} if group else {key: value}
    if accepted(name, values, run_config) and RUN[name] is not bool:
      assert_bounded(name, value, name in ZERO)


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_size_of_a_network_has_bounds(kind):
  for field in dataclasses.fields(kind):
    for value in PROBES:
      written = list(value) if isinstance(value, tuple) else value
      boolean = typing.get_type_hints(kind)[field.name] is bool
      if accepted(field.name, {field.name: written}, kind.from_json) and not boolean:
        zero = field.name in ZERO and (field.name != "layers_per_block" or kind is LightDecoderConfig)
        assert_bounded(field.name, value, zero)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_refusal_does_not_repeat_long_values(kind):
  for fields in ({"x" * 5000: "y" * 5000}, {f"unknown_{number}": "y" * 500 for number in range(200)}):
    with pytest.raises(UserError) as caught:
      kind.from_json(fields)
    assert len(str(caught.value)) < 1500
  with pytest.raises(UserError) as caught:
    run_config({"data": {"pose_channels": "x" * 5000}})
  assert len(str(caught.value)) < 400
  assert len(str(UserError("x" * 100_000))) < 2000


@pytest.mark.parametrize(
  "fields,message",
  [
    ({"norm_num_groups": 0}, "norm_num_groups is 0"),
    ({"layers_per_block": 10**9}, "layers_per_block is 1000000000: it must be between 1 and 64"),
    ({"block_out_channels": [True] * 4}, "block_out_channels is .True"),
    ({"remat": "no_such_policy"}, "remat has 'no_such_policy'"),
  ],
)
def test_sizes_that_would_hang_or_fail_later_are_refused_when_read(fields, message):
  with pytest.raises(UserError, match=message):
    UNetConfig.from_json(fields)


def test_unknown_networks_to_clip_are_refused():
  with pytest.raises(UserError, match='clip_networks has "a"'):
    OptimizerConfig(clip_networks=("a",))
  with pytest.raises(UserError, match="each once"):
    OptimizerConfig(clip_networks=("unet", "unet"))


CONTRADICTIONS = [
  ({"snr_gamma": 5.0, "zero_snr": True, "last_step": 1.0}, "snr_gamma weighs examples"),
  (
    {
      "snr_gamma": 5.0,
      "last_step": 0.5,
      "model": {"schedule": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}},
    },
    "snr_gamma weighs examples",
  ),
  ({"model": {"schedule": {"rescale_betas_zero_snr": True}}}, "predicted noise .epsilon. says nothing"),
  ({"only_temporal": True}, "learns nothing from single frames"),
  (
    {"sample": {"steps": 20}, "model": {"schedule": {"num_train_timesteps": 10, "steps_offset": 0}}},
    "has only 10 steps",
  ),
]


@pytest.mark.parametrize("values,message", CONTRADICTIONS)
def test_settings_that_exclude_each_other_are_refused(values, message):
  with pytest.raises(UserError, match=message) as caught:
    run_config(json.loads(json.dumps(values)))
  assert "\n" not in str(caught.value)


def test_a_schedule_file_that_ends_at_pure_noise_must_not_predict_noise():
  fields = {"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True}
  with pytest.raises(UserError, match="use v_prediction"):
    ScheduleConfig.from_json(fields)
  assert ScheduleConfig.from_json({**fields, "prediction_type": "v_prediction"}).rescale_betas_zero_snr
