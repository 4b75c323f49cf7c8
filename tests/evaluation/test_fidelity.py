"""How far the landmarks of a generated video are from the true ones."""

import dataclasses

import numpy as np
import pytest

from anchor_jax.evaluation.fidelity import MotionComparison, fidelity
from anchor_jax.studio import write_studio_video
from anchor_jax.video.read import read_frames


def test_errors_are_percent_of_the_shoulder_width(standing_track):
  wanted = standing_track(frames=4)
  opening = np.array([0, 4, 8, 2], np.float32)
  face = wanted.face.copy()
  face[:, 14, 1] = face[:, 13, 1] + opening
  face[:, 14, 0] = face[:, 13, 0]
  wanted = dataclasses.replace(wanted, face=face, width=400, height=400)  # all points are in the picture
  assert {name: found["error"] for name, found in fidelity(wanted, wanted).items()} == {
    "body": 0,
    "hands": 0,
    "face": 0,
  }

  unit = wanted.shoulder_width
  hands = wanted.hands.copy()
  hands[..., 0] += 0.03 * unit
  hands[..., 1] -= 0.04 * unit
  hands[1:3, 0] = np.nan  # her left hand is lost for half of the time
  half = face.copy()
  half[:, 14, 1] -= opening / 2  # half as far open, at the same moments
  body = wanted.body.copy()
  body[..., 2] = 99  # depth does not count
  found = fidelity(dataclasses.replace(wanted, hands=hands, face=half, body=body), wanted)
  assert found["hands"] == pytest.approx({"error": 5, "found": 0.75})
  assert found["body"] == {"error": 0, "found": 1}
  assert found["face"]["mouth"] == pytest.approx(1) and 0 < found["face"]["error"] < 0.1
  still = fidelity(dataclasses.replace(wanted, face=face[:1].repeat(4, axis=0)), wanted)
  assert "mouth" not in still["face"]  # a mouth that does not move has no correlation


def test_what_is_not_in_the_picture_does_not_count(standing_track):
  wanted = standing_track(frames=3)
  body, lost = wanted.body.copy(), wanted.body.copy()
  body[:, 16, 0] = wanted.width + 5
  lost[:, 16] += 50
  track = dataclasses.replace(wanted, body=body)
  assert fidelity(dataclasses.replace(wanted, body=lost), track)["body"]["error"] == 0
  nobody = dataclasses.replace(wanted, body=np.full_like(body, np.nan))
  assert fidelity(nobody, wanted)["body"] == {"found": 0}
  with pytest.raises(ValueError, match="3 frames beside one of 2"):
    fidelity(wanted, wanted.part(0, 2))


@pytest.mark.landmarks
def test_a_still_picture_misses_the_motion_that_a_copy_has(tmp_path):
  write_studio_video(tmp_path / "film.mp4", identity_seed=1_000_003, motion_seed=2, seconds=1, size=192, fps=10)
  frames = list(read_frames(tmp_path / "film.mp4"))
  found = []
  for made in (frames, frames[:1] * len(frames)):
    with MotionComparison(10) as comparison:
      for pair in zip(made, frames, strict=True):
        comparison.add(*pair)
      found.append(comparison.figures())
  copy, still = found
  assert copy["body"]["error"] == 0 and copy["face"]["mouth"] == pytest.approx(1)
  assert still["body"]["error"] > 1 and still["face"].get("mouth", 0) < 0.9
