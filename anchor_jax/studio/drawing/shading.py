"""The RGB frame: colors and shades the visible points of the dressed person, over the background."""

import dataclasses

import cv2
import numpy as np

from anchor_jax.body.rasterize import Surface
from anchor_jax.body.shading import downsample, occlusion
from anchor_jax.body.skins import angles_around
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.core.shapes import NdArray
from anchor_jax.studio.camera import FRAME_METERS, StudioCamera
from anchor_jax.studio.drawing.background import paint_background
from anchor_jax.studio.drawing.body import (
  CLOTH,
  COLLAR,
  CRANIUM,
  EAR,
  FACE,
  HAIR,
  HAND,
  JEWEL,
  NECK,
  NOSE,
  SLEEVE,
  Scene,
)
from anchor_jax.studio.drawing.clothes import paint_sleeve, paint_torso
from anchor_jax.studio.drawing.face import FacePaint
from anchor_jax.studio.drawing.hair import on_scalp, paint_hair
from anchor_jax.studio.drawing.light import cast_shadow, key_direction, shade
from anchor_jax.studio.drawing.points import VisiblePoints, tilt_normals
from anchor_jax.studio.identity import Identity


def shade_person(
  identity: Identity,
  scene: Scene,
  surface: Surface,
  parts: list[int],
  dressed: list,
  seen: VisiblePoints,
  face: NdArray,
  paint: FacePaint,
  relief: NdArray,
  size: FrameSize,
):
  """(frame, person_mask): the person over the background, uint8 [H W 3], and 255 on the person, uint8 [H W].

  Args:
    identity: colors of skin, hair, clothes, light and background.
    scene: frames of head and torso.
    surface: core and dressed solids, drawn.
    parts: part of each of those solids.
    dressed: the dressed solids, the last ones of `surface`.
    seen: visible points of the pose render's surface.
    face: indices of the face's points in `seen`.
    paint: colors and shading of those points.
    relief: their normals [3, n].
    size: of the picture.
  """
  points = VisiblePoints(surface, parts)
  n = len(points.place)
  skin = np.asarray(identity.skin, np.float32)
  color = np.repeat(skin[:, None], n, axis=1)
  soft, gloss, sharp = np.ones(n, np.float32), np.full(n, 0.18, np.float32), np.zeros(n, np.float32)
  side = StudioCamera(size, 1.0).side
  unit = side / FRAME_METERS
  open_share = 1 - np.float32(0.85) * occlusion(surface, side / 24).ravel()[points.place]
  shadow = cast_shadow(surface, key_direction(identity), unit)
  lit = 1 - np.float32(0.80) * shadow.ravel()[points.place]
  extra = np.zeros(n, np.float32)

  # The face is painted at the points of the pose render, some of which hair and hands hide in the frame.
  back = np.full(surface.depth.size, -1, np.int32)
  back[seen.place[face]] = np.arange(len(face), dtype=np.int32)
  scalp = points.where(FACE, CRANIUM)
  grown = on_scalp(identity, *scene.head.to_local(points.x[scalp], points.y[scalp], points.z[scalp]))
  points.part[scalp[grown]] = HAIR  # scalp between the solids of the hair
  skull = points.where(FACE, NOSE, CRANIUM)
  source = back[points.place[skull]]
  skull, source = skull[source >= 0], source[source >= 0]
  color[:, skull] = paint.color[:, source]
  points.normal[:, skull] = relief[:, source]
  open_share[skull] *= paint.shade[source]
  lit[skull] *= np.float32(0.35) + np.float32(0.65) * paint.shade[source]
  gloss[skull] = paint.gloss[source]
  extra[skull] = paint.glint[source]
  eye = paint.eye[source]
  sharp[skull] = eye
  soft[skull] *= 1 - np.float32(0.6) * eye

  ears = points.where(EAR)
  color[:, ears] *= np.array([[1.02], [0.88], [0.86]], np.float32)
  hands = points.where(HAND)
  color[:, hands] *= np.array([[1.0], [0.93], [0.92]], np.float32)

  cloth = points.where(CLOTH)
  x, y, _ = scene.torso.to_local(points.x[cloth], points.y[cloth], points.z[cloth])
  color[:, cloth], bare, slope = paint_torso(identity, x, y, skin)
  points.normal[:, cloth] = tilt_normals(points.normal[:, cloth], scene.torso.axes, slope[0], slope[1])
  soft[cloth], gloss[cloth] = bare, np.float32(0.05) + np.float32(0.10) * bare

  sleeves = points.where(SLEEVE)
  if len(sleeves):
    _sleeves(identity, surface, points, sleeves, dressed, len(parts) - len(dressed), color)
    soft[sleeves], gloss[sleeves] = 0, 0.05
  collar = points.where(COLLAR)
  color[:, collar] = np.asarray(identity.cloth, np.float32)[:, None] * np.float32(0.92)
  soft[collar], gloss[collar] = 0, 0.04
  jewel = points.where(JEWEL)
  color[:, jewel] = np.array([[0.85], [0.70], [0.36]], np.float32)
  gloss[jewel], sharp[jewel] = 1.6, 0.6

  hair = points.where(HAIR)
  if len(hair):
    u, v, w = scene.head.to_local(points.x[hair], points.y[hair], points.z[hair])
    color[:, hair], strand = paint_hair(identity, u, v, w)
    soft[hair], gloss[hair] = 0.1, 0
    normal = points.normal[:, hair]
    # Anisotropic highlight where the strand direction is perpendicular to the half vector (Kajiya and Kay 1989).
    down = normal[1] * -normal
    down[1] += 1
    down /= np.sqrt((down * down).sum(0) + np.float32(1e-6))
    key = key_direction(identity)
    half = key * np.float32(0.6) + np.array([0, -0.25, 0.9], np.float32)
    half /= np.float32(np.sqrt(half @ half))
    across = down[0] * half[0] + down[1] * half[1] + down[2] * half[2] + strand * np.float32(0.10) - np.float32(0.12)
    band = np.maximum(1 - across * across, 0)
    band = band * band * band
    band *= band
    band *= band
    extra_hair = (
      band * (np.float32(0.10) + np.float32(0.14) * np.clip(strand + 0.4, 0, 1)) * lit[hair] * open_share[hair]
    )
    color[:, hair] *= 1 + np.float32(0.75 - 0.7 * min(float(np.mean(identity.hair)), 0.9)) * band
    extra[hair] += extra_hair * np.float32(0.75)

  light = shade(identity, points.normal, color, open_share, lit, soft, gloss, sharp) + extra
  light = 1 - np.exp(np.float32(-1.0) * light * (1 + np.float32(0.62) * light))  # tone curve that compresses highlights
  planes = np.zeros((4, surface.depth.size), np.float32)
  for i in range(3):
    planes[i, points.place] = light[i] * np.float32(255 * 1.16)
  planes[3, points.place] = 1
  planes = planes.reshape(4, *surface.depth.shape)
  if identity.glasses:
    _glasses(identity, scene, surface, parts, planes)
  canvas = np.stack([downsample(plane, surface.supersample) for plane in planes], axis=-1)
  alpha = canvas[..., 3:]
  room = paint_background(identity, size)
  offset = -np.sign(identity.key_side) * 0.05 * side
  cast = cv2.warpAffine(
    canvas[..., 3],
    np.array([[1, 0, offset], [0, 1, 0.02 * side]], np.float32),
    size,
    borderMode=cv2.BORDER_REPLICATE,
  )
  cast = cv2.GaussianBlur(cast, (0, 0), max(side * 0.045, 0.8))
  frame = canvas[..., :3] + room * (1 - np.float32(0.30) * cast[..., None]) * (1 - alpha)
  person = np.where(alpha[..., 0] >= 0.5, 255, 0).astype(np.uint8)
  return np.clip(frame + np.float32(0.5), 0, 255).astype(np.uint8), person


