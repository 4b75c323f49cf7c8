"""The SMPL-X model: linear blend skinning compared with its definition."""

import jax.numpy as jnp
import numpy as np
import pytest
from bodies import PARENTS, make_doll_file, make_model_file
from scipy.spatial.transform import Rotation

from anchor_jax.core.errors import UserError
from anchor_jax.smplx.model import coefficients_of, full_pose, hand_pose, pose_body, read_model, rotations, subset


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  path = tmp_path_factory.mktemp("model") / "SMPLX_NEUTRAL.npz"
  make_model_file(path, vertices=40)
  return read_model(path), dict(np.load(path))


def by_definition(file, coefficients, pose):
  """Vertices and joints of one frame in float64, with 4 x 4 matrices."""
  shaped = file["v_template"] + file["shapedirs"] @ coefficients
  rest = file["J_regressor"] @ shaped
  turn = Rotation.from_rotvec(pose).as_matrix()
  shaped = shaped + file["posedirs"] @ (turn[1:] - np.eye(3)).ravel()
  world = []
  for joint, parent in enumerate(PARENTS):
    local = np.eye(4)
    local[:3, :3], local[:3, 3] = turn[joint], rest[joint] - (rest[parent] if joint else 0)
    world.append(world[parent] @ local if joint else local)
  back = [
    matrix @ np.block([[np.eye(3), -place[:, None]], [np.zeros((1, 3)), 1]]) for matrix, place in zip(world, rest)
  ]
  mixed = np.einsum("nj,jde->nde", file["weights"], np.array(back))
  vertices = np.einsum("nde,ne->nd", mixed, np.concatenate([shaped, np.ones((len(shaped), 1))], axis=1))[:, :3]
  return vertices, np.array(world)[:, :3, 3]


def test_the_posed_model_matches_the_definition(model):
  model, file = model
  rng = np.random.default_rng(2)
  pose, coefficients = rng.normal(0, 0.5, (2, 55, 3)), rng.normal(0, 1, (2, 400))
  pose[0, 3] = 0  # no rotation
  arrays = [jnp.asarray(value, jnp.float32) for value in (coefficients, pose)]
  vertices, joints = pose_body(model, *arrays)
  for frame in (0, 1):
    expected = by_definition(file, coefficients[frame], pose[frame])
    np.testing.assert_allclose(vertices[frame], expected[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(joints[frame], expected[1], rtol=0, atol=1e-5)
  part, places = subset(model, np.array([[7, 3], [7, 39]]))
  part_vertices, part_joints = pose_body(part, *arrays)
  np.testing.assert_allclose(part_vertices[:, places], np.asarray(vertices)[:, [[7, 3], [7, 39]]], rtol=0, atol=1e-6)
  np.testing.assert_allclose(part_joints, joints, rtol=0, atol=1e-6)


def test_rotations_are_exact_even_for_tiny_angles():
  axes = np.array([(0, 0, 0), (1e-6, 0, 0), (3e-4, -2e-4, 1e-4), (np.pi, 0, 0), (1, -2, 0.5)], np.float32)
  np.testing.assert_allclose(
    rotations(jnp.asarray(axes)), Rotation.from_rotvec(axes.astype(np.float64)).as_matrix(), rtol=0, atol=5e-7
  )


def test_hand_poses_come_from_principal_components_or_axis_angles(model):
  model, file = model
  few = np.random.default_rng(0).normal(size=(2, 12)).astype(np.float32)
  expected = few @ file["hands_componentsr"][:12] + file["hands_meanr"]
  np.testing.assert_allclose(hand_pose(model, 1, few), expected, rtol=0, atol=1e-5)
  many = np.ones((1, 45), np.float32)
  np.testing.assert_allclose(hand_pose(model, 0, many), 1 + file["hands_meanl"][None], rtol=0, atol=1e-6)
  np.testing.assert_array_equal(hand_pose(model, 0, many, from_mean=False), many)


def test_the_order_of_the_joints_is_the_models():
  sizes = {"global_orient": 1, "body_pose": 21, "jaw_pose": 1, "leye_pose": 1, "reye_pose": 1, "left_hand": 15}
  parts = {name: np.full((1, 3 * size), size + len(name), np.float32) for name, size in sizes.items()}
  pose = full_pose(**parts, right_hand=np.zeros((1, 45), np.float32))
  counts = [(int(value), int((pose[0, :, 0] == value).sum())) for value in dict.fromkeys(pose[0, :, 0].tolist())]
  assert counts == [(14, 1), (30, 21), (9, 1), (10, 2), (24, 15), (0, 15)]


def test_coefficients_beyond_the_model_must_be_zero(tmp_path):
  make_model_file(tmp_path / "old.npz", vertices=5, directions=20)
  old = read_model(tmp_path / "old.npz")
  betas, expression = np.zeros(300, np.float32), np.zeros((2, 100), np.float32)
  betas[3], expression[1, 4] = 0.5, -2
  filled = coefficients_of(old, betas, expression)
  assert filled.shape == (2, 20) and filled[0, 3] == 0.5 and filled[1, 14] == -2 and np.count_nonzero(filled) == 3
  betas[10] = 1e-3
  with pytest.raises(UserError, match="model of 2020"):
    coefficients_of(old, betas, expression)


def test_files_that_are_not_models_are_refused(tmp_path):
  path = tmp_path / "SMPLX_MALE.npz"
  with pytest.raises(UserError, match="there is no SMPL-X model"):
    read_model(path)
  make_doll_file(path)
  complete = dict(np.load(path))
  broken = {"weights": complete["weights"][:, :24], "shapedirs": complete["shapedirs"][..., :11]}
  broken |= {"v_template": np.array([None]), "kintree_table": complete["kintree_table"][:, ::-1]}
  for name, value in broken.items():
    np.savez(path, **{**complete, name: value})
    with pytest.raises(UserError, match=r"not an? SMPL-X model"):
      read_model(path)
  path.write_bytes(b"PK")
  with pytest.raises(UserError, match="damaged"):
    read_model(path)
