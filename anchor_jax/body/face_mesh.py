"""The face mesh of the landmark model: its rings, its closed surface, and a flat map computed from its topology.

Point numbers are MediaPipe's: 468 points of the mesh, then 10 of the irises if the model refines them.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from anchor_jax.body.charts import chart
from anchor_jax.body.mesh import TriangleMesh, barycentric
from anchor_jax.body.rasterize import Surface
from anchor_jax.body.solids import Patch, Real
from anchor_jax.core.shapes import Bool, Float, Int, NdArray, UInt8

# Rings of face points. The first eye and brow are the person's right ones, on the picture's left.
OVAL = (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149,
        150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109)  # fmt: skip
EYES = ((33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7),
        (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249))  # fmt: skip
LIPS = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
MOUTH = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
BROWS = ((70, 63, 105, 66, 107), (300, 293, 334, 296, 336))
_IRISES, _SIDES = (468, 473), ("right", "left")
HOLES = (*EYES, MOUTH)
RISE = (0.04, 0.04, -0.12)  # height of the holes' middles above their rings, in half face widths


@dataclass(frozen=True, slots=True, eq=False)
class MeshSkin:
  """Skin of a TriangleMesh: u and v are interpolated between the corners of its triangles.

  Attributes:
    points, triangles: the mesh's.
    charts: [K] the chart of each triangle.
    corners: [K 3 2] u and v of its corners.
  """

  points: Float[NdArray, "N 3"]
  triangles: Int[NdArray, "K 3"]
  charts: UInt8[NdArray, " K"]
  corners: Float[NdArray, "K 3 2"]

  def place(self, x: NdArray, y: NdArray, z: NdArray, along: NdArray) -> tuple[NdArray, NdArray, NdArray]:
    """Returns chart, u and v of points of the picture; `along` has the numbers of their triangles."""
    number = along.astype(np.int32)
    shares = barycentric(self.points[self.triangles[number]], x, y)
    u, v = (shares[:, :, None] * self.corners[number]).sum(axis=1).T
    return self.charts[number], u, v


@dataclass(slots=True, eq=False)
class FaceMesh:
  """A face mesh as a solid that remembers its latest patch.

  Attributes:
    mesh: the mesh.
    hits: column and row of the first sub-pixel of the latest patch, in pixels, and the patch.
  """

  mesh: TriangleMesh
  hits: tuple[float, float, Patch] | None = None

  @property
  def group(self) -> int:
    """The mesh's group."""
    return self.mesh.group

  @property
  def blend(self) -> Real:
    """The mesh's depth range for blending, in pixels."""
    return self.mesh.blend

  @property
  def skin(self) -> MeshSkin:
    """The mesh's skin."""
    return self.mesh.skin

  def bounds(self) -> tuple[float, float, float, float]:
    """Returns left, top, right, bottom of the mesh, in pixels."""
    return self.mesh.bounds()

  def hit(self, x: NdArray, y: NdArray) -> Patch:
    """Returns the mesh's patch and remembers it."""
    patch = self.mesh.hit(x, y)
    self.hits = float(x[0, 0]), float(y[0, 0]), patch
    return patch

  def uncover(self, surface: Surface, number: int, over: Bool[NdArray, " S"], depth: Real) -> None:
    """Assigns the mesh to sub-pixels where other solids just hide it: changes `index` and `along` in place.

    Only the sub-pixels that `surface_map` samples are changed.

    Args:
      surface: the visible surface, with the mesh drawn into it as solid `number`.
      over: for each solid, whether the mesh takes precedence over it.
      depth: how far the solid may lie in front of the mesh, in pixels.
    """
    if self.hits is None:
      return
    left, top, patch = self.hits
    factor = surface.supersample
    corner = [round(value * factor - 0.5) for value in (top, left)]
    skipped = [(factor // 2 - value) % factor for value in corner]
    in_surface = tuple(
      slice(first + skip, first + length, factor)
      for first, skip, length in zip(corner, skipped, patch.depth.shape, strict=True)
    )
    in_patch = np.s_[skipped[0] :: factor, skipped[1] :: factor]
    index, triangle = surface.index[in_surface], patch.along[in_patch]
    near = surface.depth[in_surface] - patch.depth[in_patch] < depth
    taken = (triangle >= 0) & np.append(over, False)[index] & near
    index[taken] = number
    surface.along[in_surface][taken] = triangle[taken]


class FaceMap:
  """The closed face mesh and its charts: face, lips, mouth, lids, eyeballs.

  Attributes:
    triangles: [L 3] the mesh's, and fans that close its holes (eyes and mouth), each around a middle point.
    charts: [L] the chart of each.
    corners: [L 3 2] u and v of their corners; those of the eyeballs depend on the irises, see `skin`.
  """

  def __init__(self, triangles: Int[NdArray, "K 3"], points: int):
    """Takes the mesh's triangles and the number of points of a face."""
    fans = [
      np.array([(a, b, points + number) for a, b in zip(ring, ring[1:] + ring[:1], strict=True)], np.int32)
      for number, ring in enumerate(HOLES)
    ]
    self.triangles = np.concatenate([triangles.astype(np.int32), *fans])
    flat = flatten(self.triangles, points + len(HOLES))
    self.charts = self._parts(flat, len(triangles))
    self.corners = flat[self.triangles].astype(np.float32)
    for number in np.unique(self.charts):
      in_chart = self.charts == number
      low, high = (bound(self.corners[in_chart].reshape(-1, 2), axis=0) for bound in (np.min, np.max))
      self.corners[in_chart] = (self.corners[in_chart] - low) / np.maximum(high - low, 1e-6)

  def _parts(self, flat: Float[NdArray, "N 2"], count: int) -> UInt8[NdArray, " L"]:
    charts = np.full(len(self.triangles), chart("face"), np.uint8)
    middles = flat[self.triangles].mean(axis=1).astype(np.float32)
    ring = flat[list(LIPS)].astype(np.float32)
    lips = np.array([cv2.pointPolygonTest(ring, (float(x), float(y)), False) > 0 for x, y in middles])
    left, right = flat[LIPS[0]], flat[LIPS[10]]
    line = np.interp(middles[:, 0], [left[0], right[0]], [left[1], right[1]])
    charts[lips] = np.where(middles[lips, 1] > line[lips], chart("upper_lip"), chart("lower_lip"))
    for eye, side in zip(EYES, _SIDES, strict=True):
      for name, points in (("upper_lid", eye[1:8]), ("lower_lid", eye[9:])):
        charts[np.isin(self.triangles, points).any(axis=1)] = chart(name, side)
    names = (("eye", _SIDES[0]), ("eye", _SIDES[1]), ("mouth", None))
    for number, (name, side) in enumerate(names):
      first = count + sum(len(ring) for ring in HOLES[:number])
      charts[first : first + len(HOLES[number])] = chart(name, side)
    return charts

  def close(self, face: Float[NdArray, "N 3"], forward: Float[NdArray, "3"]) -> Float[NdArray, "M 3"]:
    """Returns a face's points and those that close its holes; `forward` is as long as half a face's width."""
    middles = [face[list(ring)].mean(axis=0) + rise * forward for ring, rise in zip(HOLES, RISE, strict=True)]
    return np.concatenate([face, middles])

  def skin(self, points: Float[NdArray, "M 3"], up: Float[NdArray, "3"]) -> MeshSkin:
    """Returns the skin of a closed mesh; `up` is the head's up direction in the picture.

    Eyeballs turn with the gaze: their u and v are relative to the middle of the iris.
    """
    corners = self.corners.copy()
    for eye, iris, side in zip(EYES, _IRISES, _SIDES, strict=True):
      eyeball = self.charts == chart("eye", side)
      outer, inner = points[eye[0], :2], points[eye[8], :2]
      half = (outer - inner) / 2
      normal = np.array([half[1], -half[0]])
      normal *= 1.0 if normal @ up[:2] > 0 else -1.0
      refined = len(points) - len(HOLES) > iris
      middle = points[iris, :2] if refined else points[list(eye), :2].mean(axis=0)
      offset = (points[self.triangles[eyeball], :2] - middle) / max(float(half @ half), 1e-6)
      corners[eyeball] = np.stack([offset @ half * 0.3, offset @ normal * 0.45], axis=-1) + 0.5
    return MeshSkin(points, self.triangles, self.charts, corners)


def flatten(triangles: Int[NdArray, "L 3"], count: int) -> Float[NdArray, "N 2"]:
  """Returns places for a disc's points in the unit square, from its topology alone (Tutte 1963).

  The points of `OVAL` lie on a circle, forehead up, and each other point at the mean of its neighbors, so that no
  triangle is flipped. Points that no triangle uses are at 0.

  Args:
    triangles: of the disc.
    count: number of points, used or not.
  """
  places = np.zeros((count, 2))
  angle = np.arange(len(OVAL)) * (2 * np.pi / len(OVAL))
  places[list(OVAL)] = 0.5 + 0.5 * np.stack([np.sin(angle), np.cos(angle)], axis=1)
  linked = np.zeros((count, count), bool)
  for a, b in ((0, 1), (1, 2), (2, 0)):
    linked[triangles[:, a], triangles[:, b]] = True
  linked |= linked.T
  inner = np.setdiff1d(np.unique(triangles), OVAL)
  system = np.diag(linked[inner].sum(axis=1) + 1e-6) - linked[np.ix_(inner, inner)]
  places[inner] = np.linalg.solve(system, linked[np.ix_(inner, np.array(OVAL))] @ places[list(OVAL)])
  return places
