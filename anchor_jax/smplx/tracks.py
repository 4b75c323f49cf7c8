"""From a posed SMPL-X body to the points that the landmark model would find, so that the same solids show it.

What is approximate: the model's shoulder and hip joints lie deeper in the body than the landmark model's points; the
face is the mean face warped through the model's 68 landmarks; ears are the vertices of the head that stand out furthest
to the sides, finger tips the furthest vertices of the last joints, pupils the foremost vertices of the eyeballs.
"""

import jax.numpy as jnp
import numpy as np

from anchor_jax.body.face_points import mean_face, mesh_of_landmarks
from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Array, Float, Int, NdArray
from anchor_jax.landmarks.tracks import SHOULDERS, Track
from anchor_jax.smplx.model import SmplxModel, coefficients_of, full_pose, hand_pose, pose_body, subset
from anchor_jax.smplx.parameters import SmplxCamera, SmplxMotion

# Joints of the model. Fingers in its order: index, middle, little, ring, thumb, of three joints each.
_PELVIS, _HEAD, _EYES = 0, 15, (24, 23)  # right eye first, as in the face's landmarks
_WRISTS, _FIRST = (20, 21), (25, 40)  # left, right: the wrist, and the first of 15 finger joints
_FINGERS = (4, 0, 1, 3, 2)  # thumb to little finger, the order of the hand's 21 points
# Numbers among the 33 body points, and the joints that they are; the foot's joint stands for the toes.
_JOINTS = {
  11: 16, 12: 17, 13: 18, 14: 19, 15: 20, 16: 21, 17: 31, 18: 46, 19: 25, 20: 40, 21: 38, 22: 53,
  23: 1, 24: 2, 25: 4, 26: 5, 27: 7, 28: 8, 29: 7, 30: 8, 31: 10, 32: 11,
}  # fmt: skip
# Numbers among the 33 body points, and the points of the face's mesh that they are: nose, eyes, corners of the mouth.
_ON_FACE = {0: 4, 1: 362, 2: 473, 3: 263, 4: 133, 5: 468, 6: 33, 9: 291, 10: 61}
_EARS = {7: 1, 8: 0}  # hers on the left, on the right: of `_places`
_BATCH = 64  # frames that are posed at a time
_SIDE, _SHOULDERS, _PLACE, _AWAY = 1024, 0.3, (0.5, 0.45), 3.0  # of the camera for files without one; pixels, metres


def posed_track(model: SmplxModel, motion: SmplxMotion, frames: int | None = None) -> Track:
  """Returns the points of the landmark model on a body in motion; nothing is missing, and there are no masks.

  Args:
    model: a whole one, of `read_model`.
    motion: the parameters.
    frames: only the first so many frames; default all.

  Raises:
    UserError: the parameters do not fit the model, or the body is behind the camera.
  """
  joints, marks, places = _posed(model, motion, frames)
  camera = motion.camera
  if camera is None:
    joints, marks, places = _upright(joints, marks, places)
    camera = _camera_before(joints)
  offset = np.asarray(camera.offset, np.float64)
  offset = offset[: len(joints), None] if len(offset) > 1 else offset
  joints, marks, places = (points + offset for points in (joints, marks, places))
  if joints[..., 2].min() < 0.1 or min(marks[..., 2].min(), places[..., 2].min()) < 0.1:
    raise UserError("the body is behind the camera of the parameters, or less than 0.1 m before it")
  scale = camera.focal[0] / joints[:, :1, 2:]  # pixels a metre, at the pelvis
  flat = lambda points: _projected(points, camera, scale, joints[:, _PELVIS, 2])

  ears, pupils, tips = flat(places[:, :2]), flat(places[:, 2:4]), flat(places[:, 4:])
  face = mesh_of_landmarks(flat(marks), pupils)
  body = np.zeros((len(joints), 33, 3), np.float32)
  on_picture = flat(joints)
  body[:, list(_JOINTS)] = on_picture[:, list(_JOINTS.values())]
  body[:, list(_ON_FACE)] = face[:, list(_ON_FACE.values())]
  body[:, list(_EARS)] = ears[:, list(_EARS.values())]
  middle = on_picture[:, [1, 2], 2:].mean(axis=1, keepdims=True)
  body[..., 2:] -= middle
  face[..., 2:] -= ears[..., 2:].mean(axis=1, keepdims=True)
  hands = np.stack([_hand(on_picture, tips, side) for side in (0, 1)], axis=1)
  seen = np.ones(len(joints), bool)
  return Track(*camera.size, motion.fps, body, face, hands, mean_face()[1], (), seen)


