"""Clothes: color and relief of torso and sleeves as functions of the position on the body, and collars as solids.

Points of the torso are (x, y) in its frame, in meters: right and up from the middle of the shoulder line.
"""

import numpy as np

from anchor_jax.body.solids import RoundCone, Solid
from anchor_jax.core.shapes import NdArray
from anchor_jax.studio.camera import LocalFrame
from anchor_jax.studio.drawing.body import COLLAR
from anchor_jax.studio.identity import Identity

_SLEEVE_RADIUS = np.float32(0.05)  # meters of fabric per radian around the arm


def collar_solids(identity: Identity, torso: LocalFrame, neck: NdArray) -> list[tuple[Solid, int]]:
  """Solids of the collar of a turtleneck or hoodie, in pixels; `neck` is the upper end of the neck in the picture."""
  unit = torso.unit
  points = torso.to_picture(
    np.array(
      [
        (0, 0.035, -0.004),
        (-0.075, 0.050, -0.045),
        (-0.052, -0.006, 0.078),
        (0.075, 0.050, -0.045),
        (0.052, -0.006, 0.078),
        (0, 0.065, -0.075),
      ]
    )
  )
  if identity.outfit == "turtleneck":
    end = points[0] + (neck - points[0]) * 0.72
    wide = identity.neck + 0.013
    return [(RoundCone(points[0], end, (wide + 0.008) * unit, wide * unit, 0, 0.02 * unit), COLLAR)]
  if identity.outfit == "hoodie":
    return [
      (RoundCone(points[i], points[j], a * unit, b * unit, 0, 0.02 * unit), COLLAR)
      for i, j, a, b in ((1, 2, 0.032, 0.019), (3, 4, 0.032, 0.019), (1, 5, 0.032, 0.038), (3, 5, 0.032, 0.038))
    ]
  return []


def _pattern(identity: Identity, x: NdArray, y: NdArray) -> NdArray:
  """Fraction of the second color, 0..1, at points (x, y) of the fabric, meters."""
  scale = identity.pattern_scale
  if identity.pattern == "stripes":  # thin, level
    return np.clip((np.abs((y / np.float32(0.036 * scale)) % 1 - 0.5) - np.float32(0.32)) * 12, 0, 1)
  if identity.pattern == "bands":  # broad blocks
    return np.clip((np.abs((y / np.float32(0.16 * scale) + 0.3) % 1 - 0.5) - np.float32(0.25)) * 30, 0, 1)
  if identity.pattern == "check":
    a = np.abs((x / np.float32(0.06 * scale)) % 1 - 0.5) < 0.22
    b = np.abs((y / np.float32(0.06 * scale)) % 1 - 0.5) < 0.22
    return np.float32(0.40) * a + np.float32(0.40) * b
  if identity.pattern == "dots":
    p = np.float32(0.045 * scale)
    row = np.floor(y / p)
    dx, dy = (x / p + np.float32(0.5) * (row % 2)) % 1 - 0.5, (y / p) % 1 - 0.5
    return np.clip((np.float32(0.27) - np.sqrt(dx * dx + dy * dy)) * 14, 0, 1)
  return np.zeros_like(x)


def _print(identity: Identity, x: NdArray, y: NdArray) -> NdArray:
  """Coverage, 0..1, of the shape printed on the chest, at torso points in meters."""
  size = np.float32(0.062 * identity.pattern_scale)
  x, y = x / size, (y + np.float32(0.185)) / size
  if identity.print_shape == 0:
    inside = 1 - np.sqrt(x * x + y * y)
  elif identity.print_shape == 1:  # star
    angle = np.arctan2(x, y)
    inside = np.float32(0.72) + np.float32(0.30) * np.cos(5 * angle) - np.sqrt(x * x + y * y)
  elif identity.print_shape == 2:  # heart
    k = np.abs(x)
    inside = np.float32(0.8) - np.sqrt(x * x + (y - np.float32(0.55) * np.sqrt(k) + np.float32(0.05)) ** 2)
  elif identity.print_shape == 3:  # triangle
    inside = np.minimum(y + np.float32(0.7), np.float32(0.62) - np.float32(0.5) * y - np.abs(x) * np.float32(0.87))
  else:  # a broad chevron
    inside = (
      np.float32(0.28) - np.abs(y + np.float32(0.6) * np.abs(x) - np.float32(0.3)) - np.maximum(np.abs(x) - 1.2, 0) * 5
    )
  return np.clip(inside * 14, 0, 1)


