"""A stream equals the clip in memory for all lengths, tails, solvers and groups, also when started in the middle."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anchor_jax.config.networks import ScheduleConfig
from anchor_jax.core.errors import UserError
from anchor_jax.diffusion.sampler import Sampler
from anchor_jax.diffusion.solvers import SOLVERS, make_solver
from anchor_jax.diffusion.stream import PreparedBlock, StreamFrame, StreamLayout
from anchor_jax.diffusion.windows import WindowRule, pad_windows, plan_clip

CONFIG = ScheduleConfig(prediction_type="v_prediction", timestep_spacing="trailing", set_alpha_to_one=True)
LONGEST = 200
KEYS = jax.random.split(jax.random.key(0), 4)
NOISE, POSE = np.asarray(jax.random.normal(KEYS[0], (2, LONGEST + 16, 1, 2, 2)))
CONTEXTS = jax.random.normal(KEYS[1], (2, 3, 4))


def toy(latents, timesteps, context, frame_inputs, frame_mask):
  """Mixes each frame with its window's real frames, depending on position, as a video network would."""
  mask = frame_mask[:, :, None, None, None]
  place = jnp.cos(jnp.arange(latents.shape[1]))[None, :, None, None, None]
  mean = (latents * mask * (1 + 0.3 * place)).sum(axis=1, keepdims=True) / mask.sum(axis=1, keepdims=True)
  token = context.mean(axis=(1, 2))[:, None, None, None, None]
  return (
    0.6 * latents
    + 0.3 * mean * place
    - 0.3 * frame_inputs["pose"]
    + 0.1 * token * jnp.cos(timesteps / 100.0).reshape(-1, 1, 1, 1, 1)
  )


@functools.cache
def sampler_of(rule, group_size, steps, solver_name, guidance):
  return Sampler(make_solver(solver_name, CONFIG, steps), rule, group_size, guidance)


@functools.cache
def clip_sampler(*settings):
  """The jitted sampler in memory, for all lengths."""
  sampler = sampler_of(*settings)
  return jax.jit(lambda plan: sampler.clip(toy, jnp.asarray(NOISE), {"pose": jnp.asarray(POSE)}, *CONTEXTS, plan=plan))


def prepare(block):
  pose = jnp.asarray(block["pose"])
  return PreparedBlock(jnp.asarray(block["noise"]), {"pose": pose}, carried=pose)


def frames(start, stop):
  return (StreamFrame({"noise": NOISE[i], "pose": POSE[i]}, companion=i) for i in range(start, stop))


def streamed(rule, *settings, length, start=0):
  sampler = sampler_of(rule, *settings)
  begin = sampler.first_frame_needed(start)
  known = length if rule.tail == "moved_back" else None
  at, pieces = begin, []
  for block in sampler.stream(toy, frames(begin, length), prepare, *CONTEXTS, length=known, start=start):
    assert block.first == at and 0 < len(block) <= sampler.layout.block
    assert block.companions == [*range(at, at + len(block))]
    np.testing.assert_array_equal(block.carried[block.rows], POSE[at : at + len(block)])
    at += len(block)
    pieces.append(np.asarray(block.frames))
  assert at == length
  return np.concatenate(pieces)[start - begin :]


