"""The crop square around a person."""

import numpy as np

from anchor_jax.landmarks.framing import CropSquare, center_of, square_around


def test_the_square_stays_inside_the_picture():
  assert square_around(80, 48, (70.0, 10.0), 24) == CropSquare(32, 0, 48, 24)
  assert square_around(80, 48, (-5.0, 10.0), 24) == CropSquare(0, 0, 48, 24)
  assert square_around(48, 80, (20.0, 40.0), 24) == CropSquare(0, 16, 48, 24)


def test_points_map_like_pixels():
  for size in (12, 24, 96):
    square = CropSquare(10, 4, 48, size)
    picture = np.zeros((60, 80), np.uint8)
    picture[20:28, 30:38] = 255
    shrunk = square.image(picture).astype(float)
    yy, xx = np.indices(shrunk.shape) + 0.5
    center = np.array([(shrunk * xx).sum(), (shrunk * yy).sum()]) / shrunk.sum()
    np.testing.assert_allclose(square.points(np.array([34.0, 24.0], np.float32)), center, atol=0.05)
    assert set(np.unique(square.mask(picture))) == {0, 255}
  np.testing.assert_allclose(CropSquare(10, 4, 48, 24).points(np.array([[34.0, 24.0, 8.0]], np.float32)), [[12, 10, 4]])


def test_the_center_is_robust_to_outliers_and_missing_points():
  points = np.full((9, 5, 2), 20.0, np.float32)
  points[0] = 500
  points[1] = np.nan
  assert center_of(points, 80, 48) == (20, 20)
  assert center_of(points[1:2], 80, 48) == (40, 24)
