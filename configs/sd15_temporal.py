"""Body with the 3D temporal blocks on: inflated kernels and attention along time, which change nothing at first.

python -m anchor_jax.train --config=configs/sd15_temporal.py --workdir=runs/in_time --config.data.path=data/people

Examples are clips of 8 frames in a row, and only the temporal blocks are trained: the frame network stays as it was.
--config.only_temporal=False trains all. Cost and result: not measured.
"""

import ml_collections

from anchor_jax.config import DataConfig, MeshConfig, OptimizerConfig, RunConfig, SampleConfig, to_config_dict
from anchor_jax.presets import stable_diffusion_15


def get_config() -> ml_collections.ConfigDict:
  """The run."""
  return to_config_dict(
    RunConfig(
      part="body",
      init="runs/people",
      steps=20000,
      dtype="bfloat16",
      log_every=50,
      checkpoint_every=1000,
      preview_every=1000,
      keep=3,
      model=stable_diffusion_15("body", temporal_kernel=3, temporal_attention=True),
      data=DataConfig(batch_size=4, size=512, crop=256, cache=True, workers=4, clip_frames=8),
      optimizer=OptimizerConfig(learning_rate=1e-5, warmup_steps=500),
      only_temporal=True,
      mesh=MeshConfig(data=1, fsdp=-1),
      sample=SampleConfig("ddim", steps=20, window=16, overlap=4, guidance=7.5, conditioning_scale=2.0),
    )
  )
