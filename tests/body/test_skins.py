"""Skins: coordinates are attached to the surface."""

import numpy as np
import pytest

from anchor_jax.body.charts import CHARTS, chart
from anchor_jax.body.rasterize import rasterize
from anchor_jax.body.skins import Ball, Sheet, Tube, surface_map, surface_points
from anchor_jax.body.solids import Ellipsoid, RoundCone


def rotation(seed):
  q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
  q = q * np.sign(np.diag(r))
  return q if np.linalg.det(q) > 0 else -q


def coordinates(solid, place):
  return surface_points([solid], np.zeros(1, int), *np.asarray(place, float)[:, None], np.zeros(1))[0].astype(int)


@pytest.mark.parametrize("seed", range(5))
def test_the_skin_of_a_tube_is_the_same_in_every_position(seed):
  turn, move = rotation(seed), np.random.default_rng(seed).uniform(-50, 50, 3)
  start, end, side = np.array([0.0, 0, 0]), np.array([0.0, 0, 20]), np.array([1.0, 0, 0])
  for angle, share in ((0.3, 0.2), (2.0, 0.5), (-2.5, 0.9)):
    dot = np.array([5 * np.cos(angle), 5 * np.sin(angle), 20 * share])
    cone = RoundCone(turn @ start + move, turn @ end + move, 5, 5, skin=Tube(7, turn @ side, 1.0))
    number, u, v = coordinates(cone, turn @ dot + move)
    # u = 3/4 points to `side`, and u = 1/2 to cross(axis, side), a quarter turn on
    assert number == 7 and abs(u - ((0.75 - angle / 2 / np.pi) % 1) * 256) < 1.01 and abs(v - 256 * share) < 1.01


def test_a_twist_is_spread_along_the_limb():
  twist = 1.2
  end_side = np.array([np.cos(twist), np.sin(twist), 0])
  skin = Tube(7, np.array([1.0, 0, 0]), 1.0, end_side)
  cone = RoundCone((0, 0, 0), (0, 0, 20), 5, 5, skin=skin)
  for share in (0.0, 0.25, 0.5, 1.0):
    angle = 0.4 + twist * share
    u = coordinates(cone, (5 * np.cos(angle), 5 * np.sin(angle), 20 * share))[1]
    assert abs(u - (0.75 - 0.4 / 2 / np.pi) * 256) < 1.01


def test_mirrored_limbs_have_mirrored_skin():
  place = np.array([3.0, 4.0, 6.0])
  mirror = np.array([-1, 1, 1])
  one = RoundCone((0, 0, 0), (2, 1, 20), 5, 5, skin=Tube(7, np.array([1.0, 0.2, 0]), 1.0))
  other = RoundCone((0, 0, 0), (-2, 1, 20), 5, 5, skin=Tube(7, np.array([-1.0, 0.2, 0]), -1.0))
  np.testing.assert_allclose(coordinates(one, place), coordinates(other, place * mirror), atol=1)


def test_v_continues_over_the_cap_of_a_fingertip_but_not_of_a_joint():
  for limits, expected in (((0.5, 1.0), 0.75 + 0.25 * 0.2), ((0.5, 0.75), 0.75)):
    skin = Tube(7, np.array([1.0, 0, 0]), 1.0, None, (0.5, 0.75), limits)
    cone = RoundCone((0, 0, 0), (0, 0, 20), 5, 5, skin=skin)
    assert abs(coordinates(cone, (3, 0, 24))[2] - 256 * expected) < 1.01


def test_u_increases_around_the_side_of_a_sheet():
  sheet = Sheet((0, 0, 0), np.diag([1 / 10, 1 / 20, 1 / 6]), (3, 4), (5,))
  angle = np.linspace(-1.5, 1.5, 40)
  number, u, v = sheet.place(10 * np.sin(angle), np.full(40, 5.0), 6 * np.cos(angle), angle)
  assert set(number) == {3} and (np.diff(u) > 0).all() and 0 < u.min() < 0.05 and 0.95 < u.max() < 1
  np.testing.assert_allclose(v, 0.5, rtol=4 * np.finfo(np.float32).eps)  # an angle of float32, over a turn
  assert sheet.place(*np.array([[1.0], [15.0], [2.0]]), angle)[0] == 4
  assert sheet.place(*np.array([[1.0], [15.0], [-2.0]]), angle)[0] == 5


def test_the_skin_of_a_ball_depends_on_direction():
  ball = Ball((1, 2, 3), np.diag([1 / 4, -1 / 5, 1 / 6]), 9)
  for place, u, v in (((1, 2, 9), 0.5, 0.5), ((1, -3, 3), 0.75, 0.5), ((5, 2, 3), 0.5, 1.0), ((1, 2, -3), 0.0, 0.5)):
    number, found_u, found_v = ball.place(*np.array(place, float)[:, None], np.zeros(1))
    assert number == 9 and found_v[0] == pytest.approx(v) and (found_u[0] - u + 0.5) % 1 == pytest.approx(0.5, abs=1e-6)


def test_a_surface_map_takes_one_sample_per_pixel():
  near = RoundCone((8, 8, 20), (24, 8, 20), 4, 4, skin=Tube(chart("neck"), np.array([0.0, 1, 0]), 1.0))
  far = Ellipsoid((16, 16, 0), (9, 9, 5), skin=Ball((16, 16, 0), np.eye(3) / 9, chart("cranium")))
  bare = Ellipsoid((16, 28, 9), (4, 4, 4))
  for size, supersample in ((32, 1), (32, 2), ((32, 40), 3)):
    surface = rasterize([near, far, bare], size, supersample)
    picture = surface_map(surface, [near, far, bare])
    assert picture.shape == (32, 40 if size == (32, 40) else 32, 3) and picture.dtype == np.uint8
    assert picture[8, 16, 0] == chart("neck") and picture[18, 16, 0] == chart("cranium") and picture[29, 16, 0] == 0
    assert not picture[surface.index[supersample // 2 :: supersample, supersample // 2 :: supersample] < 0].any()
    assert abs(int(picture[8, 16, 2]) - 128) < 12


def test_chart_numbers_match_their_names():
  assert CHARTS[0].name == "none" and CHARTS[chart("palm", "left")].name == "left_palm"
  assert CHARTS[chart("forearm", "right")].wraps and not CHARTS[chart("chest")].wraps
