"""Landmark errors of a generated video."""

import dataclasses

import numpy as np
import pytest
from landmark_files import needs_landmarks

from anchor_jax.evaluation import fidelity
from anchor_jax.evaluation.fidelity import MotionComparison, compare_tracks
from anchor_jax.studio import write_studio_video
from anchor_jax.video.read import read_frames


def test_errors_are_in_percent_of_the_shoulder_width(standing_track):
  true = standing_track(frames=4)
  opening = np.array([0, 4, 8, 2], np.float32)
  face = true.face.copy()
  face[:, 14, 1] = face[:, 13, 1] + opening
  face[:, 14, 0] = face[:, 13, 0]
  true = dataclasses.replace(true, face=face, width=400, height=400)  # all points are in the picture
  assert {name: found["error"] for name, found in compare_tracks(true, true).items()} == {
    "body": 0,
    "hands": 0,
    "face": 0,
  }

  unit = true.shoulder_width
  hands = true.hands.copy()
  hands[..., 0] += 0.03 * unit
  hands[..., 1] -= 0.04 * unit
  hands[1:3, 0] = np.nan  # the left hand is lost in half of the frames
  half = face.copy()
  half[:, 14, 1] -= opening / 2  # half as far open, at the same times
  body = true.body.copy()
  body[..., 2] = 99  # depth is ignored
  found = compare_tracks(dataclasses.replace(true, hands=hands, face=half, body=body), true)
  assert found["hands"] == pytest.approx({"error": 5, "found": 0.75})
  assert found["body"] == {"error": 0, "found": 1}
  assert found["face"]["mouth"] == pytest.approx(1) and 0 < found["face"]["error"] < 0.1
  still = compare_tracks(dataclasses.replace(true, face=face[:1].repeat(4, axis=0)), true)
  assert "mouth" not in still["face"]  # no correlation for a mouth that never moves


def test_points_outside_the_picture_do_not_count(standing_track):
  true = standing_track(frames=3)
  body, lost = true.body.copy(), true.body.copy()
  body[:, 16, 0] = true.width + 5
  lost[:, 16] += 50
  track = dataclasses.replace(true, body=body)
  assert compare_tracks(dataclasses.replace(true, body=lost), track)["body"]["error"] == 0
  nobody = dataclasses.replace(true, body=np.full_like(body, np.nan))
  assert compare_tracks(nobody, true)["body"] == {"found": 0}
  with pytest.raises(ValueError, match="3 and 2 frames"):
    compare_tracks(true, true.slice(0, 2))


def test_the_landmark_model_can_be_chosen(standing_track, monkeypatch):
  asked = []
  monkeypatch.setattr(fidelity, "require_landmarks", lambda _, model: asked.append(model))
  monkeypatch.setattr(fidelity, "track_video", lambda *_, model, **more: asked.append(model) or standing_track(2))
  with MotionComparison(10, "mediapipe-heavy") as comparison:
    for _ in range(2):
      comparison.add(*np.zeros((2, 16, 16, 3), np.uint8))
    assert comparison.figures()["body"]["error"] == 0
  assert asked == ["mediapipe-heavy"] * 3


@pytest.mark.slow
@needs_landmarks
def test_a_copy_scores_perfectly_and_a_still_picture_does_not(tmp_path):
  write_studio_video(tmp_path / "film.mp4", identity_seed=1_000_003, motion_seed=2, seconds=1, size=192, fps=10)
  frames = list(read_frames(tmp_path / "film.mp4"))
  found = []
  for video in (frames, frames[:1] * len(frames)):
    with MotionComparison(10) as comparison:
      for pair in zip(video, frames, strict=True):
        comparison.add(*pair)
      found.append(comparison.figures())
  copy, still = found
  assert copy["body"]["error"] == 0 and copy["face"]["mouth"] == pytest.approx(1)
  assert still["body"]["error"] > 1 and still["face"].get("mouth", 0) < 0.9
