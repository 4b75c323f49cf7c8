"""What a workdir holds of a trained part.

WORKDIR/body/config.json     the settings the part was trained with
WORKDIR/body/base/           frozen networks as diffusers folders, written once
WORKDIR/body/appearance.png  a reference picture of the person
WORKDIR/body/checkpoints/N/  state (weights, optimiser, average, counters) and the loader's position after step N
"""

import json
import logging
from pathlib import Path

import jax
from orbax.checkpoint import v1 as ocp

from anchor_jax.config import RunConfig, run_config, to_plain
from anchor_jax.errors import UserError
from anchor_jax.files import new_file
from anchor_jax.motion.picture import read_picture
from anchor_jax.shapes import NdArray, PyTree, UInt8

log = logging.getLogger(__name__)

METRIC = "validation_loss"
PARTS = ("vae", "body", "head")
APPEARANCE = "appearance.png"  # in a part's folder: a picture of the person, which `generate` uses where given none


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
        raise UserError(f"checkpoint {number} in {folder} can't be read ({first_line(error)})") from error
      log.warning("checkpoint %d can't be read (%s); trying the one before", number, first_line(error))
  raise UserError(f"no readable checkpoint in {folder}: train first (python -m anchor_jax.train --help)")


def _candidates(folder: Path, wanted: str) -> list[int]:
  """Steps of the checkpoints to try, one after another."""
  steps = sorted((int(path.name) for path in (folder / "checkpoints").glob("*") if path.name.isdigit()), reverse=True)
  if wanted == "newest" or not steps:
    return steps
  if wanted == "best":
    with ocp.training.Checkpointer(str((folder / "checkpoints").absolute())) as manager:
      known = [(info.metrics[METRIC], info.step) for info in manager.checkpoints if info.metrics]
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
    raise UserError(f"{path} can't be read ({first_line(error)}): train this part again") from error


def read_appearance(folder: Path) -> UInt8[NdArray, "H W 3"] | None:
  """The picture of the person in a part's folder, RGB; None where there is none (the autoencoder has none).

  Raises:
    UserError: the picture is damaged.
  """
  path = folder / APPEARANCE
  return read_picture(path) if path.exists() else None


def first_line(error: Exception) -> str:
  """The first line of an error's message, at most 200 characters; its type where it has none."""
  return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
