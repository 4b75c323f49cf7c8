"""Round solids with a closed form along the viewing ray: tapered capsules, ellipsoids, lofts.

Coordinates are pixels of the picture: x right, y down (the pixel of column c covers [c, c + 1)), z toward the viewer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from anchor_jax.core.shapes import Float, NdArray

Real = float | int | np.floating | np.integer
Point = Sequence[Real] | NdArray
EMPTY = np.float32(-1e9)  # depth of a ray that hits no solid


@dataclass(slots=True)
class Patch:
  """A solid's surface in a patch of pixels: arrays of [h, w]; depth is EMPTY where the solid is missed."""

  depth: NdArray
  normal: tuple[NdArray, NdArray, NdArray]
  along: NdArray


@runtime_checkable
class Solid(Protocol):
  """Anything with bounds and a closed form along z."""

  @property
  def group(self) -> int:
    """Solids of one group >= 0 blend; -1 blends with nothing."""
    ...

  @property
  def blend(self) -> Real:
    """Depth range for blending, pixels."""
    ...

  @property
  def skin(self) -> Any:
    """Coordinates on its surface (body/skins.py), or None."""
    ...

  def bounds(self) -> tuple[float, float, float, float]:
    """Returns left, top, right, bottom of the silhouette's bounding box, in pixels."""
    ...

  def hit(self, x: NdArray, y: NdArray) -> Patch:
    """Returns the front surface along z at pixel centers x [1, w] and y [h, 1], with unit normals."""
    ...


@dataclass(frozen=True, slots=True, eq=False)
class RoundCone:
  """A tapered capsule: all spheres between one of `radius_start` at `start` and one of `radius_end` at `end`.

  Attributes:
    start, end: centers, pixels (x, y, z).
    radius_start, radius_end: pixels, > 0.
    group, blend, skin: see `Solid`.
  """

  start: Point
  end: Point
  radius_start: Real
  radius_end: Real
  group: int = -1
  blend: Real = 0.0
  skin: Any = None

  def bounds(self) -> tuple[float, float, float, float]:
    """Returns left, top, right, bottom of the silhouette's bounding box, in pixels."""
    (ax, ay, _), (bx, by, _), ra, rb = self.start, self.end, self.radius_start, self.radius_end
    left, top, right, bottom = (
      min(ax - ra, bx - rb),
      min(ay - ra, by - rb),
      max(ax + ra, bx + rb),
      max(ay + ra, by + rb),
    )
    return float(left), float(top), float(right), float(bottom)

  def hit(self, x: NdArray, y: NdArray) -> Patch:
    """Returns the front surface along z at pixel centers x [1, w] and y [h, 1]."""
    patches = hit_cones([self], x[None], y[None])
    nx, ny, nz = patches.normal
    return Patch(patches.depth[0], (nx[0], ny[0], nz[0]), patches.along[0])


