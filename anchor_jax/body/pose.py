"""Pose renders of filmed people: solids on the landmark model's points, shaded like the studio's bodies.

Everything is built from the track alone, never from pixels of the video. Sizes that the landmarks do not provide are in
meters of an average body, scaled by the person's shoulders.
"""

import copy
import itertools
import os
from collections.abc import Iterator

import cv2
import numpy as np

from anchor_jax.body.charts import SIDES, chart
from anchor_jax.body.cloth import shift_cloth
from anchor_jax.body.face_mesh import BROWS, EYES, LIPS, MOUTH, OVAL, FaceMap, FaceMesh
from anchor_jax.body.mesh import TriangleMesh
from anchor_jax.body.part_skins import THUMB_AXIS, arm_skins, cross, finger_skins, hand_skin, palm_normal, torso_skin
from anchor_jax.body.rasterize import Surface, rasterize
from anchor_jax.body.shading import downsample, shade_pose
from anchor_jax.body.skins import Ball, Tube, surface_map
from anchor_jax.body.solids import Ellipsoid, Loft, RoundCone, Solid
from anchor_jax.core.shapes import Float, NdArray, Shaped, UInt8
from anchor_jax.landmarks.framing import CropRect
from anchor_jax.landmarks.placing import place_unseen
from anchor_jax.landmarks.proportions.cloth import pose_features
from anchor_jax.landmarks.proportions.measures import BodyMeasures, measure
from anchor_jax.landmarks.proportions.widths import TORSO_HEIGHTS, Widths
from anchor_jax.landmarks.sidecar import PosedFrame, PoseRender
from anchor_jax.landmarks.tracks import ELBOWS, HIPS, SHOULDERS, WRISTS, Track, seen_landmarks
from anchor_jax.video.read import VideoInfo, read_frames

SUPERSAMPLE = 2
SHOULDER_METERS = 0.36  # between the landmark model's shoulder points, of an average adult
# Body parts, for masks and for the lines on the face.
_TORSO, _HEAD, _FACE, _ARM, HAND = range(5)
_BODY, _LEFT, _RIGHT = range(3)  # groups of solids that blend

FINGERS = ((5, 6, 7, 8), (9, 10, 11, 12), (13, 14, 15, 16), (17, 18, 19, 20))
_FINGER_RADII = (0.0106, 0.0108, 0.0104, 0.0092)  # meters, at the fingers' roots


def posed_frames(
  path: str | os.PathLike,
  track: Track,
  crop: CropRect,
  measures: BodyMeasures | None = None,
  first: int = 0,
  info: VideoInfo | None = None,
) -> Iterator[PosedFrame]:
  """Yields a video's frames with pose renders and masks from its track; person masks are rough shares, 0 to 255.

  Args:
    path: the video.
    track: filled and smoothed.
    crop: the crop rectangle.
    measures: in the crop; see `PoseRenderer`.
    first: number of the video's frame at which the track starts.
    info: of the video; see `read_frames`.

  Raises:
    UserError: the video cannot be read.
  """
  body = PoseRenderer(track, crop, measures)
  points = seen_landmarks(track)  # renders show a face in every frame; training uses only faces that were found
  for number, frame in enumerate(itertools.islice(read_frames(path, first, info), len(track))):
    pose, face_mask, surface = body.render(number)
    yield PosedFrame(
      crop.image(track.only_person(number, frame)),
      *(pose, crop.image(track.share(number)), face_mask, crop.points(points[number]), surface),
    )


def pose_renders(
  track: Track, crop: CropRect, first: int = 0, measures: BodyMeasures | None = None
) -> Iterator[PoseRender]:
  """Yields the pose renders of a filled track from frame `first` on; see `PoseRenderer`."""
  renderer = PoseRenderer(track, crop, measures)
  return (renderer.render(number) for number in range(first, len(track)))


