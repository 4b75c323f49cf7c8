"""Charts and coordinates (u, v) of the solids of a studio person's head.

The person's left is on the picture's right: side 0 of a motion is the person's right.
"""

from dataclasses import dataclass

import numpy as np

from anchor_jax.body.charts import chart
from anchor_jax.body.skins import Ball, Sheet, Tube
from anchor_jax.body.solids import Point
from anchor_jax.core.shapes import Float, NdArray
from anchor_jax.studio.camera import LocalFrame
from anchor_jax.studio.expression import EYE_ROW, Eye, Mouth, eye_of, mouth_of
from anchor_jax.studio.identity import Identity
from anchor_jax.studio.motion import MotionState

OWN = ("right", "left")  # the person's side, by the picture's
_MIDDLE, _DEEP = 0.24, 0.62  # middle and half depth of the head's sections
_BALL = np.array([(0.0, 0.17, -0.10)])  # middle of the cranium


def _inverse(frame: LocalFrame, scales: Point) -> Float[NdArray, "3 3"]:
  """Matrix from picture directions to local coordinates in units of `scales`."""
  return (frame.axes / (frame.unit * np.asarray(scales, np.float64))).T


def _ball(frame: LocalFrame, center: Float[NdArray, "1 3"], radii: Point, number: int) -> Ball:
  return Ball(frame.to_picture(center)[0], _inverse(frame, radii), number)


def neck_skin(torso: LocalFrame, head: LocalFrame) -> Tube:
  """Skin of the neck, which turns with the torso at the bottom and with the head at the top."""
  return Tube(chart("neck"), torso.axes[:, 0], 1.0, head.axes[:, 0])


def nose_skin(identity: Identity, head: LocalFrame) -> Sheet:
  """Skin of the nose, projected from the front."""
  low = -identity.nose_length + 0.02 - 0.12
  inverse = _inverse(head, (1.3 * identity.nose_width + 0.02, 0.26 - low, 1.0))
  inverse[2] = 0  # no back
  return Sheet(head.to_picture(np.array([(0.0, low, 0.0)]))[0], inverse, (chart("nose"),), (chart("nose"),), 0.0)


def cranium_skin(identity: Identity, head: LocalFrame) -> Ball:
  """Skin of the skull outside of the face."""
  return _ball(head, _BALL, (identity.head_width, 0.82, 0.88), chart("cranium"))


def ear_skin(head: LocalFrame, center: Point, radii: Point) -> Ball:
  """Skin of an ear, around the ear's center."""
  side = OWN[1 if center[0] > 0 else 0]
  return _ball(head, np.array([center], np.float64), radii, chart("ear", side))


