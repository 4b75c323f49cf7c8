"""The weights of the network that a perceptual loss compares pictures with: LPIPS (`config.lpips`)."""

from pathlib import Path

import jax
from safetensors.numpy import save_file

from anchor_jax.config.run import RunConfig
from anchor_jax.core.errors import UserError
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.core.shapes import PyTree
from anchor_jax.evaluation.networks import read_lpips
from anchor_jax.evaluation.published import lpips
from anchor_jax.files.outputs import new_file

LPIPS = "lpips"  # beside the names of a run's networks
COPY = "lpips.safetensors"  # in the part's folder of a workdir


def perceptual_weights(config: RunConfig, size: FrameSize, folder: Path | None = None) -> PyTree:
  """The weights by network's name, to go beside a run's frozen networks; none without config.lpips.

  Args:
    config: settings of the run.
    size: of the frames.
    folder: of the part in a workdir, whose copy is read if there is one.

  Raises:
    UserError: there is no such file, it has other tensors, or frames are too small for the network.
  """
  if not config.lpips:
    return {}
  copy = None if folder is None else folder / COPY
  params = read_lpips(copy if copy is not None and copy.exists() else Path(config.lpips_weights))
  if min(size) < lpips.least_side(params):
    raise UserError(f"config.lpips needs frames of at least {lpips.least_side(params)} pixels, not {size}")
  return {LPIPS: params}


def copy_perceptual_weights(weights: PyTree, folder: Path) -> None:
  """Writes what `perceptual_weights` returned into the part's folder, unless it is there."""
  if weights and not (folder / COPY).exists():
    with new_file(folder / COPY) as path:
      save_file(jax.device_get(weights[LPIPS]), path)
