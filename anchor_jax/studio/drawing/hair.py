"""Hair and earrings as solids around the head, the hairline, and the color of strands."""

import numpy as np

from anchor_jax.body.solids import Ellipsoid, Point, Real, RoundCone, Solid
from anchor_jax.core.shapes import NdArray
from anchor_jax.studio.camera import LocalFrame
from anchor_jax.studio.drawing.body import HAIR, JEWEL
from anchor_jax.studio.identity import Identity

_GROUP = 3
_STREAKS = np.random.Generator(np.random.PCG64(7)).uniform(-1, 1, 1024).astype(np.float32)


def on_scalp(identity: Identity, u: NdArray, v: NdArray, w: NdArray) -> NdArray:
  """Mask of the head-frame points (u, v, w) where hair grows: above the hairline and behind the ears."""
  style = identity.hair_style
  if style == "bald":
    return np.zeros(np.broadcast_shapes(u.shape, v.shape, w.shape), bool)
  bangs = style == "bob" and identity.parting > 0
  line = {"crop": 0.62, "bun": 0.60, "tail": 0.60, "long": 0.64, "bob": 0.42 if bangs else 0.62}.get(style, 0.57)
  slant = {"long": 0.50, "bob": 0.05 if bangs else 0.45, "side": 0.15, "short": 0.05}.get(style, 0.0)
  across = np.abs(u) * np.float32(1 / identity.head_width)
  drop = np.clip((across - np.float32(0.68)) * 4.5, 0, 1)
  edge = np.float32(line) - np.float32(slant) * np.abs(u - np.float32(0.4 * identity.parting))
  if style != "long" and not bangs:
    edge = (
      edge
      + np.float32(0.05) * np.sin(across * np.float32(4.2))
      - np.float32(0.06) * across
      + np.float32(0.006) * np.sin(u * 41 + v * 9)
    )
  if bangs:
    edge = edge + np.float32(0.022) * (np.sin(u * 31 + 2) + np.sin(u * 13))
  edge = edge + (np.float32(-0.22 if style in ("long", "bob") else -0.02) - edge) * drop
  nape = np.float32(-1.0 if style in ("long", "bob") else -0.22)
  return (v > edge) | ((w < np.float32(-0.12)) & (v > nape))


def _cap(identity: Identity, head: LocalFrame, radii: Point, center: Point) -> Ellipsoid:
  """The hair on the skull: an ellipsoid, clipped at the hairline."""

  def keep(x: NdArray, y: NdArray, z: NdArray) -> NdArray:
    own = (a * np.float32(r) + np.float32(c) for a, r, c in zip((x, y, z), radii, center, strict=True))
    return on_scalp(identity, *own)

  place = head.to_picture(np.array([center]))[0]
  return Ellipsoid(place, np.array(radii) * head.unit, head.axes, _GROUP, 0.10 * head.unit, keep)


