"""What a workdir holds of a trained part, and how it is read.

WORKDIR/body/config.json     the settings the part was trained with
WORKDIR/body/run.json        the model that they asked for and the identity of the records, see restart.py
WORKDIR/body/base/           the networks that were not trained, a folder of models (see roles.py), written once
WORKDIR/body/appearance.png  a reference picture of the person
WORKDIR/body/appearance.safetensors  texture, key frames and room of the person, where config.data.appearance needs them
WORKDIR/body/validation.json  the validation loss of checkpoints, by step; in those of earlier versions orbax has it
WORKDIR/body/checkpoints/N/  state (weights, optimiser, average, counters) and the loader's position after step N
"""

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from orbax.checkpoint import v1 as ocp

from anchor_jax.body.charts import CHARTS
from anchor_jax.core.errors import UserError, root_reason
from anchor_jax.core.shapes import NdArray, PyTree, UInt8
from anchor_jax.store.damage import Outcome, judge, raise_damage
from anchor_jax.texture import stored
from anchor_jax.texture.channels import needs_texture
from anchor_jax.texture.stored import Texture
from anchor_jax.video.picture import read_picture

log = logging.getLogger(__name__)

_ARRAYS = ("jax.Array", "np.ndarray")  # what orbax calls them
METRIC = "validation_loss"
VALIDATION = "validation.json"
PARTS = ("vae", "body", "head")  # what a run can train
REFERENCE_IMAGE = "appearance.png"
TEXTURE = "appearance.safetensors"


def read_weights(folder: Path, averaged: bool = True, step: str = "newest") -> tuple[PyTree, int]:
  """Returns the trained weights of a part and the step they are from.

  Reads neither the optimiser's state nor the weights that were not asked for; the arrays are numpy's, so that no device
  needs room for them.

  Args:
    folder: of the part, such as WORKDIR/body.
    averaged: read the averaged weights where there are any.
    step: "newest" (the newest that is not damaged), "best" (with the lowest validation loss), or a number.

  Raises:
    UserError: there is no such checkpoint, or none that can be read.
  """
  for number in _candidates(folder, step):
    try:
      return _read_checkpoint((folder / "checkpoints" / str(number)).absolute(), averaged)
    except Exception as error:
      if step != "newest" or judge(error) is not Outcome.DAMAGED:
        raise UserError(f"checkpoint {number} in {folder} can't be read ({root_reason(error)})") from error
      log.warning("checkpoint %d can't be read (%s); trying the one before", number, root_reason(error))
  raise UserError(f"no readable checkpoint in {folder}: train first (python -m anchor_jax.train --help)")


def newest_step(folder: Path) -> int:
  """The step of the newest checkpoint in a part's folder, whether or not it can be read; 0 where there is none."""
  return max(_steps(folder), default=0)


def _steps(folder: Path) -> list[int]:
  return [int(path.name) for path in (folder / "checkpoints").glob("*") if path.name.isdecimal()]


def _candidates(folder: Path, step: str) -> list[int]:
  """Steps of the checkpoints to try, in this order."""
  steps = sorted(_steps(folder), reverse=True)
  if step == "newest" or not steps:
    return steps
  if step == "best":
    with ocp.training.Checkpointer(str((folder / "checkpoints").absolute())) as manager:
      known = [(loss, step) for step, loss in known_losses(folder, manager.checkpoints).items()]
    if not known:
      raise UserError(f"no checkpoint in {folder} knows its validation loss: train with --config.data.validation=N")
    return [min(known)[1]]
  if not step.isdecimal() or int(step) not in steps:
    raise UserError(f"{folder} has no checkpoint of step {step}: there are {steps}; or say newest or best")
  return [int(step)]


def known_losses(folder: Path, checkpoints: Iterable[Any]) -> dict[int, float]:
  """Returns the validation loss of each checkpoint in a part's folder whose loss is known, by its step.

  Args:
    folder: of the part.
    checkpoints: what orbax lists of them.
  """
  losses = {info.step: float(info.metrics[METRIC]) for info in checkpoints if info.metrics}  # of earlier versions
  steps = {info.step for info in checkpoints}
  try:
    stored = json.loads((folder / VALIDATION).read_text())
    return losses | {int(step): float(loss) for step, loss in stored.items() if int(step) in steps}
  except FileNotFoundError:
    pass  # there was none, or orbax has them
  except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
    log.warning("%s can't be read (%s): no checkpoint in it counts as the best", folder / VALIDATION, error)
  return losses


def _read_checkpoint(path: Path, averaged: bool) -> tuple[PyTree, int]:
  raise_damage(path)
  held = _held(path / "state")
  name = "ema" if averaged and held.get("ema") else "weights"
  context = ocp.Context()
  context.pytree.loading.partial_load = True
  with context:
    state = ocp.load_checkpointables(str(path), {"state": {"step": held["step"], name: held[name]}})["state"]
  return state[name], int(state["step"])


def _held(state: Path) -> PyTree:
  """The tree that a checkpoint holds, with numpy's array type at the leaves, which is what orbax then restores them as.

  Read from orbax's own index: asked through its functions, it opens every array for its shape, the optimiser's too,
  which takes longer than reading the weights.
  """
  tree: PyTree = {}
  for leaf in json.loads((state / "_METADATA").read_text(errors="replace"))["tree_metadata"].values():
    *folders, last = (part["key"] for part in leaf["key_metadata"])
    node = tree
    for folder in folders:
      node = node.setdefault(folder, {})
    node[last] = np.ndarray if leaf["value_metadata"]["value_type"] in _ARRAYS else None  # no average, for example
  return tree


def read_reference_image(folder: Path) -> UInt8[NdArray, "H W 3"] | None:
  """Returns the picture of the person in a part's folder, RGB; None where there is none (the autoencoder has none).

  Raises:
    UserError: the picture is damaged.
  """
  path = folder / REFERENCE_IMAGE
  return read_picture(path) if path.exists() else None


def texture_of_part(folder: Path, kind: str) -> Texture | None:
  """Returns the texture, key frames and room of the person.

  None where config.data.appearance (`kind`) needs none, or where the folder knows no person: it has no picture either.

  Raises:
    UserError: they are missing or damaged.
  """
  path = folder / TEXTURE
  if not needs_texture(kind) or not (path.exists() or (folder / REFERENCE_IMAGE).exists()):
    return None
  if not path.exists():
    raise UserError(f"{path} is missing, which this person needs: start her training again to write it")
  return stored.read_texture(path, CHARTS)
