import dataclasses
import os

import pytest

from anchor_jax.config.find import find_config, load_config, shipped_configs, with_found_config
from anchor_jax.config.run import SampleConfig
from anchor_jax.core.errors import UserError


def test_a_user_s_file_comes_before_the_shipped_file_of_that_name(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  shipped = find_config("studio_finetune.py")
  assert shipped.is_file() and shipped != tmp_path / "studio_finetune.py"
  assert find_config("configs/studio_finetune.py") == shipped
  (tmp_path / "studio_finetune.py").write_text("def get_config(part):\n  return {'part': part, 'steps': 7}\n")
  assert find_config("studio_finetune.py").resolve() == tmp_path / "studio_finetune.py"
  assert load_config("studio_finetune.py:head").steps == 7
  assert load_config("configs/studio_finetune.py:head").part == "head"


def test_every_shipped_file_is_found_by_its_name(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert {"sd15_body_finetune.py", "studio_finetune.py"} <= set(shipped_configs())
  for name in shipped_configs():
    load_config(name)


@pytest.mark.parametrize("name", ["studio_finetun.py", "other/studio_finetune.py", "a" * 5000, "a\0b", "", "configs"])
def test_a_missing_file_is_one_line_that_lists_the_shipped_files(name, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "configs").mkdir()
  with pytest.raises(
    UserError, match=r"no config file .*Shipped: .*sd15_body_finetune\.py, .*studio_finetune\.py"
  ) as caught:
    find_config(name)
  assert "\n" not in str(caught.value)
  assert ('Did you mean "studio_finetune.py"?' in str(caught.value)) == ("studio_finetun" in name)


@pytest.mark.parametrize(
  "text,message",
  [
    ("def get_config(:\n", "SyntaxError"),
    ("", "KeyError: 'get_config'"),
    ("def get_config(part):\n  return {}\n", "TypeError"),
    ("def get_config():\n  return {'stepz': 3}\n", 'Did you mean "steps"'),
  ],
)
def test_a_config_file_that_fails_is_one_line(text, message, tmp_path):
  (tmp_path / "mine.py").write_text(text)
  with pytest.raises(UserError, match=message) as caught:
    load_config(tmp_path / "mine.py")
  assert "\n" not in str(caught.value)


def test_command_lines_get_the_found_path(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  found = find_config("studio_finetune.py")
  assert os.path.isabs(found)
  given = ["train", "--config=studio_finetune.py:body", "--config.steps=3", "--workdir=x"]
  assert with_found_config(given) == ["train", f"--config={found}:body", *given[2:]]
  given = ["train", "-config", "configs/studio_finetune.py", "--config.data.path=studio_finetune.py"]
  assert with_found_config(given) == ["train", "-config", str(found), given[3]]
  with pytest.raises(UserError, match="no config file"):
    with_found_config(["train", "--config=none.py"])


def test_changes_by_dotted_name():
  plain = load_config("studio_finetune.py:body")
  changed = load_config("studio_finetune.py:body", {"steps": 7, "data.path": "x", "sample": SampleConfig(steps=3)})
  assert (changed.steps, changed.data.path, changed.sample.steps) == (7, "x", 3)
  assert dataclasses.replace(changed, steps=plain.steps, data=plain.data, sample=plain.sample) == plain
  for name in ("stepz", "data.pth", "dta.path", "steps.path"):
    with pytest.raises(UserError, match="unknown setting"):
      load_config("studio_finetune.py:body", {name: 1})
