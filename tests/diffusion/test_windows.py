import numpy as np
import pytest

from anchor_jax.diffusion.windows import pad_windows, plan_windows
from anchor_jax.errors import UserError


def test_the_tail_is_cut_short_as_in_the_reference():
  plan = plan_windows(25, 16, 4)
  assert plan.mask.sum(axis=1).tolist() == [16, 13, 1]
  assert plan.frames[:, 0].tolist() == [0, 12, 24]


@pytest.mark.parametrize("window,overlap", [(16, 4), (4, 1), (5, 3), (1, 0), (7, 0)])
def test_every_frame_is_covered_and_its_shares_sum_to_one(window, overlap):
  for length in (1, 2, window, window + 1, 50):
    plan = plan_windows(length, window, overlap)
    total = np.zeros(length)
    np.add.at(total, plan.frames, plan.weights)
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert plan.mask.any(axis=1).all() and not plan.weights[~plan.mask].any()


def test_idle_windows_weigh_nothing():
  plan = pad_windows(plan_windows(25, 16, 4), 4)
  assert plan.count == 4 and not plan.weights[3].any() and plan.mask[3].all()


@pytest.mark.parametrize("length,window,overlap", [(0, 4, 1), (5, 4, 4), (5, 0, 0), (5, 4, -1)])
def test_refuses_plans_that_cannot_be(length, window, overlap):
  with pytest.raises(UserError):
    plan_windows(length, window, overlap)
