"""A film of head and neck alone drives a half body: its face is followed, its arms rest."""

import cv2
import numpy as np
import pytest
from landmark_files import needs_landmarks

from anchor_jax.body.face_mesh import BROWS, EYES, LIPS
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.landmarks.filling import fill_and_smooth
from anchor_jax.landmarks.framing import center_of, rect_around
from anchor_jax.landmarks.model import track_video
from anchor_jax.landmarks.placing import place_unseen
from anchor_jax.landmarks.proportions.measures import measure
from anchor_jax.landmarks.tracks import SHOULDERS, WRISTS
from anchor_jax.motion.film import retarget_track
from anchor_jax.video.read import probe
from anchor_jax.video.write import write_video

SIZE = FrameSize(64, 64)


def tracked(path, frames):
  write_video(path, iter(frames), 10)
  track = fill_and_smooth(track_video(path, probe(path)))
  return track, rect_around(track.width, track.height, center_of(track.body[:, SHOULDERS, :2], 256, 256), SIZE)


@pytest.mark.slow  # runs the landmark model
@needs_landmarks
def test_a_studio_film_cropped_to_the_head_moves_the_face_alone(tmp_path):
  from anchor_jax import studio

  times = [0.1 * number for number in range(12)]
  clip = lambda person, motion: list(
    studio.render_clip(studio.make_identity(person), studio.make_motion(motion), times, 256, workers=1)
  )
  target = measure(*tracked(tmp_path / "person.mp4", [frame.frame for frame in clip(1, 5)]))
  film = clip(2, 3)
  x, y = (film[0].landmarks[2] - 40).astype(int)  # around the nose
  close = [frame.frame[max(y, 0) : y + 80, x : x + 80] for frame in film]
  enlarged = [cv2.resize(frame, (256, 256), interpolation=cv2.INTER_CUBIC) for frame in close]
  driver, crop = tracked(tmp_path / "close.mp4", enlarged)
  track, crop, body = retarget_track(driver, crop, target, True)
  assert body == target
  placed = place_unseen(track, body.rest_pose, body.shoulders * crop.height, body.palm * crop.height)
  for side in (0, 1):
    vectors = (placed.body[:, WRISTS[side]] - placed.body[:, SHOULDERS[side]]) / (body.shoulders * crop.height)
    rest = body.rest_pose.arm(side)
    np.testing.assert_allclose(vectors[:, 1], (rest[0] + rest[1])[1], atol=0.05)
  assert np.ptp(track.face[:, 0, :2], axis=0).max() > 0.2
  for points in (*BROWS, *EYES, LIPS):
    shape = lambda track, points=list(points): track.face[:, points, 1] - track.face[:, points, 1].mean(axis=1)[:, None]
    assert np.corrcoef(shape(placed).ravel(), shape(driver).ravel())[0, 1] > 0.98
