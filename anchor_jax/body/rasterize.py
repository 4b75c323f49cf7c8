"""An analytic rasterizer of shaded solids: depth, normals and identities of round shapes, in plain numpy.

Coordinates are pixels of the picture: x right, y down (the pixel of column c covers [c, c + 1)), z towards the
viewer, any origin. Rays run along z (orthographic); a caller who wants perspective scales centres and radii by depth
beforehand. Every solid has a closed form along z: it is solved for all pixels of its bounding box at once and merged
into a depth buffer. Solids of one `group` melt into each other: within `blend` pixels of depth the buffer keeps a
smooth maximum of the depths and mixes the normals (the polynomial smooth minimum of distance fields, on depths).

Typical use:

  surface = rasterize([Ellipsoid(...), RoundCone(...)], size=128, supersample=2)
  picture = downsample(shade_pose(surface), 2)   # uint8 RGB [128, 128, 3], one lilac material on black
"""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from anchor_jax.body.solids import EMPTY, Ellipsoid, Loft, Patch, Point, Real, RoundCone, Solid, hit_cones
from anchor_jax.core.shapes import Float, Int, NdArray, Shaped, UInt8

__all__ = [
  "EMPTY",
  "Ellipsoid",
  "Loft",
  "Patch",
  "Point",
  "Real",
  "RoundCone",
  "Solid",
  "Surface",
  "downsample",
  "draw",
  "empty_surface",
  "occlusion",
  "rasterize",
  "shade_pose",
]

POSE_COLOUR = (0.80, 0.78, 0.90)  # the light lilac of body-mesh renders


@dataclass(slots=True)
class Surface:
  """What the viewer sees, at supersampled size [h, w].

  Attributes:
    depth: z in output pixels; EMPTY where nothing is.
    normal: [3, h, w] unit vectors (x right, y down, z to the viewer); 0 where nothing is.
    index: the solid seen, counted over all solids ever drawn into this surface; -1 where none is.
    along: position along the solid: t in [0, 1] of a RoundCone, own y of the others (units of the radius for an
      Ellipsoid, pixels for a Loft), the triangle's number for a TriangleMesh.
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
    return Surface(
      self.depth.copy(),
      self.normal.copy(),
      self.index.copy(),
      self.along.copy(),
      self.group.copy(),
      self.supersample,
      self.drawn,
    )


def empty_surface(size: int | tuple[int, int], supersample: int = 2) -> Surface:
  """A surface with nothing on it; `size` is the output picture's side or (height, width)."""
  height, width = (size, size) if isinstance(size, int) else size
  h, w = height * supersample, width * supersample
  return Surface(
    np.full((h, w), EMPTY, np.float32),
    np.zeros((3, h, w), np.float32),
    np.full((h, w), -1, np.int16),
    np.zeros((h, w), np.float32),
    np.full((h, w), -1, np.int16),
    supersample,
  )


def draw(surface: Surface, solids: Iterable[Solid]) -> Surface:
  """Merges solids into a surface, in place, and returns it."""
  small: list[RoundCone] = []  # neighbours in the list, solved together
  boxes: list[tuple[float, float, float, float]] = []
  for solid in solids:
    box = solid.bounds()
    if isinstance(solid, RoundCone) and _extent(box) * surface.supersample <= _SMALL:
      small.append(solid)
      boxes.append(box)
      continue
    _draw_small(surface, small, boxes)
    small, boxes = [], []
    _draw_one(surface, solid, box)
  _draw_small(surface, small, boxes)
  return surface


_SMALL = 48  # sub-pixels: cones up to this size are solved in batches, which saves numpy's overhead a call


def _extent(box: tuple[float, float, float, float]) -> float:
  left, top, right, bottom = box
  return max(right - left, bottom - top)


def _centres(first: NdArray, count: int, factor: int) -> NdArray:
  """Pixel coordinates of `count` sub-pixel centres from each `first`, [..., count]."""
  return ((first[..., None] + np.arange(count)) + 0.5).astype(np.float32) * np.float32(1 / factor)


def _draw_one(surface: Surface, solid: Solid, box: tuple[float, float, float, float]) -> None:
  factor, number = surface.supersample, surface.drawn
  surface.drawn += 1
  rows, columns = surface.depth.shape
  left, top, right, bottom = box
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


def _draw_small(surface: Surface, cones: list[RoundCone], boxes: list[tuple[float, float, float, float]]) -> None:
  """Draws many small cones at once: per pixel the two nearest melt if related, and the result goes into the buffers."""
  if not cones:
    return
  factor, number = surface.supersample, surface.drawn
  surface.drawn += len(cones)
  rows, columns = surface.depth.shape
  side = int(np.ceil(max(_extent(box) for box in boxes) * factor)) + 2
  corner = np.floor(np.array([box[:2] for box in boxes]) * factor).astype(np.int64)
  hit = hit_cones(
    cones, _centres(corner[:, 0], side, factor)[:, None, :], _centres(corner[:, 1], side, factor)[:, :, None]
  )
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
  _merge(
    surface,
    place[start],
    near,
    [component * length for component in mixed],
    along,
    (number + which[first]).astype(np.int16),
    groups[first],
    blends[first],
  )


def _merge(
  surface: Surface,
  place: NdArray,
  depth: NdArray,
  normal: list[NdArray],
  along: NdArray,
  number: NdArray,
  group: NdArray,
  blend: NdArray | np.float32,
) -> None:
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


def rasterize(solids: Iterable[Solid], size: int | tuple[int, int], supersample: int = 2) -> Surface:
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


def shade_pose(
  surface: Surface,
  normal: Float[NdArray, "3 h w"] | None = None,
  shade: Float[NdArray, "h w"] | None = None,
  unit: Real | None = None,
) -> UInt8[NdArray, "h w 3"]:
  """The pose render: one light lilac material on black, lit from the upper left, with ambient occlusion.

  Args:
    surface: what is seen; the result has its supersampled size.
    normal: replaces the surface's normals (facial relief).
    shade: multiplies the light, 0..1 (an open mouth's inside).
    unit: reach of the ambient occlusion in output pixels; 1/32 of the picture's height when not given.
  """
  nx, ny, nz = surface.normal if normal is None else normal
  reach = surface.depth.shape[0] / surface.supersample / 32 if unit is None else unit
  key = np.maximum(nx * np.float32(-0.45) + ny * np.float32(-0.55) + nz * np.float32(0.70), 0)
  light = np.float32(0.16) + np.float32(0.62) * key + np.float32(0.22) * nz
  light += np.maximum(nx * np.float32(0.8) + nz * np.float32(0.3), 0) * np.float32(0.12)
  half = nx * np.float32(-0.24) + ny * np.float32(-0.30) + nz * np.float32(0.92)
  half *= half
  half *= half
  half *= half
  half *= half
  light += half * np.float32(0.10)
  light *= 1 - np.float32(0.62) * occlusion(surface, reach)
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