def _posed(
  model: SmplxModel, motion: SmplxMotion, frames: int | None
) -> tuple[Float[NdArray, "T J 3"], Float[NdArray, "T 68 3"], Float[NdArray, "T M 3"]]:
  """Joints, the face's landmarks in dlib's order, and right ear, left ear, pupils and finger tips; metres."""
  if model.landmarks is None:
    raise UserError("the SMPL-X model has no landmarks of the face: use SMPLX_NEUTRAL.npz as its makers give it out")
  corners, shares = model.landmarks
  small, where = subset(model, np.concatenate([corners.ravel(), _places(model)]))
  count = corners.size
  hands = [hand_pose(model, side, motion.hands[side][:frames]) for side in (0, 1)]
  poses = full_pose(**{n: p[:frames] for n, p in motion.poses.items()}, left_hand=hands[0], right_hand=hands[1])
  coefficients = coefficients_of(model, motion.betas, motion.expression[:frames])
  vertices, joints = [], []
  for first in range(0, len(poses), _BATCH):
    found = pose_body(small, _batch(coefficients, first), _batch(poses, first))
    for kept, array in zip((vertices, joints), found, strict=True):
      kept.append(np.asarray(array, np.float64)[: len(poses) - first])
  moved = motion.transl[:frames, None].astype(np.float64)
  all_vertices, all_joints = np.concatenate(vertices) + moved, np.concatenate(joints) + moved
  marks = np.einsum("tlcd,lc->tld", all_vertices[:, where[:count].reshape(corners.shape)], shares)
  # the file has the outline last, dlib first
  return all_joints, np.concatenate([marks[:, 51:], marks[:, :51]], axis=1), all_vertices[:, where[count:]]


def _batch(rows: Float[NdArray, "T ..."], first: int) -> Float[Array, "B ..."]:
  """The rows from a number on; the last batch is filled up, so that one program does for all."""
  part = rows[first : first + _BATCH]
  return jnp.asarray(np.concatenate([part, np.repeat(part[-1:], _BATCH - len(part), axis=0)]))


def _places(model: SmplxModel) -> Int[NdArray, " M"]:
  """Vertices: right ear, left ear, right pupil, left pupil, then the tips of left and right fingers, thumb first."""
  owner, at = model.weights.argmax(axis=1), model.template

  def furthest(joint: int, direction: Float[NdArray, "3"]) -> int:
    mine = np.flatnonzero(owner == joint)
    if not len(mine):
      raise UserError(f"no vertex of the SMPL-X model belongs to its joint {joint}: use the model of its makers")
    return int(mine[np.argmax(at[mine] @ direction)])

  # at rest she looks along z, her left is x
  chosen = [furthest(_HEAD, np.array([side, 0.0, 0.0])) for side in (-1.0, 1.0)]
  chosen += [furthest(eye, np.array([0.0, 0.0, 1.0])) for eye in _EYES]
  for first in _FIRST:
    for finger in _FINGERS:
      last = first + 3 * finger + 2
      chosen.append(furthest(last, model.joints[last] - model.joints[last - 1]))
  return np.array(chosen)


def _projected(
  points: Float[NdArray, "T N 3"], camera: SmplxCamera, scale: Float[NdArray, "T 1 1"], depth: Float[NdArray, " T"]
) -> Float[NdArray, "T N 3"]:
  """Points in pixels of the camera's picture; depth towards the viewer from the pelvis, in pixels of its scale."""
  x, y = (
    focal * points[..., axis] / points[..., 2] + centre
    for axis, (focal, centre) in enumerate(zip(camera.focal, camera.centre, strict=True))
  )
  z = (depth[:, None] - points[..., 2]) * scale[..., 0]
  return np.stack([x, y, z], axis=-1).astype(np.float32)


def _hand(joints: Float[NdArray, "T J 3"], tips: Float[NdArray, "T 10 3"], side: int) -> Float[NdArray, "T 21 3"]:
  """The 21 points of a hand, depth from its wrist."""
  points = [joints[:, _WRISTS[side]]]
  for number, finger in enumerate(_FINGERS):
    first = _FIRST[side] + 3 * finger
    points += [joints[:, first + bone] for bone in range(3)] + [tips[:, 5 * side + number]]
  hand = np.stack(points, axis=1)
  hand[..., 2] -= hand[:, :1, 2]
  return hand


def _upright(*groups: Float[NdArray, "T _ 3"]) -> tuple[Float[NdArray, "T _ 3"], ...]:
  """The points with y down and the viewer at smaller z, as cameras have them; bodies that stand in +y are turned."""
  joints = groups[0]
  if np.median(joints[:, _HEAD, 1] - joints[:, _PELVIS, 1]) < 0:
    return groups
  return tuple(points * np.array([1.0, -1.0, -1.0]) for points in groups)


def _camera_before(joints: Float[NdArray, "T J 3"]) -> SmplxCamera:
  """A camera 3 m before a body, that shows it from the head to the waist."""
  both = joints[:, [_JOINTS[side] for side in SHOULDERS]]
  middle, width = np.median(both.mean(axis=1), axis=0), np.median(np.linalg.norm(both[:, 0] - both[:, 1], axis=-1))
  offset = np.array([0.0, 0.0, _AWAY]) - middle
  focal = _SHOULDERS * _SIDE * _AWAY / max(float(width), 1e-3)
  return SmplxCamera(offset[None], (focal, focal), (_PLACE[0] * _SIDE, _PLACE[1] * _SIDE), (_SIDE, _SIDE))
