import json
import pathlib
import runpy

import pytest

from anchor_jax.config import RunConfig, run_config, to_config_dict, to_plain
from anchor_jax.errors import UserError

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"
GOLDEN = pathlib.Path(__file__).resolve().parent / "golden" / "configs"
PARTS = ("body", "head")


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


SHIPPED = [
  *((f"studio_{kind}", part) for kind in ("pretrain", "finetune") for part in ("vae", "body", "head")),
  *((f"sd15_{part}_{kind}", None) for part in ("body", "head") for kind in ("pretrain", "finetune")),
  ("sd15_temporal", None),
]
SHIPPED.remove(("studio_finetune", "vae"))


@pytest.mark.parametrize("file,part", SHIPPED)
def test_every_shipped_config_is_what_it_was(file, part):
  """A changed default shows here: write the file anew (its text is `told`) when the change is meant."""
  get_config = runpy.run_path(str(CONFIGS / f"{file}.py"))["get_config"]
  config = run_config(get_config(part) if part else get_config())
  told = json.dumps(to_plain(config), indent=1, sort_keys=True) + "\n"
  name = f"{file}_{part}" if part else file
  assert (GOLDEN / f"{name}.json").read_text() == told


def test_stable_diffusion_s_configs_have_the_published_sizes_and_the_reference_s_numbers():
  body, head = (run_config(runpy.run_path(str(CONFIGS / f"sd15_{part}_pretrain.py"))["get_config"]()) for part in PARTS)
  assert body.model.unet.in_channels == 4 and head.model.unet.in_channels == 9
  assert (body.optimizer.learning_rate, body.optimizer.warmup_steps, body.data.batch_size) == (1e-5, 500, 4)
  assert (body.sample.guidance, body.sample.conditioning_scale, head.sample.guidance) == (7.5, 2.0, 3.5)
