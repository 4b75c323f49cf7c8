"""Latents of the real networks on eight devices, with attention in kernels; inference/test_person.py tests frames."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import drawn_weights

from anchor_jax.core import sharding
from anchor_jax.diffusion.sampler import Sampler
from anchor_jax.diffusion.solvers import make_solver
from anchor_jax.diffusion.stream import PreparedBlock, StreamFrame
from anchor_jax.diffusion.windows import WindowRule
from anchor_jax.models import attention
from anchor_jax.models.controlnet import FrameInputs
from anchor_jax.models.networks import Networks

LENGTH = 21


@pytest.fixture(scope="module")
def run(tiny_runs):
  """run(mesh) -> latents of a clip, with an effective pose branch."""
  config = tiny_runs("body")
  networks = Networks(config.model)
  weights = jax.device_put(drawn_weights(networks))
  stir = lambda leaf: leaf + 0.2 * jax.random.normal(jax.random.key(leaf.size), leaf.shape)
  weights["controlnet"] = jax.tree.map(stir, weights["controlnet"])
  sampler = Sampler(make_solver("ddim", config.model.schedule, 2), WindowRule(4, 1), 8, guidance=2.0)
  contexts = jnp.ones_like(weights["null_context"]), weights["null_context"]
  noise, pose = np.asarray(jax.random.normal(jax.random.key(1), (2, LENGTH, 8, 8, 8)))

  @jax.jit
  def prepare(block):
    return PreparedBlock(block["noise"][..., :2], FrameInputs(block["pose"]))

  def latents(mesh):
    over = dataclasses.replace(sampler, mesh=mesh)
    frames = (StreamFrame({"noise": noise[i], "pose": pose[i]}) for i in range(LENGTH))
    denoise = jax.tree_util.Partial(networks.denoise, over.replicate(weights))
    blocks = over.stream(denoise, frames, prepare, *contexts)
    return np.concatenate([np.asarray(block.frames) for block in blocks])

  return latents


@pytest.mark.slow
@pytest.mark.parametrize("windows,frames", [(2, 4), (8, 1)])
def test_eight_devices_give_the_latents_of_one(run, windows, frames, monkeypatch):
  alone = run(None)
  assert np.abs(alone).max() > 0.1
  monkeypatch.setattr(attention, "_CPU_PLAIN_LOGITS", 2**8)  # so that attention over frames uses a kernel
  np.testing.assert_allclose(run(sharding.sampling_mesh(windows, frames)), alone, atol=1e-5)
