"""Renders one instant of a person: frame, pose render, masks, landmarks and surface map from one scene."""

from dataclasses import dataclass

import numpy as np

from anchor_jax.body.rasterize import draw, empty_surface
from anchor_jax.body.shading import downsample, shade_pose
from anchor_jax.body.skins import surface_map
from anchor_jax.body.solids import Real
from anchor_jax.core.errors import UserError
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.core.shapes import Float, NdArray, UInt8
from anchor_jax.studio.drawing.body import CRANIUM, FACE, NOSE, TORSO, build_scene
from anchor_jax.studio.drawing.clothes import body_relief, collar_solids
from anchor_jax.studio.drawing.face import HAIRLINE, face_points, paint_face
from anchor_jax.studio.drawing.hair import hair_solids
from anchor_jax.studio.drawing.points import VisiblePoints, face_normals, tilt_normals
from anchor_jax.studio.drawing.shading import shade_person
from anchor_jax.studio.identity import Identity
from anchor_jax.studio.motion import Performance

SUPERSAMPLE = 2  # sub-pixels per pixel, each way


@dataclass(frozen=True, slots=True)
class StudioFrame:
  """A rendered frame with its annotations, all of one instant.

  Attributes:
    frame: RGB, 0..255.
    pose: pose render, RGB, 0..255: the body, as wide as its clothes, without hair and jewelry, in one color on black.
    person_mask: 255 where the person covers the background of `frame`, else 0.
    face_mask: 255 on the skin of the face in `pose`, else 0.
    landmarks: (x, y) in pixels, float32, of left eye, right eye, tip of the nose, left and right corner of the mouth.
    surface: surface map of `pose`: (chart, u, v) as in body/charts.py.
  """

  frame: UInt8[NdArray, "H W 3"]
  pose: UInt8[NdArray, "H W 3"]
  person_mask: UInt8[NdArray, "H W"]
  face_mask: UInt8[NdArray, "H W"]
  landmarks: Float[NdArray, "5 2"]
  surface: UInt8[NdArray, "H W 3"]


def render(
  identity: Identity, motion: Performance, time_s: Real, size: int | tuple[int, int] | FrameSize
) -> StudioFrame:
  """The frame at one instant, with its annotations.

  Args:
    identity, motion: from `make_identity` and `make_motion`.
    time_s: seconds, any real number.
    size: a square's side in pixels, or (width, height); sides are at least 8.

  Raises:
    UserError: a side is below 8.
  """
  size = FrameSize.of(size)
  if min(size) < 8:
    raise UserError(f"a studio picture of {size} pixels shows nothing: ask for 8 or more (128 looks good)")
  state = motion.at(time_s)
  scene = build_scene(identity, state, size)
  neck = scene.head.origin + scene.head.axes @ np.array([0, -0.75, -0.1]) * scene.head.unit
  dressed = scene.dressed + collar_solids(identity, scene.torso, neck) + hair_solids(identity, scene.head)
  core = draw(empty_surface(size.shape, SUPERSAMPLE), [solid for solid, _ in scene.core])
  nude = draw(core.copy(), [solid for solid, _ in scene.nude])
  clothed = draw(core, [solid for solid, _ in dressed])
  core_parts = [part for _, part in scene.core]
  surface = surface_map(nude, [solid for solid, _ in scene.core + scene.nude])
  seen = VisiblePoints(nude, core_parts + [part for _, part in scene.nude])

  face = seen.where(FACE, NOSE, CRANIUM)
  u, v, w = scene.head.to_local(seen.x[face], seen.y[face], seen.z[face])
  front = w > 0
  face, u, v, w = face[front], u[front], v[front], w[front]
  paint = paint_face(identity, state, u, v, 1 / (SUPERSAMPLE * scene.head.unit))
  relief = face_normals(scene, seen.normal[:, face], paint)

  trunk = seen.where(TORSO)
  x, y, _ = scene.torso.to_local(seen.x[trunk], seen.y[trunk], seen.z[trunk])
  slope = body_relief(x, y)
  bare = tilt_normals(seen.normal[:, trunk], scene.torso.axes, slope[0], slope[1])
  pose_normal, pose_shade = nude.normal.reshape(3, -1), np.ones(nude.depth.size, np.float32)
  pose_normal[:, seen.place[trunk]] = bare
  pose_normal[:, seen.place[face]] = relief
  pose_shade[seen.place[face]] = paint.pose_shade
  pose = shade_pose(nude, pose_normal.reshape(nude.normal.shape), pose_shade.reshape(nude.depth.shape))
  half_width = np.float32(identity.head_width)
  inside = (v < HAIRLINE) & (w > np.float32(0.30)) & (np.abs(u) < half_width * np.float32(0.97)) & (v > -0.99)
  face_mask = np.zeros(nude.depth.size, np.uint8)
  face_mask[seen.place[face[inside]]] = 255
  landmarks = scene.head.to_picture(face_points(identity, state))[:, :2]

  frame, person = shade_person(
    identity,
    scene,
    clothed,
    core_parts + [part for _, part in dressed],
    [solid for solid, _ in dressed],
    seen,
    face,
    paint,
    relief,
    size,
  )
  return StudioFrame(
    frame,
    downsample(pose, SUPERSAMPLE),
    person,
    _threshold(face_mask.reshape(nude.depth.shape)),
    landmarks.astype(np.float32),
    surface,
  )


def _threshold(mask: NdArray) -> UInt8[NdArray, "H W"]:
  return np.where(downsample(mask, SUPERSAMPLE) >= 128, 255, 0).astype(np.uint8)
