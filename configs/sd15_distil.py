"""Turns a part of Stable Diffusion's size, trained on one person, into one that samples in a single step.

python -m anchor_jax.train --config=configs/sd15_distil.py:body --config.init=runs/ana --workdir=runs/ana_fast \
  --config.data.path=data/ana

`config.init` is the workdir of sd15_body_finetune.py or sd15_head_finetune.py. Its networks predict noise on a schedule
whose noisiest step still holds some signal. A single step from there is inaccurate, since its prediction is divided by
that small signal. config.zero_snr therefore trains velocity prediction on the same schedule rescaled to end at pure
noise (Lin et al. 2024), where the velocity is the negative picture. No formula converts one kind of network into the
other: they learn it here from examples that all start from pure noise, so that this takes more steps than
studio_distil.py, which has the same loss. Guidance and the doubled pose branch of the reference are left out, since
training uses neither. Cost and result: not measured.
"""

import dataclasses

import ml_collections

from anchor_jax.config.presets import reference_run
from anchor_jax.config.run import to_config_dict
from anchor_jax.core.errors import UserError


def get_config(part: str = "body") -> ml_collections.ConfigDict:
  """The settings of the run for one part, "body" or "head"."""
  if part not in ("body", "head"):
    raise UserError(f'sd15_distil.py has no "{part}": give body or head')
  run = reference_run(part)
  return to_config_dict(
    dataclasses.replace(
      run,
      init="runs/ana",
      steps=2000,
      checkpoint_every=500,
      preview_every=500,
      last_step=1.0,
      zero_snr=True,
      pixels=1.0,
      refined=1,
      sharpness=1.0,
      sample=dataclasses.replace(run.sample, solver="dpm++2m", steps=1, guidance=1.0, conditioning_scale=1.0),
    )
  )
