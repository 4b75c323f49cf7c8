"""The SMPL-X body model: what its file holds, and its surface in a pose, by linear blend skinning in JAX.

SMPL-X (Pavlakos et al., Expressive Body Capture, CVPR 2019): a mesh whose shape is a template and a linear combination
of directions of shape and expression; the joints are a linear function of the shaped mesh; the pose adds correctives,
linear in the joints' rotation matrices; then every vertex follows its joints by its weights. The model file
(SMPLX_NEUTRAL.npz and others) comes from its makers, under their licence; none of it is part of this package.
"""

import dataclasses
import functools
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.core.errors import UserError, one_line
from anchor_jax.core.shapes import Array, Float, Int, NdArray, Shaped
from anchor_jax.files.arrays import read_arrays

JOINTS = 55
_BODY, _HAND, _HANDS = 21, 15, (25, 40)  # joints besides the root, of a hand, and the first of each hand
# How many directions of shape and expression a file has, in all, and of each.
_DIRECTIONS = {400: (300, 100), 20: (10, 10)}


@dataclasses.dataclass(frozen=True)
class SmplxModel:
  """The parts of a model that posing needs; lengths are metres. All vertices, or only chosen ones (see `part`).

  Attributes:
    template: [N 3] the vertices at rest.
    shape_dirs: [N 3 S] how they move with the coefficients of shape, then expression.
    pose_dirs: [N 3 P] how they move with the 9 numbers of each joint's rotation matrix less the identity, the root's
      left out.
    weights: [N J] shares of the joints in each vertex's motion.
    joints: [J 3] the joints at rest.
    joint_dirs: [J 3 S] how they move with shape and expression.
    parents: of each joint, -1 of the root; each comes after its parent.
    shapes: number of shape coefficients; the rest of S are those of expression.
    hand_mean: [2 45] the mean pose of the left and the right hand, axis and angle of 15 joints.
    hand_components: [2 45 45] principal components of hand poses, one a row.
    faces: [K 3] the triangles; empty in a part.
    landmarks: three vertices and their shares of each landmark of the face: [L 3], [L 3], first the 51 of brows, nose,
      eyes and mouth, then the 17 of the outline seen from the front; None where the file has none.
  """

  template: Float[NdArray, "N 3"]
  shape_dirs: Float[NdArray, "N 3 S"]
  pose_dirs: Float[NdArray, "N 3 P"]
  weights: Float[NdArray, "N J"]
  joints: Float[NdArray, "J 3"]
  joint_dirs: Float[NdArray, "J 3 S"]
  parents: tuple[int, ...]
  shapes: int
  hand_mean: Float[NdArray, "2 D"]
  hand_components: Float[NdArray, "2 D D"]
  faces: Int[NdArray, "K 3"]
  landmarks: tuple[Int[NdArray, "L 3"], Float[NdArray, "L 3"]] | None

  def part(self, vertices: Int[NdArray, " M"]) -> "SmplxModel":
    """Returns the model of these vertices alone: the joints and the vertices come out as before, sooner."""
    names = ("template", "shape_dirs", "pose_dirs", "weights")
    picked = {name: getattr(self, name)[vertices] for name in names}
    return dataclasses.replace(self, **picked, faces=np.zeros((0, 3), np.int32), landmarks=None)


def read_model(path: str | os.PathLike) -> SmplxModel:
  """Returns the model in a file SMPLX_*.npz.

  Raises:
    UserError: no such file, not a model of 55 joints, or damaged.
  """
  path = Path(path)
  arrays = read_arrays(path, "SMPL-X model", "name the file SMPLX_NEUTRAL.npz that its makers give out", _NAMES)
  try:
    return _checked(arrays)
  except (ValueError, KeyError, IndexError, TypeError) as error:
    raise UserError(
      f"{path} is no SMPL-X model of the layout of SMPLX_NEUTRAL.npz, or is damaged ({one_line(error)})"
    ) from None


_NAMES = (
  "v_template", "shapedirs", "posedirs", "weights", "J_regressor", "kintree_table", "f", "hands_meanl", "hands_meanr",
  "hands_componentsl", "hands_componentsr", "lmk_faces_idx", "lmk_bary_coords", "dynamic_lmk_faces_idx",
  "dynamic_lmk_bary_coords",
)  # fmt: skip