def hit_cones(cones: Sequence[RoundCone], x: NdArray, y: NdArray) -> Patch:
  """Returns the patches of K cones, each on separate pixels: x [K, 1, w], y [K, h, 1], results [K, h, w].

  Depth is the maximum over t of z(t) + sqrt(Q(t)) with Q(t) = r(t)^2 - |q - c(t)|^2 = A t^2 + B t + C. Setting the
  derivative to zero gives Q = (B^2 - 4AC) / 4(ez^2 - A) and t = -(B + 2 ez sqrt(Q)) / 2A.
  """
  table = np.array([(*cone.start, *cone.end, cone.radius_start, cone.radius_end) for cone in cones], np.float32)
  ax, ay, az, ex, ey, ez, ra, dr = table.T[:, :, None, None]
  ex, ey, ez, dr = ex - ax, ey - ay, ez - az, dr - ra
  a = dr * dr - ex * ex - ey * ey
  end_on = a > np.float32(-1e-3) * ra * ra  # the disc of one cap contains that of the other
  a = np.where(np.abs(a) < np.float32(1e-3) * ra * ra, np.float32(-1e-3) * ra * ra, a)
  dx, dy = x - ax, y - ay
  b = (dx * (2 * ex) + 2 * ra * dr) + dy * (2 * ey)
  c = (ra * ra - dx * dx) - dy * dy
  disc = b * b - c * (4 * a)
  root = np.sqrt(np.maximum(disc, 0) * (np.float32(0.25) / np.maximum(ez * ez - a, np.float32(1e-9))))
  t = np.clip((b + root * (2 * ez)) * (np.float32(-0.5) / a), 0, 1)
  if end_on.any():  # the maximum may lie at either cap
    best = np.full_like(t, EMPTY)
    chosen = t
    for option in (t, np.zeros_like(t), np.ones_like(t)):
      q = (ra + option * dr) ** 2 - (dx - option * ex) ** 2 - (dy - option * ey) ** 2
      front = np.where(q > 0, np.sqrt(np.maximum(q, 0)) + option * ez, EMPTY)
      chosen = np.where(front > best, option, chosen)
      best = np.maximum(best, front)
    t = np.where(end_on, chosen, t)
  r = t * dr + ra
  nx, ny = dx - t * ex, dy - t * ey
  q = r * r - nx * nx - ny * ny
  nz = np.sqrt(np.maximum(q, 0))
  inverse = 1 / r
  return Patch(np.where(q > 0, nz + (t * ez + az), EMPTY), (nx * inverse, ny * inverse, nz * inverse), t)


@dataclass(frozen=True, slots=True, eq=False)
class Ellipsoid:
  """An ellipsoid.

  Attributes:
    center: pixels (x, y, z).
    radii: pixels along the local axes.
    rotation: [3, 3], local axes as columns in picture coordinates (y down).
    group, blend, skin: see `Solid`.
    clip: returns True where the surface exists; takes local coordinates (x, y, z) in units of the radii.
  """

  center: Point
  radii: Point
  rotation: NdArray = field(default_factory=lambda: np.eye(3))
  group: int = -1
  blend: Real = 0.0
  clip: Callable[[NdArray, NdArray, NdArray], NdArray] | None = None
  skin: Any = None

  def bounds(self) -> tuple[float, float, float, float]:
    """Returns left, top, right, bottom of the silhouette's bounding box, in pixels."""
    half = np.sqrt(((self.rotation * np.asarray(self.radii)) ** 2).sum(1))
    (cx, cy, _), (hx, hy, _) = self.center, half
    return float(cx - hx), float(cy - hy), float(cx + hx), float(cy + hy)

  def hit(self, x: NdArray, y: NdArray) -> Patch:
    """Returns the front surface along z at pixel centers x [1, w] and y [h, 1]."""
    cx, cy, cz = map(float, self.center)
    scaled = np.asarray(self.rotation, np.float64) / np.asarray(self.radii, np.float64)
    m = (scaled @ scaled.T).astype(np.float32)
    dx, dy = x - np.float32(cx), y - np.float32(cy)
    b = dx * m[0, 2] + dy * m[1, 2]
    c = dx * (dx * m[0, 0] - 0) + dy * dy * m[1, 1] + dx * (dy * (2 * m[0, 1])) - 1
    disc = b * b - c * m[2, 2]
    s = (np.sqrt(np.maximum(disc, 0)) - b) / m[2, 2]
    hit = disc > 0
    axes = scaled.astype(np.float32)
    local = [dx * axes[0, i] + dy * axes[1, i] + s * axes[2, i] for i in range(3)]
    if self.clip is not None:
      hit = hit & self.clip(*local)
    gradient = [local[0] * axes[i, 0] + local[1] * axes[i, 1] + local[2] * axes[i, 2] for i in range(3)]
    squares = gradient[0] * gradient[0] + gradient[1] * gradient[1] + gradient[2] * gradient[2]
    scale = 1 / np.sqrt(squares + np.float32(1e-20))
    normal = (gradient[0] * scale, gradient[1] * scale, gradient[2] * scale)
    return Patch(np.where(hit, s + np.float32(cz), EMPTY), normal, local[1])