def _sleeves(
  identity: Identity,
  surface: Surface,
  points: VisiblePoints,
  sleeves: NdArray,
  dressed: list,
  first: int,
  color: NdArray,
) -> None:
  """Sets colors and normals of the sleeves' points in place; `first` is the number of the first dressed solid."""
  along = surface.along.ravel()[points.place[sleeves]]
  number = points.solid[sleeves]
  for k in np.unique(number):
    solid = dressed[int(k) - first]
    of_solid = sleeves[number == k]
    lower = solid.group > 2
    before, length, share = (
      (1.0, 0.9, min(identity.sleeve - 1, 0.97)) if lower else (0.0, 1.0, min(identity.sleeve, 1.0))
    )
    place = (before + along[number == k] * np.float32(share * length)) * np.float32(identity.arm)
    start, run = np.asarray(solid.start), np.asarray(solid.end) - np.asarray(solid.start)
    bone = dataclasses.replace(solid, end=start + run / share)  # the skin twists over the full length of the bone
    around = angles_around(bone, points.x[of_solid], points.y[of_solid], points.z[of_solid])
    run = (run / max(float(np.sqrt(run @ run)), 1e-6)).astype(np.float32)
    side = np.array([-run[1], run[0], 0], np.float32)
    normal = points.normal[:, of_solid]
    color[:, of_solid], slope = paint_sleeve(identity, place, around)
    points.normal[:, of_solid] = tilt_normals(normal, np.stack([run, side], axis=1), slope, np.zeros_like(slope))


