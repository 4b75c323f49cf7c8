"""What a run is when it is started again: which settings may change, and which records and settings it began with.

A workdir is the truth about its run. Once there is a checkpoint, sizes, noise schedule and untrained networks come from
WORKDIR/PART (config.json, base/) and not from config.init. Settings that decide what is learned stay as they were; the
table says which (docs/restart.md shows it). WORKDIR/PART/run.json keeps what config.json does not: the model as it was
asked for, before the sizes found at config.init took its place, and which records were trained on.
"""

import dataclasses
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from anchor_jax.config.run import ModelConfig, RunConfig, to_plain
from anchor_jax.config.stored import read_settings
from anchor_jax.core.errors import UserError, one_line
from anchor_jax.core.values import from_values
from anchor_jax.files.outputs import new_file

log = logging.getLogger(__name__)

RUN = "run.json"
_SHOWN = 6  # changed settings that a message names
_REMAT = ("model.unet.remat", "model.controlnet.remat")


@dataclasses.dataclass(frozen=True)
class RestartRule:
  """One row of the table.

  Attributes:
    settings: names below `config`, separated by spaces; a group's name stands for all in it that have no row.
    may_change: whether a run that is started again takes a new value.
    why: the reason, for the docs.
  """

  settings: str
  may_change: bool
  why: str


TABLE = (
  RestartRule("steps", True, "a longer run; a falling rate (`cosine`) then falls to the new end"),
  RestartRule("optimizer.learning_rate", True, "lowered, where the loss was not finite"),
  RestartRule("optimizer.accumulate data.in_memory data.workers mesh", True, "another machine: the same step"),
  RestartRule(" ".join(_REMAT), True, "another machine: memory for time, the same step"),
  RestartRule("data.path", True, "the same prepared folder in another place; one with other records is refused"),
  RestartRule("data.size", True, "for planning alone"),
  RestartRule(
    "log_every checkpoint_every preview_every keep max_skipped", True, "what is written, and when a run gives up"
  ),
  RestartRule("sample", True, "how `generate` samples; nothing is trained with it"),
  RestartRule("part init seed", False, "where the run began"),
  RestartRule("dtype model lora train_image_encoder only_temporal", False, "what is trained, and in which type"),
  RestartRule("zero_snr last_step snr_gamma detail_weight pixels refined sharpness", False, "the loss"),
  RestartRule("condition_dropout condition_jitter", False, "the loss"),
  RestartRule(
    "data.batch_size data.crop data.clip_frames data.validation data.cache data.appearance", False, "the examples"
  ),
  RestartRule("optimizer", False, "the optimiser, whose state goes on"),
)
_RULES = {name: row for row in TABLE for name in row.settings.split()}


def rule_of(setting: str) -> RestartRule:
  """Returns the row of a setting, by its own name or that of the nearest group around it; KeyError without one."""
  name = setting
  while name not in _RULES:
    if "." not in name:
      raise KeyError(setting)
    name = name.rpartition(".")[0]
  return _RULES[name]


