"""Skins: chart, u and v of points on solids, from which surface maps are rendered.

A solid's `skin` maps its points to the body's surface. `Tube` is for round cones and may twist; `Sheet` and `Ball` are
for rigid parts of any solids. A pose source may add its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from anchor_jax.body.rasterize import Surface
from anchor_jax.body.solids import Point, RoundCone, Solid
from anchor_jax.core.shapes import Float, NdArray, UInt8

_TURN = np.float32(2 * np.pi)


@dataclass(frozen=True, slots=True, eq=False)
class Tube:
  """Skin of a RoundCone: u is the angle around its axis, v the position along it.

  With `axis` the direction from start to end, u = 3/4 points to `side` and u = 1/2 to handed * cross(axis, side).

  Attributes:
    chart: number of the chart.
    side: a direction in picture coordinates that turns with the limb; its part along the axis is ignored.
    handed: 1 or -1; the right arm's chart mirrors the left one's.
    end_side: `side` at the end of a twisted limb; the twist is spread evenly over v. None for no twist.
    span: v at the centers of start and end.
    limits: lowest and highest v; beyond the span for the cap of a finger's tip.
  """

  chart: int
  side: Point
  handed: float | int
  end_side: Point | None = None
  span: tuple[float, float] = (0.0, 1.0)
  limits: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Sheet:
  """Skin of a rigid part that is seen from the front or the back: torso, palm.

  Attributes:
    origin: pixels.
    inverse: [3, 3] matrix from picture coordinates to local ones: x -1 to 1 across the charts, y 0 to 1 along them, z
      -1 to 1 from back to front.
    front, back: charts with z > 0 and with z <= 0, from y = 0 upward, of equal heights.
    spread: share of u for the sides, where z is near 0; with 0, u depends on x alone.
  """

  origin: Point
  inverse: Float[NdArray, "3 3"]
  front: tuple[int, ...]
  back: tuple[int, ...]
  spread: float = 0.5

  def place(self, x: NdArray, y: NdArray, z: NdArray, along: NdArray) -> tuple[NdArray, NdArray, NdArray]:
    """Returns chart, u and v of points of the picture."""
    return self.unfold(*local_coordinates(self.origin, self.inverse, x, y, z))

  def unfold(self, a: NdArray, b: NdArray, c: NdArray) -> tuple[NdArray, NdArray, NdArray]:
    """Returns chart, u and v of points in local coordinates."""
    spread = np.float32(self.spread)
    # a * (1 + spread) at the sides and a in the middle: increases around an ellipse and along a level ridge
    u = np.float32(0.5) + a * (1 + spread * (1 - np.minimum(np.abs(c), 1))) * (np.float32(0.5) / (1 + spread))
    chart, v = _stacked(self.front, b)
    if self.back != self.front:
      behind = c <= 0
      chart_back, v_back = _stacked(self.back, b)
      chart, v = np.where(behind, chart_back, chart), np.where(behind, v_back, v)
    return chart, u, v


@dataclass(frozen=True, slots=True, eq=False)
class Ball:
  """Skin by direction from a center: cranium, ears.

  u is the angle around the local x axis (1/2 is the front, z), v the angle from its low end (0) to its high end (1).

  Attributes:
    origin: pixels.
    inverse: [3, 3] matrix from picture coordinates to local ones.
    chart: number of the chart.
  """

  origin: Point
  inverse: Float[NdArray, "3 3"]
  chart: int

  def place(self, x: NdArray, y: NdArray, z: NdArray, along: NdArray) -> tuple[NdArray, NdArray, NdArray]:
    """Returns chart, u and v of points of the picture."""
    a, b, c = local_coordinates(self.origin, self.inverse, x, y, z)
    u = np.float32(0.5) + np.arctan2(b, c) / _TURN
    v = np.float32(0.5) + np.arctan2(a, np.sqrt(b * b + c * c)) * (2 / _TURN)
    return np.full(len(a), self.chart, np.uint8), u % 1, v


def local_coordinates(
  origin: Point, inverse: Float[NdArray, "3 3"], x: NdArray, y: NdArray, z: NdArray
) -> tuple[NdArray, NdArray, NdArray]:
  """Returns points of the picture in a part's local coordinates (x, y, z)."""
  m = np.asarray(inverse, np.float32)
  d = [value - np.float32(start) for value, start in zip((x, y, z), origin, strict=True)]
  a, b, c = (d[0] * m[i, 0] + d[1] * m[i, 1] + d[2] * m[i, 2] for i in range(3))
  return a, b, c


def _stacked(charts: tuple[int, ...], height: NdArray) -> tuple[NdArray, NdArray]:
  """Chart and v at a height 0 to 1 of charts that lie above each other."""
  scaled = height * np.float32(len(charts))
  number = np.clip(scaled.astype(np.int32), 0, len(charts) - 1)
  return np.array(charts, np.uint8)[number], scaled - number


