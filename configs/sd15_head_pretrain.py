"""Head, first stage: trains Stable Diffusion 1.5's inpainting model on many people's faces, crops of 256 pixels.

python -m anchor_jax.train --config=configs/sd15_head_pretrain.py --workdir=runs/people --config.data.path=data/people

Hyperparameters are the reference's: AdamW at 1e-5 after 500 warm-up steps, batch 4, no weight average. Two of its bugs
are fixed by default and can be restored: --config.condition_dropout=0 (it never trains the null context) and
--config.optimizer.clip_networks='("controlnet",)' (it clips the gradients of the pose branch only).
models/sd15 must have head/unet, which the convert command in sd15_body_pretrain.py writes.
Cost and result: not measured.
"""

import dataclasses

import ml_collections

from anchor_jax.config.presets import reference_run
from anchor_jax.config.run import to_config_dict


def get_config() -> ml_collections.ConfigDict:
  """The settings of the run."""
  run = reference_run("head")
  return to_config_dict(
    dataclasses.replace(run, init="models/sd15", steps=600000, checkpoint_every=5000, preview_every=5000)
  )
