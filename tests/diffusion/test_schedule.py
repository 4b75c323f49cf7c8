import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anchor_jax.config.networks import ScheduleConfig
from anchor_jax.core.errors import UserError
from anchor_jax.diffusion.schedule import add_noise, make_schedule, sampling_timesteps, training_target


def test_stable_diffusion_visits_the_timesteps_of_its_scheduler_file():
  assert sampling_timesteps(ScheduleConfig(), 4).tolist() == [751, 501, 251, 1]


def test_trailing_and_linspace_start_at_the_noisiest_timestep():
  for spacing in ("trailing", "linspace"):
    steps = sampling_timesteps(ScheduleConfig(timestep_spacing=spacing), 8)
    assert steps[0] == 999 and (np.diff(steps) < 0).all()


def test_zero_terminal_snr_ends_in_pure_noise_and_keeps_the_first_step():
  plain, rescaled = (
    make_schedule(ScheduleConfig(prediction_type="v_prediction", rescale_betas_zero_snr=flag)).alphas_cumprod
    for flag in (False, True)
  )
  assert rescaled[-1] == 0 and plain[-1] > 0
  np.testing.assert_allclose(rescaled[0], plain[0], rtol=1e-12)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_noise_follows_from_target_and_noisy_latents(kind):
  schedule = make_schedule(ScheduleConfig(prediction_type=kind))
  clean, noise = jax.random.normal(jax.random.key(0), (2, 3, 1, 4, 4, 2))
  t = jnp.array([0, 500, 999])
  noisy, target = add_noise(schedule, clean, noise, t), training_target(schedule, clean, noise, t)
  power = schedule.alphas_cumprod[np.asarray(t)].astype(np.float32).reshape(3, 1, 1, 1, 1)
  alpha, sigma = np.sqrt(power), np.sqrt(1 - power)
  found = {
    "epsilon": target,
    "v_prediction": sigma * noisy + alpha * target,
    "sample": (noisy - alpha * target) / sigma,
  }[kind]
  np.testing.assert_allclose(found, noise, atol=2e-4)


@pytest.mark.parametrize("steps", [0, 1001])
def test_step_counts_out_of_range_are_refused(steps):
  with pytest.raises(UserError, match="between 1 and 1000"):
    sampling_timesteps(ScheduleConfig(), steps)
