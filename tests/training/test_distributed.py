"""The real networks over eight devices: windows, frames of a window, and both."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anchor_jax import parallel
from anchor_jax.diffusion.distributed import distribute_windows
from anchor_jax.diffusion.guidance import make_branches
from anchor_jax.diffusion.solvers import make_solver
from anchor_jax.diffusion.stream import StreamLayout, init_stream, make_tick, stream_clip
from anchor_jax.diffusion.windows import WindowRule
from anchor_jax.models import attention
from anchor_jax.models.networks import Networks

LENGTH = 21


@pytest.fixture(scope="module")
def run(tiny_runs):
  """run(mesh) -> latents of a clip with temporal blocks and a pose branch that matters."""
  config = tiny_runs("body")
  networks = Networks(config.model)
  weights = jax.jit(networks.init)(jax.random.key(0))
  stir = lambda leaf: leaf + 0.2 * jax.random.normal(jax.random.key(leaf.size), leaf.shape)
  weights["controlnet"] = jax.tree.map(stir, weights["controlnet"])
  solver, layout = make_solver("ddim", config.model.schedule, 2), StreamLayout(WindowRule(4, 1), 2, together=8)
  branches = make_branches(jnp.ones_like(weights["null_context"]), weights["null_context"], 2.0)
  noise, pose = np.asarray(jax.random.normal(jax.random.key(1), (2, LENGTH, 8, 8, 8)))

  def prepare(block):
    return jnp.asarray(block["noise"][..., :2]), {"pose": jnp.asarray(block["pose"])}

  def latents(mesh):
    predict = None if mesh is None else distribute_windows(layout, mesh)

    @jax.jit
    def tick(weights, state, *rest):
      denoise = lambda *inputs: networks.denoise(weights, *inputs)
      return make_tick(denoise, solver, layout, branches, predict)(state, *rest)

    block = {
      "noise": np.zeros((layout.block, 8, 8, 8), np.float32),
      "pose": np.zeros((layout.block, 8, 8, 8), np.float32),
    }
    state = init_stream(layout, 2, *prepare(block))
    frames = ({"noise": noise[i], "pose": pose[i]} for i in range(LENGTH))
    with parallel.use_mesh(mesh):
      pieces = stream_clip(lambda *rest: tick(weights, *rest), layout, state, frames, prepare)
      return np.concatenate([np.asarray(piece) for _, piece in pieces])

  return latents


@pytest.mark.parametrize("windows,frames", [(2, 4), pytest.param(8, 1, marks=pytest.mark.slow)])
def test_eight_devices_give_the_frames_of_one(run, windows, frames, monkeypatch):
  alone = run(None)
  assert np.abs(alone).max() > 0.1
  monkeypatch.setattr(attention, "_PLAIN_LOGITS", 2**10)  # so that attention over frames goes through a kernel
  np.testing.assert_allclose(run(parallel.sampling_mesh(windows, frames)), alone, atol=1e-5)
