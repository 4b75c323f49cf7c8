"""Joints and solids of an identity at one instant of a motion, in the studio camera's picture."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from anchor_jax.body.part_skins import THUMB_AXIS, arm_skins, finger_skins, hand_skin, torso_skin
from anchor_jax.body.solids import Ellipsoid, Loft, Point, Real, RoundCone, Solid
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.core.shapes import NdArray
from anchor_jax.studio.camera import FLIP, LocalFrame, StudioCamera, turn
from anchor_jax.studio.drawing.skin import OWN, cranium_skin, ear_skin, face_skin, neck_skin, nose_skin
from anchor_jax.studio.identity import Identity
from anchor_jax.studio.motion import MotionState

# Parts: what a solid belongs to. The face's parts come first.
FACE, NOSE, CRANIUM, EAR, NECK, TORSO, ARM, HAND, CLOTH, SLEEVE, COLLAR, HAIR, JEWEL = range(13)
# Groups of solids that are blended smoothly.
_BODY, _LEFT, _RIGHT, _HAIR, _SLEEVE_LEFT, _SLEEVE_RIGHT = range(6)

_KNUCKLES = ((0.029, 0.088), (0.010, 0.093), (-0.010, 0.088), (-0.028, 0.078))  # across and along the palm
_PHALANGES = ((0.041, 0.026, 0.020), (0.045, 0.029, 0.022), (0.041, 0.027, 0.021), (0.033, 0.021, 0.018))


class _Cone(NamedTuple):
  """A round cone of the body in world meters; see `RoundCone`.

  Attributes:
    part: the body part that it belongs to.
    layer: 0 for core, 1 for nude, 2 for dressed solids, as in `Scene`.
  """

  start: NdArray
  end: NdArray
  radius_start: Real
  radius_end: Real
  part: int
  group: int
  blend: Real
  layer: int
  skin: Any = None


@dataclass(slots=True)
class Scene:
  """Solids of one instant in drawing order, each with its body part.

  Attributes:
    core: head, neck and hands, seen in the frame and in the pose render alike.
    nude: torso and arms of the pose render, as wide as the clothes over them.
    dressed: torso, arms, clothes and hair of the frame.
    head, torso: frames in half head heights and meters.
  """

  core: list[tuple[Solid, int]]
  nude: list[tuple[Solid, int]]
  dressed: list[tuple[Solid, int]]
  head: LocalFrame
  torso: LocalFrame


@lru_cache(maxsize=64)
def head_profile(identity: Identity) -> tuple[NdArray, NdArray, NdArray]:
  """Half width, half depth and middle of the head's sections from chin (-1) to crown (1), in half head heights."""
  y = np.linspace(-1, 1, 1025)
  up, down = np.clip((y - 0.12) / 0.88, 0, 1), np.clip((0.12 - y) / 1.12, 0, 1)
  narrow = 0.44 - 0.22 * identity.jaw
  lower = (1 - down ** (2.7 + 1.6 * identity.square)) ** 0.5 * (
    1 - narrow * down**1.55
  ) + 0.03 * identity.cheek * np.exp(-(((y + 0.22) / 0.2) ** 2))
  width = identity.head_width * np.where(y > 0.12, np.sqrt(np.maximum(1 - up**2.3, 0)), lower)
  depth = np.where(
    y > 0.12, np.sqrt(np.maximum(1 - up**2.4, 0)), np.sqrt(np.maximum(1 - down**5.5, 0)) * (1 - 0.10 * down)
  )
  return (
    width,
    0.62 * np.maximum(depth, 0),
    0.24 + 0.03 * np.exp(-(((y + 0.85) / 0.16) ** 2)) - 0.02 * np.exp(-(((y - 0.02) / 0.15) ** 2)),
  )


@lru_cache(maxsize=64)
def torso_profile(identity: Identity, extra: float) -> tuple[NdArray, NdArray, NdArray]:
  """Half width, half depth and middle of the torso's sections from y = -0.62 to 0.075 m, thickened by `extra` m."""
  y = np.linspace(-0.62, 0.075, 2049)
  s, c, w = identity.shoulder, identity.chest, identity.waist
  width = np.interp(
    y,
    [-0.62, -0.48, -0.34, -0.22, -0.12, -0.05, -0.012, 0.012, 0.034, 0.055, 0.075],
    [
      0.176 * w,
      0.166 * w,
      0.149 * w,
      0.154 * c,
      0.164 * c,
      0.92 * s,
      0.82 * s,
      0.60 * s,
      0.40 * s,
      identity.neck * 1.12,
      identity.neck * 1.0,
    ],
  )
  depth = np.interp(
    y,
    [-0.62, -0.46, -0.34, -0.22, -0.12, -0.04, 0.01, 0.04, 0.075],
    [0.112 * w, 0.108 * w, 0.100 * w, 0.108 * c, 0.112 * c, 0.094, 0.074, 0.060, 0.050],
  )
  kernel = np.hanning(187) / np.hanning(187).sum()
  smooth = [np.convolve(np.pad(v, 93, mode="edge"), kernel, mode="valid") for v in (width, depth)]
  return smooth[0] + extra, smooth[1] + extra, 0.012 * np.exp(-(((y + 0.15) / 0.1) ** 2))


