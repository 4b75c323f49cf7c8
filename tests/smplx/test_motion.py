"""Motions of SMPL-X parameters: SHOW and TalkSHOW files, cameras, and renders of the posed body."""

import pickle

import numpy as np
import pytest
from bodies import doll_parameters, make_doll_file
from people import make_measures

from anchor_jax.body.charts import chart
from anchor_jax.body.face_points import LANDMARKS_68, mean_face, mesh_of_landmarks, with_depth
from anchor_jax.core.errors import UserError
from anchor_jax.inference.motions import open_motion, read_motion
from anchor_jax.landmarks.tracks import five_landmarks
from anchor_jax.smplx.model import read_model
from anchor_jax.smplx.parameters import read_parameters
from anchor_jax.smplx.tracks import posed_track


@pytest.fixture(scope="module")
def doll(tmp_path_factory):
  path = tmp_path_factory.mktemp("doll") / "SMPLX_NEUTRAL.npz"
  make_doll_file(path)
  return path


def columns_of(parameters):
  """The motion in TalkSHOW's columns."""
  names = ("jaw_pose", "leye_pose", "reye_pose", "global_orient", "body_pose_axis")
  parts = [parameters[name].reshape(parameters["batch_size"], -1) for name in names]
  return np.concatenate([*parts, np.zeros((parameters["batch_size"], 90)), parameters["expression"]], axis=1)


def test_joints_are_projected_by_the_camera(doll, tmp_path):
  parameters = doll_parameters(8)
  parameters["transl"][:, 0] = 0.1
  np.savez(tmp_path / "show.npz", **parameters)
  track = posed_track(read_model(doll), read_parameters(tmp_path / "show.npz"))
  assert (track.width, track.height, track.fps, len(track)) == (640, 480, 30.0, 8)
  # half a turn about x at the pelvis: y and z change sign about (-0.35, 0); the camera is 2 m away
  project = lambda x, y: (320 + 900 * (x + 0.1) / 2, 240 + 900 * (-0.7 - y + 0.75) / 2)
  np.testing.assert_allclose(track.body[:, 11, :2], np.tile(project(0.17, 0.12), (8, 1)), atol=1e-2)
  np.testing.assert_allclose(track.body[:, 24, :2], np.tile(project(-0.06, -0.44), (8, 1)), atol=1e-2)
  # the left elbow hangs 0.26 m from the shoulder, at an angle of 1.2
  elbow = project(0.17 + 0.26 * np.cos(1.2), 0.12 - 0.26 * np.sin(1.2))
  np.testing.assert_allclose(track.body[0, 13, :2], elbow, atol=1e-2)
  np.testing.assert_allclose(track.hands[:, 0, 0, :2], track.body[:, 15, :2], atol=1e-3)
  assert (np.linalg.norm(np.diff(track.hands[0, 0, 5:9, :2], axis=0), axis=1) > 3).all()  # finger joints and tip
  # the face is the mean face, 14 cm wide, with the ridge of the nose nearest
  wide = np.linalg.norm(track.face[:, 454, :2] - track.face[:, 234, :2], axis=-1)
  np.testing.assert_allclose(wide, 0.14 * 900 / 2, rtol=0.02)
  assert track.face[0, :, 2].argmax() in (1, 4, 44, 274) and track.face[0, 4, 2] > track.face[0, 234, 2] + 20
  left, right, nose, *_ = five_landmarks(track.face)[0]
  assert left[0] < nose[0] < right[0] and left[1] < nose[1]


def test_expression_opens_the_mouth_and_shape_changes_the_height(doll, tmp_path):
  parameters = doll_parameters(2)
  parameters["expression"][1, 0] = 1.0
  np.savez(tmp_path / "show.npz", **parameters)
  plain = posed_track(read_model(doll), read_parameters(tmp_path / "show.npz"))
  gap = plain.face[:, 14, 1] - plain.face[:, 13, 1]
  np.testing.assert_allclose(gap[1] - gap[0], 0.02 * 900 / 1.93, rtol=0.03)  # 2 cm, at almost 7 cm less than 2 m
  parameters["betas"][0] = 1.0
  np.savez(tmp_path / "show.npz", **parameters)
  tall = posed_track(read_model(doll), read_parameters(tmp_path / "show.npz"))
  np.testing.assert_allclose(tall.shoulder_width, 1.1 * plain.shoulder_width, rtol=1e-4)


