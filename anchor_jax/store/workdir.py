"""Reads a trained part's checkpoints, reference image and texture from a workdir.

WORKDIR/body/config.json     the settings the part was trained with
WORKDIR/body/run.json        the model that they requested and the identity of the records, see restart.py
WORKDIR/body/base/           the frozen networks, a folder of models (see roles.py), written once
WORKDIR/body/appearance.png  the reference image
WORKDIR/body/appearance.safetensors  the texture, if config.data.pose_channels needs it
WORKDIR/body/appearance_film.safetensors  the background of the film's full picture, if the prepared folder has one
WORKDIR/head/choice.json      whether the head is used, see inference/head_choice.py
WORKDIR/body/validation.json  the validation loss of checkpoints, by step; earlier versions saved it with orbax
WORKDIR/body/checkpoints/N/  state (weights, optimizer, average, counters) and the loader's position after step N
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
from anchor_jax.store.damage import Outcome, outcome_of, raise_damage
from anchor_jax.texture import stored
from anchor_jax.texture.channels import needs_texture
from anchor_jax.texture.stored import Texture
from anchor_jax.video.picture import read_picture

log = logging.getLogger(__name__)

_ARRAYS = ("jax.Array", "np.ndarray")  # orbax's names of array types
METRIC = "validation_loss"
VALIDATION = "validation.json"
REFERENCE_IMAGE = "appearance.png"
TEXTURE = "appearance.safetensors"


def read_weights(folder: Path, averaged: bool = True, step: str = "newest") -> tuple[PyTree, int]:
  """Returns the trained weights of a part, as numpy arrays, and their step.

  Reads neither the optimizer's state nor the other set of weights, and uses no device memory.

  Args:
    folder: of the part, such as WORKDIR/body.
    averaged: read the averaged weights if there are any.
    step: "newest" (the newest that is not damaged), "best" (with the lowest validation loss), or a number.

  Raises:
    UserError: there is no such checkpoint, or none that can be read.
  """
  for number in _candidates(folder, step):
    try:
      return _read_checkpoint((folder / "checkpoints" / str(number)).absolute(), averaged)
    except Exception as error:
      if step != "newest" or outcome_of(error) is not Outcome.DAMAGED:
        raise UserError(f"checkpoint {number} in {folder} can't be read ({root_reason(error)})") from error
      log.warning("checkpoint %d can't be read (%s); trying the previous one", number, root_reason(error))
  raise UserError(f"no readable checkpoint in {folder}: train first (python -m anchor_jax.train --help)")


def newest_step(folder: Path) -> int:
  """Returns the step of the newest checkpoint in a part's folder, readable or not; 0 without one."""
  return max(_steps(folder), default=0)


def _steps(folder: Path) -> list[int]:
  return [int(path.name) for path in (folder / "checkpoints").glob("*") if path.name.isdecimal()]


def _candidates(folder: Path, step: str) -> list[int]:
  """Returns the steps of the checkpoints to try, in order."""
  steps = sorted(_steps(folder), reverse=True)
  if step == "newest" or not steps:
    return steps
  if step == "best":
    with ocp.training.Checkpointer(str((folder / "checkpoints").absolute())) as manager:
      known = [(loss, step) for step, loss in known_losses(folder, manager.checkpoints).items()]
    if not known:
      raise UserError(f"no checkpoint in {folder} has a validation loss: train with --config.data.validation=N")
    return [min(known)[1]]
  if not step.isdecimal() or int(step) not in steps:
    raise UserError(f"{folder} has no checkpoint of step {step}: choose one of {steps}, newest or best")
  return [int(step)]


def known_losses(folder: Path, checkpoints: Iterable[Any]) -> dict[int, float]:
  """Returns the known validation losses of a part's checkpoints, by step.

  Args:
    folder: of the part.
    checkpoints: orbax's list of them.
  """
  losses = {info.step: float(info.metrics[METRIC]) for info in checkpoints if info.metrics}  # saved by earlier versions
  steps = {info.step for info in checkpoints}
  try:
    stored = json.loads((folder / VALIDATION).read_text())
    return losses | {int(step): float(loss) for step, loss in stored.items() if int(step) in steps}
  except FileNotFoundError:
    pass  # none was computed, or orbax has them
  except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
    log.warning("%s can't be read (%s): its losses are ignored", folder / VALIDATION, error)
  return losses


def _read_checkpoint(path: Path, averaged: bool) -> tuple[PyTree, int]:
  raise_damage(path)
  tree = _stored_tree(path / "state")
  name = "ema" if averaged and tree.get("ema") else "weights"
  context = ocp.Context()
  context.pytree.loading.partial_load = True
  with context:
    state = ocp.load_checkpointables(str(path), {"state": {"step": tree["step"], name: tree[name]}})["state"]
  return state[name], int(state["step"])


def _stored_tree(state: Path) -> PyTree:
  """Returns the tree of a checkpoint with numpy's array type at its leaves, which makes orbax restore numpy arrays.

  It is read from orbax's own index. orbax's functions would open every array for its shape, the optimizer's too, which
  takes longer than reading the weights.
  """
  tree: PyTree = {}
  for leaf in json.loads((state / "_METADATA").read_text(errors="replace"))["tree_metadata"].values():
    *folders, last = (part["key"] for part in leaf["key_metadata"])
    node = tree
    for folder in folders:
      node = node.setdefault(folder, {})
    node[last] = np.ndarray if leaf["value_metadata"]["value_type"] in _ARRAYS else None  # such as a missing average
  return tree


def read_reference_image(folder: Path) -> UInt8[NdArray, "H W 3"] | None:
  """Returns the reference image in a part's folder, RGB; None without one (the autoencoder has none).

  Raises:
    UserError: the image is damaged.
  """
  path = folder / REFERENCE_IMAGE
  return read_picture(path) if path.exists() else None


def texture_of_part(folder: Path, kind: str) -> Texture | None:
  """Returns the texture of the person in a part's folder.

  None if config.data.pose_channels (`kind`) needs none, or if the folder has weights without a person, and so no
  reference image either.

  Raises:
    UserError: the texture is missing or damaged.
  """
  path = folder / TEXTURE
  if not needs_texture(kind) or not (path.exists() or (folder / REFERENCE_IMAGE).exists()):
    return None
  if not path.exists():
    raise UserError(f"{path} is missing, which this person needs: restart the training to write it")
  return stored.read_texture(path, CHARTS)
