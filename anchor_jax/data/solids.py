"""An analytic rasteriser of shaded solids: depth, normals and identities of round shapes, in plain numpy.

Coordinates are pixels of the picture: x right, y down (pixel of column c covers [c, c + 1)), z towards the viewer, any
origin. Rays run along z (orthographic); a caller who wants perspective scales centres and radii by depth beforehand.
Every solid has a closed form along z, so it is solved for all pixels of its bounding box at once and merged into a
depth buffer. Solids of one `group` melt into each other: within `blend` pixels of depth the buffer keeps a smooth
maximum of the depths and mixes the normals (the polynomial smooth minimum known from distance fields, on depths).

Typical use:

  surface = rasterise([Ellipsoid(...), RoundCone(...)], size=128, supersample=2)
  picture = downsample(shade_pose(surface), 2)   # uint8 RGB [128, 128, 3], one lilac material on black
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import cv2
import numpy as np

from anchor_jax.shapes import Float, Int, NdArray, Shaped, UInt8

Real = float | int | np.number
Point = Sequence[Real] | NdArray
EMPTY = np.float32(-1e9)  # depth where no solid was hit
POSE_COLOUR = (0.80, 0.78, 0.90)  # the light lilac of body-mesh renders


@dataclass(slots=True)
class Patch:
  """What a solid answers for a patch of pixels: arrays of [h, w], and depth is EMPTY where it is missed."""

  depth: NdArray
  normal: tuple[NdArray, NdArray, NdArray]
  along: NdArray


@runtime_checkable
class Solid(Protocol):
  """Anything with bounds and a closed form along z; see RoundCone for the meaning of group and blend."""

  group: int
  blend: Real

  def bounds(self) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of the silhouette's box, pixels."""
    ...

  def hit(self, x: NdArray, y: NdArray) -> Patch:
    """Front surface along z at pixel centres x [1, w] and y [h, 1]; normals need not be of unit length."""
    ...


@dataclass(frozen=True, slots=True, eq=False)
class RoundCone:
  """A tapered capsule: all spheres between one of `radius_start` at `start` and one of `radius_end` at `end`.

  Attributes:
    start, end: centres, pixels (x, y, z).
    radius_start, radius_end: pixels, > 0.
    group: solids of the same group >= 0 melt together; -1 melts with nothing.
    blend: depth range of melting, pixels.
  """

  start: Point
  end: Point
  radius_start: Real
  radius_end: Real
  group: int = -1
  blend: Real = 0.0

  def bounds(self) -> tuple[float, float, float, float]:
    (ax, ay, _), (bx, by, _), ra, rb = self.start, self.end, self.radius_start, self.radius_end
    left, top, right, bottom = min(ax - ra, bx - rb), min(ay - ra, by - rb), max(ax + ra, bx + rb), max(ay + ra, by + rb)
    return float(left), float(top), float(right), float(bottom)

  def hit(self, x: NdArray, y: NdArray) -> Patch:
    many = _hit_cones([self], x[None], y[None])
    return Patch(many.depth[0], (many.normal[0][0], many.normal[1][0], many.normal[2][0]), many.along[0])


