"""Body, first stage: Stable Diffusion 1.5 and its pose branch learn many people at 512 pixels.

python -m anchor_jax.convert from-diffusers sd15 models/sd15 --image-encoder=clip-vit-base-patch32 --head=sd15-inpaint
python -m anchor_jax.train --config=configs/sd15_body_pretrain.py --workdir=runs/people --config.data.path=data/people

The numbers are the reference's: AdamW at 1e-5 after 500 steps of warm-up, batches of 4, no average of the weights.
Where the reference is flawed, ours is right by default, and its way is a key away: --config.condition_dropout=0 (it
learns no null branch) and --config.optimizer.clip_networks='("controlnet",)' (it clips the pose branch alone).
600,000 steps are its 60 epochs over 40,000 frames. Whether a pod holds it: --aot=v5e:4x4 --config.data.batch_size=128
(docs/measurements.md has the answers). On more than 16 chips give --config.mesh.data=-1 --config.mesh.fsdp=16 too,
which cuts every kernel evenly. Cost and result: not measured.
"""

import dataclasses

import ml_collections

from anchor_jax.config import to_config_dict
from anchor_jax.presets import reference_run


def get_config() -> ml_collections.ConfigDict:
  """The run."""
  run = reference_run("body")
  return to_config_dict(
    dataclasses.replace(run, init="models/sd15", steps=600000, checkpoint_every=5000, preview_every=5000)
  )
