"""Pose renders of filmed people: solids on the landmark model's points, shaded as the studio's bodies are.

Everything is built from the track alone; no pixel of the video gets in. Sizes that the landmarks do not give are in
metres of an average body, scaled by the person's shoulders.
"""

import itertools
import os
from collections.abc import Iterator

import cv2
import numpy as np

from anchor_jax.motion.framing import Square
from anchor_jax.motion.sidecar import PosedFrame
from anchor_jax.motion.solids import Ellipsoid, Loft, RoundCone, Solid, Surface, downsample, rasterise, shade_pose
from anchor_jax.motion.tracks import ELBOWS, HIPS, SHOULDERS, WRISTS, Track, seen_landmarks
from anchor_jax.motion.triangle_mesh import TriangleMesh
from anchor_jax.motion.video import read_frames
from anchor_jax.shapes import Float, NdArray, Shaped, UInt8

SUPERSAMPLE = 2
SHOULDER_METRES = 0.36  # between the landmark model's shoulder points, of an average adult
# Parts, for masks and for the lines on the face.
_TORSO, _HEAD, _FACE, _ARM, _HAND = range(5)
_BODY, _LEFT, _RIGHT = range(3)  # groups that melt together

# Rings of face points (MediaPipe's numbering).
OVAL = (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149,
        150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109)  # fmt: skip
EYES = ((33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7),
        (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249))  # fmt: skip
LIPS = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
MOUTH = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
BROWS = ((70, 63, 105, 66, 107), (300, 293, 334, 296, 336))
FINGERS = ((5, 6, 7, 8), (9, 10, 11, 12), (13, 14, 15, 16), (17, 18, 19, 20))
_THICK = (0.0106, 0.0108, 0.0104, 0.0092)  # metres, at the fingers' roots


def posed_frames(path: str | os.PathLike, track: Track, square: Square) -> Iterator[PosedFrame]:
  """Yields a video's frames with pose renders and masks from its track.

  Args:
    path: the video.
    track: of the whole video, mended.
    square: the crop of each frame.

  Raises:
    UserError: the video cannot be read.
  """
  body = PoseRenderer(track, square)
  points = seen_landmarks(track)  # the render shows a face in every frame, training wants those that were found
  for number, frame in enumerate(read_frames(path)):
    pose, face_mask = body.render(number)
    yield PosedFrame(
      square.image(frame), pose, square.mask(track.mask(number)), face_mask, square.points(points[number])
    )