def _hit_cones(cones: Sequence[RoundCone], x: NdArray, y: NdArray) -> Patch:
  """Hits of K cones at once, each on its own patch: x [K, 1, w], y [K, h, 1], results [K, h, w].

  Depth is the maximum over t of z(t) + sqrt(Q(t)) with Q(t) = r(t)^2 - |q - c(t)|^2 = A t^2 + B t + C. Setting the
  derivative to zero gives Q = (B^2 - 4AC) / 4(ez^2 - A) and t = -(B + 2 ez sqrt(Q)) / 2A.
  """
  table = np.array([(*cone.start, *cone.end, cone.radius_start, cone.radius_end) for cone in cones], np.float32)
  ax, ay, az, ex, ey, ez, ra, dr = table.T[:, :, None, None]
  ex, ey, ez, dr = ex - ax, ey - ay, ez - az, dr - ra
  a = dr * dr - ex * ex - ey * ey
  end_on = a > np.float32(-1e-3) * ra * ra  # the nearer cap hides the rest
  a = np.where(end_on, np.float32(-1), a)
  dx, dy = x - ax, y - ay
  b = (dx * (2 * ex) + 2 * ra * dr) + dy * (2 * ey)
  c = (ra * ra - dx * dx) - dy * dy
  disc = b * b - c * (4 * a)
  root = np.sqrt(np.maximum(disc, 0) * (np.float32(0.25) / np.maximum(ez * ez - a, np.float32(1e-9))))
  t = np.clip((b + root * (2 * ez)) * (np.float32(-0.5) / a), 0, 1)
  if end_on.any():
    t = np.where(end_on, (ez + dr > 0).astype(np.float32), t)
  r = t * dr + ra
  nx, ny = dx - t * ex, dy - t * ey
  q = r * r - nx * nx - ny * ny
  nz = np.sqrt(np.maximum(q, 0))
  inverse = 1 / r
  return Patch(np.where(q > 0, nz + (t * ez + az), EMPTY), (nx * inverse, ny * inverse, nz * inverse), t)


@dataclass(frozen=True, slots=True, eq=False)
class Ellipsoid:
  """An ellipsoid; `rotation` holds its own axes as columns, in picture coordinates (y down).

  Attributes:
    centre: pixels (x, y, z).
    radii: pixels along the own axes.
    rotation: [3, 3].
    group, blend: as RoundCone's.
    clip: keeps the surface where it answers True; called with own-axes coordinates (x, y, z) in units of the radii.
  """

  centre: Point
  radii: Point
  rotation: NdArray = field(default_factory=lambda: np.eye(3))
  group: int = -1
  blend: Real = 0.0
  clip: Callable[[NdArray, NdArray, NdArray], NdArray] | None = None

  def bounds(self) -> tuple[float, float, float, float]:
    half = np.sqrt(((self.rotation * np.asarray(self.radii)) ** 2).sum(1))
    (cx, cy, _), (hx, hy, _) = self.centre, half
    return float(cx - hx), float(cy - hy), float(cx + hx), float(cy + hy)

  def hit(self, x: NdArray, y: NdArray) -> Patch:
    cx, cy, cz = map(float, self.centre)
    scaled = np.asarray(self.rotation, np.float64) / np.asarray(self.radii, np.float64)
    m = (scaled @ scaled.T).astype(np.float32)
    dx, dy = x - np.float32(cx), y - np.float32(cy)
    b = dx * m[0, 2] + dy * m[1, 2]
    c = dx * (dx * m[0, 0] - 0) + dy * dy * m[1, 1] + dx * (dy * (2 * m[0, 1])) - 1
    disc = b * b - c * m[2, 2]
    s = (np.sqrt(np.maximum(disc, 0)) - b) / m[2, 2]
    hit = disc > 0
    axes = scaled.astype(np.float32)
    own = [dx * axes[0, i] + dy * axes[1, i] + s * axes[2, i] for i in range(3)]
    if self.clip is not None:
      hit = hit & self.clip(*own)
    size = np.float32(np.min(self.radii))
    normal = tuple((own[0] * axes[i, 0] + own[1] * axes[i, 1] + own[2] * axes[i, 2]) * size for i in range(3))
    return Patch(np.where(hit, s + np.float32(cz), EMPTY), normal, own[1])