@dataclass(frozen=True, slots=True, eq=False)
class FaceSkin:
  """Skin of the face's solid, with separate charts for lips, mouth, lids and eyeballs.

  Attributes:
    head: the head's frame.
    width: half of the head's width, in half head heights.
    sheet: the face.
    ball: the skull behind it.
    mouth, eyes: their curves at this instant.
    brow_row: row of the brows at rest.
    brows: how far each is raised, in half head heights.
  """

  head: LocalFrame
  width: float
  sheet: Sheet
  ball: Ball
  mouth: Mouth
  eyes: tuple[Eye, Eye]
  brow_row: float
  brows: tuple[float, float]

  def place(self, x: NdArray, y: NdArray, z: NdArray, along: NdArray) -> tuple[NdArray, NdArray, NdArray]:
    """Chart, u and v of points in the picture."""
    u, v, w = self.head.to_local(x, y, z)
    depth = (w - np.float32(_MIDDLE)) * np.float32(1 / _DEEP)
    result = self.sheet.unfold(u * np.float32(1 / self.width), self._at_rest(u, v) * np.float32(0.5) + 0.5, depth)
    behind = np.flatnonzero(depth <= 0)
    if len(behind):
      found = self.ball.place(x[behind], y[behind], z[behind], along[behind])
      for values, new in zip(result, found, strict=True):
        values[behind] = new
    self._mouth(u, v, depth, result)
    for side in (0, 1):
      self._eye(side, u, v, depth, result)
    return result

  def _at_rest(self, u: NdArray, v: NdArray) -> NdArray:
    """Rows with brows at rest: undoes their raising, and that of the skin around them."""
    weight = np.maximum(1 - np.abs(v - np.float32(self.brow_row)) * np.float32(1 / 0.16), 0)
    left, right = self.brows
    raised = np.where(u < 0, np.float32(left), np.float32(right)) * np.clip(np.abs(u) * 8, 0, 1)
    return v - raised * weight

  def _mouth(self, u: NdArray, v: NdArray, depth: NdArray, result: tuple[NdArray, NdArray, NdArray]) -> None:
    mouth = self.mouth
    near = np.flatnonzero((np.abs(u) < mouth.half_width) & (np.abs(v - np.float32(mouth.row - 0.08)) < 0.4))
    near = near[depth[near] > 0]
    x, y = u[near] * np.float32(1 / mouth.half_width), v[near]
    upper, lower = mouth.edges(x)
    up, down = mouth.lips(x)
    seam = (upper + lower) * np.float32(0.5)
    inside = (y < upper) & (y > lower) if mouth.opening > 0.05 else np.zeros(len(near), bool)
    across = x * np.float32(0.5) + np.float32(0.5)
    # Upper teeth do not move when the mouth opens, so rows in the mouth count from the upper lip.
    for name, where, rows in (
      ("upper_lip", (y >= seam) & (y < upper + up) & ~inside, (y - upper) / up),
      ("lower_lip", (y < seam) & (y > lower - down) & ~inside, (lower - y) / down),
      ("mouth", inside, (upper - y) * np.float32(1 / 0.32)),
    ):
      _put(result, near, where, chart(name), across, rows)

  def _eye(self, side: int, u: NdArray, v: NdArray, depth: NdArray, result: tuple[NdArray, NdArray, NdArray]) -> None:
    eye, own = self.eyes[side], OWN[side]
    near = np.flatnonzero((np.abs(u * np.float32(eye.sign) - np.float32(eye.gap)) < eye.size) & (depth > 0))
    near = near[np.abs(v[near] - np.float32(EYE_ROW)) < 0.34]
    x, y = eye.to_local(u[near], v[near])
    lower, upper, crease = eye.lids(x)
    across = x * np.float32(0.5) + np.float32(0.5)
    below = -np.float32(0.8) * lower + np.float32(0.02)  # height of the lower lid
    ix, iy = (value * np.float32(1 / eye.size) for value in eye.ball(x, y))
    opened = (y < upper) & (y > lower) & (upper - lower > np.float32(0.012))
    _put(result, near, opened, chart("eye", own), ix * np.float32(0.3) + 0.5, iy * np.float32(0.45) + 0.5)
    rows = (y - upper) / (crease - upper)
    _put(result, near, (y >= upper) & (y < crease), chart("upper_lid", own), across, rows)
    under = (y <= lower) & (y > lower - below) & (y < upper)
    _put(result, near, under, chart("lower_lid", own), across, (lower - y) / below)


def _put(
  result: tuple[NdArray, NdArray, NdArray], near: NdArray, where: NdArray, number: int, u: NdArray, v: NdArray
) -> None:
  places = near[where]
  result[0][places] = number
  result[1][places] = u[where]
  result[2][places] = v[where]


def face_skin(identity: Identity, state: MotionState, head: LocalFrame) -> FaceSkin:
  """Skin of the face's solid at an instant."""
  width = 1.05 * identity.head_width
  sheet = Sheet(head.origin, _inverse(head, (width, 2.0, _DEEP)), (chart("face"),), (chart("face"),))
  eyes = eye_of(identity, state, 0), eye_of(identity, state, 1)
  brows = 0.045 * float(state.brows[0]), 0.045 * float(state.brows[1])
  ball, row = cranium_skin(identity, head), EYE_ROW + identity.brow_height
  return FaceSkin(head, width, sheet, ball, mouth_of(identity, state), eyes, row, brows)
