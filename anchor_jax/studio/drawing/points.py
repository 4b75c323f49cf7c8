"""The visible points of a drawn surface as flat arrays, and their normals on a relief."""

import numpy as np

from anchor_jax.body.rasterize import Surface
from anchor_jax.core.shapes import NdArray
from anchor_jax.studio.drawing.body import Scene
from anchor_jax.studio.drawing.face import FacePaint


class VisiblePoints:
  """The pixels of a drawn surface that are covered by a solid, as flat arrays of n points.

  Attributes:
    index: [pixels of the surface] number of the visible solid, -1 for none.
    place: [n] index of each point into the flattened surface.
    solid: [n] number of its solid.
    part: [n] body part of its solid, as numbered in body.py.
    x, y, z: [n] picture coordinates in pixels, z towards the viewer.
    normal: [3, n] unit normals, picture coordinates (y down).
  """

  def __init__(self, surface: Surface, parts: list[int]):
    self.index = surface.index.ravel()
    self.place = np.flatnonzero(self.index >= 0)
    self.solid = self.index[self.place]
    self.part = np.asarray(parts, np.int8)[self.solid]
    columns, factor = surface.depth.shape[1], surface.supersample
    self.x = (self.place % columns + np.float32(0.5)).astype(np.float32) / np.float32(factor)
    self.y = (self.place // columns + np.float32(0.5)).astype(np.float32) / np.float32(factor)
    self.z = surface.depth.ravel()[self.place]
    self.normal = surface.normal.reshape(3, -1)[:, self.place]

  def where(self, *parts: int) -> NdArray:
    """Indices of the points that belong to one of `parts`."""
    if len(parts) == 1:
      return np.flatnonzero(self.part == parts[0])
    included = np.zeros(16, bool)
    included[list(parts)] = True
    return np.flatnonzero(included[self.part])


def tilt_normals(
  normal: NdArray, axes: NdArray, slope_u: NdArray, slope_v: NdArray, limit: NdArray | float = 1.0
) -> NdArray:
  """Unit normals [3, n] of a surface that carries a relief.

  Args:
    normal: [3, n] unit normals without the relief.
    axes: the first two columns are the directions u and v of the slopes.
    slope_u, slope_v: [n] gradient of the relief's height along u and v.
    limit: factor on both slopes.
  """
  u, v = axes[:, 0].astype(np.float32), axes[:, 1].astype(np.float32)
  slope_u, slope_v = slope_u * limit, slope_v * limit
  out = np.stack([normal[i] - slope_u * u[i] - slope_v * v[i] for i in range(3)])
  return out / np.sqrt(out[0] ** 2 + out[1] ** 2 + out[2] ** 2 + np.float32(1e-12))


def face_normals(scene: Scene, normal: NdArray, paint: FacePaint) -> NdArray:
  """Unit normals [3, n] of the face's n points, with the relief of `paint` and the eyeballs."""
  axes = scene.head.axes.astype(np.float32)
  facing = np.clip(normal[0] * axes[0, 2] + normal[1] * axes[1, 2] + normal[2] * axes[2, 2], 0, 1)
  out = tilt_normals(normal, axes, paint.slope[0], paint.slope[1], facing)
  forward = np.sqrt(np.maximum(1 - paint.ball[0] ** 2 - paint.ball[1] ** 2, np.float32(0.1)))
  for i in range(3):
    ball = axes[i, 0] * paint.ball[0] + axes[i, 1] * paint.ball[1] + axes[i, 2] * forward
    out[i] += (ball - out[i]) * paint.eye
  return out