def _unit(v: NdArray) -> NdArray:
  return v / max(float(np.sqrt(v @ v)), 1e-9)


def _hand(
  side: int, arm: "_Arm", curls: NdArray, spread: Real, size: Real, skin: Any
) -> list[tuple[NdArray, NdArray, Real, Real, Any]]:
  """Cones (start, end, radius, radius, skin) of one hand; `skin` is for palm and back."""
  cones = []
  wrist, along, palm, across = arm.wrist, arm.along, arm.palm, arm.across

  def place(u: Real, d: Real, n: Real) -> NdArray:
    return wrist + size * (u * across + d * along + n * palm)

  for finger, ((u, d), bones) in enumerate(zip(_KNUCKLES, _PHALANGES, strict=True)):
    thick = (0.0106, 0.0108, 0.0104, 0.0092)[finger] * size
    joint = place(u, d, 0.0)
    cones.append((place(u * 0.62, 0.006, 0.002), joint, 0.0150 * size, thick * 1.16, skin))
    fan = (0.55 - 0.36 * finger + 0.02) * (0.10 + 0.52 * spread) * (1 - 0.7 * curls[finger + 1])
    straight = _unit(along + np.tan(fan) * across)
    angle = 0.06
    bent_about = FLIP @ (across - along * np.tan(fan))
    for bone, bend, own in zip(bones, (1.30, 1.70, 1.05), finger_skins(OWN[side], finger + 1, bent_about), strict=True):
      angle += bend * curls[finger + 1]
      end = joint + bone * size * (np.cos(angle) * straight + np.sin(angle) * palm)
      cones.append((joint, end, thick, thick * 0.92, own))
      joint, thick = end, thick * 0.92
  c = float(curls[0])
  open_up = 0.25 * spread
  base = place(0.020, 0.016, 0.008)
  first = base + 0.046 * size * _unit((0.72 + open_up - 0.30 * c) * across + 0.70 * along + (0.18 + 0.45 * c) * palm)
  second = first + 0.036 * size * _unit((0.50 + open_up - 0.95 * c) * across + 0.85 * along + (0.10 + 0.50 * c) * palm)
  third = second + 0.029 * size * _unit((0.38 + open_up - 1.35 * c) * across + 0.90 * along + (0.05 + 0.45 * c) * palm)
  bent_about = FLIP @ (np.stack([across, along, palm], axis=1) @ THUMB_AXIS)
  skins = finger_skins(OWN[side], 0, bent_about)
  cones += [
    (base, first, 0.0165 * size, 0.0130 * size, skins[0]),
    (first, second, 0.0122 * size, 0.0108 * size, skins[1]),
    (second, third, 0.0108 * size, 0.0094 * size, skins[2]),
  ]
  return cones


class _Arm(NamedTuple):
  """Joints of one arm and axes of its hand, in world coordinates.

  Attributes:
    shoulder, elbow, wrist: joints, meters.
    along, palm, across: unit vectors of the hand: towards the fingers, out of the palm, towards the thumb.
    hinge: axis of the elbow, towards the middle of the body when the forearm points forward.
  """

  shoulder: NdArray
  elbow: NdArray
  wrist: NdArray
  along: NdArray
  palm: NdArray
  across: NdArray
  hinge: NdArray


def _arm(identity: Identity, state: MotionState, side: int, torso: NdArray, middle: NdArray) -> _Arm:
  sign = -1.0 if side == 0 else 1.0
  upper, fore = identity.arm, identity.arm * 0.90
  length = upper + fore
  mirror = np.array([sign, 1.0, 1.0])
  shoulder = middle + torso @ (mirror * (identity.shoulder * 0.93, -0.038, -0.005))
  wrist = middle + torso @ (mirror * state.wrists[side] * length)
  reach = wrist - shoulder
  distance = float(np.sqrt(reach @ reach))
  clamped = float(np.clip(distance, 0.45 * length, 0.97 * length))
  direction = reach / max(distance, 1e-6)
  wrist = shoulder + direction * clamped
  pole = torso @ (mirror * (0.40 + 0.5 * state.elbows[side], -1.0, -0.18))
  pole = _unit(pole - direction * (pole @ direction))
  along = (upper**2 - fore**2 + clamped**2) / (2 * clamped)
  elbow = shoulder + direction * along + pole * np.sqrt(max(upper**2 - along**2, 0.0))
  forearm = _unit(wrist - elbow)
  fingers, palm = (torso @ (mirror * v[side]) for v in (state.fingers, state.palms))
  bend = fingers @ forearm
  fingers = _unit(fingers + forearm * max(0.45 - bend, 0.0) * 1.3)  # limits the bend of the wrist
  palm = _unit(palm - fingers * (palm @ fingers))
  return _Arm(shoulder, elbow, wrist, fingers, palm, -sign * np.cross(fingers, palm), -sign * np.cross(direction, pole))


