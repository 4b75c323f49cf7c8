"""Checkpoints of a run: orbax writes them in the background, and a run resumes from the newest readable one.

Orbax stores no checksums of arrays: a list with them is added to each checkpoint once it is written. A lock on the
part's folder keeps a second run out.
"""

import contextlib
import dataclasses
import json
import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from anchor_jax.core.errors import UserError, root_reason
from anchor_jax.files.locks import locked
from anchor_jax.files.manifest import write_list
from anchor_jax.files.outputs import new_file, prepare_parent
from anchor_jax.formats.roles import LORA_FILE
from anchor_jax.store.damage import Outcome, outcome_of, raise_damage
from anchor_jax.store.weights import STEP
from anchor_jax.store.workdir import VALIDATION, known_losses
from anchor_jax.training.step import State

log = logging.getLogger(__name__)

_POLL = 0.05  # seconds


class Checkpoints:
  """The checkpoints of one part's run. A context manager; leaving it waits for the current write."""

  def __init__(self, folder: Path, keep: int = 2):
    """Opens or creates FOLDER/checkpoints, which holds the newest `keep` checkpoints and the best one."""
    self._folder = folder / "checkpoints"
    self._checksums = _ChecksumWriter(self._folder)
    self._losses: dict[int, float] = {}  # known validation losses, by step
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
        with contextlib.suppress(Exception):  # the error that ended the block is the one to report
          self._manager.close()
    finally:
      self._checksums.wait()

  def save(self, step: int, state: State, loader: dict) -> None:
    """Starts to write the state after `step` in the background, after waiting for the previous write.

    Args:
      step: number of optimizer steps done.
      state, loader: the two values that `restore` returns.

    Raises:
      UserError: this checkpoint or the previous one can't be written.
    """
    content = {"state": _as_dict(state), "loader": loader}
    self.wait()
    self._losses.pop(step, None)  # of an earlier pass over this step
    self._run_write(lambda: self._manager.save_checkpointables_async(step, content, force=True))
    if jax.process_index() == 0:
      self._checksums.begin(step)

  def judge(self, step: int, validation_loss: float) -> None:
    """Records the validation loss of a saved checkpoint; the one with the lowest loss stays as the best.

    Called after `save`, so that a failure in validation loses no step.

    Raises:
      UserError: it can't be written.
    """
    if not math.isfinite(validation_loss):
      return
    self._losses[step] = validation_loss
    if jax.process_index() == 0:
      stored = {info.step for info in self._manager.checkpoints} | {step}
      with new_file(self._folder.parent / VALIDATION) as path:
        path.write_text(json.dumps({str(each): loss for each, loss in self._losses.items() if each in stored}) + "\n")

  def wait(self) -> None:
    """Waits for the current write and its checksums."""
    self._run_write(self._manager.wait)
    self._checksums.wait()

  def _run_write(self, call: Callable[[], Any]) -> None:
    try:
      call()
    except Exception as error:
      newest = self.newest()
      earlier = "" if newest is None else f"; the checkpoint of step {newest} is complete"
      raise UserError(
        f"a checkpoint can't be written to {self._folder} ({root_reason(error)}): free some space, or choose another"
        f" --workdir{earlier}"
      ) from error

  def newest(self) -> int | None:
    """Step of the newest checkpoint."""
    return max((info.step for info in self._manager.checkpoints), default=None)

  def restore(self, like: State, loader: dict) -> tuple[State, dict] | None:
    """Returns the newest readable state and the loader's position after it; None without checkpoints.

    If any process finds a checkpoint damaged (a file is missing or truncated, or its checksum is wrong), all processes
    skip it, and it is deleted once an earlier one is restored, because the run will write that step again. Any other
    error ends the run and deletes nothing, since a file system can fail temporarily.

    Args:
      like: arrays of the shapes, types and shardings to restore.
      loader: the position of a loader of the same kind.

    Raises:
      UserError: a checkpoint can't be read for a reason other than damage or belongs to a run with other settings, or
        all checkpoints are damaged.
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
          f"{place} belongs to a run with other settings (model, lora, ema) ({reason}): choose another --workdir, or"
          f" remove {self._folder} to start over"
        )
      if outcome is Outcome.UNREADABLE:
        raise UserError(f"{place} can't be read now ({reason}); nothing was deleted: start again, or remove it")
      damaged.append(step)
      log.warning("checkpoint %d can't be read (%s); trying the one before", step, reason)
    if damaged:
      raise UserError(f"all checkpoints in {self._folder} are damaged: remove that folder to start over")
    return None

  def _load(self, step: int, like: dict) -> dict:
    """Loads a checkpoint without orbax's barriers, where a process would wait forever for one that failed."""
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
  """Keeps the newest checkpoints and the one with the lowest validation loss."""

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
  """The worst outcome of all processes, the same in each of them."""
  if not _several_processes():
    return outcome
  return Outcome(int(np.max(multihost_utils.process_allgather(np.int32(outcome)))))


def _same_everywhere(steps: list[int]) -> list[int]:
  """The first process's list, in all processes: a shared file system may list different checkpoints to each."""
  if not _several_processes():
    return steps
  count = int(multihost_utils.broadcast_one_to_all(np.int32(len(steps))))
  own = np.resize(np.array(steps or [0], np.int32), count)
  return np.asarray(multihost_utils.broadcast_one_to_all(own)).tolist() if count else []


def _as_dict(state: State) -> dict:
  return {name: getattr(state, name) for name in ("step", "weights", "optimizer", "ema", "skipped", "skipped_in_a_row")}


class _ChecksumWriter:
  """Writes the list of files and checksums of one checkpoint after another, in a thread beside training."""

  def __init__(self, folder: Path):
    self._folder, self._written = folder, threading.Event()
    self._thread: threading.Thread | None = None

  def begin(self, step: int) -> None:
    """Starts to wait for the checkpoint of this step, and writes its list once it is complete."""
    self._written.clear()
    self._thread = threading.Thread(target=self._list, args=(self._folder / str(step),), daemon=True)
    self._thread.start()

  def wait(self) -> None:
    """Waits for the list; call it after the checkpoint's write has succeeded or failed."""
    self._written.set()
    if self._thread is not None:
      self._thread.join()
      self._thread = None

  def _list(self, checkpoint: Path) -> None:
    while not checkpoint.exists() and not self._written.wait(_POLL):
      pass  # orbax renames the complete folder to this name
    try:
      if checkpoint.exists():
        write_list(checkpoint, "checkpoint", every_byte=True)
    except OSError as error:
      log.warning("the checksums of %s can't be written (%s); it will be read without them", checkpoint, error)


@contextlib.contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
  """Holds the lock of WORKDIR/PART, which the first process takes for all processes of the run.

  Raises:
    UserError: in all processes, if another run holds the lock, or if the folder is part of a saved person.
  """
  with contextlib.ExitStack() as stack:
    refused = None
    try:
      if jax.process_index() == 0:
        _check_run(folder)
        prepare_parent(folder)
        stack.enter_context(locked(folder))
    except UserError as error:
      refused = error
    if worst_of_all_processes(Outcome.UNREADABLE if refused else Outcome.RESTORED) is not Outcome.RESTORED:
      raise refused or UserError(f"{folder} can't be written: see the error of the run's first process")
    yield


def _check_run(folder: Path) -> None:
  """Raises UserError if the folder holds a saved or converted part, which a run would overwrite."""
  if any((folder / name).exists() for name in (STEP, LORA_FILE)):
    raise UserError(
      f"{folder} belongs to a saved person, not to a run: choose another --workdir, and start from that person with"
      f" --config.init={folder.parent}"
    )
