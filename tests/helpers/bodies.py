"""Synthetic body models in the layout of SMPL-X files, which may not be redistributed."""

import numpy as np

from anchor_jax.body.face_points import LANDMARKS_68, mean_face

# The real tree: pelvis, legs and spine, head, arms; jaw and eyes; on each wrist five fingers of three joints.
PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 15, 15, 15]
for _wrist in (20, 21):
  for _finger in range(5):
    _first = len(PARENTS)
    PARENTS += [_wrist, _first, _first + 1]


def make_model_file(path, vertices=400, seed=0, directions=400):
  """Writes a model of random numbers with realistic sizes: bones of 10 cm and skin around them."""
  rng = np.random.default_rng(seed)
  small = lambda *shape, scale=1.0: (scale * rng.standard_normal(shape, np.float32)).astype(np.float64)
  weights = rng.random((vertices, 55)) ** 8
  regressor = rng.random((55, vertices)) ** 8
  faces = rng.integers(0, vertices, (2 * vertices, 3))
  shares = lambda *shape: rng.dirichlet((1, 1, 1), shape)
  np.savez(
    path,
    v_template=small(vertices, 3, scale=0.4),
    shapedirs=small(vertices, 3, directions, scale=0.005),
    posedirs=small(vertices, 3, 486, scale=0.002),
    weights=weights / weights.sum(axis=1, keepdims=True),
    J_regressor=regressor / regressor.sum(axis=1, keepdims=True),
    kintree_table=np.array([[2**32 - 1, *PARENTS[1:]], range(55)], np.uint32),
    f=faces.astype(np.uint32),
    hands_meanl=small(45, scale=0.2),
    hands_meanr=small(45, scale=0.2),
    hands_componentsl=small(45, 45, scale=0.2),
    hands_componentsr=small(45, 45, scale=0.2),
    lmk_faces_idx=rng.integers(0, 2 * vertices, 51),
    lmk_bary_coords=shares(51),
    dynamic_lmk_faces_idx=rng.integers(0, 2 * vertices, (79, 17)),
    dynamic_lmk_bary_coords=shares(79, 17),
  )


def _doll_joints():
  """Places of the 55 joints of a person standing with arms spread: x to the person's left, y up, z forward, meters."""
  half = [(0.06, -0.44, 0), (0.10, -0.82, 0), (0.10, -1.22, 0), (0.12, -1.28, 0.1), (0.07, 0.1, 0), (0.17, 0.12, 0)]
  hip, knee, ankle, foot, collar, shoulder = ([np.array(p) * (s, 1, 1) for s in (1, -1)] for p in half)
  elbow, wrist = ([np.array((s * x, 0.12, 0)) for s in (1, -1)] for x in (0.43, 0.68))
  spine = [np.array((0, y, 0)) for y in (-0.24, -0.10, 0.0)]
  joints = [np.array((0, -0.35, 0)), *hip, spine[0], *knee, spine[1], *ankle, spine[2], *foot, np.array((0, 0.17, 0))]
  joints += [*collar, np.array((0, 0.30, 0.0)), *shoulder, *elbow, *wrist, np.array((0, 0.28, 0.02))]
  joints += [np.array((s * 0.0335, 0.356, 0.028)) for s in (1, -1)]
  for side in (1, -1):
    for z in (0.03, 0.01, -0.03, -0.01):
      joints += [np.array((side * x, 0.12, z)) for x in (0.77, 0.81, 0.835)]
    joints += [np.array((side * x, 0.11, z)) for x, z in ((0.70, 0.03), (0.73, 0.05), (0.76, 0.065))]
  return np.array(joints)


def make_doll_file(path):
  """Writes a stick doll in the layout of SMPL-X's files: one vertex per joint, and face, ears, eyes, finger tips.

  The first shape coefficient adds a tenth of the height, the first expression coefficient lowers the lower lip by 2 cm.
  """
  joints = _doll_joints()
  mean, _ = mean_face()
  marks = mean[list(LANDMARKS_68)] * (0.07, -0.07, 0.07) + (0, 0.335, -0.02)
  marks = np.concatenate([marks[17:], marks[:17]])  # the outline last
  ears, pupils = [(s * 0.08, 0.335, -0.02) for s in (1, -1)], joints[[23, 24]] + (0, 0, 0.012)
  lasts = list(range(27, 55, 3))
  tips = joints[lasts] + (joints[lasts] - joints[[last - 1 for last in lasts]])
  vertices = np.concatenate([joints, marks, ears, pupils, tips])
  owners = [*range(55), *[15] * 70, 23, 24, *lasts]
  count, face = len(vertices), 55 + np.arange(68)
  shapes = np.zeros((count, 3, 400))
  shapes[:, :, 0] = 0.1 * vertices
  shapes[55 + np.array([38, 39, 40, 41, 42, 48, 49, 50]), 1, 300] = -0.02  # the lower lip's outer and inner edge
  np.savez(
    path,
    v_template=vertices,
    shapedirs=shapes,
    posedirs=np.zeros((count, 3, 486)),
    weights=np.eye(55)[owners],
    J_regressor=np.eye(55, count),
    kintree_table=np.array([[2**32 - 1, *PARENTS[1:]], range(55)], np.uint32),
    f=np.repeat(face[:, None], 3, axis=1).astype(np.uint32),
    hands_meanl=np.zeros(45),
    hands_meanr=np.zeros(45),
    hands_componentsl=np.eye(45),
    hands_componentsr=np.eye(45),
    lmk_faces_idx=np.arange(51),
    lmk_bary_coords=np.tile((1.0, 0.0, 0.0), (51, 1)),
    dynamic_lmk_faces_idx=np.tile(51 + np.arange(17), (79, 1)),
    dynamic_lmk_bary_coords=np.tile((1.0, 0.0, 0.0), (79, 17, 1)),
  )


def doll_parameters(frames=8):
  """SHOW parameters: arms down, left forearm rising over time, in front of a camera at 2 m."""
  body = np.zeros((frames, 21, 3), np.float32)
  body[:, 15, 2], body[:, 16, 2] = -1.2, 1.2  # shoulders
  body[:, 17, 2] = np.linspace(0, 2.2, frames)  # left elbow
  body[:, 17, 1] = -0.3
  body[:, 18, 1] = 0.6
  return {
    "body_pose_axis": body,
    "global_orient": np.tile(np.float32((np.pi, 0, 0)), (frames, 1)),
    "jaw_pose": np.zeros((frames, 3), np.float32),
    "leye_pose": np.zeros((frames, 3), np.float32),
    "reye_pose": np.zeros((frames, 3), np.float32),
    "left_hand_pose": np.zeros((frames, 12), np.float32),
    "right_hand_pose": np.zeros((frames, 12), np.float32),
    "expression": np.zeros((frames, 100), np.float32),
    "betas": np.zeros(300, np.float32),
    "transl": np.zeros((frames, 3), np.float32),
    "camera_transl": np.array((0.0, 0.75, 2.0), np.float32),
    "focal_length": np.float32(900),
    "center": np.array((320.0, 240.0), np.float32),
    "width": 640,
    "height": 480,
    "batch_size": frames,
  }
