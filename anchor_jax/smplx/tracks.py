"""Tracks of a posed SMPL-X body: the points that the landmark model would find, so that the same solids render it.

Approximations: the model's shoulder and hip joints lie deeper in the body than the landmark model's points; the face is
the mean face warped through the model's 68 landmarks; ears are the outermost vertices of the head, finger tips the
outermost vertices of the last joints, pupils the foremost vertices of the eyeballs.
"""

import jax.numpy as jnp
import numpy as np

from anchor_jax.body.face_points import mesh_of_landmarks
from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Array, Float, Int, NdArray
from anchor_jax.landmarks.mean_face import mean_face
from anchor_jax.landmarks.tracks import SHOULDERS, Track
from anchor_jax.smplx.model import SmplxModel, coefficients_of, full_pose, hand_pose, pose_body, subset
from anchor_jax.smplx.parameters import SmplxCamera, SmplxParameters

# Joints of the model. Its fingers are index, middle, little, ring, thumb, with three joints each.
_PELVIS, _HEAD, _EYES = 0, 15, (24, 23)  # right eye first, as in the face landmarks
_WRISTS, _FIRST = (20, 21), (25, 40)  # left, right: the wrist, and the first of 15 finger joints
_FINGERS = (4, 0, 1, 3, 2)  # thumb to little finger, the order of the hand's 21 points
# From the 33 body points to the model's joints; toes are at the joint of the foot.
_JOINTS = {
  11: 16, 12: 17, 13: 18, 14: 19, 15: 20, 16: 21, 17: 31, 18: 46, 19: 25, 20: 40, 21: 38, 22: 53,
  23: 1, 24: 2, 25: 4, 26: 5, 27: 7, 28: 8, 29: 7, 30: 8, 31: 10, 32: 11,
}  # fmt: skip
# From the 33 body points to points of the face mesh: nose, eyes, corners of the mouth.
_ON_FACE = {0: 4, 1: 362, 2: 473, 3: 263, 4: 133, 5: 468, 6: 33, 9: 291, 10: 61}
_EARS = {7: 1, 8: 0}  # left and right ear: from body points to `_vertices`
_BATCH = 64  # frames that are posed at a time
# Default camera: side of the picture in pixels; shoulder width and their middle in shares of it; distance in meters.
_SIDE, _SHOULDERS, _PLACE, _DISTANCE = 1024, 0.3, (0.5, 0.45), 3.0


def posed_track(model: SmplxModel, parameters: SmplxParameters, frames: int | None = None) -> Track:
  """Returns the landmark model's points on a body in motion, without gaps and without masks.

  Args:
    model: a full one, from `read_model`.
    parameters: the motion.
    frames: number of frames from the start; default all.

  Raises:
    UserError: the parameters do not fit the model, or the body is behind the camera.
  """
  joints, marks, vertices = _posed(model, parameters, frames)
  camera = parameters.camera
  if camera is None:
    joints, marks, vertices = _upright(joints, marks, vertices)
    camera = _default_camera(joints)
  offset = np.asarray(camera.offset, np.float64)
  offset = offset[: len(joints), None] if len(offset) > 1 else offset
  joints, marks, vertices = (points + offset for points in (joints, marks, vertices))
  if joints[..., 2].min() < 0.1 or min(marks[..., 2].min(), vertices[..., 2].min()) < 0.1:
    raise UserError("the body is behind the camera of the parameters, or less than 0.1 m in front of it")
  scale = camera.focal[0] / joints[:, :1, 2:]  # pixels per meter, at the pelvis
  project = lambda points: _projected(points, camera, scale, joints[:, _PELVIS, 2])

  ears, pupils, tips = project(vertices[:, :2]), project(vertices[:, 2:4]), project(vertices[:, 4:])
  face = mesh_of_landmarks(project(marks), pupils)
  body = np.zeros((len(joints), 33, 3), np.float32)
  on_picture = project(joints)
  body[:, list(_JOINTS)] = on_picture[:, list(_JOINTS.values())]
  body[:, list(_ON_FACE)] = face[:, list(_ON_FACE.values())]
  body[:, list(_EARS)] = ears[:, list(_EARS.values())]
  middle = on_picture[:, [1, 2], 2:].mean(axis=1, keepdims=True)
  body[..., 2:] -= middle
  face[..., 2:] -= ears[..., 2:].mean(axis=1, keepdims=True)
  hands = np.stack([_hand(on_picture, tips, side) for side in (0, 1)], axis=1)
  has_face = np.ones(len(joints), bool)
  known = np.ones(body.shape[:2], np.float32)  # also outside the camera's picture
  return Track(*camera.size, parameters.fps, body, face, hands, mean_face()[1], (), has_face, shown=known)


