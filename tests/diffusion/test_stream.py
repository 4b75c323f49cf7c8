"""The stream gives the whole clip's frames: all lengths, tails, weights, solvers, groups, and from the middle on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anchor_jax.architecture import ScheduleConfig
from anchor_jax.diffusion.guidance import make_branches
from anchor_jax.diffusion.sampler import sample_clip
from anchor_jax.diffusion.solvers import SOLVERS, make_solver
from anchor_jax.diffusion.stream import StreamLayout, init_stream, make_tick, stream_clip
from anchor_jax.diffusion.windows import WindowRule, pad_windows, plan_windows
from anchor_jax.errors import UserError

CONFIG = ScheduleConfig(prediction_type="v_prediction", timestep_spacing="trailing", set_alpha_to_one=True)
LONGEST = 200
KEYS = jax.random.split(jax.random.key(0), 4)
NOISE, POSE = np.asarray(jax.random.normal(KEYS[0], (2, LONGEST + 16, 1, 2, 2)))
CONTEXT, NULL = jax.random.normal(KEYS[1], (2, 3, 4))


def toy(latents, timesteps, context, condition, frame_mask):
  """Mixes each frame with its window's real ones, by place too, as a video network would."""
  mask = frame_mask[:, :, None, None, None]
  place = jnp.cos(jnp.arange(latents.shape[1]))[None, :, None, None, None]
  mean = (latents * mask * (1 + 0.3 * place)).sum(axis=1, keepdims=True) / mask.sum(axis=1, keepdims=True)
  told = context.mean(axis=(1, 2))[:, None, None, None, None] * 0.1 * jnp.cos(timesteps / 100.0).reshape(-1, 1, 1, 1, 1)
  return 0.6 * latents + 0.3 * mean * place - 0.3 * condition["pose"] + told


@functools.cache
def programs(rule, together, steps, solver_name, guidance):
  """(whole-clip sampler for all lengths, layout, jitted tick, empty state)"""
  solver, branches = make_solver(solver_name, CONFIG, steps), make_branches(CONTEXT, NULL, guidance)
  whole = jax.jit(
    lambda plan: sample_clip(toy, solver, plan, jnp.asarray(NOISE), branches, {"pose": jnp.asarray(POSE)})
  )
  if rule.tail == "loop":
    return whole
  layout = StreamLayout(rule, steps, together)
  tick = jax.jit(make_tick(toy, solver, layout, branches))
  block = jax.ShapeDtypeStruct((layout.block, *NOISE.shape[1:]), jnp.float32)
  return whole, layout, tick, init_stream(layout, len(branches), block, {"pose": block})


def streamed(rule, together, steps, solver_name, guidance, length, start=0):
  _, layout, tick, state = programs(rule, together, steps, solver_name, guidance)
  first_block = layout.warm_up(start)
  begin = max(0, layout.first_frame(first_block))
  frames = ({"noise": NOISE[i], "pose": POSE[i]} for i in range(begin, length))
  prepare = lambda block: (jnp.asarray(block["noise"]), {"pose": jnp.asarray(block["pose"])})
  known = length if rule.tail == "moved_back" else None
  at, pieces = begin, []
  for first, piece in stream_clip(tick, layout, state, frames, prepare, known, first_block):
    assert first == at and 0 < len(piece) <= layout.block
    at += len(piece)
    pieces.append(np.asarray(piece))
  assert at == length
  return np.concatenate(pieces)[start - begin :]


