"""The face: relief, colors, eyes and mouth as functions of points in the head's frame.

Points are (u, v, w): right in the picture, up, out of the face, in half head heights; the eyes are at v = EYE_ROW. The
relief is a height field h(u, v), given by its gradient, which tilts the normals. In the eyes, normals are an eyeball's.
"""

from dataclasses import dataclass

import numpy as np

from anchor_jax.body.solids import Point, Real
from anchor_jax.core.shapes import Float, NdArray
from anchor_jax.studio.drawing.body import head_profile
from anchor_jax.studio.expression import EYE_ROW, Mouth, eye_of, mouth_of
from anchor_jax.studio.identity import Identity
from anchor_jax.studio.motion import MotionState

HAIRLINE = 0.62  # top of the face mask


@dataclass(slots=True)
class FacePaint:
  """Colors and shading of the face at n points.

  Attributes:
    color: [3, n] RGB 0..1.
    slope: [2, n] gradient of the relief along u and v.
    shade: [n] factor on the light, 0..1, for folds and creases in the frame.
    gloss: [n] strength of highlights.
    eye: [n] coverage by the eyeballs, 0..1.
    ball: [2, n] u and v of the eyeball's normal, times that coverage.
    glint: [n] strength of the light's reflection in the eyes.
    pose_shade: [n] the same as `shade`, for the pose render.
  """

  color: NdArray
  slope: NdArray
  shade: NdArray
  gloss: NdArray
  eye: NdArray
  ball: NdArray
  glint: NdArray
  pose_shade: NdArray


def face_points(identity: Identity, state: MotionState) -> Float[NdArray, "5 3"]:
  """Head-frame points of the landmarks: eyes (picture's left, right), nose tip, mouth corners (left, right)."""
  width, depth, middle = head_profile(identity)
  mouth = mouth_of(identity, state)

  def surface(u: Real, v: Real) -> tuple[Real, Real, Real]:
    w, d, c = (float(np.interp(v, np.linspace(-1, 1, len(width)), table)) for table in (width, depth, middle))
    return u, v, c + d * float(np.sqrt(max(1 - (u / w) ** 2, 0.0)))

  tip = -identity.nose_length + 0.02
  nose = (0.0, tip, surface(0.0, tip)[2] + 0.085 * identity.nose_out + 0.085)
  corner = mouth.row + 0.012 + 0.062 * mouth.smile
  return np.array(
    [
      surface(-identity.eye_gap, EYE_ROW),
      surface(identity.eye_gap, EYE_ROW),
      nose,
      surface(-mouth.half_width, corner),
      surface(mouth.half_width, corner),
    ]
  )


def _mix(color: NdArray, other: Point, share: NdArray) -> None:
  """Blends `color` [3, n] towards the RGB color `other` by `share` [n], in place."""
  for i in range(3):
    color[i] += (np.float32(other[i]) - color[i]) * share


def grain(u: NdArray, v: NdArray) -> NdArray:
  """Deterministic noise in [-1, 1] from two coordinates, by a hash of sines."""
  x = np.sin(u * np.float32(12.9898) + v * np.float32(78.233)) * np.float32(43758.547)
  return 2 * (x - np.floor(x)) - 1


class _Relief:
  """Accumulates the gradient of a sum of Gaussian hills over (u, v)."""

  def __init__(self, u: NdArray, v: NdArray):
    self.u, self.v = u, v
    self.slope = np.zeros((2, len(u)), np.float32)

  def hill(self, u0: Real, v0: Real, su: Real, sv: Real, height: Real) -> NdArray:
    """Adds a hill with the given center, widths and height, and returns the hill at unit height, exp(-r^2) [n]."""
    du, dv = self.u - np.float32(u0), self.v - np.float32(v0)
    du *= np.float32(1 / su)
    dv *= np.float32(1 / sv)
    value = np.exp(-(du * du + dv * dv))
    self.slope[0] -= du * value * np.float32(2 * height / su)
    self.slope[1] -= dv * value * np.float32(2 * height / sv)
    return value


