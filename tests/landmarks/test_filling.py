"""Gaps are filled and points smoothed over time."""

import dataclasses

import numpy as np
import pytest

from anchor_jax.core.errors import UserError
from anchor_jax.landmarks import filling
from anchor_jax.landmarks.tracks import WRISTS


def test_gaps_are_interpolated_and_short_ones_are_found():
  points = np.arange(6, dtype=np.float32)[:, None, None] * np.ones((1, 2, 3), np.float32)
  holes = points.copy()
  holes[[0, 2, 3, 5]] = np.nan
  np.testing.assert_allclose(filling.interpolate(holes)[:, 0, 0], [1, 1, 2, 3, 4, 4])
  known = np.array([0, 1, 0, 0, 1, 0, 0, 0, 1, 0], bool)
  assert filling.short_gaps(known, 2.0).tolist() == [False, False, True, True] + [False] * 6


def test_smoothing_calms_rest_and_follows_motion():
  rng = np.random.default_rng(0)
  rest = rng.normal(size=(60, 3, 3)).astype(np.float32)
  assert np.abs(np.diff(filling.smooth(rest, 30.0, 150.0), axis=0)).mean() < 0.25 * np.abs(np.diff(rest, axis=0)).mean()
  # a fast sweep: 150 px, a shoulder's width, in a third of a second
  sweep = np.zeros((60, 1, 3), np.float32)
  sweep[:, 0, 0] = 75 * np.tanh((np.arange(60) - 30) / 4)
  smoothed = filling.smooth(sweep, 30.0, 150.0)
  assert np.abs(smoothed - sweep).max() < 2
  assert abs(float(smoothed[30, 0, 0])) < 0.1  # no lag


def test_the_gaussian_pads_by_point_reflection():
  points = np.random.default_rng(0).normal(size=(9, 2, 3)).astype(np.float32)
  for sigma in (0.3, 1.5, 4.0):  # the kernel of the last is wider than the track
    radius = int(np.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    padded = np.pad(points, ((radius, radius), (0, 0), (0, 0)), mode="reflect", reflect_type="odd")
    expected = np.stack([np.tensordot(kernel / kernel.sum(), padded[i : i + 2 * radius + 1], 1) for i in range(9)])
    np.testing.assert_allclose(filling.gaussian_smooth(points, sigma), expected, atol=1e-6)
  straight = np.linspace(0, 9, 10, dtype=np.float32)[:, None, None] * np.ones((1, 2, 3), np.float32)
  np.testing.assert_allclose(filling.gaussian_smooth(straight, 1.5), straight, atol=1e-6)


def test_nothing_is_smoothed_or_filled_across_cuts(standing_track):
  """A title card of 8 frames, a scene, and the same person elsewhere, seen from behind at first."""
  track = standing_track(frames=40)
  body, face, hands = track.body.copy(), track.face.copy(), track.hands.copy()
  for points in (body, face, hands):
    points[24:, ..., 0] += 60
    points[:8] = np.nan
  face[24:] = np.nan
  body[30:32] = np.nan  # within a shot, a gap is filled
  film = standing_track(frames=40, body=body, face=face, hands=hands)
  filled = filling.fill_and_smooth(dataclasses.replace(film, cuts=(8, 24)))
  step = np.where(np.arange(40) >= 24, 60, 0)[:, None]
  for name in ("body", "face"):
    np.testing.assert_allclose(getattr(filled, name)[..., 0], getattr(track, name)[..., 0] + step, atol=1e-3)
  assert filled.has_body.tolist() == [False] * 8 + [True] * 22 + [False] * 2 + [True] * 8
  assert filled.slice(4, 30).cuts == (4, 20) and filled.slice(8, 24).cuts == ()
  blurred = filling.fill_and_smooth(film).body[22:26, 11, 0] - track.body[22:26, 11, 0]
  assert np.abs(blurred - [0, 0, 60, 60]).max() > 3  # without the cuts, both scenes are blurred into each other


def test_all_gaps_are_filled(standing_track):
  track = standing_track(frames=30)
  body, face, hands = track.body.copy(), track.face.copy(), track.hands.copy()
  body[5:8] = face[5:8] = np.nan
  hands[4:7, 1] = np.nan  # a short gap
  hands[:, 0] = np.nan  # never seen
  filled = filling.fill_and_smooth(standing_track(frames=30, body=body, face=face, hands=hands))
  for name in ("body", "face", "hands"):
    assert np.isfinite(getattr(filled, name)).all(), name
  np.testing.assert_allclose(filled.body, track.body, atol=1e-3)
  np.testing.assert_allclose(filled.face, track.face, atol=1e-3)
  np.testing.assert_allclose(filled.hands[:, 1, :, :2], track.hands[:, 1, :, :2], atol=0.5)
  assert (~filled.has_face[5:8]).all() and filled.has_face[8:].all()
  # the relaxed hand lies on its wrist, has the size of a hand and points down like its arm
  relaxed, wrist = filled.hands[0, 0], filled.body[0, WRISTS[0]]
  np.testing.assert_allclose(relaxed[0, :2], wrist[:2], atol=0.5)
  reach = np.linalg.norm(relaxed[12, :2] - wrist[:2])
  assert 0.2 * track.shoulder_width < reach < 0.7 * track.shoulder_width and relaxed[12, 1] > wrist[1]


def test_a_hand_on_the_wrong_arm_is_dropped(standing_track):
  hands = standing_track().hands.copy()
  hands[:, 0] = hands[:, 1]
  filled = filling.fill_and_smooth(standing_track(hands=hands))
  np.testing.assert_allclose(filled.hands[:, 0, 0, :2], filled.body[:, WRISTS[0], :2], atol=0.5)


def test_a_track_needs_a_person_but_no_face(standing_track):
  nobody = np.full((6, 33, 3), np.nan, np.float32)
  with pytest.raises(UserError, match="no person"):
    filling.fill_and_smooth(standing_track(body=nobody))
  faceless = filling.fill_and_smooth(standing_track(face=np.full((6, 478, 3), np.nan, np.float32)))
  assert np.isnan(faceless.face).all() and np.isfinite(faceless.body).all()


def test_points_are_not_filled_across_cuts():
  points = np.full((9, 5, 2), np.nan, np.float32)
  points[[1, 3]], points[[5, 8]] = [[[1]], [[3]]], [[[50]], [[53]]]
  filled = filling.fill_missing(points, cuts=(4, 7))
  assert filled[:, 2, 1].tolist() == [1, 1, 2, 3, 50, 50, 50, 53, 53]
  filled = filling.fill_missing(points[:7], cuts=(1, 6))  # one shot before and one after all known points
  assert filled[:, 0, 0].tolist() == [1, 1, 2, 3, 26.5, 50, 50]


def test_missing_points_are_interpolated():
  landmarks = np.tile(np.arange(6, dtype=np.float32)[:, None, None], (1, 5, 2))
  holes = landmarks.copy()
  holes[[0, 2, 3, 5]] = np.nan
  filled = filling.fill_missing(holes)
  np.testing.assert_allclose(filled[:, 0, 0], [1, 1, 2, 3, 4, 4])
  with pytest.raises(UserError, match="no face"):
    filling.fill_missing(np.full((3, 5, 2), np.nan, np.float32))
