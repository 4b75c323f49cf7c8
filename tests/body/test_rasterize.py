"""The rasterizer and the shading of pose renders."""

import numpy as np
import pytest

from anchor_jax.body.rasterize import rasterize
from anchor_jax.body.shading import downsample, occlusion, shade_pose
from anchor_jax.body.solids import Ellipsoid, Loft, RoundCone


def pixel_grid(size, supersample=2):
  centers = (np.arange(size * supersample) + 0.5) / supersample
  return np.meshgrid(centers, centers)


def turned(angle):
  c, s = np.cos(angle), np.sin(angle)
  return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def test_a_sphere_is_exact():
  surface = rasterize([Ellipsoid((16, 15, 3), (8, 8, 8))], 32)
  x, y = pixel_grid(32)
  inside = (x - 16) ** 2 + (y - 15) ** 2 < 64
  np.testing.assert_array_equal(surface.mask, inside)
  expected = 3 + np.sqrt(64 - (x - 16) ** 2 - (y - 15) ** 2, where=inside, out=np.zeros_like(x))
  np.testing.assert_allclose(surface.depth[inside], expected[inside], atol=1e-3)
  normal = np.stack([x - 16, y - 15, expected - 3]) / 8
  np.testing.assert_allclose(surface.normal[:, inside], normal[:, inside], atol=1e-3)


@pytest.mark.parametrize("radii", [(5.0, 5.0), (7.0, 3.0)])
@pytest.mark.parametrize(
  "end", [(24.0, 20.0, 9.0), (9.5, 10.0, 14.0), (9.0, 10.0, 2.0)], ids=["slanted", "toward", "point"]
)
def test_a_round_cone_is_the_union_of_its_spheres(radii, end):
  start = np.array([9.0, 10.0, 2.0])
  surface = rasterize([RoundCone(start, end, *radii)], 32)
  x, y = pixel_grid(32)
  best = np.full(x.shape, -np.inf)
  for t in np.linspace(0, 1, 400):
    center, radius = start + t * (np.array(end) - start), radii[0] + t * (radii[1] - radii[0])
    q = radius**2 - (x - center[0]) ** 2 - (y - center[1]) ** 2
    best = np.maximum(best, np.where(q > 0, center[2] + np.sqrt(np.maximum(q, 0)), -np.inf))
  both = surface.mask & np.isfinite(best)
  assert (surface.mask != np.isfinite(best)).mean() < 0.003
  assert np.abs(surface.depth[both] - best[both]).max() < 0.12
  np.testing.assert_allclose(np.linalg.norm(surface.normal[:, surface.mask], axis=0), 1, atol=1e-3)


def test_a_turned_ellipsoid_lies_on_its_quadric():
  rotation, radii, center = turned(0.5), np.array([9.0, 5.0, 6.0]), np.array([16.0, 16.0, 0.0])
  surface = rasterize([Ellipsoid(center, radii, rotation)], 32)
  x, y = pixel_grid(32)
  points = np.stack([x, y, surface.depth])[:, surface.mask] - center[:, None]
  np.testing.assert_allclose((((rotation.T @ points) / radii[:, None]) ** 2).sum(0), 1, atol=1e-3)


def test_a_loft_of_an_ellipse_is_the_ellipsoid():
  heights = np.linspace(-8, 8, 2001)
  section = np.sqrt(1 - (heights / 8) ** 2)
  rotation = turned(0.25)
  loft = Loft((16.0, 16.0, 1.0), rotation, -8, 8, 6 * section, 7 * section, 0 * section)
  one = rasterize([loft], 32)
  other = rasterize([Ellipsoid((16, 16, 1), (6, 8, 7), rotation)], 32)
  assert (one.mask != other.mask).mean() < 0.01
  inner = one.mask & other.mask & (other.normal[2] > 0.3)
  # The fixed-point steps are exact except at the rim of a tilted end.
  assert np.quantile(np.abs(one.depth - other.depth)[inner], 0.95) < 0.1
  assert np.quantile(np.abs(one.normal - other.normal)[:, inner], 0.95) < 0.1


def test_the_nearer_solid_hides_the_other_in_any_order():
  near, far = Ellipsoid((16, 16, 10), (5, 5, 5)), Ellipsoid((16, 16, 0), (9, 9, 5))
  one, other = rasterize([near, far], 32), rasterize([far, near], 32)
  np.testing.assert_array_equal(one.depth, other.depth)
  assert one.index[32, 32] == 0 and other.index[32, 32] == 1


@pytest.mark.parametrize("shift", [0.0, 200.0], ids=["batched", "one by one"])
def test_solids_of_one_group_blend_and_others_do_not(shift):
  cone = RoundCone((10, 16, 0), (22, 16, 0), 4, 4, group=1, blend=3)
  for group, blended in ((1, True), (2, False)):
    crossing = RoundCone((16, 8 - shift, 0), (16, 24, 0), 4, 4, group=group, blend=3)
    surface = rasterize([cone, crossing], 32)
    # Where both are equally near, the smooth maximum is a quarter of its range above them.
    assert (surface.depth[32, 32] > 4.4) == blended


def test_clipped_solids_and_solids_outside_the_picture():
  half = Ellipsoid((16, 16, 0), (8, 8, 8), clip=lambda x, y, z: x > 0)
  surface = rasterize([half, RoundCone((-50, -50, 0), (-40, -50, 0), 3, 3), Ellipsoid((90, 5, 0), (4, 4, 4))], 32)
  assert surface.mask.any() and not surface.mask[:, :31].any()
  assert surface.drawn == 3


def test_pose_shading_and_downsampling():
  surface = rasterize([Ellipsoid((10, 16, 0), (6, 8, 6))], (32, 20), 3)
  picture = shade_pose(surface)
  assert picture.shape == (96, 60, 3) and picture.dtype == np.uint8
  assert not picture[~surface.mask].any() and picture[surface.mask].min() > 10
  small = downsample(picture, 3)
  assert small.shape == (32, 20, 3)
  np.testing.assert_allclose(small.mean(), picture.mean(), atol=0.5)
  dark = shade_pose(surface, shade=np.full(surface.depth.shape, 0.5, np.float32))
  assert dark.mean() < 0.6 * picture.mean()


def test_occlusion_darkens_surfaces_behind_others():
  wall, finger = Ellipsoid((16, 16, -20), (40, 40, 4)), RoundCone((8, 16, -12), (24, 16, -12), 2, 2)
  shade = occlusion(rasterize([wall, finger], 32), 3)
  assert shade.min() >= 0 and shade.max() <= 1
  assert shade[38, 32] > 3 * shade[60, 32]