@dataclass(frozen=True, slots=True, eq=False)
class Loft:
  """Elliptic sections strung along the own y axis: torsos, heads, necks. Its own z axis must face the viewer roughly.

  A section at own height y in [low, high] is the ellipse (x / width(y))^2 + ((z - centre(y)) / depth(y))^2 = 1; the
  tables sample it uniformly from low to high. The ray's height is solved by fixed-point steps, the section exactly.

  Attributes:
    origin: pixels; rotation: [3, 3], own axes as columns in picture coordinates; low, high: pixels along own y.
    width, depth, centre: [N] pixels; closed ends reach 0 like a square root.
    group, blend: as RoundCone's.
  """

  origin: Point
  rotation: NdArray
  low: Real
  high: Real
  width: Float[NdArray, " N"]
  depth: Float[NdArray, " N"]
  centre: Float[NdArray, " N"]
  group: int = -1
  blend: Real = 0.0

  def bounds(self) -> tuple[float, float, float, float]:
    wide, deep = float(self.width.max()), float((self.depth + np.abs(self.centre)).max())
    corners = [(sx * wide, y, sz * deep) for sx in (-1, 1) for y in (self.low, self.high) for sz in (-1, 1)]
    points = np.array(corners) @ np.asarray(self.rotation).T + np.asarray(self.origin)
    (left, top), (right, bottom) = points[:, :2].min(0), points[:, :2].max(0)
    return float(left), float(top), float(right), float(bottom)

  def hit(self, x: NdArray, y: NdArray) -> Patch:
    rotation = np.asarray(self.rotation, np.float32)
    ox, oy, oz = map(float, self.origin)
    dx, dy = x - np.float32(ox), y - np.float32(oy)
    own = [dx * rotation[0, i] + dy * rotation[1, i] for i in range(3)]
    kx, ky, kz = rotation[2]
    steps = len(self.width)
    pitch = np.float32((steps - 1) / (self.high - self.low))
    floor = np.float32(1e-6 * float(self.width.max()) ** 2 + 1e-9)
    wide2 = np.maximum(self.width.astype(np.float32) ** 2, floor)
    deep2 = np.maximum(self.depth.astype(np.float32) ** 2, floor)
    inverse_wide, inverse_deep, middle = 1 / wide2, 1 / deep2, self.centre.astype(np.float32)
    s = own[2] * np.float32(-1 / kz)
    tilt = abs(float(ky))
    for _ in range(1 if tilt < 1e-3 else 2 if tilt < 0.05 else 4):
      height = own[1] + s * ky
      index = np.clip((height - np.float32(self.low)) * pitch + np.float32(0.5), 0, steps - 1).astype(np.int32)
      w, d, offset = inverse_wide[index], inverse_deep[index], own[2] - middle[index]
      xw, zd = own[0] * w, offset * d
      a, b, c = kx * kx * w + kz * kz * d, xw * kx + zd * kz, xw * own[0] + zd * offset - 1
      disc = b * b - a * c
      s = (np.sqrt(np.maximum(disc, 0)) - b) / a
    hit = (disc > 0) & (height >= self.low) & (height <= self.high)
    px, pz = own[0] + s * kx, offset + s * kz
    slope_wide, slope_deep, slope_middle = (np.gradient(table) * pitch for table in (wide2, deep2, middle))
    gx, gz = px * w, pz * d
    gy = np.float32(-0.5) * (gx * gx * slope_wide[index] + gz * gz * slope_deep[index]) - gz * slope_middle[index]
    scale = 1 / np.sqrt(gx * gx + gy * gy + gz * gz + np.float32(1e-20))
    normal = tuple((gx * rotation[i, 0] + gy * rotation[i, 1] + gz * rotation[i, 2]) * scale for i in range(3))
    return Patch(np.where(hit, s + np.float32(oz), EMPTY), normal, height)