def _glasses(identity: Identity, scene: Scene, surface: Surface, parts: list[int], planes: NdArray) -> None:
  """Draws the visible frames of the glasses into `planes` [4 h w] (RGB 0..255, coverage), in place."""
  head, size = scene.head, identity.glasses
  angle = np.linspace(0, 2 * np.pi, 28)
  lines = []
  for sign in (-1, 1):
    wide, tall = 0.235 * size, 0.185 * size
    ring = np.stack(
      [
        sign * identity.eye_gap * 1.02 + wide * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** 0.75,
        -0.055 + tall * np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** 0.75,
        0.94 - 0.5 * (np.cos(angle) * wide * sign + identity.eye_gap * sign) ** 2,
      ],
      axis=1,
    )
    lines.append(ring)
    outer = identity.eye_gap * 1.02 + wide
    temple = np.linspace((sign * outer, 0.0, 0.92 - 0.5 * outer**2), (sign * (identity.head_width + 0.02), 0.0, 0.1), 7)
    places = head.to_picture(temple)
    at = np.clip((places[:, :2] * surface.supersample).astype(int), 0, np.array(surface.depth.shape[::-1]) - 1)
    seen = places[:, 2] > surface.depth[at[:, 1], at[:, 0]] - 0.10 * head.unit
    lines += [temple[i : i + 2] for i in range(6) if seen[i : i + 2].all()]
  gap = identity.eye_gap * 1.02 - 0.235 * size
  lines.append(np.array([(-gap, -0.01, 0.95), (0, 0.02, 0.98), (gap, -0.01, 0.95)]))
  layer = np.zeros(surface.depth.shape, np.uint8)
  bits = 4
  thick = max(round(0.040 * head.unit * surface.supersample), 1)
  for line in lines:
    pixels = head.to_picture(line)[:, :2] * surface.supersample - 0.5
    cv2.polylines(layer, [np.round(pixels * 2**bits).astype(np.int32)], False, 255, thick, cv2.LINE_AA, bits)
  under = np.isin(np.append(np.asarray(parts, np.int8), -1)[surface.index], (FACE, NOSE, CRANIUM, EAR, NECK, -1))
  visible = (layer > 0) & under
  share = layer[visible] / np.float32(255)
  tone = np.asarray(identity.glasses_color, np.float32) * 255
  for i in range(3):
    planes[i][visible] += (tone[i] * np.maximum(planes[3][visible], share) - planes[i][visible]) * share
  planes[3][visible] = np.maximum(planes[3][visible], share)