def paint_face(identity: Identity, state: MotionState, u: NdArray, v: NdArray, pixel: Real) -> FacePaint:
  """Colors and shading of the face at n points of the head's surface.

  Args:
    identity: the person.
    state: the expression.
    u, v: [n] float32, head frame, half head heights.
    pixel: size of a sub-pixel in half head heights, for anti-aliasing.
  """
  n = len(u)
  color = np.repeat(np.asarray(identity.skin, np.float32)[:, None], n, axis=1)
  shade, gloss, pose = np.ones(n, np.float32), np.full(n, 0.20, np.float32), np.ones(n, np.float32)
  paint = FacePaint(
    color,
    np.zeros((2, n), np.float32),
    shade,
    gloss,
    np.zeros(n, np.float32),
    np.zeros((2, n), np.float32),
    np.zeros(n, np.float32),
    pose,
  )
  soft = np.float32(1 / max(1.3 * pixel, 0.012))

  def inside(distance: NdArray) -> NdArray:
    return np.clip(distance * soft + np.float32(0.5), 0, 1)

  relief = _Relief(u, v)
  mouth = mouth_of(identity, state)
  _skin(identity, mouth, relief, paint)
  for side in (0, 1):
    _eye(identity, state, side, u, v, relief, paint, inside)
  _mouth(identity, mouth, u, v, relief, paint, inside)
  if identity.beard != "none":
    _beard(identity, mouth, u, v, paint)
  paint.slope = relief.slope
  return paint


def _skin(identity: Identity, mouth: Mouth, relief: _Relief, paint: FacePaint) -> None:
  u, v, color = relief.u, relief.v, paint.color
  skin = np.asarray(identity.skin, np.float32)
  tip = -identity.nose_length + 0.02
  red = skin * np.array([1.02, 0.74, 0.72], np.float32)
  for sign in (-1.0, 1.0):
    apple = relief.hill(sign * 0.42, -0.24 + 0.03 * mouth.smile, 0.20, 0.17, 0.030 + 0.016 * mouth.smile)
    _mix(color, red, apple * np.float32(0.25 + 0.5 * identity.blush))
    # The fold from the nose to the corner of the mouth.
    a, b = (
      np.array([sign * identity.nose_width * 1.15, tip - 0.01]),
      np.array([sign * mouth.half_width * 1.22, mouth.row - 0.02]),
    )
    along = np.clip(((u - a[0]) * (b - a)[0] + (v - a[1]) * (b - a)[1]) / float((b - a) @ (b - a)), 0, 1)
    away = (u - a[0] - along * (b - a)[0]) * np.float32(sign) + (v - a[1] - along * (b - a)[1]) * np.float32(0.4)
    fold = (
      np.exp(-((away / np.float32(0.035)) ** 2))
      * np.sin(along * np.float32(np.pi))
      * np.float32(0.10 + 0.16 * identity.age + 0.12 * mouth.smile)
    )
    paint.shade -= fold
    paint.pose_shade -= fold
    # Nostrils, and the crease around the wings of the nose.
    hole = np.exp(
      -(
        ((u - sign * identity.nose_width * 0.46) / np.float32(0.036)) ** 2
        + ((v - tip + 0.072) / np.float32(0.020)) ** 2
      )
    )
    paint.shade -= np.float32(0.70) * hole
    paint.pose_shade -= np.float32(0.40) * hole
  _mix(color, red, np.exp(-((u / 0.09) ** 2 + ((v - tip) / 0.09) ** 2)) * np.float32(0.32))
  relief.hill(0.0, -0.58, 0.27, 0.15, 0.035)
  relief.hill(0.0, -0.86 - 0.10 * mouth.opening, 0.15, 0.09, 0.030)
  relief.hill(0.0, -0.735 - 0.16 * mouth.opening, 0.14, 0.045, -0.022)
  relief.hill(0.0, mouth.row + 0.115, 0.030, 0.05, -0.008)
  under = np.exp(-((u / 0.13) ** 2 + ((v - tip + 0.10) / 0.05) ** 2))
  paint.shade -= np.float32(0.16) * under
  paint.pose_shade -= np.float32(0.14) * under
  paint.gloss += np.float32(0.25) * np.exp(-((u / 0.07) ** 2 + ((v - tip - 0.04) / 0.10) ** 2))
  if identity.freckles:
    spots = np.clip(grain(np.floor(u * 34), np.floor(v * 34)) * 3.2 - 2.1, 0, 1) * np.exp(-(((v + 0.18) / 0.16) ** 2))
    _mix(
      color,
      skin * np.array([0.74, 0.56, 0.46], np.float32),
      (spots * np.float32(0.7 * identity.freckles)).astype(np.float32),
    )


