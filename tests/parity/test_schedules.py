"""Solvers against diffusers' torch schedulers, for all schedules of Stable Diffusion 1.5 and 2.x."""

import inspect

import diffusers
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, PNDMScheduler

from anchor_jax.config import published
from anchor_jax.diffusion.schedule import add_noise, make_schedule, training_target
from anchor_jax.diffusion.solvers import advance, make_solver
from anchor_jax.formats.diffusers import load_schedule

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
CASES = {
  "stable diffusion 1.5": {**SD, "set_alpha_to_one": False, "steps_offset": 1},
  "velocity": {**SD, "set_alpha_to_one": False, "steps_offset": 1, "prediction_type": "v_prediction"},
  "clean sample": {**SD, "prediction_type": "sample"},
  "trailing, zero terminal signal": {
    **SD, "timestep_spacing": "trailing", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"
  },
  "linspace": {**SD, "timestep_spacing": "linspace"},
  "linear betas": {"clip_sample": False, "beta_schedule": "linear", "num_train_timesteps": 500},
  "cosine betas": {"clip_sample": False, "beta_schedule": "squaredcos_cap_v2"},
}  # fmt: skip
RUNS = [(name, n) for name in CASES for n in (4, 20, 23)]


def assert_same_steps(name, scheduler, folder, steps, agree):
  """The solver of the schedule in `folder` takes the same steps as the scheduler."""
  scheduler.set_timesteps(steps)
  solver = make_solver(name, load_schedule(folder), steps)
  np.testing.assert_array_equal(solver.timesteps, scheduler.timesteps.numpy())
  reference = torch.randn((1, 3, 3, 4), generator=torch.Generator().manual_seed(steps))
  sample, clean = jnp.asarray(reference.numpy()), jnp.zeros(reference.shape)
  for i, timestep in enumerate(scheduler.timesteps):
    reference = scheduler.step(torch.tanh(reference) + 0.1 * i, timestep, reference).prev_sample
    sample, clean = advance(solver, jnp.array(i), sample, jnp.tanh(sample) + 0.1 * i, clean)
    agree(sample, reference.numpy())


@pytest.mark.parametrize(("name", "steps"), RUNS)
def test_ddim(name, steps, tmp_path, agree):
  scheduler = DDIMScheduler(**CASES[name])
  scheduler.save_pretrained(tmp_path)
  assert_same_steps("ddim", scheduler, tmp_path, steps, agree)


@pytest.mark.parametrize("steps", [4, 10, 20, 23])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_dpm_solver(spacing, kind, steps, tmp_path, agree):
  fields = {**SD, "steps_offset": 1, "timestep_spacing": spacing, "prediction_type": kind}
  DDIMScheduler(**fields, set_alpha_to_one=True).save_pretrained(tmp_path)
  del fields["clip_sample"]
  scheduler = DPMSolverMultistepScheduler(**fields, algorithm_type="dpmsolver++", solver_order=2)
  assert_same_steps("dpm++2m", scheduler, tmp_path, steps, agree)


@pytest.mark.parametrize("name", CASES)
def test_noise_and_target(name, tmp_path, agree):
  scheduler = DDIMScheduler(**CASES[name])
  scheduler.save_pretrained(tmp_path)
  schedule = make_schedule(load_schedule(tmp_path))
  rng = np.random.default_rng(0)
  clean, noise = (rng.normal(size=(3, 2, 2, 4)).astype(np.float32) for _ in range(2))
  timesteps = np.array([0, 250, 499])
  tensors = [torch.from_numpy(x) for x in (clean, noise, timesteps)]
  agree(
    add_noise(schedule, jnp.asarray(clean), jnp.asarray(noise), jnp.asarray(timesteps)), scheduler.add_noise(*tensors)
  )
  target = training_target(schedule, jnp.asarray(clean), jnp.asarray(noise), jnp.asarray(timesteps))
  kind = scheduler.config.prediction_type
  expected = {"epsilon": noise, "sample": clean}.get(kind)
  agree(target, scheduler.get_velocity(*tensors).numpy() if expected is None else expected)


def test_pndm_is_read_as_ddim(tmp_path):
  fields = {**SD, "set_alpha_to_one": False, "steps_offset": 1}
  del fields["clip_sample"]
  PNDMScheduler(**fields, skip_prk_steps=True).save_pretrained(tmp_path / "pndm")
  scheduler = DDIMScheduler.from_config(PNDMScheduler.from_pretrained(tmp_path / "pndm").config, clip_sample=False)
  scheduler.save_pretrained(tmp_path / "ddim")
  assert load_schedule(tmp_path / "pndm") == load_schedule(tmp_path / "ddim")


@pytest.mark.parametrize("name", sorted(published.SCHEDULERS.keys() - {"DPMSolverSDEScheduler"}))  # needs torchsde
def test_files_of_all_schedulers(name, tmp_path):
  """Noise levels, and if the class has them, prediction type and spacing of timesteps."""
  kind = getattr(diffusers, name)
  known = inspect.signature(kind.__init__).parameters
  changes = {"prediction_type": "v_prediction", "beta_schedule": "scaled_linear", "beta_end": 0.012}
  for number, settings in enumerate(({}, changes)):
    folder = tmp_path / str(number)
    scheduler = kind(**settings, **({"clip_sample": False} if "clip_sample" in known else {}))
    scheduler.save_pretrained(folder)
    own = load_schedule(folder)
    np.testing.assert_allclose(make_schedule(own).alphas_cumprod, scheduler.alphas_cumprod.numpy(), rtol=2e-5)
    for field in ("prediction_type", "timestep_spacing", "steps_offset", "set_alpha_to_one", "rescale_betas_zero_snr"):
      if field in known:
        assert getattr(own, field) == scheduler.config[field], field
