"""The studio: procedural people who present, filmed with everything the other stages need to know about them.

  identity, motion = make_identity(7), make_motion(11)          # independent seeds
  picture = render(identity, motion, time_s=1.5, size=128)       # StudioFrame: frame, pose, masks, landmarks
  for picture in render_clip(identity, motion, times, 128): ...  # in order, on all cores

One scene gives all of a StudioFrame: the pose render is the same body and face without hair, clothes and accessories.
Equal arguments give equal pixels, in any process.
"""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from anchor_jax.errors import UserError
from anchor_jax.motion.skins import surface_map
from anchor_jax.motion.solids import Real, downsample, draw, empty_surface, shade_pose
from anchor_jax.shapes import Float, NdArray, UInt8
from anchor_jax.studio.body import CRANIUM, FACE, NOSE, TORSO, build_scene
from anchor_jax.studio.cloth import body_relief, collar_solids
from anchor_jax.studio.face import HAIRLINE, face_points, paint_face
from anchor_jax.studio.hair import hair_solids
from anchor_jax.studio.identity import Identity, make_identity
from anchor_jax.studio.motion import Motion, make_motion
from anchor_jax.studio.photo import Points, face_normals, photograph, tilt

__all__ = ["Identity", "Motion", "StudioFrame", "make_identity", "make_motion", "render", "render_clip"]

SUPERSAMPLE = 2
CHUNK = 8  # frames a worker takes at a time


@dataclass(frozen=True, slots=True)
class StudioFrame:
  """One picture and what is known about it.

  Attributes:
    frame: RGB. pose: the body alone, shaded in one colour on black.
    person_mask: 255 where the person is in the frame. face_mask: 255 on the skin of the face as the pose shows it.
    surface: part of the body and place on it of what the pose shows, (chart, u, v) of motion/surface.py.
    landmarks: x, y in pixels (the centre of the first pixel is 0.5, 0.5) of the eye on the picture's left, the other
      eye, the tip of the nose, the mouth's corner on the picture's left, the other corner.
  """

  frame: UInt8[NdArray, "H W 3"]
  pose: UInt8[NdArray, "H W 3"]
  person_mask: UInt8[NdArray, "H W"]
  face_mask: UInt8[NdArray, "H W"]
  landmarks: Float[NdArray, "5 2"]
  surface: UInt8[NdArray, "H W 3"]


def render(identity: Identity, motion: Motion, time_s: Real, size: int) -> StudioFrame:
  """Films one instant.

  Args:
    identity, motion: from make_identity and make_motion.
    time_s: seconds; any real number.
    size: side of the picture, pixels; at least 8.

  Raises:
    UserError: the size is too small to show anything.
  """
  if size < 8:
    raise UserError(f"a studio picture of {size} pixels shows nothing: ask for 8 or more (128 looks good)")
  state = motion.at(time_s)
  scene = build_scene(identity, state, size)
  neck = scene.head.origin + scene.head.axes @ np.array([0, -0.75, -0.1]) * scene.head.unit
  dressed = scene.dressed + collar_solids(identity, scene.torso, neck) + hair_solids(identity, scene.head)
  core = draw(empty_surface(size, SUPERSAMPLE), [solid for solid, _ in scene.core])
  nude = draw(core.copy(), [solid for solid, _ in scene.nude])
  clothed = draw(core, [solid for solid, _ in dressed])
  core_parts = [part for _, part in scene.core]
  surface = surface_map(nude, [solid for solid, _ in scene.core + scene.nude])
  seen = Points(nude, core_parts + [part for _, part in scene.nude])

  face = seen.where(FACE, NOSE, CRANIUM)
  u, v, w = scene.head.own(seen.x[face], seen.y[face], seen.z[face])
  front = w > 0
  face, u, v, w = face[front], u[front], v[front], w[front]
  paint = paint_face(identity, state, u, v, 1 / (SUPERSAMPLE * scene.head.unit))
  relief = face_normals(scene, seen.normal[:, face], paint)

  trunk = seen.where(TORSO)
  x, y, _ = scene.torso.own(seen.x[trunk], seen.y[trunk], seen.z[trunk])
  slope = body_relief(x, y)
  bare = tilt(seen.normal[:, trunk], scene.torso.axes, slope[0], slope[1])
  pose_normal, pose_shade = nude.normal.reshape(3, -1), np.ones(nude.depth.size, np.float32)
  pose_normal[:, seen.place[trunk]] = bare
  pose_normal[:, seen.place[face]] = relief
  pose_shade[seen.place[face]] = paint.pose_shade
  pose = shade_pose(nude, pose_normal.reshape(nude.normal.shape), pose_shade.reshape(nude.depth.shape))
  half_width = np.float32(identity.head_width)
  inside = (v < HAIRLINE) & (w > np.float32(0.30)) & (np.abs(u) < half_width * np.float32(0.97)) & (v > -0.99)
  face_mask = np.zeros(nude.depth.size, np.uint8)
  face_mask[seen.place[face[inside]]] = 255
  landmarks = scene.head.picture(face_points(identity, state))[:, :2]

  frame, person = photograph(
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


def _render_many(identity: Identity, motion: Motion, times: list[float], size: int) -> list[StudioFrame]:
  cv2.setNumThreads(1)
  return [render(identity, motion, time, size) for time in times]


def render_clip(
  identity: Identity, motion: Motion, times: Sequence[float] | NdArray, size: int, workers: int | None = None
) -> Iterator[StudioFrame]:
  """Films many instants, in order.

  Args:
    identity, motion, size: as `render`'s. times: seconds.
    workers: processes; all cores when None, none besides this one when 1. They are spawned, so a script that calls
      this with more than one guards its entry with `if __name__ == "__main__"`.
  """
  instants = [float(time) for time in times]
  workers = min(workers or os.cpu_count() or 1, -(-len(instants) // CHUNK))
  if workers <= 1:
    for time in instants:
      yield render(identity, motion, time, size)
    return
  with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
    waiting = []
    starts = iter(range(0, len(instants), CHUNK))
    for start in starts:
      waiting.append(pool.submit(_render_many, identity, motion, instants[start : start + CHUNK], size))
      if len(waiting) > 2 * workers:
        yield from waiting.pop(0).result()
    for future in waiting:
      yield from future.result()
