"""Fine-tunes the shipped studio weights on one person at 512 pixels.

python -m anchor_jax.prepare video.mp4 --output=data/ana --size=512
python -m anchor_jax.train --config=configs/studio_512.py --workdir=runs/ana --config.data.path=data/ana

The diffusion networks see the frames at 128 pixels, as in studio_finetune.py. The refiner decides at 256 pixels which
colors of the person's texture and key frames to take, and takes them at 512. `make real FILM=video.mp4 SIZE=512` runs
all steps on a film, and compares the result with the part of it that is held out.
"""

import dataclasses

import ml_collections

from anchor_jax.config.find import load_config
from anchor_jax.config.pixels import RefinerConfig
from anchor_jax.config.run import ModelConfig, to_config_dict
from anchor_jax.core.errors import UserError


def get_config(part: str = "body") -> ml_collections.ConfigDict:
  """The settings of the run; the only part is "body"."""
  if part != "body":
    raise UserError(f'studio_512.py has no "{part}": it trains the body alone')
  smaller = load_config("studio_256.py:body")
  return to_config_dict(
    dataclasses.replace(
      smaller,
      steps=200,
      model=ModelConfig(refiner=RefinerConfig(scale=4, decide_at=2)),
      data=dataclasses.replace(smaller.data, batch_size=4),
    )
  )
