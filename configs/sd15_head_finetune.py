"""Head, second stage: fine-tunes the head of sd15_head_pretrain.py on one person.

python -m anchor_jax.train --config=configs/sd15_head_finetune.py --workdir=runs/ana --config.data.path=data/ana

Hyperparameters are the reference's: AdamW at 1e-5 after 500 warm-up steps, batch 4, no weight average. Two of its bugs
are fixed by default and can be restored: --config.condition_dropout=0 (it never trains the null context) and
--config.optimizer.clip_networks='("controlnet",)' (it clips the gradients of the pose branch only).
Cost and result: not measured.

--config.lora.rank=8 --config.optimizer.learning_rate=1e-4 trains only adapters in attention (5 MB per part);
`python -m anchor_jax.convert lora runs/ana ana_lora --dtype=float16` writes them.
"""

import dataclasses

import ml_collections

from anchor_jax.config.presets import reference_run
from anchor_jax.config.run import to_config_dict


def get_config() -> ml_collections.ConfigDict:
  """The settings of the run."""
  run = reference_run("head")
  return to_config_dict(
    dataclasses.replace(run, init="runs/people", steps=6000, checkpoint_every=500, preview_every=500)
  )