def _checked(file: dict[str, NdArray]) -> SmplxModel:
  template, shape_dirs = _floats(file["v_template"]), _floats(file["shapedirs"])
  count, directions = len(template), shape_dirs.shape[-1]
  if directions not in _DIRECTIONS:
    raise ValueError(f"{directions} directions of shape and expression")
  pose_dirs, weights, regressor = (_floats(file[name]) for name in ("posedirs", "weights", "J_regressor"))
  hands = [[_floats(file[f"hands_{name}{side}"]) for side in "lr"] for name in ("mean", "components")]
  shapes = {
    "v_template": (template, (count, 3)),
    "shapedirs": (shape_dirs, (count, 3, directions)),
    "posedirs": (pose_dirs, (count, 3, 9 * (JOINTS - 1))),
    "weights": (weights, (count, JOINTS)),
    "J_regressor": (regressor, (JOINTS, count)),
    "hands_mean": (np.stack(hands[0]), (2, 3 * _HAND)),
    "hands_components": (np.stack(hands[1]), (2, 3 * _HAND, 3 * _HAND)),
  }
  for name, (array, shape) in shapes.items():
    if array.shape != shape:
      raise ValueError(f"{name} of shape {array.shape} instead of {shape}")
  parents = [int(parent) for parent in file["kintree_table"][0].astype(np.int64)]
  parents[0] = -1  # files have 2^32 - 1 there
  if len(parents) != JOINTS or any(not 0 <= parent < joint for joint, parent in enumerate(parents) if joint):
    raise ValueError("joints that do not come after their parents")
  faces = file["f"].astype(np.int32)
  wide = regressor.astype(np.float64)  # sums over all vertices
  joint_dirs = (wide @ shape_dirs.reshape(count, -1)).reshape(JOINTS, 3, directions)
  return SmplxModel(
    template, shape_dirs, pose_dirs, weights, _floats(wide @ template), _floats(joint_dirs), tuple(parents),
    _DIRECTIONS[directions][0], shapes["hands_mean"][0], shapes["hands_components"][0], faces, _landmarks(file, faces),
  )  # fmt: skip


def _floats(array: Any) -> Float[NdArray, "..."]:
  if array.dtype.kind not in "fiu":
    raise ValueError(f"an array of type {array.dtype}")
  return np.asarray(array, np.float32)


def _landmarks(
  file: dict[str, NdArray], faces: Int[NdArray, "K 3"]
) -> tuple[Int[NdArray, "L 3"], Float[NdArray, "L 3"]] | None:
  """The face's landmarks; of the outline, which depends on how the head is turned, the row that is seen from ahead."""
  if not {"lmk_faces_idx", "lmk_bary_coords", "dynamic_lmk_faces_idx", "dynamic_lmk_bary_coords"} <= set(file):
    return None
  numbers = np.concatenate([file["lmk_faces_idx"].ravel(), file["dynamic_lmk_faces_idx"][0].ravel()]).astype(np.int64)
  shares = np.concatenate([file["lmk_bary_coords"], file["dynamic_lmk_bary_coords"][0]])
  if len(numbers) != 68 or shares.shape != (68, 3):
    raise ValueError(f"{len(numbers)} landmarks of the face instead of 68")
  return faces[numbers], _floats(shares)


def hand_pose(
  model: SmplxModel, side: int, coefficients: Float[NdArray, "T D"], from_mean: bool = True
) -> Float[NdArray, "T P"]:
  """Returns the pose of a hand's 15 joints from coefficients of its principal components, or from 45 numbers as it is.

  Args:
    model: the model.
    side: 0 left, 1 right.
    coefficients: of the first so many components; 45 are axis and angle of every joint.
    from_mean: whether they count from the mean hand (`flat_hand_mean=False` of the `smplx` package).
  """
  count = coefficients.shape[-1]
  full = coefficients if count == 3 * _HAND else coefficients @ model.hand_components[side, :count]
  return (full + model.hand_mean[side] if from_mean else full).astype(np.float32)


def full_pose(**parts: Float[NdArray, "T _"]) -> Float[NdArray, "T J 3"]:
  """Returns axis and angle of all joints in the model's order.

  Args:
    **parts: global_orient, body_pose, jaw_pose, leye_pose, reye_pose, left_hand, right_hand, three numbers a joint.
  """
  names = ("global_orient", "body_pose", "jaw_pose", "leye_pose", "reye_pose", "left_hand", "right_hand")
  joined = np.concatenate([parts[name] for name in names], axis=-1)
  return joined.reshape(-1, JOINTS, 3).astype(np.float32)


def rotations(axis_angle: Float[Array, "*N 3"]) -> Float[Array, "*N 3 3"]:
  """Returns the rotation matrices of axes whose lengths are the angles (Rodrigues), also of a zero angle."""
  squared = jnp.sum(jnp.square(axis_angle), axis=-1)[..., None, None]
  small = squared < 1e-8
  angle = jnp.sqrt(jnp.where(small, 1.0, squared))
  # sin(a) / a and (1 - cos(a)) / a^2, with the first terms of their series near zero
  first = jnp.where(small, 1 - squared / 6, jnp.sin(angle) / angle)
  second = jnp.where(small, 0.5 - squared / 24, 2 * jnp.square(jnp.sin(angle / 2) / angle))
  x, y, z = jnp.moveaxis(axis_angle, -1, 0)
  zero = jnp.zeros_like(x)
  cross = jnp.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*x.shape, 3, 3)
  return jnp.eye(3) + first * cross + second * (cross @ cross)