class PoseRenderer:
  """Renders the frames of a filled track in the crop rectangle of its video.

  Attributes:
    unit: pixels of the frame per meter.
    widths: of the solids; may be changed between renders.
  """

  def __init__(self, track: Track, crop: CropRect, measures: BodyMeasures | None = None):
    """Prepares the sizes that are constant over a video.

    Args:
      track: filled and smoothed.
      crop: the crop rectangle of the track's video.
      measures: in the crop: shoulders, palms, hips, and widths of the solids if they were fitted; by default those
        of the track, with standard widths. Arms that the film does not show are at rest.
    """
    self._crop = crop
    self._measures = measures = measure(track, crop) if measures is None else measures
    self._track = self._placed(track)
    self.widths = Widths() if measures.widths is None else measures.widths
    self._shoulders, self._hips = measures.shoulders * crop.size.height, measures.hips * crop.size.height
    self.unit = self._shoulders / SHOULDER_METERS
    # scale of the landmark model's hands; a real palm is about 0.09 m from wrist to middle knuckle
    self._hand = float(np.clip(measures.palm * crop.size.height / 0.09, 0.8 * self.unit, 1.4 * self.unit))
    self._has_face = bool(np.isfinite(track.face[:, 0, 0]).all())
    self._face_map = FaceMap(track.triangles, track.face.shape[1])

  def with_track(self, track: Track) -> "PoseRenderer":
    """Returns a renderer of the same body in another track, in the same crop of the same camera."""
    renderer = copy.copy(self)
    renderer._track = self._placed(track)
    return renderer

  def _placed(self, track: Track) -> Track:
    """The track with arms at rest as far as its film does not show them."""
    height, measures = self._crop.height, self._measures
    return place_unseen(track, measures.rest_pose, measures.shoulders * height, measures.palm * height)

  def render(self, number: int) -> PoseRender:
    """Returns a frame's pose render, face mask (0 or 255, without hands in front of the face) and surface map."""
    solids = self.torso(number) + self.head(number) + self.arms(number)
    drawn, kinds = [solid for solid, _ in solids], np.array([part for _, part in solids])
    surface = rasterize(drawn, self._crop.size.shape, SUPERSAMPLE)
    parts = np.append(kinds, -1)[surface.index]
    light = np.ones(surface.depth.shape, np.float32)
    mask = np.zeros(surface.depth.shape, np.uint8)
    if self._has_face:
      face = self._crop.points(self._track.face[number])
      light = np.where(np.isin(parts, (_FACE, _HEAD)), self._face_lines(face, surface), light)
      mask = self._polygon(face, OVAL, surface, 255) * np.isin(parts, (_FACE, _HEAD))
    length = np.linalg.norm(surface.normal, axis=0, keepdims=True)
    normal = surface.normal / np.maximum(length, np.float32(1e-6))
    pose = downsample(shade_pose(surface, normal, light.astype(np.float32)), SUPERSAMPLE)
    face_mask = np.where(downsample(mask.astype(np.uint8), SUPERSAMPLE) > 127, 255, 0).astype(np.uint8)
    for mesh in drawn:
      if isinstance(mesh, FaceMesh):  # skull and jaw bulge through it in places
        mesh.uncover(surface, drawn.index(mesh), kinds == _HEAD, 0.04 * self.unit)
    shown = surface_map(surface, drawn)
    if self._measures.cloth is not None:
      shown = shift_cloth(shown, self._measures.cloth, self.features(number), self._shoulders)
    return PoseRender(pose, face_mask, shown)

  def features(self, number: int) -> Float[NdArray, " F"]:
    """Returns what the shift of the person's clothes depends on in a frame."""
    return pose_features(self._track.body[number], self._measures.shoulders * self._crop.height)

  # ---- body ----------------------------------------------------------------------------------------------------------

  def _torso_axes(self, body: Float[NdArray, "33 3"]) -> Float[NdArray, "3 3"]:
    """Columns to the picture's right, up, and out of the chest."""
    left, right = (_flat(body[side], body) for side in SHOULDERS)
    shoulders = (left + right) / 2
    hips = (body[HIPS[0]] + body[HIPS[1]])[:2] / 2
    up = np.array([*(shoulders[:2] - hips), 0.0])
    up /= max(float(np.linalg.norm(up)), 1e-6)
    turn = np.clip(np.arctan2(right[2] - left[2], abs(left[0] - right[0]) + 1e-6), -0.9, 0.9)
    side = np.array([-up[1], up[0], 0.0])  # to the picture's right
    forward = np.array([0.0, 0.0, 1.0])
    return np.stack(
      [side * np.cos(turn) - forward * np.sin(turn), up, side * np.sin(turn) + forward * np.cos(turn)], axis=1
    )

  def torso(self, number: int) -> list[tuple[Solid, int]]:
    """Returns a loft from the neck down past the hips, then the slopes of the shoulders, each with its body part."""
    u, widths, body = self.unit, self.widths, self._body(number)
    axes = self._torso_axes(body)
    left, right = (_flat(body[side], body) for side in SHOULDERS)
    shoulders, up = (left + right) / 2, axes[:, 1]
    middle = shoulders + 0.040 * u * up  # the root of the neck; the joints lie lower
    half = self._shoulders / 2 / 0.93
    waist = max(self._hips / 2 + 0.07 * u, 0.78 * half)
    y = np.linspace(-0.95, 0.13, 384)
    heights = [-0.95, -0.55, -0.40, -0.26, -0.14, -0.05, -0.012, 0.012, 0.034, 0.055, 0.075, 0.13]
    wide = [waist * 1.08, waist * 1.08, waist, 0.5 * (waist + half), half * 0.93, half * 0.92, half * 0.80, half * 0.58,
            half * 0.38, 0.050 * u, 0.044 * u, 0.036 * u]  # fmt: skip
    deep = np.array([0.125, 0.120, 0.115, 0.115, 0.112, 0.100, 0.085, 0.074, 0.062, 0.050, 0.044, 0.036]) * u
    wide = np.array(wide) * np.interp(heights, TORSO_HEIGHTS, widths.torso)
    width, depth = (_blurred(np.interp(y, heights, table)) for table in (wide, deep))
    # the charts stretch with a wider torso, so that their edges stay at its sides
    skin = torso_skin(middle, axes, half * max(1.0, *widths.torso[: len(TORSO_HEIGHTS) - 2]), u)
    loft = Loft(middle, axes, y[0] * u, y[-1] * u, width, depth, np.zeros_like(y), _BODY, 0.055 * u, skin)
    solids: list[tuple[Solid, int]] = [(loft, _TORSO)]
    for shoulder in (left, right):
      inner = middle + 0.45 * (shoulder - shoulders) + up * 0.010 * u
      thick = 0.040 * widths.slope * u, 0.056 * widths.shoulder * u
      solids.append((RoundCone(inner, shoulder, *thick, _BODY, 0.055 * u, skin), _TORSO))
    return solids

  def arms(self, number: int) -> list[tuple[Solid, int]]:
    """Returns upper arm, forearm, palm and fingers of the left and then the right side, each with its body part."""
    body = self._body(number)
    return self._arm(number, 0, body) + self._arm(number, 1, body)

  def _body(self, number: int) -> Float[NdArray, "33 3"]:
    return self._crop.points(self._track.body[number])

  def _arm(self, number: int, side: int, body: Float[NdArray, "33 3"]) -> list[tuple[Solid, int]]:
    """Upper arm, forearm, palm and fingers of one side."""
    u, group, widths = self.unit, _LEFT + side, self.widths
    hand = self._crop.points(self._track.hands[number, side])
    shoulder, elbow = _flat(body[SHOULDERS[side]], body), body[ELBOWS[side]].astype(np.float64)
    rest = (body[SHOULDERS[0], 2] + body[SHOULDERS[1], 2]) / 2
    elbow[2] = np.clip(0.6 * (elbow[2] - rest), -0.10 * u, 0.20 * u)
    # depth from one camera is a guess: hands go in front of body and face, where signers hold them
    reach = np.clip(0.35 * (body[WRISTS[side], 2] - rest), 0.0, 0.25 * u)
    hand = hand + np.array([0, 0, 0.24 * u + reach - hand[0, 2]], np.float32)
    wrist = hand[0].astype(np.float64)
    across, along = _hand_axes(hand)
    upper_skin, fore_skin = arm_skins(
      SIDES[side], _hinge(side, shoulder, elbow, wrist, u), palm_normal(SIDES[side], across, along)
    )
    upper, middle, lower = 0.057 * widths.shoulder * u, 0.044 * widths.elbow * u, 0.0265 * widths.wrist * u
    solids: list[tuple[Solid, int]] = [
      (RoundCone(shoulder, elbow, upper, middle, _BODY, 0.02 * u, upper_skin), _ARM),
      (RoundCone(elbow, wrist, middle, lower, group, 0.012 * u, fore_skin), _ARM),
    ]
    return solids + [(cone, HAND) for cone in self._fingers(side, hand, across, along)]

  def _fingers(
    self, side: int, hand: Float[NdArray, "21 3"], across: Float[NdArray, "3"], along: Float[NdArray, "3"]
  ) -> list[Solid]:
    """Cones of palm and fingers; `across` points to the thumb's side, `along` to the fingers, as in `hand_skin`."""
    u, group, own = self._hand * self.widths.fingers, _LEFT + side, SIDES[side]
    blend, wrist = 0.0045 * u, hand[0]
    skin = hand_skin(own, wrist, across, along, 0.015 * u)
    cones: list[Solid] = [
      RoundCone(wrist, wrist + 0.25 * (hand[9] - wrist), 0.0235 * u, 0.0210 * u, group, 0.012 * u, skin)
    ]
    for number, (finger, thick) in enumerate(zip(FINGERS, _FINGER_RADII, strict=True)):
      root = wrist + 0.28 * (hand[finger[0]] - wrist)
      cones.append(RoundCone(root, hand[finger[0]], 0.0165 * u, thick * 1.2 * u, group, blend, skin))
      for (start, end), bone in zip(itertools.pairwise(finger), finger_skins(own, number + 1, across), strict=True):
        cones.append(RoundCone(hand[start], hand[end], thick * u, thick * 0.92 * u, group, blend, bone))
        thick *= 0.92
    axes = np.stack([_unit(across), _unit(along), palm_normal(own, across, along)], axis=1)
    for (start, end), (first, last), bone in zip(
      ((1, 2), (2, 3), (3, 4)),
      ((0.0165, 0.0135), (0.0125, 0.0110), (0.0110, 0.0095)),
      finger_skins(own, 0, axes @ THUMB_AXIS),
      strict=True,
    ):
      cones.append(RoundCone(hand[start], hand[end], first * u, last * u, group, blend, bone))
    # fill the space between the knuckles
    for a, b in ((5, 9), (9, 13), (13, 17), (2, 5)):
      cones.append(
        RoundCone(hand[a] * 0.9 + wrist * 0.1, hand[b] * 0.9 + wrist * 0.1, 0.0105 * u, 0.0105 * u, group, blend, skin)
      )
    return cones

  # ---- head ----------------------------------------------------------------------------------------------------------

  def head(self, number: int) -> list[tuple[Solid, int]]:
    """Returns face mesh, skull, ears, neck and falling hair; without a face, a plain head at the body's ears."""
    u, widths, body = self.unit, self.widths, self._body(number)
    torso = self._torso_axes(body)
    base = (_flat(body[SHOULDERS[0]], body) + _flat(body[SHOULDERS[1]], body)) / 2
    if not self._has_face:
      middle = np.array([*body[7:9, :2].mean(axis=0), 0.03 * u])
      radii = np.array((0.078 * widths.skull[0], 0.115 * widths.skull[1], 0.10)) * u
      skin = Ball(middle, np.diag([1, -1, 1]) / radii, chart("cranium"))
      thick = 0.060 * widths.neck * u, 0.055 * widths.neck * u
      neck = RoundCone(base, middle, *thick, _BODY, 0.02 * u, Tube(chart("neck"), torso[:, 0], 1.0))
      return [(Ellipsoid(middle, radii, group=_BODY, skin=skin), _HEAD), (neck, _HEAD)]
    face = self._crop.points(self._track.face[number]).astype(np.float64)
    right, left, top, chin = face[[234, 454, 10, 152]]
    across, up = left - right, top - chin
    half, tall = np.linalg.norm(across) / 2, np.linalg.norm(up)
    x = across / (2 * half)
    y = up - x * (up @ x)
    y /= np.linalg.norm(y)
    z = np.cross(x * (1, -1, 1), y * (1, -1, 1)) * (1, -1, 1)  # y points down in pictures
    axes = np.stack([x, y, z], axis=1)
    ears = (left + right) / 2
    # the head's depth relative to the body is unknown: it goes slightly in front of the shoulders
    shift = np.array([0.0, 0.0, 0.035 * u - ears[2]])
    place = lambda a, b, c: ears + shift + axes @ np.array([a * half, b * tall, c * half])
    eye_line = float((face[[33, 263]].mean(axis=0) - ears) @ y) / tall
    points = self._face_map.close(face + shift, z * half).astype(np.float32)
    skin = self._face_map.skin(points, y)
    mesh = FaceMesh(TriangleMesh(points, self._face_map.triangles, _BODY, 0.015 * u, skin))
    # the skull continues the forehead of the mesh
    forehead = float(np.clip((face[10] - ears) @ z / half, 0.4, 1.2)) - 0.80 * 1.30
    skull = (1.06 * widths.skull[0] * half, 0.55 * widths.skull[1] * tall, 1.30 * half)
    jaw = (0.86 * widths.jaw * half, 0.44 * tall, 0.62 * half)
    crown = place(0, eye_line + 0.11, forehead)
    skin = Ball(crown, (axes / skull).T, chart("cranium"))
    solids: list[tuple[Solid, int]] = [
      (Ellipsoid(crown, skull, axes, _BODY, 0.03 * u, skin=skin), _HEAD),
      (Ellipsoid(place(0, eye_line - 0.20, 0.10), jaw, axes, _BODY, 0.03 * u, skin=skin), _HEAD),
      (mesh, _FACE),
    ]
    radii = np.array((0.09 * half, 0.17 * tall, 0.16 * half))
    for sign, side in ((-1, "right"), (1, "left")):
      ear = place(sign * 1.02, eye_line - 0.08, -0.15)
      own = Ball(ear, (axes / radii).T, chart("ear", side))
      solids.append((Ellipsoid(ear, radii, axes, _BODY, 0.01 * u, skin=own), _HEAD))
    foot, top = base - (0, 0, 0.012 * u), place(0, eye_line - 0.30, -0.25)
    own = Tube(chart("neck"), torso[:, 0], 1.0, x)
    if widths.hair is not None:
      wide, down = widths.hair
      radii = np.array((wide * half, (0.45 + down / 2) * tall, 0.80 * half))
      middle = place(0, eye_line + 0.11 - down / 2, -0.50)
      solids.append((Ellipsoid(middle, radii, axes, _BODY, 0.03 * u, skin=skin), _HEAD))
    thick = 0.058 * widths.neck * u, 0.054 * widths.neck * u
    return [*solids, (RoundCone(foot, top, *thick, _BODY, 0.03 * u, own), _HEAD)]

  def _face_lines(self, face: Float[NdArray, "N 3"], surface: Surface) -> Float[NdArray, "h w"]:
    """A factor on the light, 0 to 1, that draws lids, mouth and brows, which are too fine for the relief."""
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
  """Supersampled pixel coordinates of a ring with 4 sub-pixel bits; OpenCV's pixel centers are at integers."""
  return np.round((face[list(ring), :2] * SUPERSAMPLE - 0.5) * 16).astype(np.int32)


