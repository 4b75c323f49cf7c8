"""Sharded windows and frames: results equal those of one device, and only overlaps are sent."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anchor_jax.compiler.hlo import collectives
from anchor_jax.config.networks import ScheduleConfig
from anchor_jax.core import sharding as parallel
from anchor_jax.diffusion.distributed import exchanges_overlaps
from anchor_jax.diffusion.sampler import Sampler
from anchor_jax.diffusion.solvers import make_solver
from anchor_jax.diffusion.stream import PreparedBlock, StreamFrame
from anchor_jax.diffusion.windows import WindowRule, plan_group

CONFIG = ScheduleConfig(prediction_type="v_prediction", timestep_spacing="trailing", set_alpha_to_one=True)
SOLVER = make_solver("dpm++2m", CONFIG, 3)
LENGTH = 75
KEYS = jax.random.split(jax.random.key(0), 2)
NOISE, POSE = np.asarray(jax.random.normal(KEYS[0], (2, LENGTH, 2, 8, 2)))  # frames need not be square
CONTEXTS = jax.random.normal(KEYS[1], (2, 3, 4))


def toy(latents, timesteps, context, frame_inputs, frame_mask):
  """A small all-frame attention."""
  tokens = latents.reshape(latents.shape[0], -1, 2)
  keys = jnp.repeat(frame_mask, 16, axis=1)
  logits = jnp.where(keys[:, None], jnp.einsum("bnd,bmd->bnm", tokens, tokens), -1e30)
  mixed = (jax.nn.softmax(logits, -1) @ tokens).reshape(latents.shape)
  return 0.5 * latents + 0.4 * mixed - 0.3 * frame_inputs["pose"] + context.mean((1, 2))[:, None, None, None, None]


@jax.jit
def prepare(block):
  return PreparedBlock(block["noise"], {"pose": block["pose"]})


def run(sampler, mesh, start=0):
  over = dataclasses.replace(sampler, mesh=mesh)
  begin = over.first_frame_needed(start)
  frames = (StreamFrame({"noise": NOISE[i], "pose": POSE[i]}) for i in range(begin, LENGTH))
  blocks = over.stream(toy, frames, prepare, *CONTEXTS, length=LENGTH, start=start)
  return np.concatenate([np.asarray(block.frames) for block in blocks])[start - begin :]


@pytest.mark.parametrize("windows,frames", [(8, 1), (1, 8), (4, 2), (2, 4)])
def test_eight_devices_give_the_frames_of_one(windows, frames):
  sampler, mesh = Sampler(SOLVER, WindowRule(8, 3), 8, guidance=2.0), parallel.sampling_mesh(windows, frames)
  assert exchanges_overlaps(dataclasses.replace(sampler, mesh=mesh).layout, mesh)
  np.testing.assert_allclose(run(sampler, mesh), run(sampler, None), atol=1e-5)


@pytest.mark.parametrize(
  "rule,windows,frames", [(WindowRule(8, 3), 8, 1), (WindowRule(8, 3), 4, 2), (WindowRule(9, 3), 4, 2)]
)
def test_guidance_on_some_steps_on_eight_devices(rule, windows, frames):
  sampler, mesh = Sampler(SOLVER, rule, 8, 2.0, (0.0, 0.9)), parallel.sampling_mesh(windows, frames)
  acts = sampler.solver.sigma <= 0.9
  assert acts.any() and not acts.all()
  one = run(sampler, None)
  np.testing.assert_allclose(run(sampler, mesh), one, atol=1e-5)
  assert (
    np.abs(run(dataclasses.replace(sampler, guidance_interval=(0.0, 1.0)), None) - one).max() > 1e-3
  )  # 100 times the tolerance


@pytest.mark.parametrize(
  "rule,windows,frames",
  [
    (WindowRule(8, 3, "moved_back"), 8, 1),
    (WindowRule(8, 3, "moved_back"), 1, 8),
    (WindowRule(8, 7), 8, 1),  # overlaps longer than a device's shard of a block
    (WindowRule(9, 3), 4, 2),  # an odd number of frames
    (WindowRule(1, 0), 4, 2),  # the head's
  ],
)
def test_other_layouts_shard_windows_by_constraints(rule, windows, frames):
  sampler, mesh = Sampler(SOLVER, rule, 3, guidance=2.0), parallel.sampling_mesh(windows, frames)
  assert not exchanges_overlaps(dataclasses.replace(sampler, mesh=mesh).layout, mesh)
  full = run(sampler, mesh)
  np.testing.assert_allclose(full, run(sampler, None), atol=1e-5)
  np.testing.assert_array_equal(run(sampler, mesh, start=60), full[60:])


@pytest.mark.parametrize("tail", ["ragged", "moved_back", "loop"])
def test_clips_in_memory_use_all_devices(tail):
  sampler, mesh, seen = Sampler(SOLVER, WindowRule(8, 3, tail), 2, guidance=2.0), parallel.sampling_mesh(4, 2), []

  def observed(latents, *rest):
    jax.debug.inspect_array_sharding(latents, callback=lambda sharding: seen.append(sharding))
    return toy(latents, *rest)

  def sample(over, denoise):
    inputs = over.replicate((NOISE, {"pose": POSE}, *CONTEXTS))
    with parallel.use_mesh(over.mesh):
      return np.asarray(jax.jit(lambda *inputs: over.clip(denoise, *inputs))(*inputs))

  over = dataclasses.replace(sampler, mesh=mesh)
  np.testing.assert_allclose(sample(over, observed), sample(sampler, toy), atol=1e-5)
  assert seen and all(sharding.shard_shape((16, 8, 4, 4, 2))[0] == 2 for sharding in seen)  # 8 windows x 2 branches


def test_windows_of_one_frame_need_no_exchange():
  sampler = Sampler(SOLVER, WindowRule(1, 0), 16, guidance=2.0)
  np.testing.assert_allclose(run(sampler, parallel.sampling_mesh(8, 1)), run(sampler, None), atol=1e-5)


def test_neighbors_exchange_only_overlaps():
  sampler = Sampler(SOLVER, WindowRule(8, 3), 8, guidance=2.0, mesh=parallel.sampling_mesh(8, 1))
  branches, block = sampler.branches(*CONTEXTS), jnp.zeros((sampler.layout.block, *NOISE.shape[1:]))
  state = sampler.place_state(sampler.init_state(branches, block, {"pose": block}), jax.device_put)
  block = sampler.place_block(block)
  plans = jax.tree.map(lambda leaf: np.stack([leaf] * 3), plan_group(sampler.rule, 0, 8, None))
  with parallel.use_mesh(sampler.mesh):
    arguments = (branches, state, block, {"pose": block}, plans, (np.int32(0), np.int32(3)))
    leaves, tree = jax.tree.flatten(
      arguments
    )  # lowering would rebuild our dataclasses, whose types are checked, without arrays
    flat = jax.jit(lambda *leaves: sampler.tick(toy, *jax.tree.unflatten(tree, leaves)))
    found = collectives(flat.lower(*leaves).compile().as_text())
  assert found and {one.kind for one in found} == {"collective-permute"}
  frame = int(np.prod(NOISE.shape[1:]))
  assert max(one.elements for one in found) <= 2 * sampler.rule.overlap * frame  # two branches


@pytest.mark.parametrize("tail", ["ragged", "moved_back"])
def test_a_tick_transfers_only_the_motion(tail):
  sampler = Sampler(SOLVER, WindowRule(8, 3, tail), 8, guidance=2.0, mesh=parallel.sampling_mesh(8, 1))
  weights = sampler.replicate(jnp.ones(3))
  denoise = jax.tree_util.Partial(lambda weights, *inputs: weights[0] * toy(*inputs), weights)
  frames = (StreamFrame({"noise": NOISE[i], "pose": POSE[i]}) for i in range(LENGTH))
  stream = sampler.stream(denoise, frames, prepare, *CONTEXTS, length=LENGTH)
  next(stream)
  with jax.transfer_guard("disallow"):  # explicit ones, of the block and the windows' tables, are allowed
    assert sum(map(len, stream)) > 30
