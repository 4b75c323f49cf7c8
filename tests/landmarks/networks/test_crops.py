"""Crops for the landmark networks: points go into them and back, pictures are cut where the points say."""

import math

import cv2
import numpy as np
import pytest

from anchor_jax.landmarks.networks.crops import Crop, aligned, box_around, circle_through, full_square, turn_of

TURNED = Crop(40.0, 30.0, 20.0, 20.0, 0.5)


def test_places_in_a_crop_are_points_of_the_picture():
  corners = np.array([[0.5, 0.5, 0.1], [0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)
  middle, origin, right, down = TURNED.place(corners)
  np.testing.assert_allclose(middle, [40, 30, 2], atol=1e-5)
  np.testing.assert_allclose((right - origin)[:2], [20 * math.cos(0.5), 20 * math.sin(0.5)], atol=1e-4)
  np.testing.assert_allclose((down - origin)[:2], [-20 * math.sin(0.5), 20 * math.cos(0.5)], atol=1e-4)


def test_a_crop_shows_what_lies_there():
  picture = np.zeros((80, 100, 3), np.uint8)
  x, y, _ = TURNED.place(np.array([[0.75, 0.25, 0]], np.float32))[0]
  cv2.circle(picture, (round(float(x)), round(float(y))), 2, (255, 255, 255), -1)
  made = TURNED.cut(picture, 64)
  assert made.shape == (1, 64, 64, 3) and made.dtype == np.float32 and made.min() == 0 and made.max() == 1
  rows, columns = np.nonzero(made[0, :, :, 0] > 0.5)
  assert abs(columns.mean() / 64 - 0.75) < 0.03 and abs(rows.mean() / 64 - 0.25) < 0.03
  assert TURNED.cut(picture, 64, low=-1.0).min() == -1


@pytest.mark.parametrize("crop", [TURNED, Crop(40.0, 30.0, 120.0, 120.0, -1.0)], ids=["inside", "over the edge"])
def test_an_aligned_picture_is_cut_to_the_same_values(crop):
  picture = np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8)
  for low in (0.0, -1.0):
    np.testing.assert_array_equal(crop.cut(aligned(picture), 64, low), crop.cut(picture, 64, low))


def test_a_crop_is_carried_with_the_one_around_it():
  corners = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0]], np.float32)
  inner, now = TURNED.square(0.3, 0.2)._replace(turn=0.9), Crop(10.0, 70.0, 30.0, 30.0, -2.0)
  into = lambda outer, crop: (
    (crop.place(corners)[:, :2] - outer.matrix()[:, 2]) @ np.linalg.inv(outer.matrix()[:, :2]).T
  )
  np.testing.assert_allclose(into(now, inner.carried(TURNED, now)), into(TURNED, inner), atol=1e-5)
  assert inner.carried(TURNED, TURNED) == pytest.approx(inner)


def test_the_whole_picture_is_in_a_square():
  crop = full_square(np.zeros((40, 100, 3), np.uint8))
  assert crop == (50, 20, 100, 100, 0)
  np.testing.assert_allclose(crop.place(np.array([[0, 0.3, 0]], np.float32))[0, :2], [0, 0], atol=1e-5)


def test_crops_follow_directions():
  # a body whose head is above its hips stands upright; one that lies with its head to the left is turned
  hips = np.array([50.0, 80.0])
  assert turn_of(hips, np.array([50.0, 20.0]), 90) == pytest.approx(0)
  assert turn_of(hips, np.array([10.0, 80.0]), 90) == pytest.approx(-math.pi / 2)
  circle = circle_through(hips, np.array([50.0, 20.0]), 90)
  assert circle[:4] == (50, 80, 120, 120)
  moved = circle.square(1.25, -0.1)
  assert moved[:4] == pytest.approx((50, 80 - 12, 150, 150))
  box = box_around(np.array([[1.0, 2.0, 9.0], [5.0, 4.0, 9.0]]), 0.3)
  assert box == (3, 3, 4, 2, 0.3)


def test_a_crop_is_kept_only_while_it_is_near():
  assert TURNED.near(TURNED, 15, 0.1, 0.3)
  assert not TURNED._replace(turn=0.5 + math.radians(16)).near(TURNED, 15, 0.1, 0.3)
  assert TURNED._replace(turn=0.5 + 2 * math.pi).near(TURNED, 15, 0.1, 0.3)
  assert not TURNED._replace(x=43.5).near(TURNED, 15, 0.1, 0.3)
  assert not TURNED._replace(width=27, height=27).near(TURNED, 15, 0.1, 0.3)
  corner = TURNED.place(np.array([[0.02, 0.5, 0]], np.float32))
  assert TURNED.contains(corner, 0.0) and not TURNED.contains(corner, -0.2)
  assert not Crop(math.nan, 0, 1, 1).finite and not Crop(0, 0, 0, 0).finite
