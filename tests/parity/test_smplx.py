"""The SMPL-X model of this package against the `smplx` package, on a random model with the real layout."""

import jax.numpy as jnp
import numpy as np
import pytest
from bodies import make_model_file

from anchor_jax.smplx.model import coefficients_of, full_pose, hand_pose, pose_body, read_model, subset

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("pca", [True, False])
def test_vertices_and_joints_equal_those_of_the_smplx_package(tmp_path, pca):
  torch, smplx = pytest.importorskip("torch"), pytest.importorskip("smplx")
  make_model_file(tmp_path / "SMPLX_NEUTRAL.npz", vertices=10475)
  hand = 12 if pca else 45
  reference = smplx.SMPLX(
    str(tmp_path / "SMPLX_NEUTRAL.npz"), ext="npz", num_betas=300, num_expression_coeffs=100, use_pca=pca,
    num_pca_comps=12, flat_hand_mean=False, use_face_contour=True, batch_size=3,
  )  # fmt: skip
  rng = np.random.default_rng(1)
  sizes = {"global_orient": 3, "body_pose": 63, "jaw_pose": 3, "leye_pose": 3, "reye_pose": 3}
  poses = {name: rng.normal(0, 0.4, (3, size)).astype(np.float32) for name, size in sizes.items()}
  poses["jaw_pose"][0] = 0  # no rotation is a special case
  hands = {f"{side}_hand_pose": rng.normal(0, 0.5, (3, hand)).astype(np.float32) for side in ("left", "right")}
  betas, expression = (rng.normal(0, 1, (3, size)).astype(np.float32) for size in (300, 100))
  betas[:] = betas[0]
  parameters = {"betas": betas, "expression": expression, **poses, **hands}
  with torch.no_grad():
    expected = reference(**{name: torch.from_numpy(value) for name, value in parameters.items()}, return_verts=True)

  model = read_model(tmp_path / "SMPLX_NEUTRAL.npz")
  pose = full_pose(
    **poses, left_hand=hand_pose(model, 0, hands["left_hand_pose"]),
    right_hand=hand_pose(model, 1, hands["right_hand_pose"]),
  )  # fmt: skip
  pose, coefficients = jnp.asarray(pose), jnp.asarray(coefficients_of(model, betas[0], expression))
  vertices, joints = pose_body(model, coefficients, pose)
  np.testing.assert_allclose(vertices, expected.vertices.numpy(), rtol=0, atol=1e-5)
  np.testing.assert_allclose(joints, expected.joints.numpy()[:, :55], rtol=0, atol=1e-5)
  corners, shares = model.landmarks
  small, places = subset(model, corners)
  chosen, _ = pose_body(small, coefficients, pose)
  marks = np.einsum("tlcd,lc->tld", np.asarray(chosen)[:, places], shares)[:, :51]
  np.testing.assert_allclose(marks, expected.joints.numpy()[:, 76:127], rtol=0, atol=1e-5)