@dataclasses.dataclass(frozen=True)
class StartedRun:
  """A run with a checkpoint, as its folder tells of it.

  Attributes:
    folder: WORKDIR/PART.
    config: its settings, with the sizes of its networks.
    asked: the model that its settings asked for; None where an earlier version began the run.
    records: `records_identity` of what it is trained on; None where an earlier version began the run.
  """

  folder: Path
  config: RunConfig
  asked: ModelConfig | None
  records: str | None

  def check_settings(self, now: RunConfig) -> None:
    """Raises UserError, one line with both values, where settings that must stay are others now."""
    before = self.config
    if self.asked is not None:
      before = dataclasses.replace(before, model=self.asked)
    elif before.init:  # what was asked for is not known: the sizes found at config.init took its place
      before = dataclasses.replace(before, model=now.model)
    else:
      refiner = now.model.refiner if before.model.refiner == now.model.own_refiner else before.model.refiner
      model = dataclasses.replace(_without_derived(before.model, now.model), refiner=refiner)
      before = dataclasses.replace(before, model=model)
    changed = [
      f"config.{name}={_shown(old)} (now {_shown(new)})"
      for name, old, new in _differences(to_plain(before), to_plain(now))
      if not rule_of(name).may_change and not (name == "init" and _same_path(old, new))
    ]
    if changed:
      more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
      raise self._refusal(f"was trained with {', '.join(changed[:_SHOWN])}{more}: give what it was")

  def check_records(self, path: str, identity: str) -> None:
    """Raises UserError where the prepared folder at `path`, of this identity, is not what the run is trained on."""
    before = self.config.data.path
    if self.records is None and not _same_path(before, path):
      raise self._refusal(
        f"was trained with config.data.path={before}, and whether {path} holds the same records is not known, since an"
        f" earlier version began the run: if it does, make {before} a link to it and give that"
      )
    if self.records is not None and self.records != identity:
      other = "it holds other records now" if _same_path(before, path) else f"{path} holds other records"
      raise self._refusal(f"was trained with the records of config.data.path={before}, and {other}: give those")

  def resumed_config(self, now: RunConfig) -> RunConfig:
    """Returns the settings of the run that goes on: the new ones, with the networks' sizes as they were."""
    model = self.config.model
    remat = lambda kept, asked: dataclasses.replace(kept, remat=asked.remat)
    unet, controlnet = remat(model.unet, now.model.unet), remat(model.controlnet, now.model.controlnet)
    return dataclasses.replace(now, model=dataclasses.replace(model, unet=unet, controlnet=controlnet))

  def _refusal(self, reason: str) -> UserError:
    return UserError(f"{self.folder} {reason}, or choose another --workdir, or remove {self.folder} to start over")


def read_started_run(folder: Path) -> StartedRun | None:
  """Returns what WORKDIR/PART tells of its run; None where there is no checkpoint, and a run starts from the beginning.

  Raises:
    UserError: there are checkpoints, and config.json is missing or damaged.
  """
  if not has_checkpoint(folder):
    return None
  if not (folder / "config.json").exists():
    raise UserError(
      f"{folder} has checkpoints and no config.json: copy the workdir again, or remove {folder} to start over"
    )
  config = read_settings(folder)
  try:
    found = json.loads((folder / RUN).read_text())
    return StartedRun(folder, config, from_values(ModelConfig, found["model"], "model"), str(found["records"]))
  except FileNotFoundError:
    pass  # an earlier version began the run
  except (OSError, ValueError, KeyError, TypeError, RecursionError, UserError) as error:
    log.warning("%s can't be read (%s); settings of the model are not compared", folder / RUN, one_line(error))
  return StartedRun(folder, config, None, None)


def write_started_run(folder: Path, asked: RunConfig, records: str) -> None:
  """Writes FOLDER/run.json: the model that a run's settings ask for, and the identity of its records."""
  with new_file(folder / RUN) as path:
    path.write_text(json.dumps({"model": to_plain(asked.model), "records": records}, indent=1) + "\n")


def has_checkpoint(folder: Path) -> bool:
  """Whether WORKDIR/PART holds a checkpoint, readable or not: a run that is stopped before its first has none."""
  return any(path.name.isdecimal() for path in (folder / "checkpoints").glob("*"))


def _differences(
  before: Mapping[str, Any], after: Mapping[str, Any], group: str = ""
) -> Iterator[tuple[str, Any, Any]]:
  """Yields (dotted name, old, new) of settings that differ, in plain values; a group that is None is one setting."""
  for name, old in before.items():
    new = after[name]
    if isinstance(old, Mapping) and isinstance(new, Mapping):
      yield from _differences(old, new, f"{group}{name}.")
    elif old != new:
      yield f"{group}{name}", old, new


def _without_derived(model: ModelConfig, now: ModelConfig) -> ModelConfig:
  """The sizes of networks made from nothing, with what other settings decide on taken from `now`."""
  channels = now.controlnet.conditioning_channels
  branch = dataclasses.replace(model.controlnet, conditioning_channels=channels)
  return dataclasses.replace(model, controlnet=branch, schedule=now.schedule)


def _same_path(one: str, other: str) -> bool:
  return one == other or (bool(one and other) and os.path.realpath(one) == os.path.realpath(other))


def _shown(value: Any) -> str:
  return one_line(value if value not in ("", None) else repr(value), 60)