@dataclass(slots=True)
class Surface:
  """What the viewer sees, at supersampled size [h, w].

  Attributes:
    depth: z in output pixels; EMPTY where nothing is.
    normal: [3, h, w] unit vectors (x right, y down, z to the viewer); 0 where nothing is.
    index: the solid seen, counted over all solids ever drawn into this surface; -1 where none is.
    along: position along the solid: t in [0, 1] of a RoundCone, own y of the others (units of the radius for an
      Ellipsoid, pixels for a Loft).
    group: the solid's group.
    supersample: sub-pixels a pixel, each way.
    drawn: how many solids were drawn.
  """

  depth: Float[NdArray, "h w"]
  normal: Float[NdArray, "3 h w"]
  index: Int[NdArray, "h w"]
  along: Float[NdArray, "h w"]
  group: Int[NdArray, "h w"]
  supersample: int
  drawn: int = 0

  @property
  def mask(self) -> Shaped[NdArray, "h w"]:
    """True where any solid is."""
    return self.index >= 0

  def copy(self) -> "Surface":
    """An independent surface to draw more solids into."""
    return Surface(self.depth.copy(), self.normal.copy(), self.index.copy(), self.along.copy(), self.group.copy(),
                   self.supersample, self.drawn)


def empty_surface(size: int | tuple[int, int], supersample: int = 2) -> Surface:
  """A surface with nothing on it; `size` is the output picture's side or (height, width)."""
  height, width = (size, size) if isinstance(size, int) else size
  h, w = height * supersample, width * supersample
  return Surface(np.full((h, w), EMPTY, np.float32), np.zeros((3, h, w), np.float32), np.full((h, w), -1, np.int16),
                 np.zeros((h, w), np.float32), np.full((h, w), -1, np.int16), supersample)


def draw(surface: Surface, solids: Iterable[Solid]) -> Surface:
  """Merges solids into a surface, in place, and returns it."""
  small: list[RoundCone] = []  # neighbours in the list, solved together
  for solid in solids:
    if isinstance(solid, RoundCone) and _extent(solid) * surface.supersample <= _SMALL:
      small.append(solid)
      continue
    _draw_small(surface, small)
    small = []
    _draw_one(surface, solid)
  _draw_small(surface, small)
  return surface


_SMALL = 48  # sub-pixels: cones up to this size are solved in batches, which saves numpy's overhead a call


def _extent(cone: RoundCone) -> float:
  left, top, right, bottom = cone.bounds()
  return max(right - left, bottom - top)


def _centres(first: NdArray, count: int, factor: int) -> NdArray:
  """Pixel coordinates of `count` sub-pixel centres from each `first`, [..., count]."""
  return ((first[..., None] + np.arange(count)) + 0.5).astype(np.float32) * np.float32(1 / factor)


def _draw_one(surface: Surface, solid: Solid) -> None:
  factor, number = surface.supersample, surface.drawn
  surface.drawn += 1
  rows, columns = surface.depth.shape
  left, top, right, bottom = solid.bounds()
  x0, x1 = max(int(np.floor(left * factor)), 0), min(int(np.ceil(right * factor)) + 1, columns)
  y0, y1 = max(int(np.floor(top * factor)), 0), min(int(np.ceil(bottom * factor)) + 1, rows)
  if x0 >= x1 or y0 >= y1:
    return
  hit = solid.hit(_centres(np.array(x0), x1 - x0, factor)[None, :], _centres(np.array(y0), y1 - y0, factor)[:, None])
  reach = np.float32(max(float(solid.blend), 0.0) if solid.group >= 0 else 0.0)
  seen = np.flatnonzero(hit.depth > np.maximum(surface.depth[y0:y1, x0:x1] - reach, EMPTY))
  if not len(seen):
    return
  row = seen // (x1 - x0)
  place = seen + row * (columns - x1 + x0) + (y0 * columns + x0)
  normal = [component.ravel()[seen] for component in hit.normal]
  count = np.full(len(seen), number, np.int16)
  group = np.full(len(seen), solid.group, np.int16)
  _merge(surface, place, hit.depth.ravel()[seen], normal, hit.along.ravel()[seen], count, group, reach)


