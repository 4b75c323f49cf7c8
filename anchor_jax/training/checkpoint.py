"""Checkpoints of one part of a workdir: orbax, written in the background, the newest readable one restored.

WORKDIR/body/config.json     the settings the part was trained with
WORKDIR/body/base/           frozen networks as diffusers folders, written once
WORKDIR/body/appearance.png  a reference picture of the person
WORKDIR/body/checkpoints/N/  state (weights, optimiser, average, counters) and the loader's position after step N
"""

import contextlib
import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from anchor_jax.config import RunConfig, run_config, to_plain
from anchor_jax.errors import UserError
from anchor_jax.files import new_file
from anchor_jax.shapes import PyTree
from anchor_jax.training.state import State

log = logging.getLogger(__name__)

_METRIC = "validation_loss"
PARTS = ("vae", "body", "head")
APPEARANCE = "appearance.png"  # in a part's folder: a picture of the person, which `generate` uses where given none


class Checkpoints:
  """The checkpoints of one part. A context manager: leaving it waits for writes under way."""

  def __init__(self, folder: Path, keep: int = 2):
    """Opens, or makes, FOLDER/checkpoints, which holds the newest `keep` and the best."""
    self._folder = folder / "checkpoints"
    # Orbax's own policies do not match the protocols that its v1 interface declares.
    policies = ocp.training.preservation_policies
    best: Any = policies.BestN(
      get_metric_fn=lambda metrics: -metrics[_METRIC], n=1, keep_checkpoints_without_metrics=False
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
      self._told(self._manager.close)
    else:
      with contextlib.suppress(Exception):  # what ended the block is what the user should read
        self._manager.close()

  def save(self, step: int, state: State, loader: dict, validation_loss: float | None = None) -> None:
    """Begins to write the state after `step`; an earlier write is finished first. The best has the lowest loss."""
    content = {"state": _as_dict(state), "loader": loader}
    metrics: Any = None
    if validation_loss is not None and math.isfinite(validation_loss):
      metrics = {_METRIC: validation_loss}
    self._told(lambda: self._manager.save_checkpointables_async(step, content, force=True, metrics=metrics))

  def wait(self) -> None:
    """Waits until what was begun is written."""
    self._told(self._manager.wait)

  def _told(self, call: Callable[[], Any]) -> None:
    try:
      call()
    except Exception as error:
      kept = self.newest()
      earlier = "" if kept is None else f"; the checkpoint of step {kept} is whole"
      raise UserError(
        f"a checkpoint can't be written to {self._folder} ({_first_line(error)}): free some space, or choose another"
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
        log.warning("checkpoint %d can't be read (%s); trying the one before", info.step, _first_line(error))
    if damaged:
      raise UserError(
        f"none of the checkpoints in {self._folder} can be read: they are of a run with other settings (model, lora,"
        " ema) or damaged; choose another --workdir, or remove that folder to begin anew"
      )
    return None


def read_weights(folder: Path, averaged: bool = True, step: str = "newest") -> tuple[PyTree, int]:
  """The trained weights of a part, and the step they are from; numpy.

  Args:
    folder: of the part.
    averaged: the averaged ones, if there are any.
    step: "newest" (that can be read), "best" (with the lowest validation loss), or a number.

  Raises:
    UserError: no such checkpoint there, or none that can be read.
  """
  for number in _candidates(folder, step):
    try:
      place = (folder / "checkpoints" / str(number)).absolute()
      state = _load_here(place)
      chosen = state["ema"] if averaged and state.get("ema") else state["weights"]
      return jax.tree.map(jax.device_get, chosen), int(state["step"])
    except Exception as error:
      if step != "newest":
        raise UserError(f"checkpoint {number} in {folder} can't be read ({_first_line(error)})") from error
      log.warning("checkpoint %d can't be read (%s); trying the one before", number, _first_line(error))
  raise UserError(f"no readable checkpoint in {folder}: train first (python -m anchor_jax.train --help)")


def _candidates(folder: Path, wanted: str) -> list[int]:
  """Steps of the checkpoints to try, one after another."""
  steps = sorted((int(path.name) for path in (folder / "checkpoints").glob("*") if path.name.isdigit()), reverse=True)
  if wanted == "newest" or not steps:
    return steps
  if wanted == "best":
    with ocp.training.Checkpointer(str((folder / "checkpoints").absolute())) as manager:
      known = [(info.metrics[_METRIC], info.step) for info in manager.checkpoints if info.metrics]
    if not known:
      raise UserError(f"no checkpoint in {folder} knows its validation loss: train with --config.data.validation=N")
    return [min(known)[1]]
  if not wanted.isdigit() or int(wanted) not in steps:
    raise UserError(f"{folder} has no checkpoint of step {wanted}: there are {steps}; or say newest or best")
  return [int(wanted)]


def _load_here(place: Path) -> PyTree:
  """A checkpoint's state on this process's first device, whatever mesh it was saved from."""
  here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  stored = ocp.checkpointables_metadata(str(place)).metadata["state"]
  on_device = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here)
  return ocp.load_checkpointables(str(place), {"state": jax.tree.map(on_device, stored)})["state"]


def write_settings(folder: Path, config: RunConfig) -> None:
  """Keeps the settings beside the checkpoints, for `generate` and for the next start."""
  with new_file(folder / "config.json") as path:
    path.write_text(json.dumps(to_plain(config), indent=1) + "\n")


def read_settings(folder: Path) -> RunConfig:
  """The settings a part was trained with. Raises UserError where `folder` isn't a trained part."""
  path = folder / "config.json"
  try:
    return run_config(json.loads(path.read_text()))
  except FileNotFoundError:
    raise UserError(f"{folder} holds no trained part (no config.json): give the --workdir that was trained") from None
  except (OSError, ValueError) as error:
    raise UserError(f"{path} can't be read ({_first_line(error)}): train this part again") from error


def _as_dict(state: State) -> dict:
  return {name: getattr(state, name) for name in ("step", "weights", "optimizer", "ema", "skipped", "skipped_in_a_row")}


def _first_line(error: Exception) -> str:
  return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
