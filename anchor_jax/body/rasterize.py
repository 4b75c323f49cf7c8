"""An analytic rasterizer of solids: depth, normals and identities of round shapes, in plain NumPy.

Coordinates are pixels of the picture: x right, y down (the pixel of column c covers [c, c + 1)), z toward the viewer,
any origin. Rays run along z (orthographic); for perspective, scale centers and radii by depth first. Every solid has a
closed form along z, which is solved for all pixels of its bounding box at once and merged into a depth buffer. Solids
of one `group` blend: within `blend` pixels of depth the buffer takes a smooth maximum of the depths and mixes the
normals (the polynomial smooth minimum of distance fields, applied to depths).

Typical use:

  surface = rasterize([Ellipsoid(...), RoundCone(...)], size=128, supersample=2)
  picture = downsample(shade_pose(surface), 2)   # uint8 RGB [128, 128, 3], one lilac material on black
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from anchor_jax.body.solids import EMPTY, RoundCone, Solid, hit_cones
from anchor_jax.core.shapes import Float, Int, NdArray, Shaped


@dataclass(slots=True)
class Surface:
  """The visible surface, at supersampled size [h, w].

  Attributes:
    depth: z in output pixels; EMPTY without a solid.
    normal: [3, h, w] unit vectors (x right, y down, z to the viewer); 0 without a solid.
    index: the visible solid, numbered over all solids ever drawn into this surface; -1 without one.
    along: position along the solid: t in [0, 1] for a RoundCone, local y for an Ellipsoid (in radii) and a Loft (in
      pixels), the triangle's number for a TriangleMesh.
    group: the solid's group.
    supersample: sub-pixels per pixel and axis.
    drawn: number of solids drawn so far.
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
    """True where any solid is visible."""
    return self.index >= 0

  def copy(self) -> "Surface":
    """Returns an independent copy to draw more solids into."""
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
  """Returns a surface without solids; `size` is the output picture's side or (height, width)."""
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
  small: list[RoundCone] = []  # consecutive small cones, solved together
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


_SMALL = 48  # sub-pixels; cones up to this size are solved in batches, which saves NumPy's overhead per call


def _extent(box: tuple[float, float, float, float]) -> float:
  left, top, right, bottom = box
  return max(right - left, bottom - top)


def _centres(first: NdArray, count: int, factor: int) -> NdArray:
  """Pixel coordinates of `count` sub-pixel centers from each `first`, [..., count]."""
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
  """Draws many small cones at once: per pixel, the two nearest ones of a group blend, and the result is merged."""
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
  """Merges points (flat indices, each once) into the buffers: the nearer wins, and groups blend within `blend`."""
  old = surface.depth.ravel()[place]
  gap = depth - old
  nearer = gap > 0
  blended = np.flatnonzero((np.abs(gap) < blend) & (surface.group.ravel()[place] == group))
  planes = surface.normal.reshape(3, -1)
  if len(blended):
    blend_place, gap = place[blended], gap[blended]
    reach = blend[blended] if isinstance(blend, np.ndarray) and blend.ndim else blend
    share = gap * (np.float32(0.5) / reach) + np.float32(0.5)
    rest = 1 - share
    mixed = [planes[i][blend_place] * rest + normal[i][blended] * share for i in range(3)]
    length = 1 / np.sqrt(mixed[0] * mixed[0] + mixed[1] * mixed[1] + mixed[2] * mixed[2] + np.float32(1e-12))
    blend_depth = old[blended] + share * gap + reach * share * rest
  if nearer.all():
    source, target = slice(None), place
  else:
    source = np.flatnonzero(nearer)
    target = place[source]
  surface.depth.reshape(-1)[target] = depth[source]
  for i in range(3):
    planes[i][target] = normal[i][source]
  surface.along.reshape(-1)[target] = along[source]
  surface.index.reshape(-1)[target] = number[source]
  surface.group.reshape(-1)[target] = group[source]
  if len(blended):
    surface.depth.reshape(-1)[blend_place] = blend_depth
    for i in range(3):
      planes[i][blend_place] = mixed[i] * length


def rasterize(solids: Iterable[Solid], size: int | tuple[int, int], supersample: int = 2) -> Surface:
  """Returns a new surface with these solids.

  Args:
    solids: RoundCone, Ellipsoid, Loft or any other `Solid`; coordinates in pixels of the output picture.
    size: side of the output picture, or (height, width), pixels.
    supersample: sub-pixels per pixel and axis; shade at that size, then `downsample`.
  """
  return draw(empty_surface(size, supersample), solids)
