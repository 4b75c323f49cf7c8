import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anchor_jax.architecture import ScheduleConfig
from anchor_jax.diffusion.loss import denoising_loss
from anchor_jax.diffusion.sampler import sample_clip
from anchor_jax.diffusion.schedule import make_schedule
from anchor_jax.diffusion.solvers import make_solver
from anchor_jax.diffusion.windows import plan_windows

CONFIG = ScheduleConfig(prediction_type="sample", timestep_spacing="trailing", set_alpha_to_one=True)


def toy(latents, timesteps, context, condition, frame_mask):
  """Mixes each frame with the mean of its window's real frames, the way attention would."""
  mask = frame_mask[:, :, None, None, None]
  mean = (latents * mask).sum(axis=1, keepdims=True) / mask.sum(axis=1, keepdims=True)
  return 0.5 * latents + 0.2 * mean + condition["pose"] + context.mean(axis=(1, 2))[:, None, None, None, None]


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
def test_equals_the_algorithm_written_with_loops(length, together):
  keys = jax.random.split(jax.random.key(length), 4)
  noise, pose = jax.random.normal(keys[0], (2, length, 2, 2, 3))
  context, null = jax.random.normal(keys[1], (2, 5, 6))
  solver, plan = make_solver("ddim", CONFIG, 4), plan_windows(length, 4, 1)
  made = sample_clip(toy, solver, plan, noise, context, null, {"pose": pose}, 2.5, windows_per_batch=together)
  np.testing.assert_allclose(made, by_hand(solver, plan, noise, context, null, pose, 2.5), atol=2e-5)


def test_guidance_of_one_never_asks_the_null_branch():
  seen = []

  def denoise(latents, *rest):
    seen.append(latents.shape[0])
    return toy(latents, *rest)

  noise = jnp.ones((6, 2, 2, 3))
  args = (make_solver("ddim", CONFIG, 2), plan_windows(6, 4, 1), noise, jnp.ones((5, 6)))
  alone = sample_clip(denoise, *args, None, {"pose": noise}, 1.0)
  assert set(seen) == {1}
  both = sample_clip(toy, *args, jnp.zeros((5, 6)), {"pose": noise}, 1.0 + 1e-6)
  np.testing.assert_allclose(alone, both, atol=1e-4)


def test_tells_each_step():
  steps = []
  noise = jnp.ones((3, 2, 2, 1))
  made = sample_clip(
    toy, make_solver("ddim", CONFIG, 5), plan_windows(3, 2, 1), noise, jnp.ones((5, 6)), None, {"pose": noise}, 1.0,
    on_step=lambda: steps.append(1),
  )  # fmt: skip
  jax.block_until_ready(made)
  jax.effects_barrier()
  assert len(steps) == 5


def test_the_loss_of_a_perfect_network_is_zero_and_of_none_is_the_target_s_power():
  schedule = make_schedule(ScheduleConfig())
  clean, noise = jax.random.normal(jax.random.key(0), (2, 4, 1, 3, 3, 2))
  timesteps = jnp.array([0, 10, 500, 999])
  perfect = denoising_loss(lambda *_: noise, schedule, clean, noise, timesteps, jnp.zeros((4, 1, 1)), {})
  none = denoising_loss(lambda x, *_: 0 * x, schedule, clean, noise, timesteps, jnp.zeros((4, 1, 1)), {})
  np.testing.assert_allclose(perfect, 0, atol=1e-12)
  np.testing.assert_allclose(none, jnp.mean(noise**2, axis=(1, 2, 3, 4)), rtol=1e-5)
