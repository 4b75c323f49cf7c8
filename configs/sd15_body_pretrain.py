"""Body, first stage: trains Stable Diffusion 1.5 and its pose branch on many people at 512 pixels.

python -m anchor_jax.convert from-diffusers sd15 models/sd15 --image-encoder=clip-vit-base-patch32 --head=sd15-inpaint
python -m anchor_jax.train --config=configs/sd15_body_pretrain.py --workdir=runs/people --config.data.path=data/people

Hyperparameters are the reference's: AdamW at 1e-5 after 500 warm-up steps, batch 4, no weight average. Two of its bugs
are fixed by default and can be restored: --config.condition_dropout=0 (it never trains the null context) and
--config.optimizer.clip_networks='("controlnet",)' (it clips the gradients of the pose branch only).
600,000 steps are the reference's 60 epochs over 40,000 frames. --aot=v5e:4x4 --config.data.batch_size=128 reports
whether the run fits a pod's memory (results in results/tpu-fit.jsonl). On more than 16 chips also give
--config.mesh.data=-1 --config.mesh.fsdp=16: an fsdp size of 16 divides every large kernel. If memory is short,
--config.model.unet.remat=attention --config.model.controlnet.remat=attention (or True) save less for the backward pass
than the default, products. Cost and result: not measured.
"""

import dataclasses

import ml_collections

from anchor_jax.config.presets import reference_run
from anchor_jax.config.run import to_config_dict


def get_config() -> ml_collections.ConfigDict:
  """The settings of the run."""
  run = reference_run("body")
  return to_config_dict(
    dataclasses.replace(run, init="models/sd15", steps=600000, checkpoint_every=5000, preview_every=5000)
  )
