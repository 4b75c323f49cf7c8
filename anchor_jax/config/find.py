"""Finds and reads config files, in a checkout and in an installed package.

A config file is a Python file with `get_config()` or `get_config(argument)`, which returns an ml_collections
ConfigDict. Command lines name it as FILE.py or FILE.py:ARGUMENT. The shipped files are in configs/ of a checkout and in
anchor_jax/configs/ of an installed wheel.
"""

import dataclasses
import os
import runpy
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anchor_jax.config.renamed import renamed_changes
from anchor_jax.config.run import RunConfig, run_config, to_plain
from anchor_jax.core.errors import UserError, suggestion

_PACKAGE = Path(__file__).resolve().parents[1]


def shipped_configs() -> dict[str, Path]:
  """The shipped config files by file name, sorted."""
  folders = (_PACKAGE / "configs", _PACKAGE.parent / "configs")  # in a wheel, in a checkout
  folder = next((folder for folder in folders if folder.is_dir()), folders[0])
  return {path.name: path for path in sorted(folder.glob("[!_]*.py"))}


def find_config(name: str | Path) -> Path:
  """The config file at this path, or else the shipped file of this name.

  Args:
    name: a path, absolute or relative to the working directory; or the name of a shipped file, with or without
      "configs/".

  Raises:
    UserError: neither exists; the message lists the shipped files. Or it is not a Python file.
  """
  path = Path(name)
  if os.path.isfile(path):  # unlike Path.is_file, also False for paths that the system rejects
    if path.suffix != ".py":
      raise UserError(f"config file {path}: settings are read from Python files, FILE.py, such as those in configs/")
    return path
  shipped = shipped_configs()
  if str(path.parent) in (".", "configs") and path.name in shipped:
    return shipped[path.name]
  raise UserError(
    f'no config file "{name}", neither as a path nor among the shipped ones.{suggestion(path.name, shipped)}'
    f" Shipped: {', '.join(shipped)}"
  )


def load_config(name: str | Path, changes: Mapping[str, Any] | None = None) -> RunConfig:
  """The settings in a config file.

  Args:
    name: FILE.py or FILE.py:ARGUMENT; `find_config` says where the file is searched.
    changes: settings to replace, by dotted name: {"data.path": "data/ana", "steps": 50}.

  Raises:
    UserError: the file does not exist or fails, or a setting is unknown or out of range.
  """
  file, *argument = str(name).split(":", 1)
  path = find_config(file)
  try:
    values = runpy.run_path(str(path))["get_config"](*argument)
  except UserError:
    raise
  except Exception as error:
    raise failed_config(path, error) from error
  return changed_config(run_config(values), changes or {})


def failed_config(path: str | Path, error: Exception) -> UserError:
  """Returns the error of a config file that failed while it ran, with the place in it."""
  lines = [entry.lineno for entry in traceback.extract_tb(error.__traceback__) if Path(entry.filename) == Path(path)]
  place = f", line {lines[-1]}" if lines and lines[-1] else ""
  return UserError(f"config file {path}{place}: {type(error).__name__}: {' '.join(str(error).split())}")


def changed_config(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
  """The settings with changes by dotted name. Raises UserError for an unknown name or a value out of range."""
  values = to_plain(config)
  for name, value in renamed_changes(changes).items():
    *groups, last = name.split(".")
    group = values
    for key in groups:
      group = group.get(key) if isinstance(group, dict) else None
    if not isinstance(group, dict):
      raise UserError(f'unknown setting "config.{name}"')
    group[last] = to_plain(value) if dataclasses.is_dataclass(value) else value
  return run_config(values)


def with_found_config(arguments: Sequence[str]) -> list[str]:
  """The command-line arguments, with the path from `find_config` in --config=FILE.py[:ARGUMENT].

  As in Abseil, --config=FILE.py and --config FILE.py are equivalent, as are one dash and two.
  """
  result = list(arguments)
  for place, argument in enumerate(result):
    flag, equals, value = argument.partition("=")
    if argument == "--":
      break
    if flag in ("--config", "-config") and equals:
      result[place] = f"{flag}={_with_found_file(value)}"
    elif flag in ("--config", "-config") and place + 1 < len(result):
      result[place + 1] = _with_found_file(result[place + 1])
  return result


def _with_found_file(name: str) -> str:
  file, colon, argument = name.partition(":")
  return f"{find_config(file)}{colon}{argument}"
