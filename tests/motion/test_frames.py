"""A motion knows in which frames nobody is seen, and leaves them out on request."""

import dataclasses

import numpy as np
import pytest

from anchor_jax.core.frame_size import FrameSize
from anchor_jax.inference.request import absence_line
from anchor_jax.motion.film import track_motion
from anchor_jax.motion.frames import Motion, MotionFrame


def numbered(count, absent):
  picture = np.zeros((8, 8, 3), np.uint8)
  frames = lambda first: (
    MotionFrame(picture + number, picture[..., :1], np.zeros((5, 2), np.float32)) for number in range(first, count)
  )
  return Motion(25.0, FrameSize(8, 8), count, frames, np.isin(np.arange(count), absent))


def numbers(motion, first=0):
  return [int(frame.pose[0, 0, 0]) for frame in motion.frames(first)]


def test_frames_in_which_nobody_is_seen_are_left_out():
  motion = numbered(10, [0, 1, 2, 6])
  assert motion.absent_stretches() == [(0, 2), (6, 6)]
  present = motion.without_absent()
  assert numbers(present) == [3, 4, 5, 7, 8, 9] and numbers(present, 2) == [5, 7, 8, 9] and present.length == 6
  assert present.absent_stretches() == [] and present.without_absent() is present
  assert motion.first(5).absent_stretches() == [(0, 2)]
  slower = motion.at_fps(12.5)
  assert numbers(slower) == [0, 2, 4, 6, 8] and slower.absent_stretches() == [(0, 1), (3, 3)]
  assert numbers(slower.without_absent()) == [4, 8]


def test_what_is_left_knows_its_time_in_the_film():
  motion = numbered(10, [0, 1, 2, 6])
  present = motion.without_absent()
  assert motion.stretches is None and present.stretches == ((3 / 25, 6 / 25), (7 / 25, 10 / 25))
  assert present.first(4).stretches == ((3 / 25, 6 / 25), (7 / 25, pytest.approx(8 / 25)))
  assert present.first(2).stretches == ((3 / 25, pytest.approx(5 / 25)),)
  assert motion.at_fps(12.5).without_absent().stretches == ((2 / 12.5, 3 / 12.5), (4 / 12.5, 5 / 12.5))


def test_the_report_names_the_frames():
  motion = numbered(10, [0, 1, 2, 6])
  assert absence_line(motion, False) == "nobody is seen in frames 0 to 2, 6 to 6: the person rests there"
  assert absence_line(motion, True).endswith(": left out")
  assert absence_line(motion.without_absent(), True) == ""


def test_a_title_card_is_known_to_show_nobody(standing_track):
  film = standing_track(frames=30)
  points = {name: getattr(film, name).copy() for name in ("body", "face", "hands")}
  for values in points.values():
    values[:12] = np.nan
  motion = track_motion(dataclasses.replace(film, **points, cuts=(12,)), 32, None, True)
  assert motion.absent_stretches() == [(0, 11)] and motion.length == 30
  resting, seen = next(motion.frames(3)), next(motion.frames(20))
  assert resting.pose.any() and resting.face_mask.any() and not np.array_equal(resting.pose, seen.pose)
  assert motion.without_absent().length == 18
