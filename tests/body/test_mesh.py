"""Triangle meshes as solids."""

import numpy as np

from anchor_jax.body.mesh import TriangleMesh
from anchor_jax.body.rasterize import rasterize


def test_a_plane_is_exact():
  # depth = 10 + x / 2 over the square [4, 28] x [4, 28]
  points = np.array([(4, 4, 12), (28, 4, 24), (28, 28, 24), (4, 28, 12)], np.float32)
  surface = rasterize([TriangleMesh(points, np.array([(0, 1, 2), (0, 2, 3)], np.int32))], 32, 1)
  assert surface.mask[6:26, 6:26].all() and not surface.mask[:3].any() and not surface.mask[:, 30:].any()
  x = np.arange(32) + 0.5
  np.testing.assert_allclose(surface.depth[10, 6:26], 10 + x[6:26] / 2, atol=1e-3)
  expected = np.array([-0.5, 0, 1]) / np.sqrt(1.25)
  np.testing.assert_allclose(surface.normal[:, 12, 15], expected, atol=1e-5)


def test_the_nearer_triangle_is_visible():
  points = np.array([(0, 0, 0), (32, 0, 0), (16, 32, 0), (0, 4, 9), (32, 4, 9), (16, 30, 9)], np.float32)
  for order in ([(0, 1, 2), (3, 4, 5)], [(3, 4, 5), (0, 1, 2)]):
    surface = rasterize([TriangleMesh(points, np.array(order, np.int32))], 32, 1)
    assert abs(surface.depth[12, 16] - 9) < 1e-4 and abs(surface.depth[1, 16]) < 1e-4


def test_normals_face_the_viewer_whatever_the_winding():
  points = np.array([(0, 0, 0), (8, 0, 0), (0, 8, 0)], np.float32)
  for triangle in ((0, 1, 2), (0, 2, 1)):
    np.testing.assert_allclose(
      TriangleMesh(points, np.array([triangle], np.int32)).normals(), [[0, 0, 1]] * 3, atol=1e-6
    )
