"""Fine-tunes the shipped studio weights on one person: minutes on a laptop.

python -m anchor_jax.prepare video.mp4 --output=data/ana
python -m anchor_jax.train --config=configs/studio_finetune.py:body --workdir=runs/ana --config.data.path=data/ana
python -m anchor_jax.train --config=configs/studio_finetune.py:head --workdir=runs/ana --config.data.path=data/ana

The last 32 frames are held out: their loss is printed with every checkpoint, and runs/ana/body/preview.png shows some.
--config.lora.rank=8 --config.optimizer.learning_rate=3e-3 trains only adapters in attention;
`python -m anchor_jax.convert lora runs/ana ana_lora` writes them (under 1 MB) and the texture (1 MB).

The body's pose branch also takes the person's texture, key frames of the film and the background plate, looked up for
each pose, and the refiner paints details from them; they are stored in runs/ana/body/appearance.safetensors. The film
must have been prepared by version 0.2 or later, which writes surface maps. --config.data.pose_channels="" trains
without them; --config.data.pose_channels=full gives the head its crop of them, too.
"""

import ml_collections

from anchor_jax.config.run import DataConfig, OptimizerConfig, RunConfig, SampleConfig, to_config_dict


def get_config(part: str = "body") -> ml_collections.ConfigDict:
  """The settings of the run for one part, "body" or "head"."""
  body = SampleConfig("dpm++2m", steps=1, window=8, overlap=2, guidance=1.0, conditioning_scale=1.0)
  head = SampleConfig(
    "dpm++2m", steps=5, window=1, overlap=0, guidance=1.0, conditioning_scale=1.0, windows_per_batch=16
  )
  return to_config_dict(
    RunConfig(
      part=part,
      init="studio",
      steps=200,
      log_every=10,
      checkpoint_every=50,
      preview_every=100,
      condition_jitter=1,
      detail_weight=4.0 if part == "body" else 1.0,
      sharpness=1.0 if part == "body" else 0.0,
      last_step=0.5 if part == "body" else 0.0,
      data=DataConfig(
        batch_size=8,
        crop=64,
        in_memory=True,
        cache=True,
        validation=32,
        pose_channels="full" if part == "body" else "",
      ),
      optimizer=OptimizerConfig(learning_rate=3e-4, schedule="cosine", warmup_steps=10, ema=0.95),
      sample=head if part == "head" else body,
    )
  )