class PoseRenderer:
  """Renders the frames of a mended track, in a square of its video.

  Attributes:
    unit: pixels of the square a metre.
  """

  def __init__(self, track: Track, square: Square):
    """Takes the sizes that do not change over a video (shoulders, palms, hips) from the track."""
    self._track, self._square = track, square
    self.unit = track.shoulder_width * square.scale / SHOULDER_METRES
    palms = np.linalg.norm(track.hands[:, :, 9] - track.hands[:, :, 0], axis=-1)
    # of the landmark model's hands; a real one is about 0.09 m from wrist to middle knuckle
    self._hand = float(np.clip(np.median(palms) * square.scale / 0.09, 0.8 * self.unit, 1.4 * self.unit))
    hips = np.linalg.norm(track.body[:, HIPS[0], :2] - track.body[:, HIPS[1], :2], axis=-1)
    self._hips = float(np.median(hips)) * square.scale
    self._has_face = bool(np.isfinite(track.face[:, 0, 0]).all())

  def render(self, number: int) -> tuple[UInt8[NdArray, "S S 3"], UInt8[NdArray, "S S"]]:
    """The pose render of a frame, and its mask of the face (0 or 255; hands before the face are left out)."""
    body = self._square.points(self._track.body[number])
    solids = self._torso(body) + self._head(number, body)
    for side in (0, 1):
      solids += self._arm(number, side, body)
    surface = rasterise([solid for solid, _ in solids], self._square.size, SUPERSAMPLE)
    parts = np.append(np.array([part for _, part in solids]), -1)[surface.index]
    light = np.ones(surface.depth.shape, np.float32)
    mask = np.zeros(surface.depth.shape, np.uint8)
    if self._has_face:
      face = self._square.points(self._track.face[number])
      light = np.where(np.isin(parts, (_FACE, _HEAD)), self._face_lines(face, surface), light)
      mask = self._polygon(face, OVAL, surface, 255) * np.isin(parts, (_FACE, _HEAD))
    length = np.linalg.norm(surface.normal, axis=0, keepdims=True)
    normal = surface.normal / np.maximum(length, np.float32(1e-6))
    pose = downsample(shade_pose(surface, normal, light.astype(np.float32)), SUPERSAMPLE)
    return pose, np.where(downsample(mask.astype(np.uint8), SUPERSAMPLE) > 127, 255, 0).astype(np.uint8)

  # ---- body ----------------------------------------------------------------------------------------------------------

  def _torso(self, body: Float[NdArray, "33 3"]) -> list[tuple[Solid, int]]:
    """A loft from the neck down past the hips, and the slopes of the shoulders."""
    u = self.unit
    left, right = (_flat(body[side], body) for side in SHOULDERS)
    shoulders = (left + right) / 2
    hips = (body[HIPS[0]] + body[HIPS[1]])[:2] / 2
    up = np.array([*(shoulders[:2] - hips), 0.0])
    up /= max(float(np.linalg.norm(up)), 1e-6)
    turn = np.clip(np.arctan2(right[2] - left[2], abs(left[0] - right[0]) + 1e-6), -0.9, 0.9)
    side = np.array([-up[1], up[0], 0.0])  # to the picture's right
    forward = np.array([0.0, 0.0, 1.0])
    axes = np.stack(
      [side * np.cos(turn) - forward * np.sin(turn), up, side * np.sin(turn) + forward * np.cos(turn)], axis=1
    )
    middle = shoulders + 0.040 * u * up  # the root of the neck; the joints lie lower
    half = self._track.shoulder_width * self._square.scale / 2 / 0.93
    waist = max(self._hips / 2 + 0.07 * u, 0.78 * half)
    y = np.linspace(-0.95, 0.13, 384)
    heights = [-0.95, -0.55, -0.40, -0.26, -0.14, -0.05, -0.012, 0.012, 0.034, 0.055, 0.075, 0.13]
    wide = [waist * 1.08, waist * 1.08, waist, 0.5 * (waist + half), half * 0.93, half * 0.92, half * 0.80, half * 0.58,
            half * 0.38, 0.050 * u, 0.044 * u, 0.036 * u]  # fmt: skip
    deep = np.array([0.125, 0.120, 0.115, 0.115, 0.112, 0.100, 0.085, 0.074, 0.062, 0.050, 0.044, 0.036]) * u
    width, depth = (_blurred(np.interp(y, heights, table)) for table in (wide, deep))
    loft = Loft(middle, axes, y[0] * u, y[-1] * u, width, depth, np.zeros_like(y), _BODY, 0.055 * u)
    solids: list[tuple[Solid, int]] = [(loft, _TORSO)]
    for shoulder in (left, right):
      inner = middle + 0.45 * (shoulder - shoulders) + up * 0.010 * u
      solids.append((RoundCone(inner, shoulder, 0.040 * u, 0.056 * u, _BODY, 0.055 * u), _TORSO))
    return solids

  def _arm(self, number: int, side: int, body: Float[NdArray, "33 3"]) -> list[tuple[Solid, int]]:
    """Upper arm, forearm, palm and fingers of one side."""
    u, group = self.unit, _LEFT + side
    hand = self._square.points(self._track.hands[number, side])
    shoulder, elbow = _flat(body[SHOULDERS[side]], body), body[ELBOWS[side]].astype(np.float64)
    rest = (body[SHOULDERS[0], 2] + body[SHOULDERS[1], 2]) / 2
    elbow[2] = np.clip(0.6 * (elbow[2] - rest), -0.10 * u, 0.20 * u)
    # depth from one camera is a guess: hands are shown before the body and the face, where signers have them
    reach = np.clip(0.35 * (body[WRISTS[side], 2] - rest), 0.0, 0.25 * u)
    hand = hand + np.array([0, 0, 0.24 * u + reach - hand[0, 2]], np.float32)
    wrist = hand[0].astype(np.float64)
    solids: list[tuple[Solid, int]] = [
      (RoundCone(shoulder, elbow, 0.057 * u, 0.044 * u, _BODY, 0.02 * u), _ARM),
      (RoundCone(elbow, wrist, 0.044 * u, 0.0265 * u, group, 0.012 * u), _ARM),
    ]
    return solids + [(cone, _HAND) for cone in self._fingers(hand, group)]

  def _fingers(self, hand: Float[NdArray, "21 3"], group: int) -> list[Solid]:
    u = self._hand
    blend, wrist = 0.0045 * u, hand[0]
    cones: list[Solid] = [RoundCone(wrist, wrist + 0.25 * (hand[9] - wrist), 0.0235 * u, 0.0210 * u, group, 0.012 * u)]
    for finger, thick in zip(FINGERS, _THICK, strict=True):
      root = wrist + 0.28 * (hand[finger[0]] - wrist)
      cones.append(RoundCone(root, hand[finger[0]], 0.0165 * u, thick * 1.2 * u, group, blend))
      for start, end in itertools.pairwise(finger):
        cones.append(RoundCone(hand[start], hand[end], thick * u, thick * 0.92 * u, group, blend))
        thick *= 0.92
    for (start, end), (first, last) in zip(
      ((1, 2), (2, 3), (3, 4)), ((0.0165, 0.0135), (0.0125, 0.0110), (0.0110, 0.0095)), strict=True
    ):
      cones.append(RoundCone(hand[start], hand[end], first * u, last * u, group, blend))
    # the skin between the knuckles, so that a palm is no rake
    for a, b in ((5, 9), (9, 13), (13, 17), (2, 5)):
      cones.append(
        RoundCone(hand[a] * 0.9 + wrist * 0.1, hand[b] * 0.9 + wrist * 0.1, 0.0105 * u, 0.0105 * u, group, blend)
      )
    return cones

  # ---- head ----------------------------------------------------------------------------------------------------------

  def _head(self, number: int, body: Float[NdArray, "33 3"]) -> list[tuple[Solid, int]]:
    """Face mesh, skull, ears and neck; without a face, a plain head on the body model's nose and ears."""
    u = self.unit
    base = (_flat(body[SHOULDERS[0]], body) + _flat(body[SHOULDERS[1]], body)) / 2
    if not self._has_face:
      middle = np.array([*body[7:9, :2].mean(axis=0), 0.03 * u])
      plain = [(Ellipsoid(middle, (0.078 * u, 0.115 * u, 0.10 * u), group=_BODY), _HEAD)]
      return [*plain, (RoundCone(base, middle, 0.060 * u, 0.055 * u, _BODY, 0.02 * u), _HEAD)]
    face = self._square.points(self._track.face[number]).astype(np.float64)
    right, left, top, chin = face[[234, 454, 10, 152]]
    across, up = left - right, top - chin
    half, tall = np.linalg.norm(across) / 2, np.linalg.norm(up)
    x = across / (2 * half)
    y = up - x * (up @ x)
    y /= np.linalg.norm(y)
    z = np.cross(x * (1, -1, 1), y * (1, -1, 1)) * (1, -1, 1)  # y points down in pictures
    axes = np.stack([x, y, z], axis=1)
    ears = (left + right) / 2
    # the head's depth against the body's is not known: over the shoulders, a little before them
    shift = np.array([0.0, 0.0, 0.035 * u - ears[2]])
    place = lambda a, b, c: ears + shift + axes @ np.array([a * half, b * tall, c * half])
    eye_line = float((face[[33, 263]].mean(axis=0) - ears) @ y) / tall
    points, triangles = _closed(face + shift, self._track.triangles, z * half)
    # the skull goes on where the forehead of the mesh ends
    forehead = float(np.clip((face[10] - ears) @ z / half, 0.4, 1.2)) - 0.80 * 1.30
    skull = (1.06 * half, 0.55 * tall, 1.30 * half)
    jaw = (0.86 * half, 0.44 * tall, 0.62 * half)
    solids: list[tuple[Solid, int]] = [
      (Ellipsoid(place(0, eye_line + 0.11, forehead), skull, axes, _BODY, 0.03 * u), _HEAD),
      (Ellipsoid(place(0, eye_line - 0.20, 0.10), jaw, axes, _BODY, 0.03 * u), _HEAD),
      (TriangleMesh(points.astype(np.float32), triangles, _BODY, 0.015 * u), _FACE),
    ]
    for sign in (-1, 1):
      ear = place(sign * 1.02, eye_line - 0.08, -0.15)
      solids.append((Ellipsoid(ear, (0.09 * half, 0.17 * tall, 0.16 * half), axes, _BODY, 0.01 * u), _HEAD))
    neck = RoundCone(base - (0, 0, 0.012 * u), place(0, eye_line - 0.30, -0.25), 0.058 * u, 0.054 * u, _BODY, 0.03 * u)
    return [*solids, (neck, _HEAD)]

  def _face_lines(self, face: Float[NdArray, "N 3"], surface: Surface) -> Float[NdArray, "h w"]:
    """Darkens what a relief of some pixels cannot show: lids, mouth, brows. A factor on the light, 0 to 1."""
    width = float(np.linalg.norm(face[454, :2] - face[234, :2])) * SUPERSAMPLE
    thick = max(1, round(width / 60))
    dark = np.zeros(surface.depth.shape, np.float32)

    def add(layer: UInt8[NdArray, "h w"], strength: float) -> None:
      np.maximum(dark, layer * np.float32(strength / 255), out=dark)

    for brow in BROWS:
      add(self._line(face, brow, surface, False, thick + 1), 0.18)
    for eye in EYES:
      add(self._line(face, eye, surface, True, thick), 0.20)
      add(self._line(face, eye[:9], surface, False, thick), 0.45)  # the upper lid
    add(self._polygon(face, LIPS, surface, 255), 0.14)
    add(self._line(face, MOUTH, surface, True, thick), 0.40)
    add(self._polygon(face, MOUTH, surface, 255), 0.72)
    return 1 - cv2.GaussianBlur(dark, (3, 3), 0.6)

  def _polygon(self, face: Float[NdArray, "N 3"], ring: tuple[int, ...], surface: Surface, value: int):
    layer = np.zeros(surface.depth.shape, np.uint8)
    cv2.fillPoly(layer, [_pixels(face, ring)], value, cv2.LINE_AA, 4)
    return layer

  def _line(self, face: Float[NdArray, "N 3"], ring: tuple[int, ...], surface: Surface, closed: bool, thick: int):
    layer = np.zeros(surface.depth.shape, np.uint8)
    cv2.polylines(layer, [_pixels(face, ring)], closed, 255, thick, cv2.LINE_AA, 4)
    return layer


