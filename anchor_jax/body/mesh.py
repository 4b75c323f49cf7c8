"""Triangle meshes as solids for the rasterizer."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from anchor_jax.body.solids import EMPTY, Patch, Real
from anchor_jax.core.shapes import Float, Int, NdArray

_BITS = 4  # sub-pixel bits of the triangles' corners


@dataclass(frozen=True, slots=True, eq=False)
class TriangleMesh:
  """Triangles with smooth normals, visible from both sides.

  Attributes:
    points: [N 3] pixels (x, y, z toward the viewer).
    triangles: [K 3] numbers of points.
    group, blend, skin: as in RoundCone.
  """

  points: Float[NdArray, "N 3"]
  triangles: Int[NdArray, "K 3"]
  group: int = -1
  blend: Real = 0.0
  skin: Any = None

  def bounds(self) -> tuple[float, float, float, float]:
    """Returns left, top, right, bottom of the points that triangles use, in pixels."""
    used = self.points[np.unique(self.triangles), :2]
    (left, top), (right, bottom) = used.min(axis=0), used.max(axis=0)
    return float(left), float(top), float(right), float(bottom)

  def hit(self, x: NdArray, y: NdArray) -> Patch:
    """Returns exact depths and interpolated normals of the visible triangles (painter's algorithm).

    The patch's `along` is the number of the triangle.
    """
    corners = self.points[self.triangles]  # [K 3 3]
    seen = self._paint(corners, x, y)
    row, column = np.nonzero(seen >= 0)
    triangle = corners[seen[row, column]]
    shares = barycentric(triangle, x[0, column], y[row, 0])
    depth = np.full(seen.shape, EMPTY, np.float32)
    depth[row, column] = (shares * triangle[:, :, 2]).sum(axis=1)
    smooth = self.normals()[self.triangles[seen[row, column]]]
    mixed = (shares[:, :, None] * smooth).sum(axis=1)
    mixed /= np.linalg.norm(mixed, axis=1, keepdims=True) + np.float32(1e-9)
    normal = np.zeros((3, *seen.shape), np.float32)
    normal[:, row, column] = mixed.T
    return Patch(depth, (normal[0], normal[1], normal[2]), seen.astype(np.float32))

  def normals(self) -> Float[NdArray, "N 3"]:
    """Returns unit normals at the points, toward the viewer: means over the adjacent triangles, weighted by area."""
    a, b, c = np.moveaxis(self.points[self.triangles], 1, 0)
    flat = np.cross(b - a, c - a)
    flat *= np.where(flat[:, 2:] < 0, -1, 1)
    total = np.zeros_like(self.points)
    for corner in range(3):
      np.add.at(total, self.triangles[:, corner], flat)
    return (total / (np.linalg.norm(total, axis=1, keepdims=True) + 1e-9)).astype(np.float32)

  def _paint(self, corners: NdArray, x: NdArray, y: NdArray) -> Int[NdArray, "h w"]:
    canvas = np.full((y.shape[0], x.shape[1]), -1, np.int32)
    if x.shape[1] < 2:
      return canvas
    origin, pitch = np.array([x[0, 0], y[0, 0]]), x[0, 1] - x[0, 0]
    places = np.round((corners[:, :, :2] - origin) / pitch * 2**_BITS).astype(np.int32)
    for number in np.argsort(corners[:, :, 2].mean(axis=1)):  # farthest first
      cv2.fillConvexPoly(canvas, places[number], int(number), cv2.LINE_8, _BITS)
    return canvas


def barycentric(
  triangle: Float[NdArray, "P 3 3"], x: Float[NdArray, " P"], y: Float[NdArray, " P"]
) -> Float[NdArray, "P 3"]:
  """Returns the corners' shares at points on triangles, clipped at 0, since edge pixels may lie just outside."""
  (ax, ay), (bx, by), (cx, cy) = (triangle[:, corner, :2].T for corner in range(3))
  area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
  area = np.where(np.abs(area) < 1e-6, 1e-6, area)
  b = ((x - ax) * (cy - ay) - (cx - ax) * (y - ay)) / area
  c = ((bx - ax) * (y - ay) - (x - ax) * (by - ay)) / area
  shares = np.maximum(np.stack([1 - b - c, b, c], axis=1), 0)
  return shares / shares.sum(axis=1, keepdims=True)
