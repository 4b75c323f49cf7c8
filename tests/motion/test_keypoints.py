"""Keypoint files in OpenPose's format become tracks and motions."""

import json
import os

import numpy as np
import pytest
from people import make_track

from anchor_jax.body.face_points import LANDMARKS_68, mean_face
from anchor_jax.core.errors import UserError
from anchor_jax.inference.motions import open_motion, read_motion
from anchor_jax.motion import keypoints
from anchor_jax.motion.keypoints import is_keypoints, open_keypoints
from tests.helpers.strange import strange_files


@pytest.fixture
def frames():
  """Four frames of a person with the mean face, in OpenPose's format, next to somebody half as wide."""
  track = make_track(4)
  face = mean_face()[0] * 10 + (80, 30, 0)
  flat = lambda points: np.concatenate([points[:, :2], np.full((len(points), 1), 0.9)], axis=1)
  written = []
  for number in range(4):
    pose = np.zeros((25, 3))
    for point, openpose in keypoints._BODY_25.items():
      if point < 25:
        pose[openpose] = *(track.body[number, point, :2] + (number, 0)), 0.9
    marks = np.concatenate([face[list(LANDMARKS_68)], face[[468, 473]]]) + (number, 0, 0)
    person = {"pose_keypoints_2d": pose.ravel().tolist(), "face_keypoints_2d": flat(marks).ravel().tolist()}
    person["hand_left_keypoints_2d"] = flat(track.hands[number, 0]).ravel().tolist()
    other = {"pose_keypoints_2d": (pose * (0.5, 0.5, 1)).ravel().tolist()}
    written.append({"people": [other, person] if number % 2 else [person, other]})
  return written, track, face


def test_points_are_read_back(frames, tmp_path):
  written, track, face = frames
  for number, frame in enumerate(written):
    (tmp_path / f"film_{number:012d}_keypoints.json").write_text(json.dumps(frame))
  assert is_keypoints(tmp_path)
  found = open_keypoints(tmp_path).track(30.0)
  assert (len(found), found.fps) == (4, 30.0) and found.has_face.all()
  step = np.arange(4)[:, None, None] * np.array([1, 0])
  for point in (0, 7, 11, 12, 15, 16, 23):
    np.testing.assert_allclose(found.body[:, point, :2], track.body[:, point, :2] + step[:, 0], atol=1e-3)
  np.testing.assert_allclose(found.face[..., :2], face[None, :, :2] + step, atol=0.05)
  np.testing.assert_allclose(np.ptp(found.face[0, :, 2]), np.ptp(face[:, 2]), rtol=0.05)
  np.testing.assert_allclose(found.hands[:, 0, :, :2], track.hands[:, 0, :, :2], atol=1e-3)
  assert np.isnan(found.hands[:, 1]).all() and np.isfinite(found.body).all()


def test_files_are_read_in_the_order_of_their_numbers(frames, tmp_path):
  written, track, _ = frames
  for number, frame in zip((0, 2, 10, 100), written, strict=True):  # as text: 0, 10, 100, 2
    (tmp_path / f"{number}_keypoints.json").write_text(json.dumps(frame))
  found = open_keypoints(tmp_path).track(30.0).body[:, 11, 0] - track.body[:, 11, 0]
  np.testing.assert_allclose(found, np.arange(4), atol=1e-3)


def test_each_file_is_read_once_and_only_when_needed(frames, tmp_path, monkeypatch):
  written, _, _ = frames
  for number, frame in enumerate(written):
    (tmp_path / f"{number}_keypoints.json").write_text(json.dumps(frame))
  files, read_json = [], keypoints.read_json

  def recorded(file, *arguments, **options):
    files.append(file.name)
    return read_json(file, *arguments, **options)

  monkeypatch.setattr(keypoints, "read_json", recorded)
  monkeypatch.setattr(keypoints, "_CHECKED", 2)
  opened = open_keypoints(tmp_path)
  assert files == ["0_keypoints.json", "1_keypoints.json"]
  assert (len(opened.track(25.0, 3)), len(opened.track(25.0)), len(opened.track(25.0, 1))) == (3, 4, 1)
  assert files == [f"{number}_keypoints.json" for number in range(4)]


def test_paths_that_are_not_files_are_refused_in_one_line(tmp_path):
  for path, message in strange_files(tmp_path / "odd", ".json").items():
    for read in (open_motion, open_keypoints):
      with pytest.raises(UserError, match=message):
        read(path)
  (tmp_path / "frames").mkdir()
  os.mkfifo(tmp_path / "frames" / "0_keypoints.json")
  with pytest.raises(UserError, match="is a pipe"):
    open_motion(tmp_path / "frames")


def test_a_list_with_gaps_and_shares_of_the_picture_is_a_motion(frames, tmp_path):
  written, track, _ = frames
  written[2] = {"people": []}
  for frame in written:
    frame |= {"canvas_width": 160, "canvas_height": 120}
    for person in frame["people"]:
      for name, values in person.items():
        person[name] = (np.reshape(values, (-1, 3)) / (160, 120, 1)).ravel().tolist()
  path = tmp_path / "film.json"
  path.write_text(json.dumps(written))
  found = open_keypoints(path).track(25.0)
  assert (found.width, found.height) == (160, 120) and np.isnan(found.body[2, :, :2]).all() and not found.has_face[2]
  np.testing.assert_allclose(found.body[3, 11, :2], track.body[3, 11, :2] + (3, 0), atol=1e-3)
  open_motion(path)
  motion = read_motion(path, size=64, fps=10)
  assert (motion.length, motion.fps) == (4, 10)
  frame = next(motion.frames(2))
  assert frame.pose.any() and frame.face_mask.any() and frame.surface.any()


def test_files_without_keypoints_are_refused(tmp_path):
  path = tmp_path / "x.json"
  point = lambda x: f'{{"people": [{{"pose_keypoints_2d": {json.dumps([x, 5, 1] * 25)}}}]}}'
  for text, message in (("{", "is damaged"), (point(1e30), "a point at 1e"), (point(float("nan")), "nobody"),
                     ('{"people": [], "canvas_width": -4}', "a canvas of -4 x 0"),
                     ('{"people": [], "canvas_width": 1e999}', "a canvas of inf x 0"),
                     ('{"people": [], "canvas_height": ' + "9" * 400 + "}", "too large to convert"),
                     ("[" * 100_000, "nested too deep"), ('{"people": "x"}', "no keypoints"),
                     ('{"a": 1}', "no keypoints"), ('[{"people": []}]', "nobody"),
                     ('{"people": [{"pose_keypoints_2d": [1, 2, 3]}]}', "1 points instead of 25 or 18")):  # fmt: skip
    path.write_text(text)
    with pytest.raises(UserError, match=message):
      open_motion(path)
