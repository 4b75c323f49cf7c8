"""Body, first stage: Stable Diffusion 1.5 and its pose branch learn many people at 512 pixels.

python -m anchor_jax.convert from-diffusers sd15 models/sd15 --image-encoder=clip-vit-base-patch32 --head=sd15-inpaint
python -m anchor_jax.train --config=configs/sd15_body_pretrain.py --workdir=runs/people --config.data.path=data/people

The numbers are the reference's: AdamW at 1e-5 after 500 steps of warm-up, batches of 4, no average of the weights.
Where the reference is flawed, ours is right by default, and its way is a key away: --config.condition_dropout=0 (it
learns no null branch) and --config.optimizer.clip_networks='("controlnet",)' (it clips the pose branch alone).
600,000 steps are its 60 epochs over 40,000 frames. Whether a pod holds it: add --aot=v5e:4x4 (BUILD_NOTES.md has the
answers). Cost and result: not measured.
"""

import ml_collections

from anchor_jax.config import DataConfig, MeshConfig, OptimizerConfig, RunConfig, SampleConfig, to_config_dict
from anchor_jax.presets import stable_diffusion_15


def get_config() -> ml_collections.ConfigDict:
  """The run."""
  return to_config_dict(
    RunConfig(
      part="body",
      init="models/sd15",
      steps=600000,
      dtype="bfloat16",
      log_every=50,
      checkpoint_every=5000,
      preview_every=5000,
      keep=3,
      model=stable_diffusion_15("body"),
      data=DataConfig(batch_size=4, size=512, crop=256, cache=True, workers=4),
      optimizer=OptimizerConfig(learning_rate=1e-5, warmup_steps=500),
      mesh=MeshConfig(data=1, fsdp=-1),
      sample=SampleConfig("ddim", steps=20, window=16, overlap=4, guidance=7.5, conditioning_scale=2.0),
    )
  )
