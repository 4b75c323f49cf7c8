"""Turns a trained part of a person into one that samples in a single step: minutes on a laptop.

python -m anchor_jax.train --config=configs/studio_distil.py:head --config.init=runs/ana --workdir=runs/ana_fast \
  --config.data.path=data/ana

`config.init` is the workdir of the trained part; the film is of the same person. There is no teacher network: every
example starts from pure noise, as a single sampling step does. The loss terms are the error of the latent, that of the
decoded picture's pixels and edges, and that of the contrast of its small squares, without which a single step blurs
what is uncertain. The config is meant for the head, which studio_finetune.py:head trains for five steps.
studio_finetune.py:body already trains bodies for one step, which `:body` only continues. For two steps:
--config.sample.steps=2 --config.last_step=0.5. Gains and losses are in results/head.jsonl.
"""

import ml_collections

from anchor_jax.config.run import DataConfig, OptimizerConfig, RunConfig, SampleConfig, to_config_dict
from anchor_jax.core.errors import UserError


def get_config(part: str = "head") -> ml_collections.ConfigDict:
  """The settings of the run for one part, "body" or "head"."""
  if part not in ("body", "head"):
    raise UserError(f'studio_distil.py has no "{part}": give body or head')
  body = SampleConfig("dpm++2m", steps=1, window=8, overlap=2, guidance=1.0, conditioning_scale=1.0)
  head = SampleConfig(
    "dpm++2m", steps=1, window=1, overlap=0, guidance=1.0, conditioning_scale=1.0, windows_per_batch=16
  )
  return to_config_dict(
    RunConfig(
      part=part,
      init="runs/ana",
      steps=150,
      log_every=10,
      checkpoint_every=50,
      preview_every=50,
      condition_jitter=1,
      detail_weight=4.0 if part == "body" else 1.0,
      last_step=1.0,
      zero_snr=True,
      pixels=1.0,
      refined=2 if part == "body" else 8,
      sharpness=1.0,
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