def sampled_clip(rule, *settings, length):
  plan = pad_windows(plan_clip(rule, length), -(-LONGEST // rule.stride))
  return np.asarray(clip_sampler(rule, *settings)(plan))[:length]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("tail", ["ragged", "moved_back"])
@pytest.mark.parametrize(
  "lengths",
  [
    pytest.param((*range(1, 32), 97, 199, 200), id="some"),  # every remainder of a block, and of a group, many times
    pytest.param(range(1, LONGEST + 1), id="every", marks=pytest.mark.slow),
  ],
)
def test_a_stream_equals_the_clip_for_any_length(solver, tail, lengths):
  settings = (WindowRule(5, 2, tail), 2, 4, solver, 2.0)
  for length in lengths:
    np.testing.assert_allclose(streamed(*settings, length=length), sampled_clip(*settings, length=length), atol=1e-5)


@pytest.mark.parametrize(
  "rule,group_size",
  [
    (WindowRule(4, 1), 1),
    (WindowRule(5, 4), 1),  # a window overlaps the next four
    (WindowRule(5, 4), 3),
    (WindowRule(6, 4, "moved_back"), 1),
    (WindowRule(7, 4, "moved_back"), 2),
    (WindowRule(6, 2), 4),
    (WindowRule(1, 0), 8),  # the head's
    (WindowRule(4, 0), 1),
  ],
)
def test_a_stream_equals_the_clip_for_every_layout(rule, group_size):
  settings = (rule, group_size, 3, "dpm++2m", 1.0)
  for length in (1, 2, 5, 11, 24, 60):
    np.testing.assert_allclose(streamed(*settings, length=length), sampled_clip(*settings, length=length), atol=1e-5)


@pytest.mark.parametrize("rule", [WindowRule(5, 2), WindowRule(5, 2, "moved_back"), WindowRule(1, 0)])
def test_a_stream_from_the_middle_is_equal_bit_for_bit(rule):
  settings = (rule, 2, 3, "dpm++2m", 2.0)
  full = streamed(*settings, length=100)
  for start in (1, 33, 70, 99):
    np.testing.assert_array_equal(streamed(*settings, length=100, start=start), full[start:])


def frames_wrong(layout, length):
  """How many leading frames of a clip are wrong in streams from block 0, 1, ..., computed from the window tables."""
  plan, blocks = plan_clip(layout.rule, length), np.arange(length // layout.block + 2)
  holds = np.zeros((plan.count, length), bool)
  np.put_along_axis(
    holds, plan.frames, True, axis=1
  )  # slots without a frame repeat the last frame, which the window holds then
  runs = np.arange(plan.count) // layout.group_size >= blocks[:, None]
  # Frames whose latents are those of a stream from 0.
  right = np.arange(length) >= blocks[:, None] * layout.block - layout.offset
  for _ in range(layout.steps):
    correct = runs & ~(holds & ~right[:, None]).any(axis=2)
    right &= ~(holds & ~correct[:, :, None]).any(axis=1)
  return length - np.cumprod(right[:, ::-1], axis=1).sum(axis=1)  # all frames before the last right ones


@pytest.mark.parametrize(
  "windows,step_counts,group_sizes",
  [((2, 3), (1, 3), (1, 2)), pytest.param((1, 2, 3, 4, 5), (1, 2, 3), (1, 2, 3), marks=pytest.mark.slow)],
)
def test_the_first_block_needed_is_far_enough_back_in_every_small_layout(windows, step_counts, group_sizes):
  rules = [(window, overlap) for window in windows for overlap in range(window)] + [(8, 4)]
  for (window, overlap), tail, steps in itertools.product(rules, ("ragged", "moved_back"), step_counts):
    for group_size in group_sizes:
      layout = StreamLayout(WindowRule(window, overlap, tail), steps, group_size)
      first = [layout.first_block_needed(start) for start in range(23)]
      tight = set()  # starts for which a clip of some length needs exactly that block
      for length in range(1, 24):
        wrong = frames_wrong(layout, length)
        for start, needed in enumerate(first[:length]):
          assert wrong[needed] <= start, (layout, length, start)
          tight |= {start} if needed + 1 == len(wrong) or wrong[needed + 1] > start else set()
      assert tight == set(range(23)), layout  # and no earlier than necessary


def test_a_stream_from_the_middle_is_equal_where_a_window_moved_back_holds_a_wrong_frame():
  settings = (WindowRule(8, 4, "moved_back"), 1, 2, "ddim", 1.0)
  for length, start in ((15, 14), (19, 18), (39, 37)):
    full = streamed(*settings, length=length)
    np.testing.assert_array_equal(streamed(*settings, length=length, start=start), full[start:])


def test_a_stream_holds_few_frames_and_reads_no_more_than_necessary():
  layout = StreamLayout(WindowRule(16, 4), 20)
  assert layout.frames_held == 480 and layout.depth == 2
  small = sampler_of(WindowRule(4, 1), 1, 3, "dpm++2m", 1.0)
  taken = []

  def live():
    for frame in frames(0, 60):
      taken.append(frame)
      yield frame

  for block in small.stream(toy, live(), prepare, *CONTEXTS):
    assert len(taken) <= block.first + len(block) + small.layout.frames_held


@pytest.mark.parametrize("rule,blocks", [(WindowRule(4, 1), 6), (WindowRule(1, 0), 1), (WindowRule(4, 0), 1)])
def test_the_first_block_comes_out_as_early_as_possible(rule, blocks):
  sampler, taken = sampler_of(rule, 2, 3, "dpm++2m", 1.0), []
  live = (taken.append(frame) or frame for frame in frames(0, 60))
  next(sampler.stream(toy, live, prepare, *CONTEXTS))
  assert len(taken) == blocks * sampler.layout.block == sampler.layout.frames_held


def test_empty_levels_do_not_run():
  calls = []

  def counting(latents, *rest):
    jax.debug.callback(lambda _: calls.append(1), latents[0, 0, 0, 0, 0])
    return toy(latents, *rest)

  rule, steps, length = WindowRule(4, 1), 6, 7  # three windows, six levels
  list(sampler_of(rule, 1, steps, "ddim", 1.0).stream(counting, frames(0, length), prepare, *CONTEXTS))
  jax.effects_barrier()
  assert len(calls) == rule.count(length) * steps


def test_a_block_comes_out_before_the_next_frame_is_read():
  taken = []
  coming = (taken.append(number) or frame for number, frame in enumerate(frames(0, 9)))
  blocks = sampler_of(WindowRule(4, 0), 1, 2, "ddim", 1.0).stream(toy, coming, prepare, *CONTEXTS)
  assert [(next(blocks).first, len(taken)) for _ in range(2)] == [(0, 4), (4, 8)]
  assert [block.first for block in blocks] == [8]


def test_a_second_stream_does_not_compile():
  traced = []

  def recorded(latents, *rest):
    traced.append(latents.shape)
    return toy(latents, *rest)

  for length in (9, 14):
    list(sampler_of(WindowRule(4, 1), 2, 2, "ddim", 1.0).stream(recorded, frames(0, length), prepare, *CONTEXTS))
  assert len(traced) == 1


def test_loops_unknown_lengths_and_empty_motions_are_refused():
  with pytest.raises(UserError, match="closed loop"):
    StreamLayout(WindowRule(4, 1, "loop"), 3)
  with pytest.raises(UserError, match="known beforehand"):
    next(sampler_of(WindowRule(5, 2, "moved_back"), 2, 3, "dpm++2m", 2.0).stream(toy, [], prepare, *CONTEXTS))
  small = sampler_of(WindowRule(4, 1), 1, 3, "dpm++2m", 1.0)
  with pytest.raises(UserError, match="no frame"):
    next(small.stream(toy, [], prepare, *CONTEXTS))
  with pytest.raises(UserError, match="7 frames instead of the expected 9"):
    list(small.stream(toy, frames(0, 7), prepare, *CONTEXTS, length=9))
