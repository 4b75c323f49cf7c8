"""The landmark model beside MediaPipe Holistic itself, where that is installed (Python 3.11 or 3.12, `pip --no-deps`).

The studio film of the golden points is compared, and every film in the folder that ANCHOR_JAX_FILMS names.
"""

import importlib.util
import os
import pathlib

import numpy as np
import pytest
from landmark_files import needs_landmarks

from anchor_jax.landmarks.model import track_video
from anchor_jax.landmarks.tracks import SHOULDERS
from anchor_jax.video.read import probe, read_frames

FILMS = [pathlib.Path(__file__).parents[2] / "golden" / "landmarks" / "person.mp4"]
if "ANCHOR_JAX_FILMS" in os.environ:
  FILMS += sorted(
    path for path in pathlib.Path(os.environ["ANCHOR_JAX_FILMS"]).iterdir() if path.suffix in (".mkv", ".mp4")
  )

pytestmark = [
  pytest.mark.parity,
  needs_landmarks,
  pytest.mark.skipif(importlib.util.find_spec("mediapipe") is None, reason="no MediaPipe"),
]


@pytest.mark.parametrize("film", FILMS, ids=lambda film: film.stem)
def test_points_are_those_of_mediapipe(film, record_property):
  info = probe(film)
  true, found = holistic(film), track_video(film, info, masks=False)
  unit = np.nanmedian(np.linalg.norm(np.subtract(*np.moveaxis(true["body"][:, SHOULDERS, :2], 1, 0)), axis=-1))
  for part, most in (("body", 0.01), ("face", 0.002), ("hands", 0.06)):
    ours, theirs = getattr(found, part), true[part]
    both = np.isfinite(ours[..., 0]) & np.isfinite(theirs[..., 0])
    inside = ((theirs[..., :2] >= 0) & (theirs[..., :2] < (info.width, info.height))).all(axis=-1)
    error = np.linalg.norm(ours[..., :2] - theirs[..., :2], axis=-1)[both & inside] / unit
    record_property(part, (float(error.mean()), float(np.percentile(error, 95))))
    assert error.mean() < most, (part, error.mean())
    if part != "hands":  # more of them are found than by MediaPipe, and none of the other arm
      assert (np.isfinite(ours[:, 0, 0]) == np.isfinite(theirs[:, 0, 0])).mean() > 0.97


def holistic(film):
  """The points that MediaPipe Holistic finds, as in `Track`."""
  from mediapipe.python.solutions import holistic as solution

  found = {"body": [], "face": [], "hands": []}
  with solution.Holistic(model_complexity=1, refine_face_landmarks=True, smooth_landmarks=False) as model:
    for number, frame in enumerate(read_frames(film, info=probe(film))):
      for _ in range(5 if number == 0 else 1):
        seen = model.process(frame)
      size = np.array([frame.shape[1], frame.shape[0], -frame.shape[1]])
      points = lambda marks, count, size=size: (
        np.full((count, 3), np.nan) if marks is None else np.array([(p.x, p.y, p.z) for p in marks.landmark]) * size
      )
      found["body"].append(points(seen.pose_landmarks, 33))
      found["face"].append(points(seen.face_landmarks, 478))
      found["hands"].append([points(hand, 21) for hand in (seen.left_hand_landmarks, seen.right_hand_landmarks)])
  return {part: np.array(frames) for part, frames in found.items()}
