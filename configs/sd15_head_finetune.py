"""Head, second stage: one person's face, from the head that learned many.

python -m anchor_jax.train --config=configs/sd15_head_finetune.py --workdir=runs/ana --config.data.path=data/ana

The numbers are the reference's: AdamW at 1e-5 after 500 steps of warm-up, batches of 4, no average of the weights.
Where the reference is flawed, ours is right by default, and its way is a key away: --config.condition_dropout=0 (it
learns no null branch) and --config.optimizer.clip_networks='("controlnet",)' (it clips the pose branch alone).
Cost and result: not measured.
"""

import ml_collections

from anchor_jax.config import DataConfig, MeshConfig, OptimizerConfig, RunConfig, SampleConfig, to_config_dict
from anchor_jax.presets import stable_diffusion_15


def get_config() -> ml_collections.ConfigDict:
  """The run."""
  return to_config_dict(
    RunConfig(
      part="head",
      init="runs/people",
      steps=6000,
      dtype="bfloat16",
      log_every=50,
      checkpoint_every=500,
      preview_every=500,
      keep=3,
      model=stable_diffusion_15("head"),
      data=DataConfig(batch_size=4, size=512, crop=256, cache=True, workers=4),
      optimizer=OptimizerConfig(learning_rate=1e-5, warmup_steps=500),
      mesh=MeshConfig(data=1, fsdp=-1),
      sample=SampleConfig(
        "ddim", steps=20, window=1, overlap=0, guidance=3.5, conditioning_scale=1.0, windows_per_batch=30
      ),
    )
  )