def paint_torso(identity: Identity, x: NdArray, y: NdArray, skin: NdArray) -> tuple[NdArray, NdArray, NdArray]:
  """Color [3, n], fraction of bare skin [n] and relief slope [2, n] along x and y, at n points of the dressed torso."""
  base, other, shirt = (
    np.asarray(c, np.float32)[:, None] for c in (identity.cloth, identity.cloth_two, identity.shirt)
  )
  share = _print(identity, x, y) if identity.pattern == "print" else _pattern(identity, x, y)
  color = base + (other - base) * share
  bare = np.zeros_like(x)
  shade = np.ones_like(x)
  slope = folds(x, y)
  side = np.abs(x)
  ring = np.sqrt((x / np.float32(1.08)) ** 2 + (y - np.float32(0.072)) ** 2)

  def inside(distance: NdArray, hardness: float | int = 220) -> NdArray:
    return np.clip(distance * np.float32(hardness) + np.float32(0.5), 0, 1)

  outfit = identity.outfit
  if outfit in ("tee", "sweater", "hoodie"):
    wide = 0.076 if outfit == "tee" else 0.066
    rib = inside(np.float32(wide + 0.014) - ring)
    color += (np.minimum(base * 0.78, 1) - color) * rib * np.float32(0.8)
    bare = inside(np.float32(wide) - ring)
    if outfit == "hoodie":
      for sign in (-1, 1):
        cord = (
          inside(np.float32(0.0035) - np.abs(x - np.float32(sign * 0.03)))
          * inside(np.float32(0.02) - y)
          * inside(y + np.float32(0.14))
        )
        color += (np.float32(0.9) - color) * cord
    if outfit == "sweater":
      slope[0] += np.float32(0.10) * np.sin(x * 900)
  elif outfit == "vneck":
    cut = np.minimum((y + np.float32(0.075)) * np.float32(0.62) - side, np.float32(0.10) - ring * np.float32(0.6))
    color += (base * 0.75 - color) * inside(cut + np.float32(0.010))
    bare = inside(cut)
  elif outfit == "shirt":
    cut = (y + np.float32(0.028)) * np.float32(0.60) - side
    flap = np.minimum(
      np.minimum(
        side - (y + np.float32(0.028)) * np.float32(0.60), np.float32(0.062) - side + (y - 0.02) * np.float32(0.2)
      ),
      y + np.float32(0.030) + np.float32(0.30) * (np.float32(0.055) - side),
    )
    bare = inside(cut)
    flap_share = inside(flap) * inside(y + np.float32(0.05))
    color += (np.minimum(base * 1.10 + 0.03, 1) - color) * flap_share
    shade -= np.float32(0.30) * inside(flap + np.float32(0.008)) * (1 - flap_share)
    shade -= np.float32(0.22) * np.exp(-(((x - np.float32(0.014)) / np.float32(0.0035)) ** 2)) * (y < -0.03)
    buttons = inside(np.float32(0.0065) - np.sqrt(x * x + ((y + 0.07) % 0.075 - np.float32(0.0375)) ** 2)) * (y < -0.03)
    color += (np.float32(0.93) - color) * buttons * np.float32(0.9)
  elif outfit == "blazer":
    open_to = -0.30
    cut = (y - np.float32(open_to)) * np.float32(0.30) - side
    inner = inside(cut)
    color += (shirt - color) * inner
    if identity.beard != "none" or identity.shoulder > 0.195:  # a tie
      width = np.float32(0.014) + np.float32(0.06) * np.clip(-y, 0, 0.25) * np.float32(0.6)
      tie = inside(width - side) * inside(np.float32(0.012) - y) * inner
      knot = (
        inside(np.float32(0.019) - side - np.clip(-y - 0.005, -0.1, 1) * np.float32(0.3))
        * inside(np.float32(0.018) - y)
        * inside(y + np.float32(0.022))
      )
      cover = np.maximum(tie, knot)
      weave = np.clip((np.abs(((x + y) / np.float32(0.028)) % 1 - 0.5) - np.float32(0.25)) * 9, 0, 1)
      color += (other * (np.float32(0.85) + np.float32(0.35) * weave) - color) * cover
      bare = inside(np.minimum((y - np.float32(0.004)) * np.float32(0.55) - side, y - np.float32(0.004))) * (1 - cover)
    else:
      bare = inside((y + np.float32(0.055)) * np.float32(0.55) - side)
    flap = (
      np.minimum(
        (y + np.float32(0.03)) * np.float32(0.6) - side + np.float32(0.045),
        side - (y + np.float32(0.03)) * np.float32(0.58),
      )
      * inner
    )
    color += (np.minimum(shirt * 1.06, 1) - color) * inside(flap) * inner * (y > -0.05)
    width = np.float32(0.058) * np.clip((y - np.float32(open_to)) / np.float32(0.16), 0, 1)
    lapel = np.minimum(-cut, cut + width)
    notch = np.abs(y + np.float32(0.055) - np.float32(0.35) * (side - 0.10)) < 0.004
    on = inside(lapel) * (1 - np.float32(0.8) * notch)
    color += (np.minimum(base * 1.16 + 0.02, 1) - color) * on * np.float32(0.8)
    shade -= np.float32(0.42) * inside(np.float32(0.008) - np.abs(cut + width)) * (y > open_to) * (1 - on)
    shade -= np.float32(0.35) * inside(np.float32(0.003) - np.abs(x - np.float32(0.004))) * (y < open_to)
    button = inside(np.float32(0.009) - np.sqrt((x - 0.012) ** 2 + (y - np.float32(open_to) + np.float32(0.03)) ** 2))
    color += (base * 0.5 - color) * button
  bare = bare * (y > -0.2)
  color = color * shade
  color += (skin[:, None] - color) * bare
  slope *= 1 - bare
  edge = np.clip(bare * (1 - bare) * 4, 0, 1)
  return color * (1 - np.float32(0.25) * edge), bare, slope


