"""Fine-tunes the shipped studio weights on one person at 256 pixels: a quarter of an hour on a laptop.

python -m anchor_jax.prepare video.mp4 --output=data/ana --size=256
python -m anchor_jax.train --config=configs/studio_256.py --workdir=runs/ana --config.data.path=data/ana

The diffusion networks see the frames at 128 pixels, as in studio_finetune.py. The refiner paints 256 pixels from their
output and from the person's texture and key frames, which are looked up at full size. There is no head for this size.
`make demo-256` runs all steps, from a film of a studio person to a new video of that person.
"""

import ml_collections

from anchor_jax.config.pixels import RefinerConfig
from anchor_jax.config.run import DataConfig, ModelConfig, OptimizerConfig, RunConfig, SampleConfig, to_config_dict
from anchor_jax.core.errors import UserError


def get_config(part: str = "body") -> ml_collections.ConfigDict:
  """The settings of the run; the only part is "body"."""
  if part != "body":
    raise UserError(f'studio_256.py has no "{part}": it trains the body alone')
  return to_config_dict(
    RunConfig(
      init="studio",
      steps=400,
      log_every=10,
      checkpoint_every=100,
      preview_every=200,
      condition_jitter=1,
      detail_weight=4.0,
      last_step=0.5,
      sharpness=1.0,
      model=ModelConfig(refiner=RefinerConfig(scale=2)),
      data=DataConfig(batch_size=8, in_memory=True, cache=True, validation=32, pose_channels="full"),
      optimizer=OptimizerConfig(learning_rate=3e-4, schedule="cosine", warmup_steps=10, ema=0.95),
      sample=SampleConfig("dpm++2m", steps=1, window=8, overlap=2, guidance=1.0, conditioning_scale=1.0),
    )
  )
