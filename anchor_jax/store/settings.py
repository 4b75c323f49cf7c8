"""The settings of a trained part, config.json in its folder; imports no JAX, so that commands can check flags first."""

import json
from pathlib import Path

from anchor_jax.config import RunConfig, run_config, to_plain
from anchor_jax.errors import UserError
from anchor_jax.files import new_file
from anchor_jax.store.damage import root_reason


def write_settings(folder: Path, config: RunConfig) -> None:
  """Writes a part's settings to FOLDER/config.json."""
  with new_file(folder / "config.json") as path:
    path.write_text(json.dumps(to_plain(config), indent=1) + "\n")


def read_settings(folder: Path) -> RunConfig:
  """Returns the settings that a part was trained with.

  Raises:
    UserError: `folder` is no trained part, or its config.json is damaged.
  """
  path = folder / "config.json"
  try:
    return run_config(json.loads(path.read_text()))
  except FileNotFoundError:
    raise UserError(f"{folder} holds no trained part (no config.json): give the --workdir that was trained") from None
  except (OSError, ValueError, RecursionError) as error:
    raise UserError(f"{path} can't be read ({root_reason(error)}): train this part again") from error