def hair_solids(identity: Identity, head: LocalFrame) -> list[tuple[Solid, int]]:
  """Solids of hair and earrings in pixels, each with its part (HAIR or JEWEL)."""
  unit, wide, volume, part = head.unit, identity.head_width, identity.hair_volume, identity.parting
  style = identity.hair_style
  solids: list[tuple[Solid, int]] = []

  def ball(center: Point, radii: Point, blend: Real = 0.12, kind: int = HAIR) -> None:
    place = head.to_picture(np.array([center]))[0]
    solids.append((Ellipsoid(place, np.array(radii) * unit, head.axes, _GROUP, blend * unit), kind))

  def lock(start: Point, fall: Point, r0: Real, r1: Real, hang: Real = 0.6) -> None:
    """Adds a lock of hair from head-frame point `start` along `fall`, which is (right, up, out) in half head heights.

    `fall` is in the head's frame for `hang` 0 and in the picture's for 1, so that the lock hangs down in any head pose.
    """
    begin = head.to_picture(np.array([start]))[0]
    own = head.axes @ np.array(fall) * unit
    upright = np.array([fall[0], -fall[1], fall[2]]) * unit
    solids.append(
      (RoundCone(begin, begin + own * (1 - hang) + upright * hang, r0 * unit, r1 * unit, _GROUP, 0.10 * unit), HAIR)
    )

  if identity.earrings:
    for sign in (-1, 1):
      ball((sign * (wide + 0.03), -0.34, 0.04), (0.042, 0.06, 0.042), 0.0, JEWEL)
  if style == "bald":
    return solids
  tight = style in ("crop", "bun", "tail")
  full = style in ("long", "bob")
  grow = 0.02 if tight else 0.055 + 0.035 * volume
  if full:
    grow += 0.045
  solids.append((_cap(identity, head, (wide * 1.02 + grow, 0.84 + grow, 1.00 + grow), (0.0, 0.19, -0.06)), HAIR))
  lean = 1.0 if part > 0 else -1.0
  if style == "short":
    ball((0.10 * lean, 0.88, 0.20), (0.52, 0.24 + 0.10 * volume, 0.55))
    ball((-0.22 * lean, 0.80, 0.42), (0.30, 0.22 + 0.06 * volume, 0.34))
    ball((0.30 * lean, 0.78, 0.42), (0.30, 0.20 + 0.10 * volume, 0.34))
  elif style == "side":
    ball((-0.12 * lean, 0.84, 0.25), (0.56, 0.26 + 0.08 * volume, 0.58))
    lock((0.36 * lean, 0.82, 0.56), (-0.78 * lean, -0.02, 0.02), 0.17, 0.20, 0.0)
    lock((-0.40 * lean, 0.76, 0.50), (-0.24 * lean, -0.32, -0.22), 0.20, 0.12, 0.0)
  elif style == "curly":
    for k in range(17):
      angle, ring = k * 2.39996, np.sqrt((k + 0.5) / 17)
      x, z = np.cos(angle) * ring, np.sin(angle) * ring
      high = np.sqrt(max(1 - ring**2, 0.0))
      radius = 0.24 + 0.07 * volume + 0.04 * np.sin(k * 5.1)
      if z > 0.25 and high < 0.45:
        continue
      ball((float(x) * wide * 1.05, 0.30 + float(high) * 0.68, float(z) * 0.62 - 0.10), (radius, radius, radius), 0.07)
  elif style == "bun":
    ball((0.0, 1.10, -0.18), (0.31 + 0.06 * volume, 0.25, 0.30))
  elif style == "tail":
    lock((0.5 * lean, 0.25, -0.72), (0.42 * lean, -0.75, 0.15), 0.22, 0.20)
    lock((0.92 * lean, -0.50, -0.57), (-0.10 * lean, -0.95, 0.15), 0.20, 0.08, 0.9)
  if full:
    length = 1.35 + 0.55 * volume if style == "long" else 0.78
    ball((0.0, -0.20, -0.42), (wide * 1.12, 0.95 if style == "long" else 0.75, 0.46))
    for sign in (-1.0, 1.0):
      lock((sign * (wide + 0.01), 0.22, -0.02), (sign * 0.07, -0.55, 0.03), 0.20, 0.20, 0.2)
      lock(
        (sign * (wide + 0.08), -0.33, 0.0),
        (sign * (0.04 if style == "long" else -0.08), -length + 0.35, 0.10),
        0.20,
        0.13 if style == "long" else 0.20,
        0.75,
      )
      lock((sign * (wide - 0.10), 0.0, -0.32), (sign * 0.06, -length + 0.1, 0.0), 0.24, 0.18, 0.7)
      lock((sign * 0.26 + 0.25 * part, 0.86, 0.42), (sign * (0.46 - 0.2 * part * sign), -0.52, -0.25), 0.15, 0.17, 0.0)
  return solids


def paint_hair(identity: Identity, u: NdArray, v: NdArray, w: NdArray) -> tuple[NdArray, NdArray]:
  """Color [3, n] and strand brightness [n], -1..1, of hair at n head-frame points."""
  angle = np.arctan2(u - np.float32(0.3 * identity.parting) * np.clip(v, 0, 1), w + np.float32(0.55)) * np.float32(30)
  if identity.hair_style == "curly":
    angle = angle + np.sin(v * 17 + angle * np.float32(0.35)) * 2
  else:
    angle = angle + np.sin(v * np.float32(3.1) + angle * np.float32(0.08)) * np.float32(1.2)
  coarse = _STREAKS[(np.floor(angle).astype(np.int32)) & 1023]
  following = _STREAKS[(np.floor(angle).astype(np.int32) + 1) & 1023]
  share = angle - np.floor(angle)
  share = share * share * (3 - 2 * share)
  streak = coarse + (following - coarse) * share
  fine = _STREAKS[(np.floor(angle * np.float32(3.7) + 91).astype(np.int32)) & 1023]
  strand = np.float32(0.68) * streak + np.float32(0.32) * fine
  tone = np.asarray(identity.hair, np.float32)[:, None]
  return tone * (np.float32(1.0) + np.float32(0.34) * strand), strand
