"""Tracks: points and masks of a person over a video."""

import numpy as np

from anchor_jax.landmarks.tracks import five_landmarks


def test_the_five_landmarks_and_masks_of_a_track(standing_track):
  track = standing_track()
  five = five_landmarks(track.face)
  assert five.shape == (6, 5, 2)
  np.testing.assert_allclose(five[0, 0], track.face[0, [33, 133], :2].mean(axis=0), rtol=1e-6)
  assert five[0, 0, 0] < five[0, 1, 0]  # the eye on the picture's left comes first
  assert set(np.unique(track.mask(0))) == {0, 255}
