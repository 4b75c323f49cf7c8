"""Causal tracking uses past and current pictures only, and holds what is missing."""

import dataclasses

import numpy as np
import pytest
from people import make_track

from anchor_jax.core.errors import UserError
from anchor_jax.landmarks.filling import fill_and_smooth
from anchor_jax.landmarks.networks.holistic import Detection
from anchor_jax.landmarks.proportions.measures import measure
from anchor_jax.landmarks.tracks import NOSE
from anchor_jax.motion.following import Smoothed, one_euro_step, pose_frame, track_live
from anchor_jax.motion.presence import starting
from anchor_jax.video.camera import Picture

TRACK, FPS = make_track(1), 10.0
PLAIN = Detection(TRACK.body[0], TRACK.face[0], TRACK.hands[0], None)
IMAGE = np.zeros((120, 160, 3), np.uint8)
MISSING = [np.full_like(points, np.nan) for points in PLAIN[:3]]


def moved(right=0.0, hands=True, face=True, body=True):
  """The detection of the person `right` pixels to the right, without hidden parts."""
  shift = np.array([right, 0, 0], np.float32)
  parts = [points + shift if visible else nan for points, nan, visible in zip(PLAIN, MISSING, (body, face, hands))]
  return Detection(*parts, None)


class ScriptedFinder:
  """Returns given detections, one a picture, and counts shots."""

  triangles = TRACK.triangles

  def __init__(self, detections):
    self.detections, self.shots = iter(detections), 0

  def start_shot(self, frame, reset=False):
    self.shots += 1

  def find(self, frame):
    return next(self.detections)


def track_script(detections, lines=None, **options):
  """The poses that `track_live` yields for these detections at 10 pictures a second; `lines` collects its reports."""
  pictures = iter([Picture(number, number / FPS, IMAGE) for number in range(len(detections))])
  options = {"size": 32, "measures": None, "mapped": True, "clock": lambda: 0.0, "seconds": 0.45} | options
  report = (lambda line: None) if lines is None else lines.append
  return list(track_live(lambda: next(pictures, None), ScriptedFinder(detections), report=report, **options))


FIRST = [moved()] * 6  # half a second


def test_a_new_shot_is_not_smoothed_into():
  """A film in place of a camera: the person stands elsewhere after a cut, and is not found at once."""
  scenes = np.random.default_rng(0).integers(0, 256, (2, 120, 160, 3)).astype(np.uint8)
  detections = [*FIRST, *[moved()] * 4, moved(body=False), *[moved(30)] * 2]
  pictures = iter([Picture(n, n / FPS, scenes[int(n >= 10)]) for n in range(len(detections))])
  finder = ScriptedFinder(detections)
  options = {"size": 32, "measures": None, "mapped": True, "clock": lambda: 0.0, "seconds": 0.45}
  items = list(track_live(lambda: next(pictures, None), finder, report=lambda line: None, **options))
  places = [float(item.track.body[0, NOSE, 0] - PLAIN.body[NOSE, 0]) for item in items]
  np.testing.assert_allclose(places, [0, 0, 0, 0, 0, 30, 30], atol=0.05)
  np.testing.assert_allclose(items[5].track.hands[0, 0] - PLAIN.hands[0], [[30, 0, 0]] * 21, atol=0.1)
  assert finder.shots == 2


def test_the_first_seconds_measure_and_each_later_picture_gives_a_pose():
  lines = []
  items = track_script([moved(body=False), moved(face=False), *FIRST, *[moved()] * 3], lines)
  assert [item.number for item in items] == [8, 9, 10] and items[0].time == 0.8
  assert "measuring" in lines[0] and lines[1:] == ["following"]
  offline = fill_and_smooth(make_track(6))
  assert items[0].driver.measures == measure(offline, items[0].driver.crop)
  np.testing.assert_allclose(items[-1].track.body[0], offline.body[0], atol=0.01)
  frame = pose_frame(items[0].driver, items[0].track)
  assert (
    frame.pose.shape == (32, 32, 3)
    and frame.pose.any()
    and frame.face_mask.any()
    and np.isfinite(frame.landmarks).all()
  )


def test_no_pose_depends_on_later_pictures():
  detections = [*FIRST, *[moved(3 * number, hands=number % 3 > 0) for number in range(8)]]
  for short, long in zip(track_script(detections[:10]), track_script(detections)):
    for name in ("body", "face", "hands"):
      np.testing.assert_array_equal(getattr(short.track, name), getattr(long.track, name))


