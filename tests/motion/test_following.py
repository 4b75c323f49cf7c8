"""Poses while somebody is filmed: from what came before alone, with gaps held."""

import dataclasses

import numpy as np
import pytest
from people import make_track

from anchor_jax.core.errors import UserError
from anchor_jax.landmarks.measures import measure
from anchor_jax.landmarks.mediapipe import Found
from anchor_jax.landmarks.tracks import NOSE, mend
from anchor_jax.motion.following import Smoothed, render, smooth, watch
from anchor_jax.video.camera import Picture

TRACK, FPS = make_track(1), 10.0
PLAIN = Found(TRACK.body[0], TRACK.face[0], TRACK.hands[0], None)
IMAGE = np.zeros((120, 160, 3), np.uint8)
UNKNOWN = [np.full_like(points, np.nan) for points in PLAIN[:3]]


def moved(right=0.0, hands=True, face=True, body=True):
  """What is found of the person so many pixels to the right, without what is hidden."""
  shift = np.array([right, 0, 0], np.float32)
  parts = [points + shift if there else gone for points, gone, there in zip(PLAIN, UNKNOWN, (body, face, hands))]
  return Found(*parts, None)


class Script:
  """Finds what it is told to, picture after picture."""

  triangles = TRACK.triangles

  def __init__(self, found):
    self.found, self.begun = iter(found), 0

  def begin(self, frame, anew=False):
    self.begun += 1

  def find(self, frame):
    return next(self.found)


def seen(found, told=None, **options):
  """What `watch` makes of a script of 10 pictures a second."""
  pictures = iter([Picture(number, number / FPS, IMAGE) for number in range(len(found))])
  options = {"size": 32, "measures": None, "mapped": True, "clock": lambda: 0.0, "seconds": 0.45} | options
  tell = (lambda line: None) if told is None else told.append
  return list(watch(lambda: next(pictures, None), Script(found), tell=tell, **options))


FIRST = [moved()] * 6  # half a second


def test_a_new_shot_is_not_smoothed_into():
  """A film in place of a camera: the person stands elsewhere after a cut, and is not found at once."""
  scenes = np.random.default_rng(0).integers(0, 256, (2, 120, 160, 3)).astype(np.uint8)
  found = [*FIRST, *[moved()] * 4, moved(body=False), *[moved(30)] * 2]
  pictures = iter([Picture(n, n / FPS, scenes[int(n >= 10)]) for n in range(len(found))])
  script = Script(found)
  options = {"size": 32, "measures": None, "mapped": True, "clock": lambda: 0.0, "seconds": 0.45}
  items = list(watch(lambda: next(pictures, None), script, tell=lambda line: None, **options))
  places = [float(item.track.body[0, NOSE, 0] - PLAIN.body[NOSE, 0]) for item in items]
  np.testing.assert_allclose(places, [0, 0, 0, 0, 0, 30, 30], atol=0.05)
  np.testing.assert_allclose(items[5].track.hands[0, 0] - PLAIN.hands[0], [[30, 0, 0]] * 21, atol=0.1)
  assert script.begun == 2


def test_the_first_seconds_measure_and_each_picture_after_them_is_a_pose():
  told = []
  items = seen([moved(body=False), moved(face=False), *FIRST, *[moved()] * 3], told)
  assert [item.number for item in items] == [8, 9, 10] and items[0].time == 0.8
  assert "measuring" in told[0] and told[1:] == ["following"]
  alone = mend(make_track(6))
  assert items[0].driver.measures == measure(alone, items[0].driver.square)
  np.testing.assert_allclose(items[-1].track.body[0], alone.body[0], atol=0.01)
  frame = render(items[0].driver, items[0].track)
  assert (
    frame.pose.shape == (32, 32, 3)
    and frame.pose.any()
    and frame.face_mask.any()
    and np.isfinite(frame.landmarks).all()
  )


def test_no_pose_depends_on_what_comes_later():
  found = [*FIRST, *[moved(3 * number, hands=number % 3 > 0) for number in range(8)]]
  for short, long in zip(seen(found[:10]), seen(found)):
    for name in ("body", "face", "hands"):
      np.testing.assert_array_equal(getattr(short.track, name), getattr(long.track, name))


def test_what_is_hidden_goes_along():
  items = seen(
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


def test_a_motion_is_mapped_onto_another_body():
  own = seen([*FIRST, moved()])[0]
  hers = dataclasses.replace(own.driver.measures, place=(0.3, 0.6), shoulders=own.driver.measures.shoulders * 0.8)
  middle = lambda frame: np.argwhere(frame.pose.any(axis=-1)).mean(axis=0)
  plain = render(own.driver, own.track)
  (item,) = seen([*FIRST, moved()], measures=hers)
  mapped = render(item.driver, item.track)
  assert middle(mapped)[1] < middle(plain)[1] - 4
  assert not np.array_equal(mapped.landmarks, plain.landmarks)
  for options in ({"mapped": False}, {"measures": own.driver.measures}):
    (item,) = seen([*FIRST, moved()], **{"measures": hers, **options})
    np.testing.assert_array_equal(render(item.driver, item.track).landmarks, plain.landmarks)


def test_smoothing_calms_what_rests_and_hardly_delays_what_moves():
  rng, unit, step = np.random.default_rng(0), 100.0, 1 / 25
  state = Smoothed(*(np.zeros((50, 3), np.float32),) * 3, 0.0)
  rest = []
  for number in range(1, 60):
    state = smooth(state, rng.normal(0, 1, (50, 3)).astype(np.float32), number * step, unit)
    rest.append(state.value)
  assert np.std(rest[10:]) < 0.6
  for number in range(60, 100):  # two shoulders' widths a second
    place = np.full((50, 3), 200.0 * (number - 59) * step, np.float32)
    state = smooth(state, place, number * step, unit)
  assert (place - state.value)[:, 0].max() < 200.0 * 0.03


def test_pictures_without_anybody_are_told():
  told = []
  with pytest.raises(UserError, match="ended before somebody was seen"):
    seen([moved(body=False)] * 70, told)
  assert sum("nobody is seen" in line for line in told) == 1
