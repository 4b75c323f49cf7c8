import json
import pathlib
import runpy

import pytest

from anchor_jax.config import RunConfig, run_config, to_config_dict, to_plain
from anchor_jax.errors import UserError

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"


def test_there_and_back_through_json():
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
def test_refuses_in_one_line_what_it_does_not_know(change, message):
  with pytest.raises(UserError, match=message) as caught:
    run_config(change)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  "file,parts", [("studio_pretrain", ("vae", "body", "head")), ("studio_finetune", ("body", "head"))]
)
def test_every_shipped_config_is_accepted(file, parts):
  for part in parts:
    assert run_config(runpy.run_path(str(CONFIGS / f"{file}.py"))["get_config"](part)).part == part