def test_a_hidden_face_moves_with_the_nose_and_hidden_hands_with_the_forearms():
  items = track_script(
    [*FIRST, moved(10, hands=False, face=False), *[moved(10, hands=False, face=False)] * 12, moved(body=False)]
  )
  start, end = TRACK, items[5].track
  right = end.body[0, NOSE, 0] - start.body[0, NOSE, 0]
  assert right == pytest.approx(10, abs=0.5)
  np.testing.assert_allclose(end.face[0, :, 0], start.face[0, :, 0] + right, atol=0.5)
  held, relaxed = items[2].track, items[-2].track  # 0.3 and 1.3 s after the hands were seen
  shape = lambda track: track.hands[0, 0, :, :2] - track.hands[0, 0, 0, :2]
  np.testing.assert_allclose(shape(held), shape(start), atol=0.3)
  assert np.abs(shape(relaxed) - shape(start)).max() > 2 and np.isfinite(relaxed.hands).all()
  np.testing.assert_allclose(items[-1].track.body, items[-2].track.body, atol=0.5)


def test_a_motion_is_retargeted_to_another_body():
  own = track_script([*FIRST, moved()])[0]
  target = dataclasses.replace(own.driver.measures, place=(0.3, 0.6), shoulders=own.driver.measures.shoulders * 0.8)
  middle = lambda frame: np.argwhere(frame.pose.any(axis=-1)).mean(axis=0)
  plain = pose_frame(own.driver, own.track)
  (item,) = track_script([*FIRST, moved()], measures=target)
  retargeted = pose_frame(item.driver, item.track)
  assert middle(retargeted)[1] < middle(plain)[1] - 4
  assert not np.array_equal(retargeted.landmarks, plain.landmarks)
  for options in ({"mapped": False}, {"measures": own.driver.measures}):
    (item,) = track_script([*FIRST, moved()], **{"measures": target, **options})
    np.testing.assert_array_equal(pose_frame(item.driver, item.track).landmarks, plain.landmarks)


def test_the_filter_calms_resting_points_and_hardly_delays_moving_ones():
  rng, unit, step = np.random.default_rng(0), 100.0, 1 / 25
  state = Smoothed(*(np.zeros((50, 3), np.float32),) * 3, 0.0)
  rest = []
  for number in range(1, 60):
    state = one_euro_step(state, rng.normal(0, 1, (50, 3)).astype(np.float32), number * step, unit)
    rest.append(state.value)
  assert np.std(rest[10:]) < 0.6
  for number in range(60, 100):  # two shoulders' widths a second
    place = np.full((50, 3), 200.0 * (number - 59) * step, np.float32)
    state = one_euro_step(state, place, number * step, unit)
  assert (place - state.value)[:, 0].max() < 200.0 * 0.03


def test_pictures_without_a_person_are_reported():
  lines = []
  with pytest.raises(UserError, match="ended before a person and their face were seen"):
    track_script([moved(body=False)] * 70, lines)
  assert sum("nobody is seen" in line for line in lines) == 1


def test_hidden_arms_rest_and_an_absent_person_does_too():
  """An arm leaves the picture, then the person does; both come back."""
  away = PLAIN.body.copy()
  away[[13, 15, 17, 19, 21], 1] += 200  # the left arm
  only_right = np.stack([MISSING[2][0], PLAIN.hands[1]])
  hidden = Detection(away, PLAIN.face, only_right, None)
  gone = moved(body=False, face=False, hands=False)
  items = track_script([*FIRST, *[moved()] * 2, *[hidden] * 12, *[moved()] * 10, *[gone] * 14, *[moved()] * 12])
  shown = np.stack([item.track.shown[0] for item in items])
  assert (shown[:2] == 1).all() and (shown[:, 12] == 1).all()
  assert (shown[10:14, [13, 15]] == 0).all() and (shown[10:14, [14, 16]] == 1).all()
  assert (np.diff(shown[2:11, 15]) <= 0).all() and (shown[22:24] == 1).all()
  assert (shown[35:38, 13:23] == 0).all() and (shown[-1] == 1).all()
  assert (
    np.abs(np.diff(shown, axis=0)).max() < 0.6
  )  # no arm jumps from one picture to the next, a tenth of a second later
  resting = items[37].track
  assert resting.shown[0, 15] == 0 and np.isfinite(resting.body).all() and np.isfinite(resting.face).all()


def test_an_arm_that_appears_is_not_dragged_from_where_it_was_last_seen():
  far = PLAIN.body.copy()
  far[[13, 15, 17, 19, 21], 1] += 200
  hidden = Detection(far, PLAIN.face, np.stack([MISSING[2][0], PLAIN.hands[1]]), None)
  there = PLAIN.body.copy()
  there[[13, 15, 17, 19, 21], 0] -= 25
  back = Detection(there, PLAIN.face, PLAIN.hands - np.float32([[[25, 0, 0]], [[0, 0, 0]]]), None)
  items = track_script([*FIRST, *[hidden] * 12, *[back] * 8])
  np.testing.assert_allclose(items[12].track.body[0, 15], there[15], atol=0.1)
  assert items[-1].track.shown[0, 15] == 1


def test_slow_pictures_show_arms_too():
  presence = starting(np.zeros(33, bool), 0.0)
  for number in range(1, 5):  # one a second
    presence = presence.after(np.ones(33, bool), True, float(number))
  assert (presence.weights() == 1).all()
