"""Checks a restarted run against its workdir: which settings may change, and whether the records are the same.

A workdir is authoritative for its run. Once there is a checkpoint, sizes, noise schedule and frozen networks come from
WORKDIR/PART (config.json, base/) and not from config.init. Settings that affect what is learned cannot change; the
table says which (docs/restart.md shows it). WORKDIR/PART/run.json has what config.json lacks: the model that the
settings requested, before the sizes found at config.init replaced it, and the identity of the records.
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
_MAX_NAMED = 6  # changed settings in a message
_REMAT = ("model.unet.remat", "model.controlnet.remat")


@dataclasses.dataclass(frozen=True)
class RestartRule:
  """Whether some settings may change when a run is restarted.

  Attributes:
    settings: names below `config`, separated by spaces; the name of a group covers its settings without rules.
    may_change: whether a restarted run accepts a new value.
    reason: for the docs.
  """

  settings: str
  may_change: bool
  reason: str


TABLE = (
  RestartRule("steps", True, "a longer run; a decaying rate (`cosine`) then decays to the new end"),
  RestartRule("optimizer.learning_rate", True, "to lower it after a loss that was not finite"),
  RestartRule("optimizer.accumulate data.in_memory data.workers mesh", True, "another machine: the same step"),
  RestartRule(" ".join(_REMAT), True, "another machine: less memory for more time, the same step"),
  RestartRule("data.path", True, "the same prepared folder at another path; other records are refused"),
  RestartRule("data.size", True, "only used for planning"),
  RestartRule(
    "log_every checkpoint_every preview_every keep max_skipped", True, "logging and saving, and when a run gives up"
  ),
  RestartRule("sample", True, "only used for sampling"),
  RestartRule("part init seed", False, "where the run started"),
  RestartRule("dtype model lora train_image_encoder only_temporal", False, "the model and its type"),
  RestartRule("zero_snr last_step snr_gamma detail_weight pixels refined sharpness lpips", False, "the loss"),
  RestartRule("lpips_weights", True, "read at the first start only: the workdir has a copy"),
  RestartRule("condition_dropout condition_jitter", False, "the loss"),
  RestartRule(
    "data.batch_size data.crop data.clip_frames data.validation data.cache data.pose_channels", False, "the examples"
  ),
  RestartRule("optimizer", False, "the optimizer, whose state is restored"),
)
_RULES = {name: rule for rule in TABLE for name in rule.settings.split()}


def rule_of(setting: str) -> RestartRule:
  """Returns the rule of a setting: its own, or that of the innermost group with one. Raises KeyError without one."""
  name = setting
  while name not in _RULES:
    if "." not in name:
      raise KeyError(setting)
    name = name.rpartition(".")[0]
  return _RULES[name]


@dataclasses.dataclass(frozen=True)
class StartedRun:
  """A run with a checkpoint.

  Attributes:
    folder: WORKDIR/PART.
    config: its settings, with the sizes of its networks.
    requested: the model that its settings requested; None if an earlier version started the run.
    records: `records_identity` of its training data; None if an earlier version started the run.
  """

  folder: Path
  config: RunConfig
  requested: ModelConfig | None
  records: str | None

  def check_settings(self, now: RunConfig) -> None:
    """Raises UserError, one line with old and new values, if settings that must not change have changed."""
    before = self.config
    if self.requested is not None:
      before = dataclasses.replace(before, model=self.requested)
    elif before.init:  # the request is unknown: the sizes found at config.init replaced it
      before = dataclasses.replace(before, model=now.model)
    else:
      refiner = now.model.refiner if before.model.refiner == now.model.own_refiner else before.model.refiner
      model = dataclasses.replace(_without_derived(before.model, now.model), refiner=refiner)
      before = dataclasses.replace(before, model=model)
    changed = [
      f"config.{name}={_short(old)} (now {_short(new)})"
      for name, old, new in _differences(to_plain(before), to_plain(now))
      if not rule_of(name).may_change and not (name == "init" and _same_path(old, new))
    ]
    if changed:
      more = f" and {len(changed) - _MAX_NAMED} more" if len(changed) > _MAX_NAMED else ""
      raise self._refusal(f"was trained with {', '.join(changed[:_MAX_NAMED])}{more}: use the old values")

  def check_records(self, path: str, identity: str) -> None:
    """Raises UserError if the run was trained on other records than those at `path`, which have this identity."""
    before = self.config.data.path
    if self.records is None and not _same_path(before, path):
      raise self._refusal(
        f"was trained with config.data.path={before}, and whether {path} holds the same records is unknown, since an"
        f" earlier version started the run: if it does, make {before} a link to it and use that"
      )
    if self.records is not None and self.records != identity:
      change = "it holds other records now" if _same_path(before, path) else f"{path} holds other records"
      raise self._refusal(f"was trained with the records of config.data.path={before}, and {change}: use the old ones")

  def resumed_config(self, now: RunConfig) -> RunConfig:
    """Returns the settings of the resumed run: the new ones, with the old sizes of the networks."""
    model = self.config.model
    remat = lambda old, new: dataclasses.replace(old, remat=new.remat)
    unet, controlnet = remat(model.unet, now.model.unet), remat(model.controlnet, now.model.controlnet)
    return dataclasses.replace(now, model=dataclasses.replace(model, unet=unet, controlnet=controlnet))

  def _refusal(self, reason: str) -> UserError:
    return UserError(f"{self.folder} {reason}, or choose another --workdir, or remove {self.folder} to start over")


def read_started_run(folder: Path) -> StartedRun | None:
  """Returns the run in WORKDIR/PART; None if it has no checkpoint, so that a run starts from the beginning.

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
    pass  # an earlier version started the run
  except (OSError, ValueError, KeyError, TypeError, RecursionError, UserError) as error:
    log.warning("%s can't be read (%s); settings of the model are not compared", folder / RUN, one_line(error))
  return StartedRun(folder, config, None, None)


def write_started_run(folder: Path, requested: RunConfig, records: str) -> None:
  """Writes FOLDER/run.json: the model that a run's settings request, and the identity of its records."""
  with new_file(folder / RUN) as path:
    path.write_text(json.dumps({"model": to_plain(requested.model), "records": records}, indent=1) + "\n")


def has_checkpoint(folder: Path) -> bool:
  """Whether WORKDIR/PART holds a checkpoint, readable or not."""
  return any(path.name.isdecimal() for path in (folder / "checkpoints").glob("*"))


def _differences(
  before: Mapping[str, Any], after: Mapping[str, Any], group: str = ""
) -> Iterator[tuple[str, Any, Any]]:
  """Yields (dotted name, old, new) of settings that differ; a group that is None counts as one setting."""
  for name, old in before.items():
    new = after[name]
    if isinstance(old, Mapping) and isinstance(new, Mapping):
      yield from _differences(old, new, f"{group}{name}.")
    elif old != new:
      yield f"{group}{name}", old, new


def _without_derived(model: ModelConfig, now: ModelConfig) -> ModelConfig:
  """Returns sizes of networks without an init; those that follow from other settings are taken from `now`."""
  channels = now.controlnet.conditioning_channels
  branch = dataclasses.replace(model.controlnet, conditioning_channels=channels)
  return dataclasses.replace(model, controlnet=branch, schedule=now.schedule)


def _same_path(one: str, other: str) -> bool:
  return one == other or (bool(one and other) and os.path.realpath(one) == os.path.realpath(other))


def _short(value: Any) -> str:
  return one_line(value if value not in ("", None) else repr(value), 60)