def _beard(identity: Identity, mouth: Mouth, u: NdArray, v: NdArray, paint: FacePaint) -> None:
  """Blends in the beard, in place."""
  tip = -identity.nose_length + 0.02
  opening = mouth.opening
  line = np.float32(-0.46) + np.float32(0.55) * np.maximum(np.abs(u) - 0.22, 0) ** 1.2
  low = np.clip((line - v) / 0.06, 0, 1)
  low *= np.clip((np.abs(u) - 0.05) / 0.1 + (mouth.row - 0.1 - v) / 0.05, 0, 1)
  lips = (u / (1.08 * mouth.half_width)) ** 2 + (
    (v - mouth.row + 0.02 + 0.09 * opening) / (0.105 + 0.12 * opening)
  ) ** 2
  low *= np.clip((lips - 0.9) / 0.35, 0, 1)
  above = np.exp(-(((u / (1.05 * mouth.half_width)) ** 2) ** 2))
  above *= np.clip((tip - 0.082 - v) / 0.03, 0, 1) * np.clip((v - mouth.row - 0.045 + np.abs(u) * 0.30) / 0.03, 0, 1)
  loop = (u / (mouth.half_width + 0.055)) ** 2 + (
    (v - mouth.row + 0.085 + 0.10 * opening) / (0.245 + 0.11 * opening)
  ) ** 2
  ring = (
    np.clip((1.12 - loop) / 0.15, 0, 1)
    * np.clip((lips - 1.0) / 0.35, 0, 1)
    * np.clip((mouth.row + 0.06 - v) / 0.06, 0, 1)
  )
  area = {
    "stubble": 0.42 * np.maximum(low, above),
    "full": 0.95 * np.maximum(low, above),
    "moustache": 0.95 * above,
    "goatee": 0.90 * np.maximum(ring, above),
  }[identity.beard]
  texture = grain(np.floor(u * 60), np.floor(v * 30))
  share = np.clip(area * (1 + 0.14 * texture), 0, 1).astype(np.float32)
  tone = np.asarray(identity.hair, np.float32) * 0.9 + 0.02
  _mix(paint.color, tone, share)
  paint.gloss *= 1 - 0.7 * share


