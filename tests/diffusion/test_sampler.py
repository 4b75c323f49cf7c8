import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anchor_jax.config.networks import ScheduleConfig
from anchor_jax.diffusion.loss import denoising_loss
from anchor_jax.diffusion.sampler import Sampler
from anchor_jax.diffusion.schedule import make_schedule, training_target
from anchor_jax.diffusion.solvers import make_solver
from anchor_jax.diffusion.stream import PreparedBlock, StreamFrame
from anchor_jax.diffusion.windows import WindowRule, capacity, pad_windows, plan_clip

CONFIG = ScheduleConfig(prediction_type="sample", timestep_spacing="trailing", set_alpha_to_one=True)


def toy(latents, timesteps, context, frame_inputs, frame_mask):
  """Mixes each frame with the mean of its window's real frames, as attention would."""
  mask = frame_mask[:, :, None, None, None]
  mean = (latents * mask).sum(axis=1, keepdims=True) / mask.sum(axis=1, keepdims=True)
  return 0.5 * latents + 0.2 * mean + frame_inputs["pose"] + context.mean(axis=(1, 2))[:, None, None, None, None]


def by_hand(solver, plan, noise, context, null, pose, guidance):
  """The paper's algorithm, written with loops over frames and windows."""
  x = np.asarray(noise)
  for i in range(len(solver)):
    branches = []
    for tokens in (context, null):
      total, count = np.zeros_like(x), np.zeros(len(x))
      for frames, mask in zip(plan.frames, plan.mask, strict=True):
        frames = frames[mask]
        out = toy(
          jnp.asarray(x[frames])[None],
          None,
          tokens[None],
          {"pose": pose[frames][None]},
          jnp.ones((1, len(frames)), bool),
        )
        total[frames] += np.asarray(out)[0]
        count[frames] += 1
      branches.append(total / count[:, None, None, None])
    clean = branches[1] + guidance * (branches[0] - branches[1])
    noise_part = (x - float(solver.alpha[i]) * clean) / float(solver.sigma[i])
    after = (float(solver.alpha[i + 1]), float(solver.sigma[i + 1])) if i + 1 < len(solver) else (1.0, 0.0)
    x = after[0] * clean + after[1] * noise_part
  return x


@pytest.mark.parametrize("length", [1, 4, 9, 25])
@pytest.mark.parametrize("together", [1, 3])
def test_clip_equals_the_algorithm_written_with_loops(length, together):
  keys = jax.random.split(jax.random.key(length), 4)
  noise, pose = jax.random.normal(keys[0], (2, length, 2, 2, 3))
  context, null = jax.random.normal(keys[1], (2, 5, 6))
  solver, rule = make_solver("ddim", CONFIG, 4), WindowRule(4, 1)
  sampled = Sampler(solver, rule, together, guidance=2.5).clip(toy, noise, {"pose": pose}, context, null)
  plan = plan_clip(rule, length)
  np.testing.assert_allclose(sampled, by_hand(solver, plan, noise, context, null, pose, 2.5), atol=2e-5)


def test_guidance_of_one_never_runs_the_null_branch():
  seen = []

  def denoise(latents, *rest):
    seen.append(latents.shape[0])
    return toy(latents, *rest)

  noise = jnp.ones((6, 2, 2, 3))
  sampler = Sampler(make_solver("ddim", CONFIG, 2), WindowRule(4, 1), guidance=1.0)
  contexts = jnp.ones((5, 6)), jnp.zeros((5, 6))
  alone = sampler.clip(denoise, noise, {"pose": noise}, *contexts)
  assert set(seen) == {1}
  both = dataclasses.replace(sampler, guidance=1.0 + 1e-6).clip(toy, noise, {"pose": noise}, *contexts)
  np.testing.assert_allclose(alone, both, atol=1e-4)


def test_clips_of_many_lengths_share_one_program():
  traced = []

  @jax.jit
  def run(plan, noise):
    traced.append(noise.shape)
    return sampler.clip(toy, noise, {"pose": noise}, context, plan=plan)

  rule, context = WindowRule(4, 1), jnp.ones((5, 6))
  sampler = Sampler(make_solver("ddim", CONFIG, 3), rule, windows_per_batch=2)
  for length in (13, 15, 17, 18):
    plan = plan_clip(rule, length)
    rows = capacity(plan.count)
    noise = jax.random.normal(jax.random.key(0), (rows * rule.stride + rule.overlap, 2, 2, 3))
    padded = run(pad_windows(plan, rows), noise)
    alone = sampler.clip(toy, noise[:length], {"pose": noise[:length]}, context)
    np.testing.assert_allclose(padded[:length], alone, atol=1e-5)
  assert len(traced) == 1


