"""Skins of torso, arms and hands from a body's joints, the same for every pose source.

Points and directions are in picture coordinates: x right, y down, z to the viewer. `side` is the person's own.
"""

import numpy as np

from anchor_jax.body.charts import FINGER_JOINTS, FINGERS, THUMB_JOINTS, chart
from anchor_jax.body.skins import Sheet, Tube
from anchor_jax.body.solids import Real
from anchor_jax.core.shapes import Float, NdArray

# The thumb's bending axis in shares of (across, along, palm), perpendicular to the plane of a curl.
THUMB_AXIS = (0.40, -0.35, 0.80)


def torso_skin(middle: NdArray, axes: Float[NdArray, "3 3"], half_shoulder: Real, unit: Real) -> Sheet:
  """Returns the skin of the torso and the slopes of the shoulders.

  Args:
    middle: between the roots of the shoulders, at the base of the neck.
    axes: columns point to the picture's right, up, and out of the chest.
    half_shoulder: half the width of the shoulders, pixels.
    unit: pixels per meter of an average body; the charts reach from 0.89 m below the middle to 0.10 m above it.
  """
  scales = np.array([1.25 * float(half_shoulder), 0.99 * unit, 0.112 * unit], np.float64)
  origin = middle - 0.89 * unit * axes[:, 1]
  charts = tuple(chart(name) for name in ("hips", "belly", "chest")), (chart("torso_back"),)
  return Sheet(origin, (axes / scales).T, *charts)


def arm_skins(side: str, hinge: NdArray, palm: NdArray) -> tuple[Tube, Tube]:
  """Returns the skins of upper arm and forearm.

  Args:
    side: "left" or "right".
    hinge: the elbow's axis, toward the body's middle when the forearm points forward; the skin of the upper arm and of
      the elbow turns with it.
    palm: normal of the palm; the skin at the wrist turns with it.
  """
  handed = 1.0 if side == "left" else -1.0
  return Tube(chart("upper_arm", side), hinge, handed), Tube(chart("forearm", side), hinge, handed, palm)


def finger_skins(side: str, finger: int, thumbwards: NdArray) -> list[Tube]:
  """Returns the skins of a finger's three bones (0: thumb) that bends about `thumbwards`; u = 1/2 is inside."""
  joints = THUMB_JOINTS if finger == 0 else FINGER_JOINTS
  number, handed = chart(FINGERS[finger], side), -1.0 if side == "left" else 1.0
  skins = []
  for bone in range(3):
    span = joints[bone], joints[bone + 1]
    skins.append(Tube(number, thumbwards, handed, None, span, (span[0], 1.0 if bone == 2 else span[1])))
  return skins


def cross(a: NdArray, b: NdArray) -> Float[NdArray, "3"]:
  """Returns the cross product of two 3-vectors; np.cross takes ten times as long for one pair."""
  (ax, ay, az), (bx, by, bz) = a.tolist(), b.tolist()
  return np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])


def palm_normal(side: str, across: NdArray, along: NdArray) -> Float[NdArray, "3"]:
  """Returns the unit normal out of the palm; `across` points to the thumb's side, `along` to the fingers."""
  normal = cross(along, across) * (-1.0 if side == "left" else 1.0)
  return normal / max(float(np.sqrt(normal @ normal)), 1e-9)


def hand_skin(side: str, wrist: NdArray, across: NdArray, along: NdArray, thick: Real) -> Sheet:
  """Returns the skin of a hand's palm and back.

  Args:
    side: "left" or "right".
    wrist: pixels.
    across: from the hand's middle line to its edge at the thumb's side, pixels.
    along: from the wrist to beyond the knuckles, pixels.
    thick: half the hand's thickness, pixels.
  """
  normal = palm_normal(side, across, along)
  # the inverse of (across, along, normal): vectors in the palm's plane, perpendicular to `along` and to `across`
  u, v = cross(along, normal), cross(normal, across)
  area = float(u @ across)
  area = area if abs(area) > 1e-6 else 1e-6
  inverse = np.array([u / area, v / (1.2 * area), normal / float(thick)])
  return Sheet(wrist - 0.15 * along, inverse, (chart("palm", side),), (chart("hand_back", side),))
