"""Which settings a run that is started again may change, by a table that knows every setting, and what it refuses."""

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


def begin(folder, asked=CONFIG, found=None, records="one"):
  """A run's folder as training leaves it; `records` is None for one of an earlier version."""
  (folder / "checkpoints" / "7").mkdir(parents=True)
  write_settings(folder, dataclasses.replace(asked, model=found or asked.model))
  if records is not None:
    write_started_run(folder, asked, records)
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


def test_every_setting_has_a_row_and_every_row_a_setting():
  names = list(settings())
  used = {rule_of(name).settings for name in names}
  assert used == {row.settings for row in TABLE}
  for row in TABLE:
    for name in row.settings.split():
      assert any(known == name or known.startswith(f"{name}.") for known in names), name
  with pytest.raises(KeyError):
    rule_of("colour")


def test_the_docs_show_the_table():
  text = (Path(__file__).parents[2] / "docs" / "restart.md").read_text()
  rows = [line for line in text.splitlines() if line.startswith("| `") and not line.startswith("| `config.`")]
  shown = lambda row: " ".join(f"`{name}`" for name in row.settings.split())
  assert rows == [f"| {shown(row)} | {'taken' if row.may_change else 'refused'} | {row.why} |" for row in TABLE]


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
def test_what_decides_on_what_is_learned_is_refused_with_both_values(tmp_path, name, value, message):
  begun = begin(tmp_path / "body")
  with pytest.raises(UserError, match=message) as error:
    begun.check_settings(change(CONFIG, name, value))
  assert "\n" not in str(error.value) and len(str(error.value)) < 600


def test_many_changes_are_one_short_line(tmp_path):
  begun = begin(tmp_path / "body")
  other = RunConfig(seed=9, lora=LoRAConfig(2), optimizer=OptimizerConfig(b1=0.5, b2=0.5, eps=1.0, clip=2.0, ema=0.9))
  with pytest.raises(UserError, match=r"and \d+ more") as error:
    begun.check_settings(other)
  assert "\n" not in str(error.value) and len(str(error.value)) < 1000


def test_steps_logging_mesh_and_what_only_another_machine_needs_may_change(tmp_path):
  begun = begin(tmp_path / "body")
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
  begun.check_settings(now)
  assert begun.resumed_config(now) == now


def test_sizes_come_from_the_workdir_and_not_from_init(tmp_path):
  """What a run asks for is not what it found at config.init: with the same settings it goes on, with those sizes."""
  found = dataclasses.replace(tiny_model(), schedule=dataclasses.replace(tiny_model().schedule, beta_end=0.03))
  asked = dataclasses.replace(CONFIG, model=ModelConfig())
  begun = begin(tmp_path / "body", asked, found)
  begun.check_settings(asked)
  assert (
    begun.resumed_config(change(asked, "model.unet.remat", True)).model
    == change(dataclasses.replace(asked, model=found), "model.unet.remat", True).model
  )


def test_init_may_be_named_by_another_path_to_the_same_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "models" / "sd15").mkdir(parents=True)
  begun = begin(tmp_path / "body")
  begun.check_settings(change(CONFIG, "init", str(tmp_path / "models/sd15/")))


def test_a_run_that_was_never_saved_starts_from_the_beginning(tmp_path):
  folder = tmp_path / "body"
  assert read_started_run(folder) is None
  begin(folder)
  shutil.rmtree(folder / "checkpoints")
  (folder / "checkpoints").mkdir()
  assert read_started_run(folder) is None


def test_records_are_known_wherever_they_lie(tmp_path):
  begun = begin(tmp_path / "body")
  begun.check_records("data/ana", "one")
  begun.check_records("/mnt/ana", "one")
  with pytest.raises(UserError, match=r"data/ana, and data/bob holds other records: give those"):
    begun.check_records("data/bob", "two")
  with pytest.raises(UserError, match=r"data/ana, and it holds other records now"):
    begun.check_records("data/ana", "two")


def test_the_identity_of_records_is_that_of_their_bytes(tmp_path):
  meta = {"size": 32, "videos": [{"frames": 3, "person": 0, "name": "a"}], "files": {"a.array_record": 4}}
  folders = [tmp_path / name for name in ("here", "there", "other")]
  for folder, content in zip(folders, (b"abcd", b"abcd", b"abce")):
    folder.mkdir()
    (folder / "a.array_record").write_bytes(content)
  here, there, other = (records_identity(folder, meta) for folder in folders)
  renamed = {**meta, "videos": [{**meta["videos"][0], "name": "b"}]}
  assert here == there == records_identity(folders[0], renamed) != other
  assert records_identity(folders[0], {**meta, "size": 64}) != here


def test_workdirs_of_earlier_versions_go_on(tmp_path):
  """They have no run.json, and config.json lacks the settings that came later."""
  found = dataclasses.replace(tiny_model(), schedule=dataclasses.replace(tiny_model().schedule, beta_end=0.03))
  begun = begin(tmp_path / "body", CONFIG, found, records=None)
  path = tmp_path / "body" / "config.json"
  values = json.loads(path.read_text())
  for name in ("zero_snr", "pixels", "refined", "sharpness", "last_step", "detail_weight", "condition_jitter"):
    del values[name]
  del values["model"]["refiner"], values["sample"]["guidance_interval"], values["data"]["appearance"]
  path.write_text(json.dumps(values))
  begun = read_started_run(tmp_path / "body")
  begun.check_settings(CONFIG)
  assert begun.resumed_config(CONFIG).model == found
  with pytest.raises(UserError, match=r"config\.sharpness=0\.0 \(now 1\.0\)"):
    begun.check_settings(change(CONFIG, "sharpness", 1.0))
  begun.check_records("data/ana", "two")
  with pytest.raises(UserError, match="make data/ana a link to it"):
    begun.check_records("data/bob", "two")


def test_an_earlier_version_s_run_from_nothing_keeps_its_sizes(tmp_path):
  asked = dataclasses.replace(CONFIG, init="", data=DataConfig("data/ana", appearance="full"), zero_snr=True)
  branch = dataclasses.replace(asked.model.controlnet, conditioning_channels=23)
  schedule = dataclasses.replace(asked.model.schedule, rescale_betas_zero_snr=True)
  found = dataclasses.replace(asked.model, controlnet=branch, schedule=schedule)
  begun = begin(tmp_path / "body", asked, found, records=None)
  begun.check_settings(asked)
  assert begun.resumed_config(asked).model == found
  with pytest.raises(UserError, match=r"config\.model\.unet\.layers_per_block=1 \(now 2\)"):
    begun.check_settings(change(asked, "model.unet.layers_per_block", 2))


def test_a_folder_without_settings_is_not_begun_anew(tmp_path):
  begin(tmp_path / "body")
  (tmp_path / "body" / "config.json").unlink()
  with pytest.raises(UserError, match=r"has checkpoints and no config\.json"):
    read_started_run(tmp_path / "body")


def test_a_damaged_list_of_what_was_asked_for_is_as_none(tmp_path, caplog):
  begin(tmp_path / "body")
  (tmp_path / "body" / "run.json").write_text('{"model": {"unet": 3}, "records": "x"}')
  begun = read_started_run(tmp_path / "body")
  assert begun.records is None and begun.asked is None and "run.json" in caplog.text
  assert to_plain(begun.config) == to_plain(CONFIG)