def test_a_guidance_interval_guides_only_its_steps():
  noise, tokens, none = jnp.ones((3, 2, 2, 3)), jnp.ones((5, 6)), jnp.zeros((5, 6))
  solver, rule = make_solver("ddim", CONFIG, 4), WindowRule(2, 1)
  run = lambda *guidance: Sampler(solver, rule, 1, *guidance).clip(toy, noise, {"pose": noise}, tokens, none)
  everywhere, nowhere = run(3.0), run(1.0)
  np.testing.assert_allclose(run(3.0, (1.5, 2.0)), nowhere, atol=1e-5)
  np.testing.assert_allclose(run(3.0, (0.0, 2.0)), everywhere, atol=1e-5)
  late = run(3.0, (0.0, 0.9))
  assert np.abs(late - everywhere).max() > 0.01 and np.abs(late - nowhere).max() > 0.01


@pytest.mark.parametrize("overlap", [0, 1])
def test_the_null_branch_runs_only_where_guidance_acts(overlap):
  noise, tokens, none = jnp.ones((3, 2, 2, 3)), jnp.ones((5, 6)), jnp.zeros((5, 6))
  sampler = Sampler(make_solver("ddim", CONFIG, 4), WindowRule(3, overlap), 1, 3.0, (0.0, 0.9))
  examples = []

  def counted(latents, *rest):
    jax.debug.callback(lambda: examples.append(len(latents)))
    return toy(latents, *rest)

  clip = jax.jit(lambda noise: sampler.clip(counted, noise, {"pose": noise}, tokens, none))(noise)
  jax.block_until_ready(clip)
  jax.effects_barrier()
  expected = [2 if sigma <= 0.9 else 1 for sigma in sampler.solver.sigma for _ in range(sampler.rule.count(3))]
  assert examples == expected and set(expected) == {1, 2}
  examples.clear()
  prepare = jax.jit(lambda items: PreparedBlock(jnp.ones((len(items["pose"]), 2, 2, 3)), items))
  frames = (StreamFrame({"pose": np.ones((2, 2, 3), np.float32)}) for _ in range(3))
  blocks = list(sampler.stream(jax.tree_util.Partial(counted), frames, prepare, tokens, none))
  jax.effects_barrier()
  assert sorted(examples) == sorted(expected)
  np.testing.assert_allclose(np.concatenate([block.frames for block in blocks]), clip, atol=1e-6)


def test_every_step_returns_all_steps_and_ends_clean():
  noise, tokens = jnp.ones((3, 2, 2, 1)), jnp.ones((5, 6))
  sampler = Sampler(make_solver("ddim", CONFIG, 5), WindowRule(2, 1))
  clean = sampler.clip(toy, noise, {"pose": noise}, tokens)
  steps = sampler.clip(toy, noise, {"pose": noise}, tokens, every_step=True)
  assert steps.shape == (5, *noise.shape)
  np.testing.assert_array_equal(steps[-1], clean)


def test_the_loss_is_zero_for_a_perfect_network_and_the_target_power_for_zeros():
  schedule = make_schedule(ScheduleConfig())
  clean, noise = jax.random.normal(jax.random.key(0), (2, 4, 1, 3, 3, 2))
  timesteps = jnp.array([0, 10, 500, 999])
  perfect, _ = denoising_loss(lambda *_: noise, schedule, clean, noise, timesteps, jnp.zeros((4, 1, 1)), {})
  none, _ = denoising_loss(lambda x, *_: 0 * x, schedule, clean, noise, timesteps, jnp.zeros((4, 1, 1)), {})
  np.testing.assert_allclose(perfect, 0, atol=1e-12)
  np.testing.assert_allclose(none, jnp.mean(noise**2, axis=(1, 2, 3, 4)), rtol=1e-5)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_min_snr_weights_the_error_of_the_clean_latent(kind):
  schedule = make_schedule(ScheduleConfig(prediction_type=kind))
  clean, noise = jax.random.normal(jax.random.key(0), (2, 3, 1, 3, 3, 2))
  timesteps = jnp.array([10, 500, 990])
  power = schedule.alphas_cumprod[np.array([10, 500, 990])]
  target = training_target(schedule, clean, noise, timesteps)
  wrong = lambda *_: target + 0.1
  loss, _ = denoising_loss(wrong, schedule, clean, noise, timesteps, jnp.zeros((3, 1, 1)), {}, snr_gamma=5.0)
  # The error of the clean latent that this error of the prediction implies.
  of_clean = {"epsilon": np.sqrt((1 - power) / power), "v_prediction": np.sqrt(1 - power), "sample": 1.0}[kind] * 0.1
  np.testing.assert_allclose(loss, np.minimum(power / (1 - power), 5.0) * of_clean**2, rtol=1e-4)
