"""The crop square around a person."""

import numpy as np

from anchor_jax.core.frame_size import FrameSize
from anchor_jax.landmarks.framing import CropRect, center_of, rect_around


def test_the_square_stays_inside_the_picture():
  assert rect_around(80, 48, (70.0, 10.0), FrameSize.of(24)) == CropRect.square(32, 0, 48, 24)
  assert rect_around(80, 48, (-5.0, 10.0), FrameSize.of(24)) == CropRect.square(0, 0, 48, 24)
  assert rect_around(48, 80, (20.0, 40.0), FrameSize.of(24)) == CropRect.square(0, 16, 48, 24)


def test_points_map_like_pixels():
  for size in (12, 24, 96):
    square = CropRect.square(10, 4, 48, size)
    picture = np.zeros((60, 80), np.uint8)
    picture[20:28, 30:38] = 255
    shrunk = square.image(picture).astype(float)
    yy, xx = np.indices(shrunk.shape) + 0.5
    center = np.array([(shrunk * xx).sum(), (shrunk * yy).sum()]) / shrunk.sum()
    np.testing.assert_allclose(square.points(np.array([34.0, 24.0], np.float32)), center, atol=0.05)
    assert set(np.unique(square.mask(picture))) == {0, 255}
  np.testing.assert_allclose(
    CropRect.square(10, 4, 48, 24).points(np.array([[34.0, 24.0, 8.0]], np.float32)), [[12, 10, 4]]
  )


def test_the_center_is_robust_to_outliers_and_missing_points():
  points = np.full((9, 5, 2), 20.0, np.float32)
  points[0] = 500
  points[1] = np.nan
  assert center_of(points, 80, 48) == (20, 20)
  assert center_of(points[1:2], 80, 48) == (40, 24)


def test_a_rectangle_has_the_proportions_of_its_frames():
  crop = rect_around(720, 1280, (400.0, 300.0), FrameSize(192, 256))
  assert crop == CropRect(0, 0, 720, 960, FrameSize(192, 256))
  assert rect_around(1281, 719, (900.0, 300.0), FrameSize(192, 256)) == CropRect(630, 0, 539, 719, crop.size)
  picture = np.zeros((1280, 720, 3), np.uint8)
  picture[480:, 360:] = 255
  assert crop.image(picture).shape == (256, 192, 3) and crop.surface(picture)[128:, 96:].min() == 255
  np.testing.assert_allclose(crop.points(np.array([360.0, 480.0], np.float32)), [96, 128])
  for other in (crop, CropRect.square(10, 4, 48, 24)):
    assert CropRect.from_json(other.to_json(), other.size) == other