def _posed(
  model: SmplxModel, parameters: SmplxParameters, frames: int | None
) -> tuple[Float[NdArray, "T J 3"], Float[NdArray, "T 68 3"], Float[NdArray, "T M 3"]]:
  """Joints, face landmarks in dlib's order, and the vertices of `_vertices`; meters."""
  if model.landmarks is None:
    raise UserError("the SMPL-X model has no face landmarks: use the original SMPLX_NEUTRAL.npz")
  corners, shares = model.landmarks
  small, index = subset(model, np.concatenate([corners.ravel(), _vertices(model)]))
  count = corners.size
  hands = [hand_pose(model, side, parameters.hands[side][:frames]) for side in (0, 1)]
  poses = full_pose(**{n: p[:frames] for n, p in parameters.poses.items()}, left_hand=hands[0], right_hand=hands[1])
  coefficients = coefficients_of(model, parameters.betas, parameters.expression[:frames])
  vertex_batches, joint_batches = [], []
  for first in range(0, len(poses), _BATCH):
    batches = pose_body(small, _batch(coefficients, first), _batch(poses, first))
    for done, batch in zip((vertex_batches, joint_batches), batches, strict=True):
      done.append(np.asarray(batch, np.float64)[: len(poses) - first])
  transl = parameters.transl[:frames, None].astype(np.float64)
  vertices, joints = np.concatenate(vertex_batches) + transl, np.concatenate(joint_batches) + transl
  marks = np.einsum("tlcd,lc->tld", vertices[:, index[:count].reshape(corners.shape)], shares)
  # the outline is last in the file and first in dlib's order
  return joints, np.concatenate([marks[:, 51:], marks[:, :51]], axis=1), vertices[:, index[count:]]


def _batch(rows: Float[NdArray, "T ..."], first: int) -> Float[Array, "B ..."]:
  """A batch of rows from `first` on; the last batch is padded, so that all share one compiled program."""
  part = rows[first : first + _BATCH]
  return jnp.asarray(np.concatenate([part, np.repeat(part[-1:], _BATCH - len(part), axis=0)]))


def _vertices(model: SmplxModel) -> Int[NdArray, " M"]:
  """Vertices of right ear, left ear, right pupil, left pupil, then of the left and right finger tips, thumb first."""
  owner, template = model.weights.argmax(axis=1), model.template

  def outermost(joint: int, direction: Float[NdArray, "3"]) -> int:
    owned = np.flatnonzero(owner == joint)
    if not len(owned):
      raise UserError(f"no vertex of the SMPL-X model belongs to its joint {joint}: use the original model")
    return int(owned[np.argmax(template[owned] @ direction)])

  # at rest the body looks along z, with its left side along x
  chosen = [outermost(_HEAD, np.array([side, 0.0, 0.0])) for side in (-1.0, 1.0)]
  chosen += [outermost(eye, np.array([0.0, 0.0, 1.0])) for eye in _EYES]
  for first in _FIRST:
    for finger in _FINGERS:
      last = first + 3 * finger + 2
      chosen.append(outermost(last, model.joints[last] - model.joints[last - 1]))
  return np.array(chosen)


def _projected(
  points: Float[NdArray, "T N 3"], camera: SmplxCamera, scale: Float[NdArray, "T 1 1"], depth: Float[NdArray, " T"]
) -> Float[NdArray, "T N 3"]:
  """Points in pixels of the camera's picture; depth is toward the viewer from the pelvis, at the pelvis' scale."""
  x, y = (
    focal * points[..., axis] / points[..., 2] + center
    for axis, (focal, center) in enumerate(zip(camera.focal, camera.center, strict=True))
  )
  z = (depth[:, None] - points[..., 2]) * scale[..., 0]
  return np.stack([x, y, z], axis=-1).astype(np.float32)


def _hand(joints: Float[NdArray, "T J 3"], tips: Float[NdArray, "T 10 3"], side: int) -> Float[NdArray, "T 21 3"]:
  """The 21 points of a hand; depth is relative to its wrist."""
  points = [joints[:, _WRISTS[side]]]
  for number, finger in enumerate(_FINGERS):
    first = _FIRST[side] + 3 * finger
    points += [joints[:, first + bone] for bone in range(3)] + [tips[:, 5 * side + number]]
  hand = np.stack(points, axis=1)
  hand[..., 2] -= hand[:, :1, 2]
  return hand


def _upright(*groups: Float[NdArray, "T _ 3"]) -> tuple[Float[NdArray, "T _ 3"], ...]:
  """The points in camera coordinates (y down, viewer at smaller z); bodies that stand in +y are rotated."""
  joints = groups[0]
  if np.median(joints[:, _HEAD, 1] - joints[:, _PELVIS, 1]) < 0:
    return groups
  return tuple(points * np.array([1.0, -1.0, -1.0]) for points in groups)


def _default_camera(joints: Float[NdArray, "T J 3"]) -> SmplxCamera:
  """A camera 3 m in front of a body, which shows it from the head to the waist."""
  both = joints[:, [_JOINTS[side] for side in SHOULDERS]]
  middle, width = np.median(both.mean(axis=1), axis=0), np.median(np.linalg.norm(both[:, 0] - both[:, 1], axis=-1))
  offset = np.array([0.0, 0.0, _DISTANCE]) - middle
  focal = _SHOULDERS * _SIDE * _DISTANCE / max(float(width), 1e-3)
  return SmplxCamera(offset[None], (focal, focal), (_PLACE[0] * _SIDE, _PLACE[1] * _SIDE), (_SIDE, _SIDE))