def _draw_small(surface: Surface, cones: list[RoundCone]) -> None:
  """Draws many small cones at once: per pixel the two nearest melt if related, and the result goes into the buffers."""
  if not cones:
    return
  factor, number = surface.supersample, surface.drawn
  surface.drawn += len(cones)
  rows, columns = surface.depth.shape
  side = int(np.ceil(max(_extent(cone) for cone in cones) * factor)) + 2
  corner = np.floor(np.array([cone.bounds()[:2] for cone in cones]) * factor).astype(np.int64)
  hit = _hit_cones(cones, _centres(corner[:, 0], side, factor)[:, None, :], _centres(corner[:, 1], side, factor)[:, :, None])
  column, row = corner[:, 0, None] + np.arange(side), corner[:, 1, None] + np.arange(side)
  inside = ((column >= 0) & (column < columns))[:, None, :] & ((row >= 0) & (row < rows))[:, :, None]
  seen = np.flatnonzero((hit.depth > EMPTY) & inside)
  if not len(seen):
    return
  which, rest = np.divmod(seen, side * side)
  down, across = np.divmod(rest, side)
  place = (corner[which, 1] + down) * columns + corner[which, 0] + across
  depth = hit.depth.ravel()[seen]
  order = np.argsort((place << 32) - (depth * np.float32(1024)).astype(np.int64), kind="stable")
  place = place[order]
  start = np.flatnonzero(np.append(True, place[1:] != place[:-1]))
  first, second = order[start], order[np.minimum(start + 1, len(order) - 1)]
  groups = np.array([cone.group for cone in cones], np.int16)[which]
  blends = np.array([cone.blend if cone.group >= 0 else 0 for cone in cones], np.float32)[which]
  near, normal = depth[first], [component.ravel()[seen] for component in hit.normal]
  gap = depth[second] - near
  pair = (np.append(start[1:], len(order)) - start > 1) & (groups[first] == groups[second]) & (gap > -blends[first])
  share = np.where(pair, np.float32(0.5) + np.float32(0.5) * gap / np.maximum(blends[first], np.float32(1e-9)), 0)
  mixed = [component[first] * (1 - share) + component[second] * share for component in normal]
  length = 1 / np.sqrt(mixed[0] * mixed[0] + mixed[1] * mixed[1] + mixed[2] * mixed[2] + np.float32(1e-12))
  near = near + share * (gap + blends[first] * (1 - share))
  along = hit.along.ravel()[seen[first]]
  _merge(surface, place[start], near, [component * length for component in mixed], along,
         (number + which[first]).astype(np.int16), groups[first], blends[first])


def _merge(surface: Surface, place: NdArray, depth: NdArray, normal: list[NdArray], along: NdArray, number: NdArray,
           group: NdArray, blend: NdArray | np.float32) -> None:
  """Puts points (flat places, each once) into the buffers: the nearer wins, relatives within `blend` melt."""
  old = surface.depth.ravel()[place]
  gap = depth - old
  nearer = gap > 0
  melts = np.flatnonzero((np.abs(gap) < blend) & (surface.group.ravel()[place] == group))
  planes = surface.normal.reshape(3, -1)
  if len(melts):
    there, gap = place[melts], gap[melts]
    reach = blend[melts] if isinstance(blend, np.ndarray) and blend.ndim else blend
    share = gap * (np.float32(0.5) / reach) + np.float32(0.5)
    rest = 1 - share
    mixed = [planes[i][there] * rest + normal[i][melts] * share for i in range(3)]
    length = 1 / np.sqrt(mixed[0] * mixed[0] + mixed[1] * mixed[1] + mixed[2] * mixed[2] + np.float32(1e-12))
    melted = old[melts] + share * gap + reach * share * rest
  if nearer.all():
    kept, chosen = slice(None), place
  else:
    kept = np.flatnonzero(nearer)
    chosen = place[kept]
  surface.depth.reshape(-1)[chosen] = depth[kept]
  for i in range(3):
    planes[i][chosen] = normal[i][kept]
  surface.along.reshape(-1)[chosen] = along[kept]
  surface.index.reshape(-1)[chosen] = number[kept]
  surface.group.reshape(-1)[chosen] = group[kept]
  if len(melts):
    surface.depth.reshape(-1)[there] = melted
    for i in range(3):
      planes[i][there] = mixed[i] * length


