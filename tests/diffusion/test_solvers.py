import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anchor_jax.config.networks import ScheduleConfig
from anchor_jax.core.errors import UserError
from anchor_jax.diffusion import solvers
from anchor_jax.diffusion.schedule import make_schedule
from anchor_jax.diffusion.solvers import SOLVERS, advance, make_solver

ZERO_SNR = ScheduleConfig(
  prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True, set_alpha_to_one=True
)


def perfect(solver, i, x, clean):
  """The prediction of a network that knows the clean latent."""
  noise = (x - solver.alpha[i] * clean) / solver.sigma[i]
  return {"epsilon": noise, "v_prediction": solver.alpha[i] * noise - solver.sigma[i] * clean, "sample": clean}[
    solver.prediction_type
  ]


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_a_perfect_network_leads_to_the_clean_latent(name, kind):
  config = ScheduleConfig(prediction_type=kind, timestep_spacing="trailing", set_alpha_to_one=True)
  solver = make_solver(name, config, 5)
  clean, noise = jax.random.normal(jax.random.key(1), (2, 5, 4))
  x, before = solver.alpha[0] * clean + solver.sigma[0] * noise, jnp.zeros_like(clean)
  for i in range(5):
    x, before = advance(solver, jnp.asarray(i), x, perfect(solver, i, x, clean), before)
  np.testing.assert_allclose(x, clean, atol=2e-5)


def test_ddim_follows_equation_12_of_its_paper():
  config = ScheduleConfig()
  solver, power = make_solver("ddim", config, 20), make_schedule(config).alphas_cumprod
  x, noise = np.asarray(jax.random.normal(jax.random.key(2), (2, 3, 4)))
  for i in (0, 7, 19):
    now, after = power[951 - 50 * i], power[901 - 50 * i] if i < 19 else power[0]
    expected = np.sqrt(after) * (x - np.sqrt(1 - now) * noise) / np.sqrt(now) + np.sqrt(1 - after) * noise
    found, _ = advance(solver, jnp.asarray(i), jnp.asarray(x), jnp.asarray(noise), jnp.zeros_like(x))
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_the_second_order_solver_is_closer_on_a_curved_path():
  # Data with deviation 0.5 around 0: the best prediction is linear in x, and the sampling path is curved.
  def run(name, steps):
    solver = make_solver(name, ScheduleConfig(timestep_spacing="trailing", set_alpha_to_one=True), steps)
    x, before = jnp.ones(1), jnp.zeros(1)
    for i in range(steps):
      variance = (0.5 * solver.alpha[i]) ** 2 + solver.sigma[i] ** 2
      x, before = advance(solver, jnp.asarray(i), x, solver.sigma[i] / variance * x, before)
    return float(x[0])

  exact = 0.5  # the flow maps the deviation of pure noise, 1, to that of the data
  assert abs(run("dpm++2m", 20) - exact) < 0.7 * abs(run("ddim", 20) - exact)


def test_rows_may_be_at_different_steps():
  solver = make_solver("dpm++2m", ZERO_SNR, 5)
  x, prediction, before = jax.random.normal(jax.random.key(3), (3, 4, 2, 3))
  steps = jnp.array([0, 3, 1, 4])
  together, _ = advance(solver, steps, x, prediction, before)
  for row, step in enumerate(steps):
    alone, _ = advance(solver, step, x[row], prediction[row], before[row])
    np.testing.assert_allclose(together[row], alone, rtol=1e-6)


def test_zero_terminal_snr_gives_finite_tables():
  for name in SOLVERS:
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(make_solver(name, ZERO_SNR, 8)))


def test_a_new_solver_is_one_class(monkeypatch):
  monkeypatch.setattr(solvers, "SOLVERS", dict(SOLVERS))

  @solvers.register("half")
  class Half(solvers.DDIM):
    def weights(self, alpha, sigma, next_alpha, next_sigma):
      return tuple(values / 2 for values in super().weights(alpha, sigma, next_alpha, next_sigma))

  half, full = make_solver("half", ZERO_SNR, 4), make_solver("ddim", ZERO_SNR, 4)
  np.testing.assert_allclose(half.from_clean, full.from_clean / 2)


def test_an_unknown_solver_is_refused_with_a_suggestion():
  with pytest.raises(UserError, match='Did you mean "ddim"'):
    make_solver("dim", ScheduleConfig(), 4)
