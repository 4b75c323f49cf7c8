"""Body with temporal layers: inflated kernels and attention over frames, initialized to leave the output unchanged.

python -m anchor_jax.train --config=configs/sd15_temporal.py --workdir=runs/in_time --config.data.path=data/people

Examples are clips of 8 consecutive frames. Only the temporal layers are trained; --config.only_temporal=False trains
all parameters. Cost and result: not measured.
"""

import dataclasses

import ml_collections

from anchor_jax.config.presets import reference_run
from anchor_jax.config.run import to_config_dict


def get_config() -> ml_collections.ConfigDict:
  """The settings of the run."""
  run = reference_run("body", temporal_kernel=3, temporal_attention=True)
  data = dataclasses.replace(run.data, clip_frames=8)
  return to_config_dict(
    dataclasses.replace(
      run,
      data=data,
      init="runs/people",
      steps=20000,
      only_temporal=True,
      checkpoint_every=1000,
      preview_every=1000,
    )
  )