def rasterise(solids: Iterable[Solid], size: int | tuple[int, int], supersample: int = 2) -> Surface:
  """Draws solids into a fresh surface.

  Args:
    solids: RoundCone, Ellipsoid, Loft or your own; coordinates in pixels of the output picture.
    size: side of the output picture, or (height, width), pixels.
    supersample: sub-pixels a pixel each way; shade at that size, then `downsample`.
  """
  return draw(empty_surface(size, supersample), solids)


def occlusion(surface: Surface, radius: Real) -> Float[NdArray, "h w"]:
  """How much of the surroundings of each point lies in front of it, 0 (open) .. 1: a cheap ambient occlusion.

  Args:
    surface: what is seen.
    radius: reach, output pixels.
  """
  factor = surface.supersample
  mask = surface.mask.astype(np.float32)
  depth = np.where(surface.mask, surface.depth, 0).astype(np.float32)
  small = (max(depth.shape[1] // 2, 1), max(depth.shape[0] // 2, 1))
  mask_small = cv2.resize(mask, small, interpolation=cv2.INTER_AREA)
  depth_small = cv2.resize(depth, small, interpolation=cv2.INTER_AREA)
  total = np.zeros_like(depth_small)
  centre = depth_small / np.maximum(mask_small, 1e-3)
  for share in (1.0, 0.4):
    side = max(int(radius * share * factor / 2) * 2 + 1, 3)
    weight = cv2.blur(mask_small, (side, side))
    mean = cv2.blur(depth_small, (side, side)) / np.maximum(weight, 1e-3)
    rise = np.maximum(mean - centre, 0) / np.float32(radius * share)
    total += weight * rise / (rise + np.float32(0.7))
  total = cv2.blur(total * np.float32(0.5), (3, 3))
  return cv2.resize(total, (depth.shape[1], depth.shape[0]), interpolation=cv2.INTER_LINEAR)


def shade_pose(surface: Surface, normal: Float[NdArray, "3 h w"] | None = None,
               shade: Float[NdArray, "h w"] | None = None, unit: Real | None = None) -> UInt8[NdArray, "h w 3"]:
  """The pose render: one light lilac material on black, lit from the upper left, with ambient occlusion.

  Args:
    surface: what is seen; the result has its supersampled size.
    normal: replaces the surface's normals (facial relief).
    shade: multiplies the light, 0..1 (an open mouth's inside).
    unit: reach of the ambient occlusion in output pixels; 1/32 of the picture's height when not given.
  """
  nx, ny, nz = surface.normal if normal is None else normal
  unit = surface.depth.shape[0] / surface.supersample / 32 if unit is None else unit
  key = np.maximum(nx * np.float32(-0.45) + ny * np.float32(-0.55) + nz * np.float32(0.70), 0)
  light = np.float32(0.16) + np.float32(0.62) * key + np.float32(0.22) * nz
  light += np.maximum(nx * np.float32(0.8) + nz * np.float32(0.3), 0) * np.float32(0.12)
  half = nx * np.float32(-0.24) + ny * np.float32(-0.30) + nz * np.float32(0.92)
  half *= half
  half *= half
  half *= half
  half *= half
  light += half * np.float32(0.10)
  light *= 1 - np.float32(0.62) * occlusion(surface, unit)
  if shade is not None:
    light *= shade
  light *= surface.mask
  picture = light[..., None] * (np.float32(255) * np.asarray(POSE_COLOUR, np.float32))
  return np.clip(picture, 0, 255).astype(np.uint8)


def downsample(picture: Shaped[NdArray, "h w ..."], supersample: int) -> Shaped[NdArray, "H W ..."]:
  """Averages sub-pixels: the anti-aliasing."""
  if supersample == 1:
    return picture
  size = (picture.shape[1] // supersample, picture.shape[0] // supersample)
  return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
