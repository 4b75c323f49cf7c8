"""The SMPL-X body model: its file, and its posed surface by linear blend skinning in JAX.

SMPL-X (Pavlakos et al., Expressive Body Capture, CVPR 2019) is a mesh: a template plus linear combinations of shape and
expression directions. The joints are a linear function of the shaped mesh; the pose adds correctives that are linear in
the joints' rotation matrices; then every vertex follows its joints by its skinning weights. The model file
(SMPLX_NEUTRAL.npz and others) comes from its authors, under their license; none of it is part of this package.
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
_HAND = 15  # joints of a hand
# Numbers of shape and of expression directions, by their total.
_DIRECTIONS = {400: (300, 100), 20: (10, 10)}


@dataclasses.dataclass(frozen=True)
class SmplxModel:
  """The arrays of a model that posing needs, for all vertices or a subset; lengths are in meters.

  Attributes:
    template: [N 3] the vertices at rest.
    shape_dirs: [N 3 S] displacements per coefficient of shape, then expression.
    pose_dirs: [N 3 P] displacements per entry of each joint's rotation matrix minus the identity, without the root.
    weights: [N J] skinning weights.
    joints: [J 3] the joints at rest.
    joint_dirs: [J 3 S] displacements of the joints per coefficient of shape, then expression.
    parents: the parent of each joint, which precedes it; -1 for the root.
    shapes: number of shape coefficients; the rest of S are expression coefficients.
    hand_mean: [2 45] the mean pose of the left and the right hand, axis-angle of 15 joints.
    hand_components: [2 45 45] principal components of hand poses, one per row.
    faces: [K 3] the triangles; empty in a subset.
    landmarks: three vertices and their shares for each face landmark: [L 3], [L 3]. First the 51 of brows, nose, eyes
      and mouth, then the 17 of the outline seen from the front. None if the file has none.
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


def read_model(path: str | os.PathLike) -> SmplxModel:
  """Returns the model in a file SMPLX_*.npz.

  Raises:
    UserError: no such file, not a model of 55 joints, or damaged.
  """
  path = Path(path)
  arrays = read_arrays(path, "SMPL-X model", "use the original SMPLX_NEUTRAL.npz", _NAMES)
  try:
    return _checked(arrays)
  except (ValueError, KeyError, IndexError, TypeError) as error:
    raise UserError(
      f"{path} is not an SMPL-X model with the layout of SMPLX_NEUTRAL.npz, or is damaged ({one_line(error)})"
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
    raise ValueError(f"{directions} shape and expression directions")
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
  parents[0] = -1  # 2^32 - 1 in files
  if len(parents) != JOINTS or any(not 0 <= parent < joint for joint, parent in enumerate(parents) if joint):
    raise ValueError("joints that precede their parents")
  faces = file["f"].astype(np.int32)
  double = regressor.astype(np.float64)  # for sums over all vertices
  joint_dirs = (double @ shape_dirs.reshape(count, -1)).reshape(JOINTS, 3, directions)
  return SmplxModel(
    template, shape_dirs, pose_dirs, weights, _floats(double @ template), _floats(joint_dirs), tuple(parents),
    _DIRECTIONS[directions][0], shapes["hands_mean"][0], shapes["hands_components"][0], faces, _landmarks(file, faces),
  )  # fmt: skip


def _floats(array: Any) -> Float[NdArray, "..."]:
  if array.dtype.kind not in "fiu":
    raise ValueError(f"an array of type {array.dtype}")
  return np.asarray(array, np.float32)


def _landmarks(
  file: dict[str, NdArray], faces: Int[NdArray, "K 3"]
) -> tuple[Int[NdArray, "L 3"], Float[NdArray, "L 3"]] | None:
  """The face landmarks; of the outline, whose vertices depend on the head's rotation, those seen from the front."""
  if not {"lmk_faces_idx", "lmk_bary_coords", "dynamic_lmk_faces_idx", "dynamic_lmk_bary_coords"} <= set(file):
    return None
  numbers = np.concatenate([file["lmk_faces_idx"].ravel(), file["dynamic_lmk_faces_idx"][0].ravel()]).astype(np.int64)
  shares = np.concatenate([file["lmk_bary_coords"], file["dynamic_lmk_bary_coords"][0]])
  if len(numbers) != 68 or shares.shape != (68, 3):
    raise ValueError(f"{len(numbers)} face landmarks instead of 68")
  return faces[numbers], _floats(shares)


def hand_pose(
  model: SmplxModel, side: int, coefficients: Float[NdArray, "T D"], from_mean: bool = True
) -> Float[NdArray, "T P"]:
  """Returns the pose of a hand's 15 joints from coefficients of principal components, or from 45 axis-angle numbers.

  Args:
    model: the model.
    side: 0 left, 1 right.
    coefficients: of the first components; 45 of them are the axis-angle numbers of all joints.
    from_mean: whether they are relative to the mean hand (`flat_hand_mean=False` in the `smplx` package).
  """
  count = coefficients.shape[-1]
  full = coefficients if count == 3 * _HAND else coefficients @ model.hand_components[side, :count]
  return (full + model.hand_mean[side] if from_mean else full).astype(np.float32)


def full_pose(**parts: Float[NdArray, "T _"]) -> Float[NdArray, "T J 3"]:
  """Returns the axis-angle vectors of all joints in the model's order.

  Args:
    **parts: global_orient, body_pose, jaw_pose, leye_pose, reye_pose, left_hand, right_hand, three numbers per joint.
  """
  names = ("global_orient", "body_pose", "jaw_pose", "leye_pose", "reye_pose", "left_hand", "right_hand")
  joined = np.concatenate([parts[name] for name in names], axis=-1)
  return joined.reshape(-1, JOINTS, 3).astype(np.float32)


def rotations(axis_angle: Float[Array, "*N 3"]) -> Float[Array, "*N 3 3"]:
  """Returns the rotation matrices of axis-angle vectors (Rodrigues), including zero angles."""
  squared = jnp.sum(jnp.square(axis_angle), axis=-1)[..., None, None]
  small = squared < 1e-8
  angle = jnp.sqrt(jnp.where(small, 1.0, squared))
  # sin(a) / a and (1 - cos(a)) / a^2; near zero, the first terms of their series
  first = jnp.where(small, 1 - squared / 6, jnp.sin(angle) / angle)
  second = jnp.where(small, 0.5 - squared / 24, 2 * jnp.square(jnp.sin(angle / 2) / angle))
  x, y, z = jnp.moveaxis(axis_angle, -1, 0)
  zero = jnp.zeros_like(x)
  cross = jnp.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*x.shape, 3, 3)
  return jnp.eye(3) + first * cross + second * (cross @ cross)


