"""Which settings and records a restarted run accepts, by a table that covers every setting."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from tiny import tiny_model

from anchor_jax.config.run import DataConfig, LoRAConfig, MeshConfig, ModelConfig, OptimizerConfig, RunConfig, to_plain
from anchor_jax.config.stored import write_settings
from anchor_jax.core.errors import UserError
from anchor_jax.data.identity import records_identity
from anchor_jax.store.restart import TABLE, read_started_run, rule_of, write_started_run

CONFIG = RunConfig(init="models/sd15", model=tiny_model(), data=DataConfig("data/ana"))


def start(folder, requested=CONFIG, found=None, records="one"):
  """Returns the run in a folder as training leaves it; `records` is None for one of an earlier version."""
  (folder / "checkpoints" / "7").mkdir(parents=True)
  write_settings(folder, dataclasses.replace(requested, model=found or requested.model))
  if records is not None:
    write_started_run(folder, requested, records)
  return read_started_run(folder)


def change(config, name, value):
  group, _, field = name.rpartition(".")
  if not group:
    return dataclasses.replace(config, **{field: value})
  *outer, last = group.split(".")
  inner = config
  for key in (*outer, last):
    inner = getattr(inner, key)
  return change(config, group, dataclasses.replace(inner, **{field: value}))


def settings(kind=RunConfig, before=""):
  for field in dataclasses.fields(kind):
    default = ModelConfig() if field.name == "model" else field.default
    if dataclasses.is_dataclass(default):
      yield from settings(type(default), f"{before}{field.name}.")
    else:
      yield f"{before}{field.name}"


def test_every_setting_has_a_rule_and_every_rule_a_setting():
  names = list(settings())
  used = {rule_of(name).settings for name in names}
  assert used == {rule.settings for rule in TABLE}
  for rule in TABLE:
    for name in rule.settings.split():
      assert any(known == name or known.startswith(f"{name}.") for known in names), name
  with pytest.raises(KeyError):
    rule_of("color")


def test_the_docs_show_the_table():
  text = (Path(__file__).parents[2] / "docs" / "restart.md").read_text()
  rows = [line for line in text.splitlines() if line.startswith("| `") and not line.startswith("| `config.`")]
  names = lambda rule: " ".join(f"`{name}`" for name in rule.settings.split())
  assert rows == [f"| {names(rule)} | {'taken' if rule.may_change else 'refused'} | {rule.reason} |" for rule in TABLE]


@pytest.mark.parametrize(
  "name,value,message",
  [
    ("zero_snr", True, r"config\.zero_snr=False \(now True\)"),
    ("seed", 3, r"config\.seed=0 \(now 3\)"),
    ("init", "", r"config\.init=models/sd15 \(now ''\)"),
    ("data.batch_size", 2, r"config\.data\.batch_size=4 \(now 2\)"),
    ("optimizer.schedule", "cosine", r"config\.optimizer\.schedule=constant \(now cosine\)"),
    ("optimizer.ema", 0.9, r"config\.optimizer\.ema=0\.0 \(now 0\.9\)"),
    ("lora.rank", 4, r"config\.lora\.rank=0 \(now 4\)"),
    ("model.unet.attended_frames", 3, r"config\.model\.unet\.attended_frames=0 \(now 3\)"),
    ("model.schedule.beta_end", 0.02, r"config\.model\.schedule\.beta_end=0\.012 \(now 0\.02\)"),
  ],
)
def test_changes_of_what_is_learned_are_refused_with_both_values(tmp_path, name, value, message):
  run = start(tmp_path / "body")
  with pytest.raises(UserError, match=message) as error:
    run.check_settings(change(CONFIG, name, value))
  assert "\n" not in str(error.value) and len(str(error.value)) < 600


def test_many_changes_are_one_short_line(tmp_path):
  run = start(tmp_path / "body")
  other = RunConfig(seed=9, lora=LoRAConfig(2), optimizer=OptimizerConfig(b1=0.5, b2=0.5, eps=1.0, clip=2.0, ema=0.9))
  with pytest.raises(UserError, match=r"and \d+ more") as error:
    run.check_settings(other)
  assert "\n" not in str(error.value) and len(str(error.value)) < 1000


def test_settings_of_length_logging_and_machine_may_change(tmp_path):
  run = start(tmp_path / "body")
  now = CONFIG
  for name, value in (
    ("steps", 5000),
    ("log_every", 1),
    ("checkpoint_every", 10),
    ("preview_every", 10),
    ("keep", 9),
    ("data.workers", 3),
    ("data.in_memory", True),
    ("optimizer.learning_rate", 1e-6),
    ("optimizer.accumulate", 2),
    ("model.unet.remat", "products"),
    ("sample.steps", 3),
  ):
    now = change(now, name, value)
  now = dataclasses.replace(now, mesh=MeshConfig(1, 4))
  run.check_settings(now)
  assert run.resumed_config(now) == now


def test_sizes_come_from_the_workdir_and_not_from_init(tmp_path):
  """A run that requests other sizes than it found at config.init resumes with those it found."""
  found = dataclasses.replace(tiny_model(), schedule=dataclasses.replace(tiny_model().schedule, beta_end=0.03))
  requested = dataclasses.replace(CONFIG, model=ModelConfig())
  run = start(tmp_path / "body", requested, found)
  run.check_settings(requested)
  assert (
    run.resumed_config(change(requested, "model.unet.remat", True)).model
    == change(dataclasses.replace(requested, model=found), "model.unet.remat", True).model
  )


def test_init_may_be_named_by_another_path_to_the_same_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "models" / "sd15").mkdir(parents=True)
  run = start(tmp_path / "body")
  run.check_settings(change(CONFIG, "init", str(tmp_path / "models/sd15/")))


def test_a_run_that_was_never_saved_starts_from_the_beginning(tmp_path):
  folder = tmp_path / "body"
  assert read_started_run(folder) is None
  start(folder)
  shutil.rmtree(folder / "checkpoints")
  (folder / "checkpoints").mkdir()
  assert read_started_run(folder) is None


def test_records_are_recognized_at_any_path(tmp_path):
  run = start(tmp_path / "body")
  run.check_records("data/ana", "one")
  run.check_records("/mnt/ana", "one")
  with pytest.raises(UserError, match=r"data/ana, and data/bob holds other records: use the old ones"):
    run.check_records("data/bob", "two")
  with pytest.raises(UserError, match=r"data/ana, and it holds other records now"):
    run.check_records("data/ana", "two")


def test_records_are_identified_by_their_bytes(tmp_path):
  meta = {"size": 32, "videos": [{"frames": 3, "person": 0, "name": "a"}], "files": {"a.array_record": 4}}
  folders = [tmp_path / name for name in ("first", "copy", "changed")]
  for folder, content in zip(folders, (b"abcd", b"abcd", b"abce")):
    folder.mkdir()
    (folder / "a.array_record").write_bytes(content)
  first, copy, changed = (records_identity(folder, meta) for folder in folders)
  renamed = {**meta, "videos": [{**meta["videos"][0], "name": "b"}]}
  assert first == copy == records_identity(folders[0], renamed) != changed
  assert records_identity(folders[0], {**meta, "size": 64}) != first


def test_workdirs_of_earlier_versions_are_resumed(tmp_path):
  """They have no run.json, and their config.json lacks newer settings."""
  found = dataclasses.replace(tiny_model(), schedule=dataclasses.replace(tiny_model().schedule, beta_end=0.03))
  run = start(tmp_path / "body", CONFIG, found, records=None)
  path = tmp_path / "body" / "config.json"
  values = json.loads(path.read_text())
  for name in ("zero_snr", "pixels", "refined", "sharpness", "last_step", "detail_weight", "condition_jitter"):
    del values[name]
  del values["model"]["refiner"], values["sample"]["guidance_interval"], values["data"]["pose_channels"]
  path.write_text(json.dumps(values))
  run = read_started_run(tmp_path / "body")
  run.check_settings(CONFIG)
  assert run.resumed_config(CONFIG).model == found
  with pytest.raises(UserError, match=r"config\.sharpness=0\.0 \(now 1\.0\)"):
    run.check_settings(change(CONFIG, "sharpness", 1.0))
  run.check_records("data/ana", "two")
  with pytest.raises(UserError, match="make data/ana a link to it"):
    run.check_records("data/bob", "two")


def test_runs_of_earlier_versions_without_init_keep_their_sizes(tmp_path):
  requested = dataclasses.replace(CONFIG, init="", data=DataConfig("data/ana", pose_channels="full"), zero_snr=True)
  branch = dataclasses.replace(requested.model.controlnet, conditioning_channels=23)
  schedule = dataclasses.replace(requested.model.schedule, rescale_betas_zero_snr=True)
  found = dataclasses.replace(requested.model, controlnet=branch, schedule=schedule)
  run = start(tmp_path / "body", requested, found, records=None)
  run.check_settings(requested)
  assert run.resumed_config(requested).model == found
  with pytest.raises(UserError, match=r"config\.model\.unet\.layers_per_block=1 \(now 2\)"):
    run.check_settings(change(requested, "model.unet.layers_per_block", 2))


def test_a_folder_without_settings_is_not_started_over(tmp_path):
  start(tmp_path / "body")
  (tmp_path / "body" / "config.json").unlink()
  with pytest.raises(UserError, match=r"has checkpoints and no config\.json"):
    read_started_run(tmp_path / "body")


def test_a_damaged_run_json_is_reported_and_ignored(tmp_path, caplog):
  start(tmp_path / "body")
  (tmp_path / "body" / "run.json").write_text('{"model": {"unet": 3}, "records": "x"}')
  run = read_started_run(tmp_path / "body")
  assert run.records is None and run.requested is None and "run.json" in caplog.text
  assert to_plain(run.config) == to_plain(CONFIG)
