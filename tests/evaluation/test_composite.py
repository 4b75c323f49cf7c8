import jax
import numpy as np

from anchor_jax.evaluation.composite import composite


def test_key_frames_are_weighted_by_the_square_of_their_quality():
  groups = np.zeros((1, 1, 6, 5, 4), np.uint8)  # six pixels; atlas, three key frames, background plate
  groups[..., 4, :] = 9, 90, 180, 255
  groups[0, 0, 0, 0] = 200, 0, 0, 255  # atlas alone
  groups[0, 0, 1, :2] = (200, 0, 0, 255), (0, 100, 0, 255)  # atlas and a key frame of quality 1
  groups[0, 0, 2, :2] = (200, 0, 0, 255), (0, 100, 0, 51)  # atlas and a key frame of quality 1/5
  groups[0, 0, 3, 2] = 0, 0, 70, 13  # a key frame of low quality alone
  groups[0, 0, 5, 4] = 0  # nothing is known
  found = np.asarray(jax.jit(composite)(groups.reshape(1, 1, 6, 20)))[0, 0]
  share = 1 / 25
  expected = [
    (200, 0, 0),
    (100, 50, 0),
    (200 / (1 + share), 100 * share / (1 + share), 0),
    (0, 0, 70),
    (9, 90, 180),
    (0, 0, 0),
  ]
  np.testing.assert_allclose(255 * found[:, :3], expected, atol=1e-3)
  assert found[:, 3].tolist() == [1, 1, 1, 1, 1, 0]
