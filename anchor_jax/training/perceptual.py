"""The weights of the network that a perceptual loss compares pictures with: LPIPS (`config.lpips`).

A run reads `config.lpips_weights` once and keeps a copy, with a list of its checksum, in WORKDIR/PART/perceptual.
"""

from pathlib import Path

import jax
from safetensors.numpy import save_file

from anchor_jax.config.run import RunConfig
from anchor_jax.core.errors import UserError
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.core.shapes import PyTree
from anchor_jax.evaluation.networks import read_lpips
from anchor_jax.evaluation.published import lpips
from anchor_jax.files.manifest import find_damage, write_list
from anchor_jax.files.outputs import new_file

LPIPS = "lpips"  # beside the names of a run's networks
_FOLDER, _COPY = "perceptual", "lpips.safetensors"


def perceptual_weights(config: RunConfig, size: FrameSize, folder: Path | None = None) -> PyTree:
  """The weights by network's name, to go beside a run's frozen networks; none without config.lpips.

  Args:
    config: settings of the run.
    size: of the frames.
    folder: WORKDIR/PART of a run that has a checkpoint, whose copy is read; None reads config.lpips_weights.

  Raises:
    UserError: there is no such file, it is damaged, it has other tensors, or frames are too small for the network.
  """
  if not config.lpips:
    return {}
  file = Path(config.lpips_weights)
  if folder is not None:
    file = folder / _FOLDER / _COPY
    if damage := find_damage(file.parent):
      raise UserError(f"{file.parent} is damaged ({damage}): copy the workdir again, or train this part again")
  params = read_lpips(file)
  if min(size) < lpips.least_side(params):
    raise UserError(f"config.lpips needs frames of at least {lpips.least_side(params)} pixels, not {size}")
  return {LPIPS: params}


def copy_perceptual_weights(weights: PyTree, folder: Path) -> None:
  """Writes what `perceptual_weights` returned into WORKDIR/PART."""
  if weights:
    place = folder / _FOLDER
    place.mkdir(exist_ok=True)
    with new_file(place / _COPY) as path:
      save_file(jax.device_get(weights[LPIPS]), path)
    write_list(place, _FOLDER)