def build_scene(identity: Identity, state: MotionState, size: int | FrameSize) -> Scene:
  """The posed body and all solids of an instant, in pixels of a picture of `size`."""
  camera = StudioCamera(FrameSize.of(size), identity.scale)
  torso = turn(*state.torso)
  pivot = np.array([0.0, -0.55, 0.0])
  middle = pivot + np.array([state.shift[0], state.shift[1], 0.0]) + torso @ -pivot
  # The head follows half of the torso's turn.
  rotation = turn(
    state.head[0] + 0.4 * state.torso[0], state.head[1] + 0.3 * state.torso[1], state.head[2] + 0.4 * state.torso[2]
  )
  half = identity.head_height / 2
  root = middle + torso @ np.array([0.0, 0.045, -0.012])
  joint = root + torso @ np.array([0.0, 0.045, 0.012])
  center = joint + rotation @ np.array([0.0, half * 0.86, 0.012])
  origin, factor = camera.project(np.stack([center, middle]))
  head = LocalFrame(origin[0], FLIP @ rotation, float(factor[0] * half))
  trunk = LocalFrame(origin[1], FLIP @ torso, float(factor[1]))

  cones: list[_Cone] = []
  bare = torso_skin(trunk.origin, trunk.axes, identity.shoulder * trunk.unit, trunk.unit)
  limb = identity.limb
  for side in (0, 1):
    arm = _arm(identity, state, side, torso, middle)
    shoulder, elbow, wrist = arm.shoulder, arm.elbow, arm.wrist
    upper_skin, lower_skin = arm_skins(OWN[side], FLIP @ arm.hinge, FLIP @ arm.palm)
    group = _LEFT + side
    inner = middle + torso @ np.array([(-1 if side == 0 else 1) * identity.shoulder * 0.45, 0.0, -0.01])
    neck_side = inner + torso @ np.array([0.0, 0.012, 0.0])
    extra = identity.bulk
    for nude, covered in ((1, 0.0), (2, identity.sleeve)):
      part = SLEEVE if covered else ARM
      cones.append(
        _Cone(
          neck_side,
          shoulder,
          0.040 + extra,
          0.050 * limb + extra,
          TORSO if nude == 1 else CLOTH,
          _BODY,
          0.055,
          nude,
          bare,
        )
      )
      share = min(covered, 1.0) if covered else 1.0
      thick = 0.050 * limb, 0.037 * limb, 0.0235 * limb
      if nude == 1:
        # The pose's arm is as wide as the sleeve over it, so that pixels of both show the same point of the surface.
        thick = thick[0], thick[1] + extra * (identity.sleeve >= 1), thick[2] + 0.9 * extra * (identity.sleeve >= 1.9)
      cuff = shoulder + (elbow - shoulder) * share
      loose = 0.0 if nude == 1 else extra * (1.3 if covered < 1 else 1.0)
      cones.append(
        _Cone(
          shoulder,
          cuff,
          thick[0] + extra,
          thick[0] + (thick[1] - thick[0]) * share + loose,
          part,
          _BODY,
          0.02,
          nude,
          upper_skin,
        )
      )
      if covered and covered < 1:
        cones.append(_Cone(cuff, elbow, thick[0] + (thick[1] - thick[0]) * share, thick[1], ARM, group, 0.01, nude))
      share = float(np.clip(covered - 1, 0, 0.97))
      cuff = elbow + (wrist - elbow) * share
      if share:
        cones.append(
          _Cone(
            elbow,
            cuff,
            thick[1] + extra,
            thick[1] + (thick[2] - thick[1]) * share + extra * 0.9,
            SLEEVE,
            _SLEEVE_LEFT + side,
            0.01,
            nude,
            lower_skin,
          )
        )
      if share < 0.96:
        cones.append(
          _Cone(
            cuff if share else elbow,
            wrist,
            thick[1] + (thick[2] - thick[1]) * share,
            thick[2],
            ARM,
            group,
            0.012,
            nude,
            lower_skin,
          )
        )
    places = np.stack([wrist, wrist + 0.045 * identity.hand * arm.across, wrist + 0.1 * identity.hand * arm.along])
    (palm_root, edge, knuckles), scales = camera.project(places)
    skin = hand_skin(OWN[side], palm_root, edge - palm_root, knuckles - palm_root, 0.015 * identity.hand * scales[0])
    cones.append(
      _Cone(
        wrist - (wrist - elbow) * 0.12,
        wrist + arm.along * 0.02,
        0.0225 * limb,
        0.0205 * limb,
        HAND,
        group,
        0.012,
        0,
        skin,
      )
    )
    for start, end, ra, rb, own in _hand(side, arm, state.curls[side], float(state.spread[side]), identity.hand, skin):
      cones.append(_Cone(start, end, ra, rb, HAND, group, 0.0045, 0, own))

  cones.append(
    _Cone(
      root - torso @ np.array([0.0, 0.03, 0.0]),
      joint + rotation @ np.array([0.0, 0.03, -0.01]),
      identity.neck * 1.08,
      identity.neck,
      NECK,
      _BODY,
      0.02,
      0,
      neck_skin(trunk, head),
    )
  )
  scene = Scene([], [], [], head, trunk)
  lists = (scene.core, scene.nude, scene.dressed)
  _head_solids(identity, state, head, scene)
  width, depth, offset = (table * trunk.unit for table in torso_profile(identity, identity.bulk))
  loft = Loft(
    trunk.origin,
    trunk.axes,
    -0.62 * trunk.unit,
    0.075 * trunk.unit,
    width,
    depth,
    offset,
    _BODY,
    0.055 * trunk.unit,
    bare,
  )
  scene.nude.append((loft, TORSO))
  scene.dressed.append((loft, CLOTH))
  starts, factors = camera.project(np.array([cone.start for cone in cones]))
  ends, factors_end = camera.project(np.array([cone.end for cone in cones]))
  for cone, a, b, fa, fb in zip(
    cones, starts.tolist(), ends.tolist(), factors.tolist(), factors_end.tolist(), strict=True
  ):
    solid = RoundCone(a, b, cone.radius_start * fa, cone.radius_end * fb, cone.group, cone.blend * fa, cone.skin)
    lists[cone.layer].append((solid, cone.part))
  return scene


