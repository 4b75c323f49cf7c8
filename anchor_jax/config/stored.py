"""The settings of a trained part in its config.json; without JAX, so that commands can check flags first."""

import json
import os
from pathlib import Path

from anchor_jax.config.run import RunConfig, run_config, to_plain
from anchor_jax.core.errors import UserError
from anchor_jax.files.inputs import read_json
from anchor_jax.files.outputs import new_file


def write_settings(folder: Path, config: RunConfig) -> None:
  """Writes a part's settings to FOLDER/config.json."""
  with new_file(folder / "config.json") as path:
    path.write_text(json.dumps(to_plain(config), indent=1) + "\n")


def read_settings(folder: Path) -> RunConfig:
  """Returns the settings that a part was trained with.

  Raises:
    UserError: `folder` holds no trained part, or its config.json is damaged.
  """
  path = folder / "config.json"
  if not os.path.lexists(path):
    raise UserError(f"{folder} holds no trained part (no config.json): give the --workdir that was trained")
  return run_config(read_json(path, remedy="train this part again"))
