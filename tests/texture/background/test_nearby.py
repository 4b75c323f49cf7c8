"""Unknown pixels take the colors around."""

import numpy as np

from anchor_jax.texture.background.nearby import nearby


def test_one_known_color_fills_the_picture():
  picture, known = np.zeros((9, 13, 3), np.float32), np.zeros((9, 13), bool)
  picture[2:5, 3:6], known[2:5, 3:6] = 80, True
  np.testing.assert_allclose(nearby(picture, known), 80, atol=1e-3)


def test_between_two_colors_the_nearer_one_counts_more():
  picture, known = np.zeros((16, 64, 3), np.uint8), np.zeros((16, 64), bool)
  picture[:, :8], picture[:, 56:] = 40, 200
  known[:, :8], known[:, 56:] = True, True
  filled = nearby(picture, known)[8, :, 0]
  assert filled[12] < 90 and filled[52] > 150 and (np.diff(filled[8:56]) > -2).all()


def test_a_picture_without_known_pixels_is_black():
  assert not nearby(np.full((5, 7, 3), 9, np.uint8), np.zeros((5, 7), bool)).any()


def test_channels_do_not_depend_on_each_other():
  rng = np.random.default_rng(0)
  picture, known = rng.uniform(0, 255, (21, 34, 5)).astype(np.float32), rng.uniform(size=(21, 34)) > 0.8
  apart = [nearby(picture[..., [channel]], known) for channel in range(5)]
  np.testing.assert_allclose(nearby(picture, known), np.concatenate(apart, axis=-1), rtol=1e-5)
