"""Checkpoints of a run: orbax, written in the background, the newest readable one restored."""

import contextlib
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from anchor_jax.errors import UserError
from anchor_jax.store.workdir import METRIC, first_line
from anchor_jax.training.state import State

log = logging.getLogger(__name__)


class Checkpoints:
  """The checkpoints of one part. A context manager: leaving it waits for writes under way."""

  def __init__(self, folder: Path, keep: int = 2):
    """Opens, or makes, FOLDER/checkpoints, which holds the newest `keep` and the best."""
    self._folder = folder / "checkpoints"
    # Orbax's own policies do not match the protocols that its v1 interface declares.
    policies = ocp.training.preservation_policies
    best: Any = policies.BestN(
      get_metric_fn=lambda metrics: -metrics[METRIC], n=1, keep_checkpoints_without_metrics=False
    )
    keep_newest_and_best: Any = policies.AnyPreservationPolicy([policies.LatestN(keep), best])
    when_told: Any = ocp.training.save_decision_policies.InitialSavePolicy()
    try:
      self._manager = ocp.training.Checkpointer(
        str((folder / "checkpoints").absolute()),
        preservation_policy=keep_newest_and_best,
        save_decision_policy=when_told,
        cleanup_tmp_directories=True,
      )
    except OSError as error:
      raise UserError(f"cannot write checkpoints to {folder}: {error.strerror}; choose another --workdir") from error

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, kind, *_) -> None:
    if kind is None:
      self._run_write(self._manager.close)
    else:
      with contextlib.suppress(Exception):  # what ended the block is what the user should read
        self._manager.close()

  def save(self, step: int, state: State, loader: dict, validation_loss: float | None = None) -> None:
    """Begins to write the state after `step`; an earlier write is finished first. The best has the lowest loss."""
    content = {"state": _as_dict(state), "loader": loader}
    metrics: Any = None
    if validation_loss is not None and math.isfinite(validation_loss):
      metrics = {METRIC: validation_loss}
    self._run_write(lambda: self._manager.save_checkpointables_async(step, content, force=True, metrics=metrics))

  def wait(self) -> None:
    """Waits until what was begun is written."""
    self._run_write(self._manager.wait)

  def _run_write(self, call: Callable[[], Any]) -> None:
    try:
      call()
    except Exception as error:
      kept = self.newest()
      earlier = "" if kept is None else f"; the checkpoint of step {kept} is whole"
      raise UserError(
        f"a checkpoint can't be written to {self._folder} ({first_line(error)}): free some space, or choose another"
        f" --workdir{earlier}"
      ) from error

  def newest(self) -> int | None:
    """Step of the newest checkpoint."""
    return max((info.step for info in self._manager.checkpoints), default=None)

  def restore(self, like: State, loader: dict) -> tuple[State, dict] | None:
    """The newest state that can be read, on the shardings of `like`, and the loader's position; None without any.

    A damaged checkpoint is passed over for the one before, and the log says so.

    Raises:
      UserError: there are checkpoints, and none can be read: most likely they are another run's.
    """
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), _as_dict(like))
    damaged = []
    for info in reversed(self._manager.checkpoints):
      try:
        loaded = self._manager.load_checkpointables(info.step, {"state": abstract, "loader": loader})
        for step in damaged:  # its place is needed when the run gets there again
          self._manager.delete(step)
        return State(**loaded["state"]), loaded["loader"]
      except Exception as error:  # noqa: BLE001 - whatever a torn file makes orbax raise
        damaged.append(info.step)
        log.warning("checkpoint %d can't be read (%s); trying the one before", info.step, first_line(error))
    if damaged:
      raise UserError(
        f"none of the checkpoints in {self._folder} can be read: they are of a run with other settings (model, lora,"
        " ema) or damaged; choose another --workdir, or remove that folder to begin anew"
      )
    return None


def _as_dict(state: State) -> dict:
  return {name: getattr(state, name) for name in ("step", "weights", "optimizer", "ema", "skipped", "skipped_in_a_row")}