def _eye(
  identity: Identity, state: MotionState, side: int, u: NdArray, v: NdArray, relief: _Relief, paint: FacePaint, inside
) -> None:
  sign = -1.0 if side == 0 else 1.0
  size, gap = identity.eye_size, identity.eye_gap
  raised = float(state.brows[side])
  brow_row = EYE_ROW + identity.brow_height + 0.045 * raised
  relief.hill(sign * (gap - 0.01), EYE_ROW + 0.015, 0.205, 0.125, -0.055)
  relief.hill(sign * gap, brow_row - 0.02, 0.19, 0.065, 0.026)
  relief.hill(sign * gap, EYE_ROW, 0.125, 0.085, 0.036)  # the ball under the lids
  near = np.flatnonzero(
    (np.abs(u - np.float32(sign * gap)) < size * 1.75) & (np.abs(v - np.float32(EYE_ROW + 0.1)) < 0.34)
  )
  if not len(near):
    return
  eye = eye_of(identity, state, side)
  x, y = eye.to_local(u[near], v[near])
  lower, upper, crease = eye.lids(x)
  color = paint.color[:, near]
  corner = np.clip((np.float32(1.02) - np.abs(x)) * 12, 0, 1)
  opened = inside(np.minimum(upper - y, y - lower)) * corner
  # Lids: crease, lashes, the rim of the lower lid.
  fold = np.exp(-(((y - crease) / np.float32(0.016)) ** 2)) * corner
  lid = np.clip((crease - y) * 30, 0, 1) * np.clip((y - upper) * 30, 0, 1) * corner
  paint.shade[near] -= np.float32(0.24) * fold
  paint.pose_shade[near] -= np.float32(0.20) * fold
  _mix(
    color,
    np.asarray(identity.skin, np.float32) * np.array([0.80, 0.62, 0.60], np.float32),
    lid * np.float32(0.25 + 0.5 * identity.makeup),
  )
  # The eyeball.
  ix, iy = eye.ball(x, y)
  radius = 0.53 * size
  distance = np.sqrt(ix * ix + iy * iy)
  ball = np.empty_like(color)
  ball[0], ball[1], ball[2] = 0.94, 0.93, 0.92
  pink = np.clip((np.abs(x) - 0.62) * 1.6, 0, 1)
  _mix(ball, (0.86, 0.62, 0.58), pink * np.float32(0.6))
  iris = inside(radius - distance)
  tint = np.asarray(identity.eye, np.float32)
  ring = np.clip(distance / np.float32(radius), 0, 1)
  glow = np.clip(-iy / np.float32(radius) * np.float32(0.5) + np.float32(0.55), 0, 1)
  inner = (
    tint[:, None]
    * (np.float32(0.75) + np.float32(0.85) * glow)
    * (1 - np.float32(0.62) * ring * ring * ring * ring * ring)
  ).astype(np.float32)
  ball += (inner - ball) * iris
  _mix(ball, (0.015, 0.012, 0.012), inside(np.float32(0.46 * radius) - distance))
  lid_shadow = np.clip((upper - y) / np.float32(0.5 * eye.height), 0, 1)
  ball *= np.float32(0.50) + np.float32(0.50) * lid_shadow
  color += (ball - color) * opened
  spot = np.sqrt((ix * np.float32(sign) + np.float32(0.34 * radius)) ** 2 + (iy - np.float32(0.36 * radius)) ** 2)
  paint.glint[near] += inside(np.float32(0.30 * radius) - spot) * opened * iris
  lash = inside(
    np.float32(0.018 + 0.012 * identity.makeup) * np.clip(1.5 + x, 0.7, 2.0) - np.abs(y - upper - np.float32(0.008))
  )
  lash *= np.clip((np.float32(1.12) - np.abs(x)) * 8, 0, 1)
  lower_lash = np.exp(-(((y - lower) / np.float32(0.012)) ** 2)) * corner
  _mix(color, (0.07, 0.045, 0.04), lash * np.float32(0.80 + 0.15 * identity.makeup))
  _mix(color, (0.30, 0.18, 0.15), lower_lash * np.float32(0.35 + 0.2 * identity.makeup))
  # Brow.
  along = (x + np.float32(0.95)) / np.float32(2.25)
  top = (
    np.float32(brow_row - EYE_ROW)
    + np.float32(identity.brow_angle * size) * (along - np.float32(0.4))
    + np.float32(0.24 * size) * (1 - (2 * along - np.float32(1.25)) ** 2)
    - np.float32(0.1 * size)
  )
  top += np.float32(0.05 * raised) * (1 - along)
  thick = np.float32(identity.brow_thick) * (np.float32(1.05) - np.float32(0.70) * np.maximum(along, 0))
  brow = inside((thick - np.abs(y - top)) * np.float32(0.8)) * np.clip(along * 7, 0, 1) * np.clip((1 - along) * 7, 0, 1)
  brow *= 1 + np.float32(0.16) * grain(np.floor(x * 16 + y * 30), np.floor(y * 14))
  tone = np.asarray(identity.hair, np.float32) * np.float32(0.62) + np.asarray(identity.skin, np.float32) * np.float32(
    0.06
  )
  _mix(color, tone, np.clip(brow, 0, 1) * np.float32(0.86))
  paint.color[:, near] = color
  paint.shade[near] -= np.float32(0.08) * np.clip(brow, 0, 1)
  paint.pose_shade[near] -= (
    np.float32(0.13) * np.clip(brow, 0, 1)
    + np.float32(0.42) * lash
    + np.float32(0.20) * lower_lash
    + np.float32(0.22) * opened * iris
  )
  paint.gloss[near] *= 1 - opened
  paint.eye[near] += opened
  paint.ball[0, near] += opened * x * np.float32(0.62 * sign)
  paint.ball[1, near] += opened * y * np.float32(0.62 / size)


