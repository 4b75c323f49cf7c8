"""Body, second stage: one person, from the body that learned many.

python -m anchor_jax.train --config=configs/sd15_body_finetune.py --workdir=runs/ana --config.data.path=data/ana

The numbers are the reference's: AdamW at 1e-5 after 500 steps of warm-up, batches of 4, no average of the weights.
Where the reference is flawed, ours is right by default, and its way is a key away: --config.condition_dropout=0 (it
learns no null branch) and --config.optimizer.clip_networks='("controlnet",)' (it clips the pose branch alone).
6,000 steps are some 15 epochs over a minute of film at 25 frames a second. --config.init=models/sd15 starts from Stable
Diffusion itself. Cost and result: not measured.

A person in 5 MB a part: --config.lora.rank=8 --config.optimizer.learning_rate=1e-4 trains adapters in attention and
leaves the networks as they are; `python -m anchor_jax.convert lora runs/ana ana_lora --dtype=float16` writes them.
"""

import dataclasses

import ml_collections

from anchor_jax.config import to_config_dict
from anchor_jax.presets import reference_run


def get_config() -> ml_collections.ConfigDict:
  """The run."""
  run = reference_run("body")
  return to_config_dict(
    dataclasses.replace(run, init="runs/people", steps=6000, checkpoint_every=500, preview_every=500)
  )