def test_all_file_types_give_the_same_motion(doll, tmp_path):
  parameters = doll_parameters(4)
  np.savez(tmp_path / "a.npz", **parameters)
  (tmp_path / "b.pkl").write_bytes(pickle.dumps(parameters))
  (tmp_path / "c.pkl").write_bytes(pickle.dumps([{**parameters, "body_pose": np.zeros((4, 32), np.float32)}], 2))
  first, *rest = (read_parameters(tmp_path / name) for name in ("a.npz", "b.pkl", "c.pkl"))
  for other in rest:
    np.testing.assert_array_equal(other.poses["body_pose"], first.poses["body_pose"])
    assert other.camera.focal == first.camera.focal
  np.save(tmp_path / "d.npy", columns_of(parameters))
  bare = read_parameters(tmp_path / "d.npy")
  np.testing.assert_array_equal(bare.poses["body_pose"], first.poses["body_pose"])
  assert bare.camera is None and bare.hands[0].shape == (4, 45)
  # without a camera, the body is shown from head to waist, in either orientation
  track = posed_track(read_model(doll), bare)
  np.testing.assert_allclose(track.body[:, (11, 12), :2].mean(axis=(0, 1)), (512, 460.8), atol=1)
  parameters["global_orient"][:] = 0
  np.save(tmp_path / "d.npy", columns_of(parameters))
  np.testing.assert_allclose(
    posed_track(read_model(doll), read_parameters(tmp_path / "d.npy")).body, track.body, atol=0.1
  )


def test_the_motion_is_rendered_with_surface_maps_and_retargeted(doll, tmp_path):
  np.savez(tmp_path / "show.npz", **doll_parameters(6))
  with pytest.raises(UserError, match="--smplx-model"):
    open_motion(tmp_path / "show.npz")
  open_motion(tmp_path / "show.npz", smplx_model=doll)
  motion = read_motion(tmp_path / "show.npz", smplx_model=doll, size=64, frames=2, fps=15)
  assert (motion.length, motion.fps, motion.size.width) == (2, 15, 64)
  frame = next(motion.frames(1))
  drawn = frame.pose.any(axis=-1)
  assert 0.1 < drawn.mean() < 0.6 and frame.face_mask.any()
  assert {chart("face"), chart("neck"), chart("upper_arm", "left")} <= set(frame.surface[drawn][:, 0].tolist())
  # on another body
  retargeted = read_motion(tmp_path / "show.npz", smplx_model=doll, size=64, measures=make_measures())
  assert np.abs(next(retargeted.frames(0)).landmarks - next(motion.frames(0)).landmarks).max() > 1


def test_files_without_parameters_are_refused(tmp_path, doll):
  parameters = doll_parameters(3)
  for changes, message in (
    ({"body_pose_axis": np.zeros((2, 21, 3))}, "2 frames, others 3"),
    ({"left_hand_pose": np.zeros((3, 60))}, "60 numbers of a hand"),
    ({"expression": np.full((3, 100), np.nan)}, "not numbers"),
    ({"focal_length": 0}, "focal length"),
  ):
    np.savez(tmp_path / "x.npz", **{**parameters, **changes})
    with pytest.raises(UserError, match=message):
      read_parameters(tmp_path / "x.npz")
  np.savez(tmp_path / "x.npz", betas=np.zeros(3))
  with pytest.raises(UserError, match="no global_orient"):
    read_parameters(tmp_path / "x.npz")
  np.save(tmp_path / "x.npy", np.zeros((4, 232)))
  with pytest.raises(UserError, match=r"\(frames, 265\)"):
    read_parameters(tmp_path / "x.npy")
  parameters["camera_transl"][2] = -5
  np.savez(tmp_path / "x.npz", **parameters)
  with pytest.raises(UserError, match="behind the camera"):
    posed_track(read_model(doll), read_parameters(tmp_path / "x.npz"))


def test_the_face_mesh_passes_through_its_landmarks_and_keeps_its_shape():
  points, triangles = mean_face()
  assert triangles.max() == 467 and np.abs(points[[234, 454]] - [(-1, 0, 0), (1, 0, 0)]).max() < 1e-3
  marks = points[list(LANDMARKS_68)]
  angle = 0.4
  turn = np.array([(np.cos(angle), 0, np.sin(angle)), (0, 1, 0), (-np.sin(angle), 0, np.cos(angle))])
  moved = 30 * points @ turn.T + (100, 50, 0)
  np.testing.assert_allclose(mesh_of_landmarks((30 * marks @ turn.T + (100, 50, 0))[None])[0], moved, atol=1e-3)
  bent = marks + 0.05 * np.random.default_rng(0).normal(size=marks.shape)
  np.testing.assert_allclose(mesh_of_landmarks(bent[None])[0][list(LANDMARKS_68)], bent, atol=1e-4)
  # the depth of a rotated face is recovered from its picture
  picture = moved[list(LANDMARKS_68)]
  depth = with_depth(picture[None, :, :2].astype(np.float32))[0, :, 2]
  np.testing.assert_allclose(depth - depth.mean(), picture[:, 2] - picture[:, 2].mean(), atol=0.05)