def _mouth(identity: Identity, mouth: Mouth, u: NdArray, v: NdArray, relief: _Relief, paint: FacePaint, inside) -> None:
  near = np.flatnonzero((np.abs(u) < mouth.half_width * 1.35) & (np.abs(v - np.float32(mouth.row - 0.08)) < 0.34))
  if not len(near):
    return
  x, y = u[near] / np.float32(mouth.half_width), v[near]
  color = paint.color[:, near]
  upper, lower = mouth.edges(x)
  hill = np.maximum(1 - x * x, 0)
  within = np.clip((np.float32(1.03) - np.abs(x)) * 12, 0, 1)
  up, down = mouth.lips(x)
  lip_up = inside(np.minimum(upper + up - y, y - upper + np.float32(0.006))) * within
  lip_down = inside(np.minimum(y - lower + down, lower + np.float32(0.006) - y)) * within
  lips = np.maximum(lip_up, lip_down)
  tone = np.asarray(identity.lips, np.float32)
  _mix(color, tone * 0.90, lip_up * np.float32(0.92))
  _mix(color, np.minimum(tone * 1.06, 1), lip_down * np.float32(0.92))
  relief.slope[1, near] += lip_up * (1 - 2 * np.clip((y - upper) / up, 0, 1)) * np.float32(0.34)
  relief.slope[1, near] += lip_down * (1 - 2 * np.clip((y - lower + down) / down, 0, 1)) * np.float32(0.50)
  below = np.exp(-(((y - lower + down + np.float32(0.03)) / np.float32(0.035)) ** 2)) * hill
  # The open mouth: dark, teeth above, tongue below.
  gap = inside(np.minimum(upper - y, y - lower)) * within * np.float32(min(mouth.opening * 9, 1))
  span = np.maximum(upper - lower, np.float32(1e-3))
  inner = np.empty_like(color)
  inner[0], inner[1], inner[2] = 0.17, 0.045, 0.05
  _mix(
    inner,
    (0.62, 0.26, 0.27),
    np.clip((lower + np.float32(0.10) * span + np.float32(0.05) - y) * 16, 0, 1) * hill * np.float32(0.8),
  )
  teeth = np.clip((y - upper + np.float32(0.052)) * 50, 0, 1) * np.clip((np.float32(0.80) - np.abs(x)) * 9, 0, 1)
  _mix(inner, (0.90, 0.88, 0.84), teeth * np.float32(0.95))
  inner *= np.float32(0.62) + np.float32(0.38) * hill
  color += (inner - color) * gap
  seam = (
    np.exp(-(((y - (upper + lower) * np.float32(0.5)) / np.float32(0.013)) ** 2))
    * within
    * np.float32(1 - min(mouth.opening * 5, 1))
  )
  corner = np.exp(-(((np.abs(x) - 1) / np.float32(0.10)) ** 2 + ((y - upper) / np.float32(0.022)) ** 2))
  _mix(color, (0.22, 0.07, 0.07), np.clip(seam * np.float32(0.75) + corner * np.float32(0.35), 0, 1))
  paint.color[:, near] = color
  paint.shade[near] -= np.float32(0.16) * below * (1 - gap)
  paint.pose_shade[near] -= np.float32(0.12) * below * (1 - gap) + np.float32(0.45) * seam + np.float32(0.2) * corner
  paint.pose_shade[near] *= 1 - gap * (np.float32(0.80) - np.float32(0.55) * teeth)
  paint.gloss[near] = (
    paint.gloss[near] * (1 - gap)
    + lips * np.float32(0.35 + 0.4 * identity.makeup) * (1 - gap)
    + gap * teeth * np.float32(0.2)
  )
  np.clip(paint.shade, 0.05, 1, out=paint.shade)
  np.clip(paint.pose_shade, 0.05, 1, out=paint.pose_shade)
