"""Checkpoints of a run: orbax writes them in the background, and a run is resumed from the newest readable one."""

import contextlib
import dataclasses
import json
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from anchor_jax.core.errors import UserError, root_reason
from anchor_jax.files.outputs import new_file
from anchor_jax.store.damage import Outcome, outcome_of, raise_damage
from anchor_jax.store.workdir import VALIDATION, known_losses
from anchor_jax.training.checksums import Listing
from anchor_jax.training.step import State

log = logging.getLogger(__name__)


class Checkpoints:
  """The checkpoints of one part's run. A context manager, which waits for the write under way when it ends."""

  def __init__(self, folder: Path, keep: int = 2):
    """Opens or creates FOLDER/checkpoints, which keeps the newest `keep` checkpoints and the best."""
    self._folder = folder / "checkpoints"
    self._listing = Listing(self._folder)
    self._losses: dict[int, float] = {}  # validation losses that are known, by step
    only_when_asked: Any = ocp.training.save_decision_policies.InitialSavePolicy()
    try:
      self._manager = ocp.training.Checkpointer(
        str((folder / "checkpoints").absolute()),
        preservation_policy=_NewestAndBest(keep, self._losses),
        save_decision_policy=only_when_asked,
        cleanup_tmp_directories=True,
      )
    except OSError as error:
      raise UserError(f"cannot write checkpoints to {folder}: {error.strerror}; choose another --workdir") from error
    self._losses |= known_losses(folder, self._manager.checkpoints)

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, kind, *_) -> None:
    try:
      if kind is None:
        self._run_write(self._manager.close)
      else:
        with contextlib.suppress(Exception):  # the user should read the error that ended the block
          self._manager.close()
    finally:
      self._listing.wait()

  def save(self, step: int, state: State, loader: dict) -> None:
    """Starts writing the state after `step`, once an earlier write is finished; returns at once.

    Args:
      step: optimiser steps done.
      state, loader: what `restore` returns.

    Raises:
      UserError: this checkpoint, or the one whose write was under way, can't be written.
    """
    content = {"state": _as_dict(state), "loader": loader}
    self.wait()
    self._losses.pop(step, None)  # of a run that came by here before
    self._run_write(lambda: self._manager.save_checkpointables_async(step, content, force=True))
    if jax.process_index() == 0:
      self._listing.begin(step)

  def judge(self, step: int, validation_loss: float) -> None:
    """Notes the validation loss of a checkpoint that is saved: the one with the lowest is kept as the best.

    It comes after the checkpoint, so that what goes wrong in validation costs no step.

    Raises:
      UserError: it can't be written.
    """
    if not math.isfinite(validation_loss):
      return
    self._losses[step] = validation_loss
    if jax.process_index() == 0:
      kept = {info.step for info in self._manager.checkpoints} | {step}
      with new_file(self._folder.parent / VALIDATION) as path:
        path.write_text(json.dumps({str(each): loss for each, loss in self._losses.items() if each in kept}) + "\n")

  def wait(self) -> None:
    """Waits for the write under way, and for its checksums."""
    self._run_write(self._manager.wait)
    self._listing.wait()

  def _run_write(self, call: Callable[[], Any]) -> None:
    try:
      call()
    except Exception as error:
      kept = self.newest()
      earlier = "" if kept is None else f"; the checkpoint of step {kept} is complete"
      raise UserError(
        f"a checkpoint can't be written to {self._folder} ({root_reason(error)}): free some space, or choose another"
        f" --workdir{earlier}"
      ) from error

  def newest(self) -> int | None:
    """Step of the newest checkpoint."""
    return max((info.step for info in self._manager.checkpoints), default=None)

  def restore(self, like: State, loader: dict) -> tuple[State, dict] | None:
    """Returns the newest state that can be read and the loader's position after it; None where there is no checkpoint.

    A checkpoint that is proved damaged in any process (a file is missing or truncated, or its checksum is wrong) is
    skipped by all of them, and deleted once an earlier one is restored, because the run will write that step again.
    Any other error ends the run and deletes nothing: a file system may fail for a moment, and then works again.

    Args:
      like: arrays of the shapes, types and shardings to restore.
      loader: the position of a loader of the same kind.

    Raises:
      UserError: a checkpoint can't be read for another reason than damage, is of a run with other settings, or all of
        them are damaged.
    """
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), _as_dict(like))
    damaged = []
    for step in _same_everywhere([info.step for info in reversed(self._manager.checkpoints)]):
      outcome, reason, loaded = Outcome.RESTORED, "", {}
      try:
        loaded = self._load(step, {"state": abstract, "loader": loader})
      except Exception as error:  # noqa: BLE001 - a damaged file makes orbax raise anything
        outcome, reason = outcome_of(error), root_reason(error)
      outcome = worst_of_all_processes(outcome)
      reason = reason or "another process could not read it"
      if outcome is Outcome.RESTORED:
        for bad in damaged:
          self._manager.delete(bad)
        return State(**loaded["state"]), loaded["loader"]
      place = self._folder / str(step)
      if outcome is Outcome.OTHER_SETTINGS:
        raise UserError(
          f"{place} is of a run with other settings (model, lora, ema) ({reason}): choose another --workdir, or remove"
          f" {self._folder} to start over"
        )
      if outcome is Outcome.UNREADABLE:
        raise UserError(f"{place} can't be read now ({reason}), nothing was deleted: start again, or remove it")
      damaged.append(step)
      log.warning("checkpoint %d can't be read (%s); trying the one before", step, reason)
    if damaged:
      raise UserError(f"all checkpoints in {self._folder} are damaged: remove that folder to start over")
    return None

  def _load(self, step: int, like: dict) -> dict:
    """Loads a checkpoint in this process alone: in orbax's barriers a process would wait for one that failed."""
    context, process = ocp.Context(), jax.process_index()
    raise_damage(self._folder / str(step), (process, jax.process_count()))
    if _several_processes():
      context.multiprocessing.primary_host = process
      context.multiprocessing.active_processes = {process}
      context.multiprocessing.barrier_sync_key_prefix = f"process_{process}"
    with context:
      return ocp.load_checkpointables(str((self._folder / str(step)).absolute()), like)


@dataclasses.dataclass
class _NewestAndBest(ocp.training.preservation_policies.PreservationPolicy):
  """Keeps the newest checkpoints, and the one with the lowest validation loss."""

  newest: int
  losses: dict[int, float]

  def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
    steps = [info.step for info in checkpoints]
    known = [step for step in steps if step in self.losses]
    kept = {*steps[-self.newest :], *([min(known, key=self.losses.__getitem__)] if known else ())}
    return [step in kept for step in steps]


def _several_processes() -> bool:
  return jax.process_count() > 1


def worst_of_all_processes(outcome: Outcome) -> Outcome:
  """The worst outcome in any process, the same in all of them."""
  if not _several_processes():
    return outcome
  return Outcome(int(np.max(multihost_utils.process_allgather(np.int32(outcome)))))


def _same_everywhere(steps: list[int]) -> list[int]:
  """The first process's list in all processes: a shared file system may show them different ones."""
  if not _several_processes():
    return steps
  count = int(multihost_utils.broadcast_one_to_all(np.int32(len(steps))))
  own = np.resize(np.array(steps or [0], np.int32), count)
  return np.asarray(multihost_utils.broadcast_one_to_all(own)).tolist() if count else []


def _as_dict(state: State) -> dict:
  return {name: getattr(state, name) for name in ("step", "weights", "optimizer", "ema", "skipped", "skipped_in_a_row")}