def _head_solids(identity: Identity, state: MotionState, head: LocalFrame, scene: Scene) -> None:
  """Adds face, cranium, ears and nose to the scene; lengths are in half head heights."""
  unit = head.unit
  width, depth, middle = head_profile(identity)

  def ball(center: Point, radii: Point, part: int, blend: Real, skin: Any):
    place = head.to_picture(np.array([center]))[0]
    return Ellipsoid(place, np.array(radii) * unit, head.axes, _BODY, blend * unit, None, skin), part

  skin = face_skin(identity, state, head)
  scene.core.append(
    (
      Loft(head.origin, head.axes, -unit, unit, width * unit, depth * unit, middle * unit, _BODY, 0.06 * unit, skin),
      FACE,
    )
  )
  wide = identity.head_width
  scene.core.append(ball((0, 0.17, -0.10), (wide * 0.99, 0.82, 0.88), CRANIUM, 0.10, cranium_skin(identity, head)))
  for sign in (-1, 1):
    center, radii = (sign * wide * 0.99, -0.08, 0.0), (0.075 * identity.ear, 0.20 * identity.ear, 0.13)
    scene.core.append(ball(center, radii, EAR, 0.03, ear_skin(head, center, radii)))
  front = lambda y: float(np.interp(y, np.linspace(-1, 1, len(depth)), depth + middle))
  tip = -identity.nose_length + 0.02
  out, nose = identity.nose_out, identity.nose_width
  points = head.to_picture(
    np.array(
      [(0, 0.06, front(0.06) - 0.118), (0, tip + 0.05, front(tip) + 0.055 * out), (0, tip, front(tip) + 0.085 * out)]
    )
  )
  own = nose_skin(identity, head)
  scene.core.append((RoundCone(points[0], points[1], 0.105 * unit, 0.095 * unit, _BODY, 0.11 * unit, own), NOSE))
  scene.core.append(ball((0, tip, front(tip) + 0.085 * out), (0.66 * nose + 0.01, 0.084, 0.090), NOSE, 0.06, own))
  for sign in (-1, 1):
    scene.core.append(
      ball((sign * nose * 0.70, tip - 0.012, front(tip) + 0.005), (nose * 0.52, 0.066, 0.080), NOSE, 0.07, own)
    )
