import numpy as np
import pytest

from anchor_jax.core.errors import UserError
from anchor_jax.diffusion.windows import TAILS, WindowRule, capacity, pad_windows, plan_clip, plan_group


def test_ragged_last_windows_hold_fewer_frames():
  plan = plan_clip(WindowRule(16, 4), 25)
  assert plan.mask.sum(axis=1).tolist() == [16, 13, 1]
  assert plan.frames[:, 0].tolist() == [0, 12, 24]


def test_the_last_window_moves_back():
  plan = plan_clip(WindowRule(16, 4, "moved_back"), 25)
  assert plan.mask.all() and plan.frames[:, 0].tolist() == [0, 9]
  assert plan_clip(WindowRule(16, 4, "moved_back"), 5).mask.sum() == 5


def test_a_loop_continues_with_the_first_frames():
  plan = plan_clip(WindowRule(6, 2, "loop"), 10)
  assert plan.mask.all() and plan.frames[-1].tolist() == [8, 9, 0, 1, 2, 3]


def test_windows_that_hold_a_frame_have_equal_weights():
  plan = plan_clip(WindowRule(4, 2), 12)
  np.testing.assert_allclose(plan.weights[:2], [[1, 1, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]])


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("window,overlap", [(16, 4), (4, 1), (5, 3), (1, 0), (7, 0)])
def test_every_frame_is_covered_and_its_weights_sum_to_one(window, overlap, tail):
  for length in (1, 2, window, window + 1, 50):
    plan = plan_clip(WindowRule(window, overlap, tail), length)
    total = np.zeros(length)
    np.add.at(total, plan.frames, plan.weights)
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert plan.mask.any(axis=1).all() and not plan.weights[~plan.mask].any()


@pytest.mark.parametrize("tail", ["ragged", "moved_back"])
@pytest.mark.parametrize("window,overlap,together", [(4, 1, 1), (5, 3, 2), (5, 4, 3), (1, 0, 4)])
def test_groups_hold_the_windows_of_the_clip(window, overlap, together, tail):
  rule = WindowRule(window, overlap, tail)
  for length in (1, 3, 6, 17, 30):
    plan = plan_clip(rule, length)
    for first in range(0, plan.count, together):
      group = plan_group(rule, first, together, length)
      for row in range(together):
        if first + row < plan.count:
          real = group.mask[row]
          np.testing.assert_array_equal(real, plan.mask[first + row])
          np.testing.assert_array_equal(group.frames[row][real], plan.frames[first + row][real])
          np.testing.assert_allclose(group.weights[row], plan.weights[first + row], rtol=1e-6)
        else:
          assert not group.weights[row].any() and group.mask[row].any()


def test_padding_windows_have_weight_zero():
  plan = pad_windows(plan_clip(WindowRule(16, 4), 25), 4)
  assert plan.count == 3 and not plan.weights[3].any() and plan.mask[3].all()


def test_capacities_are_few_and_large_enough():
  sizes = [capacity(count) for count in range(1, 1000)]
  assert all(size >= count for count, size in enumerate(sizes, start=1)) and len(set(sizes)) < 21


@pytest.mark.parametrize("length,rule", [(5, (4, 4)), (5, (0, 0)), (5, (4, -1)), (5, (4, 1, "raged")), (0, (4, 1))])
def test_impossible_plans_are_refused(length, rule):
  with pytest.raises(UserError):
    plan_clip(WindowRule(*rule), length)