@dataclass(frozen=True, slots=True, eq=False)
class Loft:
  """Elliptic sections along the local y axis: torsos, heads, necks. The local z axis must roughly face the viewer.

  The section at local height y in [low, high] is the ellipse (x / width(y))^2 + ((z - center(y)) / depth(y))^2 = 1; the
  tables sample it uniformly from low to high. The ray's height is solved by fixed-point steps, the section exactly.

  Attributes:
    origin: pixels.
    rotation: [3, 3], local axes as columns in picture coordinates.
    low, high: pixels along local y.
    width, depth, center: [N] pixels; closed ends approach 0 like a square root.
    group, blend, skin: see `Solid`.
  """

  origin: Point
  rotation: NdArray
  low: Real
  high: Real
  width: Float[NdArray, " N"]
  depth: Float[NdArray, " N"]
  center: Float[NdArray, " N"]
  group: int = -1
  blend: Real = 0.0
  skin: Any = None

  def bounds(self) -> tuple[float, float, float, float]:
    """Returns left, top, right, bottom of the silhouette's bounding box, in pixels."""
    wide, deep = float(self.width.max()), float((self.depth + np.abs(self.center)).max())
    corners = [(sx * wide, y, sz * deep) for sx in (-1, 1) for y in (self.low, self.high) for sz in (-1, 1)]
    points = np.array(corners) @ np.asarray(self.rotation).T + np.asarray(self.origin)
    (left, top), (right, bottom) = points[:, :2].min(0), points[:, :2].max(0)
    return float(left), float(top), float(right), float(bottom)

  def hit(self, x: NdArray, y: NdArray) -> Patch:
    """Returns the front surface along z at pixel centers x [1, w] and y [h, 1]."""
    rotation = np.asarray(self.rotation, np.float32)
    ox, oy, oz = map(float, self.origin)
    dx, dy = x - np.float32(ox), y - np.float32(oy)
    local = [dx * rotation[0, i] + dy * rotation[1, i] for i in range(3)]
    kx, ky, kz = rotation[2]
    steps = len(self.width)
    pitch = np.float32((steps - 1) / (self.high - self.low))
    floor = np.float32(1e-6 * float(self.width.max()) ** 2 + 1e-9)
    wide2 = np.maximum(self.width.astype(np.float32) ** 2, floor)
    deep2 = np.maximum(self.depth.astype(np.float32) ** 2, floor)
    inverse_wide, inverse_deep, middle = 1 / wide2, 1 / deep2, self.center.astype(np.float32)
    s = local[2] * np.float32(-1 / kz)
    tilt = abs(float(ky))
    for _ in range(1 if tilt < 1e-3 else 2 if tilt < 0.05 else 6):
      height = local[1] + s * ky
      index = np.clip((height - np.float32(self.low)) * pitch + np.float32(0.5), 0, steps - 1).astype(np.int32)
      w, d, offset = inverse_wide[index], inverse_deep[index], local[2] - middle[index]
      xw, zd = local[0] * w, offset * d
      a, b, c = kx * kx * w + kz * kz * d, xw * kx + zd * kz, xw * local[0] + zd * offset - 1
      disc = b * b - a * c
      s = (np.sqrt(np.maximum(disc, 0)) - b) / a
    hit = (disc > 0) & (height >= self.low) & (height <= self.high)
    px, pz = local[0] + s * kx, offset + s * kz
    slope_wide, slope_deep, slope_middle = (np.gradient(table) * pitch for table in (wide2, deep2, middle))
    gx, gz = px * w, pz * d
    gy = np.float32(-0.5) * (gx * gx * slope_wide[index] + gz * gz * slope_deep[index]) - gz * slope_middle[index]
    scale = 1 / np.sqrt(gx * gx + gy * gy + gz * gz + np.float32(1e-20))
    normal = tuple((gx * rotation[i, 0] + gy * rotation[i, 1] + gz * rotation[i, 2]) * scale for i in range(3))
    return Patch(np.where(hit, s + np.float32(oz), EMPTY), normal, height)