def pose_body(
  model: SmplxModel, coefficients: Float[Array, "T S"], axis_angle: Float[Array, "T J 3"]
) -> tuple[Float[Array, "T N 3"], Float[Array, "T J 3"]]:
  """Returns vertices and joints of the posed model, metres, before any translation.

  Args:
    model: of `read_model`, or a part of it.
    coefficients: of shape, then expression.
    axis_angle: of each joint, relative to its parent.
  """
  names = ("template", "shape_dirs", "pose_dirs", "weights", "joints", "joint_dirs")
  arrays = {name: jnp.asarray(getattr(model, name)) for name in names}
  return _skinned(arrays, coefficients, axis_angle, model.parents)


# The model's arrays are arguments: as constants of the program they would be folded while it compiles.
@functools.partial(jax.jit, static_argnums=3)
def _skinned(
  model: dict[str, Float[Array, "..."]],
  coefficients: Float[Array, "T S"],
  axis_angle: Float[Array, "T J 3"],
  parents: tuple[int, ...],
) -> tuple[Float[Array, "T N 3"], Float[Array, "T J 3"]]:
  product = functools.partial(jnp.einsum, precision="highest")
  turn = rotations(axis_angle)
  shaped = model["template"] + product("ts,nds->tnd", coefficients, model["shape_dirs"])
  joints = model["joints"] + product("ts,jds->tjd", coefficients, model["joint_dirs"])
  feature = (turn[:, 1:] - jnp.eye(3)).reshape(len(turn), -1)
  shaped = shaped + product("tp,ndp->tnd", feature, model["pose_dirs"])
  world, place = _chain(parents, turn, joints)
  # a vertex turns about the joint's place at rest
  move = place - product("tjde,tje->tjd", world, joints)
  mixed = product("nj,tjde->tnde", model["weights"], world)
  return product("tnde,tne->tnd", mixed, shaped) + product("nj,tjd->tnd", model["weights"], move), place


def _chain(
  parents: tuple[int, ...], turn: Float[Array, "T J 3 3"], joints: Float[Array, "T J 3"]
) -> tuple[Float[Array, "T J 3 3"], Float[Array, "T J 3"]]:
  """Rotation and place of every joint in the world, along the kinematic chain, all joints of a depth at once."""
  depth = [0] * len(parents)
  for joint, parent in enumerate(parents[1:], start=1):
    depth[joint] = depth[parent] + 1
  world, place = turn, joints
  for level in range(1, max(depth) + 1):
    here = np.flatnonzero(np.equal(depth, level))
    above = np.array(parents)[here]
    bone = joints[:, here] - joints[:, above]
    moved = place[:, above] + jnp.einsum("tjde,tje->tjd", world[:, above], bone, precision="highest")
    turned = jnp.matmul(world[:, above], turn[:, here], precision="highest")
    world, place = world.at[:, here].set(turned), place.at[:, here].set(moved)
  return world, place


def coefficients_of(
  model: SmplxModel, betas: Float[NdArray, " B"], expression: Float[NdArray, "T E"]
) -> Float[NdArray, "T S"]:
  """Returns the coefficients that `pose_body` takes, from those of shape and of expression.

  What the model has more is zero.

  Raises:
    UserError: a coefficient beyond those of the model is not zero.
  """
  directions = model.shape_dirs.shape[-1]
  filled = np.zeros((len(expression), directions), np.float32)
  for name, values, first, end in (
    ("betas", np.broadcast_to(betas, (len(expression), len(betas))), 0, model.shapes),
    ("expression", expression, model.shapes, directions),
  ):
    if np.any(values[:, end - first :]):
      raise UserError(
        f"{name} has {values.shape[1]} coefficients and the SMPL-X model {end - first}: use the model of 2020, with 300"
        " of shape and 100 of expression"
      )
    kept = values[:, : end - first]
    filled[:, first : first + kept.shape[1]] = kept
  return filled


def subset(model: SmplxModel, vertices: Shaped[NdArray, "..."]) -> tuple[SmplxModel, Int[NdArray, "..."]]:
  """Returns the part of the model with the vertices that are named, each once, and where each of them is in it."""
  unique, places = np.unique(vertices, return_inverse=True)
  return model.part(unique), places.reshape(vertices.shape).astype(np.int64)
