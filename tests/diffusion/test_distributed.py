"""Windows and frames over devices: the frames of one device, and only overlaps travel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anchor_jax import parallel
from anchor_jax.architecture import ScheduleConfig
from anchor_jax.diffusion.distributed import distribute_windows
from anchor_jax.diffusion.guidance import make_branches
from anchor_jax.diffusion.solvers import make_solver
from anchor_jax.diffusion.stream import StreamLayout, init_stream, make_tick, stream_clip
from anchor_jax.diffusion.windows import WindowRule, plan_group
from anchor_jax.errors import UserError
from anchor_jax.training.hlo import collectives

CONFIG = ScheduleConfig(prediction_type="v_prediction", timestep_spacing="trailing", set_alpha_to_one=True)
SOLVER = make_solver("dpm++2m", CONFIG, 3)
LENGTH = 75
KEYS = jax.random.split(jax.random.key(0), 2)
NOISE, POSE = np.asarray(jax.random.normal(KEYS[0], (2, LENGTH, 4, 4, 2)))
BRANCHES = make_branches(*jax.random.normal(KEYS[1], (2, 3, 4)), 2.0)


def toy(latents, timesteps, context, condition, frame_mask):
  """All-frame attention in small."""
  tokens = latents.reshape(latents.shape[0], -1, 2)
  keys = jnp.repeat(frame_mask, 16, axis=1)
  logits = jnp.where(keys[:, None], jnp.einsum("bnd,bmd->bnm", tokens, tokens), -1e30)
  mixed = (jax.nn.softmax(logits, -1) @ tokens).reshape(latents.shape)
  return 0.5 * latents + 0.4 * mixed - 0.3 * condition["pose"] + context.mean((1, 2))[:, None, None, None, None]


def tick_of(layout, mesh):
  predict = None if mesh is None else distribute_windows(layout, mesh)
  return jax.jit(make_tick(toy, SOLVER, layout, BRANCHES, predict))


def run(layout, mesh):
  block = jax.ShapeDtypeStruct((layout.block, *NOISE.shape[1:]), jnp.float32)
  state = init_stream(layout, 2, block, {"pose": block})
  frames = ({"noise": NOISE[i], "pose": POSE[i]} for i in range(LENGTH))
  prepare = lambda items: (jnp.asarray(items["noise"]), {"pose": jnp.asarray(items["pose"])})
  with parallel.use_mesh(mesh):
    pieces = [np.asarray(p) for _, p in stream_clip(tick_of(layout, mesh), layout, state, frames, prepare)]
  return np.concatenate(pieces)


@pytest.mark.parametrize("windows,frames", [(8, 1), (1, 8), (4, 2), (2, 4)])
def test_eight_devices_give_the_frames_of_one(windows, frames):
  layout = StreamLayout(WindowRule(8, 3), 3, together=8)
  spread = run(layout, parallel.sampling_mesh(windows, frames))
  np.testing.assert_allclose(spread, run(layout, None), atol=1e-5)


def test_windows_of_one_frame_need_no_neighbour():
  layout = StreamLayout(WindowRule(1, 0), 3, together=16)
  np.testing.assert_allclose(run(layout, parallel.sampling_mesh(8, 1)), run(layout, None), atol=1e-5)


def test_only_overlaps_travel_between_neighbours():
  rule = WindowRule(8, 3)
  layout, mesh = StreamLayout(rule, 3, together=8), parallel.sampling_mesh(8, 1)
  over = lambda leaf, *axes: jax.device_put(leaf, jax.NamedSharding(mesh, jax.P(*axes, parallel.DATA)))
  block = jnp.zeros((layout.block, *NOISE.shape[1:]))
  state = init_stream(layout, 2, block, {"pose": block})
  state = jax.tree.map(lambda leaf: over(leaf, *[None] * (leaf.ndim - 4)), state)  # the axis before H, W and C
  plans = jax.tree.map(lambda leaf: np.stack([leaf] * 3), plan_group(rule, 0, 8, None))
  with parallel.use_mesh(mesh):
    arguments = (state, over(block), {"pose": over(block)}, plans, (np.int32(0), np.int32(3)))
    leaves, tree = jax.tree.flatten(arguments)  # our own trees would have their types checked as they are lowered
    flat = jax.jit(lambda *leaves: tick_of(layout, mesh)(*jax.tree.unflatten(tree, leaves)))
    found = collectives(flat.lower(*leaves).compile().as_text())
  assert found and {one.kind for one in found} == {"collective-permute"}
  frame = int(np.prod(NOISE.shape[1:]))
  assert max(one.elements for one in found) <= 2 * rule.overlap * frame  # two branches


def test_refuses_what_cannot_be_shared():
  mesh = parallel.sampling_mesh(8, 1)
  for layout, message in (
    (StreamLayout(WindowRule(8, 3), 3, together=4), "use a multiple"),
    (StreamLayout(WindowRule(8, 3, "moved_back"), 3, together=8), "ragged"),
    (StreamLayout(WindowRule(8, 7), 3, together=8), "more windows at once"),
  ):
    with pytest.raises(UserError, match=message):
      distribute_windows(layout, mesh)
  with pytest.raises(UserError, match="equal parts"):
    distribute_windows(StreamLayout(WindowRule(9, 3), 3), parallel.sampling_mesh(1, 2))
