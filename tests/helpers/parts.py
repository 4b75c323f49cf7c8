"""Parts of a person with tiny networks and random weights."""

import dataclasses

import jax
import numpy as np
from tiny import tiny_model, weight_shapes

from anchor_jax.config.run import RunConfig, SampleConfig
from anchor_jax.inference.person import Part
from anchor_jax.models.networks import Networks

SAMPLE = SampleConfig("dpm++2m", 2, window=4, overlap=1, guidance=2.0, conditioning_scale=1.0)


def make_part(name: str, dtype: str = "float32") -> Part:
  model = dataclasses.replace(tiny_model(inpaint=name == "head"), refiner=None)  # as for weights without one
  networks, rng = Networks(model, dtype), np.random.default_rng(len(name))
  shapes = weight_shapes(networks)
  weights = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) * 0.2, shapes)
  sample = dataclasses.replace(SAMPLE, window=1, overlap=0, windows_per_batch=4) if name == "head" else SAMPLE
  config = RunConfig(name, model=model, dtype=dtype, sample=sample)
  size = 16 if name == "head" else 32
  return Part(config, networks, weights, 1, rng.integers(0, 256, (size, size, 3), np.uint8))