def surface_map(surface: Surface, solids: Sequence[Solid]) -> UInt8[NdArray, "H W 3"]:
  """The surface map (chart, u, v) of the visible surface, from one sub-pixel near the middle of each pixel.

  Args:
    surface: the rasterized solids.
    solids: all solids drawn into it, in order.
  """
  factor = surface.supersample
  first = factor // 2
  index, depth, along = (
    np.ascontiguousarray(plane[first::factor, first::factor]) for plane in (surface.index, surface.depth, surface.along)
  )
  place = np.flatnonzero(index.ravel() >= 0)
  row, column = np.divmod(place.astype(np.int32), index.shape[1])
  middle = np.float32((first + 0.5) / factor)
  picture = np.zeros((*index.shape, 3), np.uint8)
  picture.reshape(-1, 3)[place] = surface_points(
    solids,
    index.ravel()[place],
    column.astype(np.float32) + middle,
    row.astype(np.float32) + middle,
    depth.ravel()[place],
    along.ravel()[place],
  )
  return picture


def surface_points(
  solids: Sequence[Solid], index: NdArray, x: NdArray, y: NdArray, z: NdArray, along: NdArray
) -> UInt8[NdArray, "n 3"]:
  """Returns chart, u and v (0 to 255) of n points.

  Args:
    solids: the solids under the points.
    index: [n] the solid of each point.
    x, y, z: [n] pixels.
    along: [n] `along` from the solid's `hit`.
  """
  tubes, rigid, kinds = [], {}, np.zeros(len(solids), np.int32)
  rows = np.zeros(len(solids), np.int32)
  for number, solid in enumerate(solids):
    skin = solid.skin
    if isinstance(skin, Tube):
      rows[number] = len(tubes)
      kinds[number] = 1
      tubes.append(solid)
    elif skin is not None:
      kinds[number] = rigid.setdefault(id(skin), (len(rigid) + 2, skin))[0]
  kind = kinds[index]
  out = np.zeros((len(index), 3), np.uint8)
  x, y, z = (value.astype(np.float32) for value in (x, y, z))
  if tubes:
    on = np.flatnonzero(kind == 1)
    _write(out, on, *_on_tubes(tubes, rows[index[on]], x[on], y[on], z[on]))
  for number, skin in rigid.values():
    on = np.flatnonzero(kind == number)
    if len(on):
      _write(out, on, *skin.place(x[on], y[on], z[on], along[on]))
  return out


def _write(out: NdArray, places: NdArray, chart: NdArray, u: NdArray, v: NdArray) -> None:
  values = np.stack([chart, u * 256, v * 256], axis=1, dtype=np.float32, casting="unsafe")
  out[places] = np.clip(values, 0, 255, out=values)


def _on_tubes(
  cones: list[RoundCone], which: NdArray, x: NdArray, y: NdArray, z: NdArray
) -> tuple[NdArray, NdArray, NdArray]:
  """Chart, u and v of points on cones with `Tube` skins; `which` is the cone of each point."""
  skins = [cone.skin for cone in cones]
  table = np.array(
    [
      (*cone.start, *cone.end, *skin.side, *(skin.side if skin.end_side is None else skin.end_side))
      for cone, skin in zip(cones, skins, strict=True)
    ]
  )
  start, end, side, end_side = table[:, 0:3], table[:, 3:6], table[:, 6:9], table[:, 9:12]
  axis = end - start
  length = np.sqrt((axis * axis).sum(1, keepdims=True)) + 1e-6
  axis = axis / length
  side = _square_to(axis, side)
  (ax, ay, az), (sx, sy, sz) = axis.T, side.T
  handed = np.array([skin.handed for skin in skins])
  front = (np.stack([ay * sz - az * sy, az * sx - ax * sz, ax * sy - ay * sx]) * handed).T
  end_side = _square_to(axis, end_side)
  # the angle grows from `front` to `side`, so the twist has the opposite sign of `end_side`'s share of `front`
  twist = np.arctan2(-(end_side * front).sum(1), (end_side * side).sum(1))
  spans = np.array([(*skin.span, *skin.limits) for skin in skins])
  rows = np.concatenate([start, axis / length, front, side, twist[:, None], spans], axis=1).astype(np.float32)
  rows = np.take(np.ascontiguousarray(rows.T), which, axis=1)
  dx, dy, dz = x - rows[0], y - rows[1], z - rows[2]
  share = dx * rows[3] + dy * rows[4] + dz * rows[5]
  forward = dx * rows[6] + dy * rows[7] + dz * rows[8]
  sideways = dx * rows[9] + dy * rows[10] + dz * rows[11]
  angle = np.arctan2(sideways, forward) - rows[12] * np.clip(share, 0, 1)
  v = np.clip(rows[13] + (rows[14] - rows[13]) * share, rows[15], rows[16])
  chart = np.array([skin.chart for skin in skins], np.uint8)[which]
  return chart, (np.float32(0.5) + angle / _TURN) % 1, v


def angles_around(cone: RoundCone, x: NdArray, y: NdArray, z: NdArray) -> Float[NdArray, "n"]:
  """Returns the angles (-pi to pi) of n points around a cone with a `Tube` skin; the seam is at u = 0."""
  _, u, _ = _on_tubes([cone], np.zeros(len(x), np.int32), *(value.astype(np.float32) for value in (x, y, z)))
  return (u - np.float32(0.5)) * _TURN


def _square_to(axis: Float[NdArray, "K 3"], vector: Float[NdArray, "K 3"]) -> Float[NdArray, "K 3"]:
  """Unit vectors perpendicular to unit axes, as near to the given ones as possible."""
  square = vector - axis * (axis * vector).sum(1, keepdims=True)
  return square / (np.sqrt((square * square).sum(1, keepdims=True)) + 1e-9)
