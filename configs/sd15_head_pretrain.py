"""Head, first stage: Stable Diffusion 1.5's inpainting twin learns many faces, crops of 256 pixels.

python -m anchor_jax.train --config=configs/sd15_head_pretrain.py --workdir=runs/people --config.data.path=data/people

The numbers are the reference's: AdamW at 1e-5 after 500 steps of warm-up, batches of 4, no average of the weights.
Where the reference is flawed, ours is right by default, and its way is a key away: --config.condition_dropout=0 (it
learns no null branch) and --config.optimizer.clip_networks='("controlnet",)' (it clips the pose branch alone).
models/sd15 must hold head/unet: see sd15_body_pretrain.py. Cost and result: not measured.
"""

import dataclasses

import ml_collections

from anchor_jax.config import to_config_dict
from anchor_jax.presets import reference_run


def get_config() -> ml_collections.ConfigDict:
  """The run."""
  run = reference_run("head")
  return to_config_dict(
    dataclasses.replace(run, init="models/sd15", steps=600000, checkpoint_every=5000, preview_every=5000)
  )