def _pixels(face: Float[NdArray, "N 3"], ring: tuple[int, ...]) -> Shaped[NdArray, "M 2"]:
  """Supersampled pixel places of a ring, with 4 sub-pixel bits; OpenCV's pixel centres are at whole numbers."""
  return np.round((face[list(ring), :2] * SUPERSAMPLE - 0.5) * 16).astype(np.int32)


def _flat(shoulder: Float[NdArray, "3"], body: Float[NdArray, "33 3"]) -> Float[NdArray, "3"]:
  """A shoulder with its depth halved and measured from the middle between both: the model's guesses are wild."""
  rest = (body[SHOULDERS[0], 2] + body[SHOULDERS[1], 2]) / 2
  return np.array([shoulder[0], shoulder[1], 0.5 * (shoulder[2] - rest)], np.float64)


def _blurred(table: NdArray) -> NdArray:
  kernel = np.hanning(35) / np.hanning(35).sum()
  return np.convolve(np.pad(table, 17, mode="edge"), kernel, mode="valid")


def _closed(
  face: Float[NdArray, "N 3"], triangles: Shaped[NdArray, "K 3"], forward: Float[NdArray, "3"]
) -> tuple[Float[NdArray, "M 3"], Shaped[NdArray, "L 3"]]:
  """The face mesh with eyeballs and the mouth's inside put into its holes; `forward` is half a face's width long."""
  points, faces = [face], [triangles]
  for ring, depth in ((EYES[0], 0.04), (EYES[1], 0.04), (MOUTH, -0.12)):
    centre = face[list(ring)].mean(axis=0) + depth * forward
    number = len(face) + len(points) - 1
    points.append(centre[None])
    faces.append(np.array([(a, b, number) for a, b in zip(ring, ring[1:] + ring[:1], strict=True)], np.int32))
  return np.concatenate(points), np.concatenate(faces)