def _flat(shoulder: Float[NdArray, "3"], body: Float[NdArray, "33 3"]) -> Float[NdArray, "3"]:
  """A shoulder with half its depth, relative to the middle between both, since the model's depth is unreliable."""
  rest = (body[SHOULDERS[0], 2] + body[SHOULDERS[1], 2]) / 2
  return np.array([shoulder[0], shoulder[1], 0.5 * (shoulder[2] - rest)], np.float64)


def _blurred(table: NdArray) -> NdArray:
  kernel = np.hanning(35) / np.hanning(35).sum()
  return np.convolve(np.pad(table, 17, mode="edge"), kernel, mode="valid")


def _unit(vector: Float[NdArray, "3"]) -> Float[NdArray, "3"]:
  return vector / max(float(np.linalg.norm(vector)), 1e-9)


def _hand_axes(hand: Float[NdArray, "21 3"]) -> tuple[Float[NdArray, "3"], Float[NdArray, "3"]]:
  """Vectors from the hand's middle line to its edge at the thumb's side, and from the wrist to beyond the knuckles."""
  across = (hand[5] - hand[17]) * (0.045 / 0.057)
  return across, (hand[9] - hand[0] - across * 0.22) / 0.93


def _hinge(
  side: int, shoulder: Float[NdArray, "3"], elbow: Float[NdArray, "3"], wrist: Float[NdArray, "3"], unit: float
) -> Float[NdArray, "3"]:
  """The elbow's axis for `arm_skins`; a nearly straight arm counts as bent downward."""
  reach = _unit(wrist - shoulder)
  downward = np.array([0.5 if side == 0 else -0.5, 1.0, -0.18]) * 0.04 * unit
  pole = elbow - shoulder + downward
  pole = _unit(pole - reach * (reach @ pole))
  return cross(reach, pole) * (1.0 if side == 0 else -1.0)
