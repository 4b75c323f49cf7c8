import dataclasses
import json
import pathlib
import runpy

import pytest
from ml_collections import ConfigDict

from anchor_jax.config import run as settings
from anchor_jax.config.find import load_config
from anchor_jax.config.presets import reference_run
from anchor_jax.config.renamed import renamed_flags
from anchor_jax.config.run import DataConfig, RunConfig, SampleConfig, run_config, to_config_dict, to_plain
from anchor_jax.config.stored import read_settings, write_settings
from anchor_jax.core.errors import UserError
from anchor_jax.diffusion import solvers, windows

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"
GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden" / "configs"
PARTS = ("body", "head")


def test_settings_survive_a_round_trip_through_json():
  config = RunConfig(part="head", steps=7)
  assert run_config(json.loads(json.dumps(to_plain(config)))) == config
  assert run_config(to_config_dict(config)) == config


@pytest.mark.parametrize(
  "change,message",
  [
    ({"optimiser": {}}, 'Did you mean "optimizer"'),
    ({"optimizer": {"learning_rat": 1}}, 'config.optimizer.learning_rat". Did you mean "learning_rate"'),
    ({"steps": "many"}, "config.steps is 'many'"),
    ({"steps": 0}, "at least 1"),
    ({"part": "foot"}, "vae, body, head"),
    ({"dtype": "float8"}, "float32, bfloat16"),
    ({"data": 3}, "must be a group of settings"),
  ],
)
def test_unknown_settings_and_wrong_types_are_refused_in_one_line(change, message):
  with pytest.raises(UserError, match=message) as caught:
    run_config(change)
  assert "\n" not in str(caught.value)


NAN, INFINITE = float("nan"), float("inf")
OUT_OF_RANGE = {
  "seed": (-1, 2**32, 2**70),
  "steps": (0,),
  "condition_dropout": (-0.1, 1.1, NAN),
  "snr_gamma": (-1.0, NAN, INFINITE),
  "pixels": (-1.0, NAN, INFINITE),
  "detail_weight": (0.5, NAN, INFINITE),
  "max_skipped": (0,),
  "keep": (0,),
  "log_every": (-1,),
  "checkpoint_every": (-1,),
  "preview_every": (-5,),
  "data.batch_size": (0,),
  "data.size": (0,),
  "data.crop": (-64,),
  "data.clip_frames": (0,),
  "data.validation": (-1,),
  "data.workers": (-1,),
  "optimizer.learning_rate": (0.0, -1e-4, NAN, INFINITE),
  "optimizer.schedule": ("cosin",),
  "optimizer.warmup_steps": (-1,),
  "optimizer.b1": (1.0, -0.1, NAN),
  "optimizer.b2": (1.0, NAN),
  "optimizer.eps": (0.0, NAN),
  "optimizer.weight_decay": (-1.0, NAN, INFINITE),
  "optimizer.clip": (0.0, -1.0, NAN),
  "optimizer.accumulate": (0, 3),  # three parts do not divide a batch of four
  "optimizer.ema": (-0.1, 1.0, NAN),
  "lora.rank": (-1,),
  "lora.alpha": (-1.0, NAN),
  "lora.networks": ((), ("vae",)),
  "lora.targets": ((),),
  "mesh.data": (0, -2),
  "mesh.fsdp": (0,),
  "sample.solver": ("dimm",),
  "sample.steps": (0, 1001),
  "sample.window": (0, -16),
  "sample.overlap": (-1, 16),
  "sample.tail": ("rugged",),
  "sample.guidance": (NAN, INFINITE),
  "sample.guidance_interval": ((0.5,), (0.8, 0.2), (-0.1, 1.0), (0.0, 1.5), (0.0, NAN)),
  "sample.conditioning_scale": (NAN, -INFINITE),
  "sample.windows_per_batch": (0,),
}


@pytest.mark.parametrize("name,value", [(name, value) for name, values in OUT_OF_RANGE.items() for value in values])
def test_a_value_out_of_range_is_refused_by_its_full_name(name, value):
  group, _, key = name.rpartition(".")
  with pytest.raises(UserError, match=f"config.{name} ") as caught:
    run_config({group: {key: value}} if group else {key: value})
  assert "\n" not in str(caught.value)
  kind = type(getattr(RunConfig(), group)) if group else RunConfig
  if (name, value) != ("optimizer.accumulate", 3):  # wrong only beside the batch size
    with pytest.raises(UserError, match=f"^{key} "):
      kind(**{key: value})


def test_values_at_the_ends_of_their_ranges_are_accepted():
  run_config({"seed": 2**32 - 1, "condition_dropout": 1.0, "log_every": 0, "checkpoint_every": 0, "snr_gamma": 0})
  run_config(
    {"optimizer": {"clip": INFINITE, "b1": 0.0, "ema": 0.999, "accumulate": 4}, "mesh": {"data": 1, "fsdp": -1}}
  )
  run_config({"sample": {"window": 1, "overlap": 0, "steps": 1000, "guidance_interval": [0.3, 0.3], "guidance": -1}})


@pytest.mark.parametrize("flag,value", [("True", True), ("False", False), ("attention", "attention"), (True, True)])
def test_a_flag_s_string_becomes_a_boolean_if_the_setting_can_be_one(flag, value):
  values = to_plain(reference_run("body"))
  values["model"]["unet"]["remat"] = flag
  remat = run_config(values).model.unet.remat
  assert remat == value and type(remat) is type(value)