def body_relief(x: NdArray, y: NdArray) -> NdArray:
  """Slope [2, n] along x and y of the bare torso in the pose render: collar bones, chest, middle line."""
  side = np.abs(x)
  chest = np.exp(
    -(((side - np.float32(0.072)) / np.float32(0.060)) ** 2) - ((y + np.float32(0.125)) / np.float32(0.048)) ** 2
  )
  bone = (y - np.float32(0.004) - np.float32(0.12) * side) / np.float32(0.011)
  ridge = (
    np.exp(-bone * bone)
    * np.clip((side - np.float32(0.012)) * 60, 0, 1)
    * np.clip((np.float32(0.125) - side) * 30, 0, 1)
  )
  line = np.exp(-((x / np.float32(0.012)) ** 2)) * np.clip(-y * 20, 0, 1) * np.clip((y + np.float32(0.42)) * 20, 0, 1)
  along_x = chest * (np.float32(0.072) - side) * np.sign(x) * np.float32(7.0) + line * x * np.float32(22)
  return np.stack([along_x, chest * (y + np.float32(0.125)) * np.float32(-11.0) - ridge * bone * np.float32(0.42)])


def folds(x: NdArray, y: NdArray) -> NdArray:
  """Slope [2, n] along x and y of the folds in the torso's cloth; strongest from the armpits to the waist."""
  side = np.abs(x)
  phase = y * np.float32(46) + side * np.float32(58) + np.sin(x * 17 + y * 9) * np.float32(1.3)
  strength = (
    np.float32(0.24)
    * np.clip(side * np.float32(9) - np.float32(0.25), 0, 1)
    * np.clip(np.float32(0.2) - y * np.float32(5), 0, 1)
  )
  wave = np.cos(phase) * strength
  drape = (
    np.cos(y * np.float32(31) - x * np.float32(12) + 1) * np.float32(0.11) * np.clip(-y * 5 - np.float32(0.5), 0, 1)
  )
  return np.stack([wave * np.sign(x) * np.float32(0.8) - drape * np.float32(0.4), (wave + drape) * np.float32(0.7)])


def paint_sleeve(identity: Identity, along: NdArray, around: NdArray) -> tuple[NdArray, NdArray]:
  """Color [3, n] of a sleeve, and slope [n] of its relief along the arm.

  Args:
    identity: outfit, colors and pattern.
    along: [n] distance from the shoulder along the arm, meters.
    around: [n] angle around the arm, relative to the arm's own rotation.
  """
  base, other = (np.asarray(c, np.float32)[:, None] for c in (identity.cloth, identity.cloth_two))
  share = (
    np.zeros_like(along)
    if identity.pattern == "print"
    else _pattern(identity, around * _SLEEVE_RADIUS, -along - np.float32(0.04))
  )
  color = base + (other - base) * share
  length = identity.arm * (1.90 if identity.sleeve >= 2 else identity.sleeve)
  cuff = (
    np.clip((along - np.float32(length - 0.035)) * 150, 0, 1)
    if identity.outfit != "tee"
    else np.clip((along - np.float32(length - 0.012)) * 200, 0, 1)
  )
  tone = np.asarray(identity.shirt, np.float32)[:, None] if identity.outfit == "blazer" else base * np.float32(0.80)
  if identity.outfit == "blazer":
    cuff = np.clip((along - np.float32(length - 0.014)) * 200, 0, 1)
  color += (tone - color) * cuff
  bend = np.exp(-(((along - np.float32(identity.arm)) / np.float32(0.07)) ** 2))
  wave = np.cos(
    along * np.float32(115) + np.sin(around) * np.float32(1.9) + np.sin(along * np.float32(41)) * np.float32(1.7)
  )
  slope = wave * (np.float32(0.06) + np.float32(0.20) * bend) * (1 - cuff)
  return color, slope