def pose_body(
  model: SmplxModel, coefficients: Float[Array, "T S"], axis_angle: Float[Array, "T J 3"]
) -> tuple[Float[Array, "T N 3"], Float[Array, "T J 3"]]:
  """Returns vertices and joints of the posed model in meters, without translation.

  Args:
    model: from `read_model` or `subset`.
    coefficients: of shape, then expression.
    axis_angle: of each joint, relative to its parent.
  """
  names = ("template", "shape_dirs", "pose_dirs", "weights", "joints", "joint_dirs")
  arrays = {name: jnp.asarray(getattr(model, name)) for name in names}
  return _skinned(arrays, coefficients, axis_angle, model.parents)


# The model's arrays are arguments, since constants would be folded during compilation.
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
  # a vertex rotates about the joint's place at rest
  move = place - product("tjde,tje->tjd", world, joints)
  mixed = product("nj,tjde->tnde", model["weights"], world)
  return product("tnde,tne->tnd", mixed, shaped) + product("nj,tjd->tnd", model["weights"], move), place


def _chain(
  parents: tuple[int, ...], turn: Float[Array, "T J 3 3"], joints: Float[Array, "T J 3"]
) -> tuple[Float[Array, "T J 3 3"], Float[Array, "T J 3"]]:
  """World rotation and place of every joint along the kinematic chain, all joints of one depth at a time."""
  depth = [0] * len(parents)
  for joint, parent in enumerate(parents[1:], start=1):
    depth[joint] = depth[parent] + 1
  world, place = turn, joints
  for level in range(1, max(depth) + 1):
    children = np.flatnonzero(np.equal(depth, level))
    above = np.array(parents)[children]
    bone = joints[:, children] - joints[:, above]
    moved = place[:, above] + jnp.einsum("tjde,tje->tjd", world[:, above], bone, precision="highest")
    turned = jnp.matmul(world[:, above], turn[:, children], precision="highest")
    world, place = world.at[:, children].set(turned), place.at[:, children].set(moved)
  return world, place


def coefficients_of(
  model: SmplxModel, betas: Float[NdArray, " B"], expression: Float[NdArray, "T E"]
) -> Float[NdArray, "T S"]:
  """Returns the coefficients for `pose_body` from those of shape and of expression, padded with zeros.

  Raises:
    UserError: a coefficient that the model lacks is not zero.
  """
  directions = model.shape_dirs.shape[-1]
  filled = np.zeros((len(expression), directions), np.float32)
  for name, values, first, end in (
    ("betas", np.broadcast_to(betas, (len(expression), len(betas))), 0, model.shapes),
    ("expression", expression, model.shapes, directions),
  ):
    if np.any(values[:, end - first :]):
      raise UserError(
        f"{name} has {values.shape[1]} coefficients and the SMPL-X model {end - first}: use the model of 2020 with 300"
        " shape and 100 expression coefficients"
      )
    values = values[:, : end - first]
    filled[:, first : first + values.shape[1]] = values
  return filled


def subset(model: SmplxModel, vertices: Shaped[NdArray, "..."]) -> tuple[SmplxModel, Int[NdArray, "..."]]:
  """Returns the model with the given vertices only, each once, and the index of each given vertex in it.

  It poses them and the joints to the same places, faster.
  """
  unique, index = np.unique(vertices, return_inverse=True)
  arrays = {name: getattr(model, name)[unique] for name in ("template", "shape_dirs", "pose_dirs", "weights")}
  small = dataclasses.replace(model, **arrays, faces=np.zeros((0, 3), np.int32), landmarks=None)
  return small, index.reshape(vertices.shape).astype(np.int64)