def test_the_autoencoder_is_not_distilled():
  for change in ({"pixels": 1.0}, {"zero_snr": True}):
    with pytest.raises(UserError, match="pixels, zero_snr, lpips are for body and head"):
      run_config({"part": "vae", **change})


def test_an_old_name_is_read_as_the_new_one_and_written_as_it(tmp_path):
  config = run_config({"data": {"appearance": "full", "crop": 64}})
  assert config == RunConfig(data=DataConfig(pose_channels="full", crop=64))
  assert config == run_config(ConfigDict({"data": {"appearance": "full", "crop": 64}}))
  (tmp_path / "config.json").write_text(json.dumps({"data": {"appearance": "full", "crop": 64}}))
  assert read_settings(tmp_path) == config
  write_settings(tmp_path, config)
  written = json.loads((tmp_path / "config.json").read_text())["data"]
  assert written["pose_channels"] == "full" and "appearance" not in written
  assert DataConfig(appearance="full").pose_channels == "full" == DataConfig(pose_channels="full").appearance
  assert dataclasses.replace(DataConfig(pose_channels="atlas", crop=8), appearance="full") == DataConfig(
    pose_channels="full", crop=8
  )


def test_an_old_name_beside_the_new_one_must_agree():
  assert run_config({"data": {"appearance": "full", "pose_channels": "full"}}).data.pose_channels == "full"
  message = "data.pose_channels is 'atlas' and data.appearance, its old name, is 'full': give data.pose_channels only"
  with pytest.raises(UserError, match=f"^{message}$"):
    run_config({"data": {"appearance": "full", "pose_channels": "atlas"}})
  with pytest.raises(UserError, match=f"^{message}$"):
    load_config("studio_finetune.py:body", {"data.pose_channels": "atlas", "data.appearance": "full"})
  with pytest.raises(UserError, match=f"^{message}$"):
    load_config("studio_finetune.py:body", {"data.appearance": "full", "data.pose_channels": "atlas"})
  with pytest.raises(UserError, match="its old name"):
    DataConfig(appearance="full", pose_channels="atlas")
  assert load_config("studio_finetune.py:body", {"data.appearance": "atlas"}).data.pose_channels == "atlas"


def test_old_names_of_flags():
  flags = ["train", "--config=a.py", "--config.data.appearance=atlas", "--config.steps=3"]
  assert renamed_flags(flags) == ["train", "--config=a.py", "--config.data.pose_channels=atlas", "--config.steps=3"]
  assert renamed_flags(["-config.data.appearance", "atlas"]) == ["-config.data.pose_channels", "atlas"]
  assert renamed_flags(["--data.appearance=x", "--config.data.pose_channels="]) == [
    "--data.appearance=x",
    "--config.data.pose_channels=",
  ]
  with pytest.raises(UserError, match="its old name, is 'full'"):
    renamed_flags(["--config.data.pose_channels=atlas", "--config.data.appearance=full"])


def test_only_one_mesh_axis_can_take_the_remaining_devices():
  with pytest.raises(UserError, match=r"config\.mesh\.data, fsdp, tensor, frames are -1 more than once"):
    run_config({"mesh": {"data": -1, "fsdp": -1}})


def test_settings_accept_exactly_the_names_that_the_sampler_knows():
  assert set(settings.SOLVERS) == set(solvers.SOLVERS)
  assert set(settings.TAILS) == set(windows.TAILS)
  for tail in settings.TAILS:
    assert SampleConfig(tail=tail)


def test_a_removed_setting_may_only_have_the_value_that_remains():
  assert run_config({"sample": {"window_weights": "uniform", "steps": 4}}) == run_config({"sample": {"steps": 4}})
  assert renamed_flags(["train", "--config.sample.window_weights=uniform"]) == ["train"]
  for use in (
    lambda: run_config({"sample": {"window_weights": "tapered"}}),
    lambda: renamed_flags(["--config.sample.window_weights=tapered"]),
  ):
    with pytest.raises(UserError, match="window_weights 'tapered' is no longer supported"):
      use()


SHIPPED = [
  *((f"studio_{kind}", part) for kind in ("pretrain", "finetune") for part in ("vae", "body", "head")),
  *((f"sd15_{part}_{kind}", None) for part in ("body", "head") for kind in ("pretrain", "finetune")),
  ("sd15_temporal", None),
  ("studio_256", None),
  ("studio_512", None),
  *((f"{size}_distil", part) for size in ("studio", "sd15") for part in ("body", "head")),
]
SHIPPED.remove(("studio_finetune", "vae"))


@pytest.mark.parametrize("file,part", SHIPPED)
def test_every_shipped_config_matches_its_golden_file(file, part):
  """A changed default shows here: write `text` to the file if the change is intended."""
  get_config = runpy.run_path(str(CONFIGS / f"{file}.py"))["get_config"]
  config = run_config(get_config(part) if part else get_config())
  text = json.dumps(to_plain(config), indent=1, sort_keys=True) + "\n"
  name = f"{file}_{part}" if part else file
  assert (GOLDEN / f"{name}.json").read_text() == text


def test_stable_diffusion_configs_have_the_published_sizes_and_the_reference_s_hyperparameters():
  body, head = (run_config(runpy.run_path(str(CONFIGS / f"sd15_{part}_pretrain.py"))["get_config"]()) for part in PARTS)
  assert body.model.unet.in_channels == 4 and head.model.unet.in_channels == 9
  assert (body.optimizer.learning_rate, body.optimizer.warmup_steps, body.data.batch_size) == (1e-5, 500, 4)
  assert (body.sample.guidance, body.sample.conditioning_scale, head.sample.guidance) == (7.5, 2.0, 3.5)