def whole_clip(rule, together, steps, solver_name, guidance, length):
  rows = -(-LONGEST // rule.stride)
  plan = pad_windows(plan_windows(rule, length), rows)
  return np.asarray(programs(rule, together, steps, solver_name, guidance)[0](plan))[:length]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("tail", ["ragged", "moved_back"])
def test_equals_the_whole_clip_for_every_length(solver, tail):
  settings = (WindowRule(5, 2, tail), 2, 4, solver, 2.0)
  for length in range(1, LONGEST + 1):
    np.testing.assert_allclose(streamed(*settings, length), whole_clip(*settings, length), atol=1e-5)


@pytest.mark.parametrize(
  "rule,together",
  [
    (WindowRule(4, 1), 1),
    (WindowRule(5, 4), 1),  # a window reaches four ahead
    (WindowRule(5, 4), 3),
    (WindowRule(6, 4, "moved_back"), 1),
    (WindowRule(7, 4, "moved_back", "tapered"), 2),
    (WindowRule(6, 2, "ragged", "tapered"), 4),
    (WindowRule(1, 0), 8),  # the head's
    (WindowRule(4, 0), 1),
  ],
)
def test_equals_the_whole_clip_for_every_layout(rule, together):
  settings = (rule, together, 3, "dpm++2m", 1.0)
  for length in (1, 2, 5, 11, 24, 60):
    np.testing.assert_allclose(streamed(*settings, length), whole_clip(*settings, length), atol=1e-5)


@pytest.mark.parametrize("tail", ["ragged", "moved_back"])
def test_goes_on_from_the_middle_bit_for_bit(tail):
  settings = (WindowRule(5, 2, tail), 2, 3, "dpm++2m", 2.0)
  whole = streamed(*settings, 100)
  for start in (1, 33, 70, 99):
    np.testing.assert_array_equal(streamed(*settings, 100, start), whole[start:])


def test_holds_few_frames_and_takes_in_no_more_than_it_must():
  rule, steps = WindowRule(16, 4), 20
  layout = StreamLayout(rule, steps)
  assert layout.live_frames == 480 and layout.depth == 2
  _, small, tick, state = programs(WindowRule(4, 1), 1, 3, "dpm++2m", 1.0)
  taken = []

  def live():
    for i in range(60):
      taken.append(i)
      yield {"noise": NOISE[i], "pose": POSE[i]}

  prepare = lambda block: (jnp.asarray(block["noise"]), {"pose": jnp.asarray(block["pose"])})
  for first, piece in stream_clip(tick, small, state, live(), prepare):
    assert len(taken) <= first + len(piece) + small.live_frames


def test_empty_levels_cost_nothing():
  calls = []

  def counting(latents, *rest):
    jax.debug.callback(lambda _: calls.append(1), latents[0, 0, 0, 0, 0])
    return toy(latents, *rest)

  rule, steps, length = WindowRule(4, 1), 6, 7  # three windows, six levels
  solver, branches, layout = make_solver("ddim", CONFIG, steps), make_branches(CONTEXT), StreamLayout(rule, steps)
  tick = jax.jit(make_tick(counting, solver, layout, branches))
  block = jax.ShapeDtypeStruct((layout.block, *NOISE.shape[1:]), jnp.float32)
  state = init_stream(layout, 1, block, {"pose": block})
  frames = ({"noise": NOISE[i], "pose": POSE[i]} for i in range(length))
  prepare = lambda block: (jnp.asarray(block["noise"]), {"pose": jnp.asarray(block["pose"])})
  list(stream_clip(tick, layout, state, frames, prepare))
  jax.effects_barrier()
  assert len(calls) == rule.count(length) * steps


def test_refuses_what_cannot_be_streamed():
  with pytest.raises(UserError, match="closed loop"):
    StreamLayout(WindowRule(4, 1, "loop"), 3)
  _, layout, tick, state = programs(WindowRule(5, 2, "moved_back"), 2, 3, "dpm++2m", 2.0)
  with pytest.raises(UserError, match="known beforehand"):
    next(stream_clip(tick, layout, state, [], lambda block: block))
  _, layout, tick, state = programs(WindowRule(4, 1), 1, 3, "dpm++2m", 1.0)
  with pytest.raises(UserError, match="no frame"):
    next(stream_clip(tick, layout, state, [], lambda block: block))
