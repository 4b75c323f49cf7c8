"""Retargeting: the target's lengths and place; a person's own motion stays unchanged."""

import dataclasses

import numpy as np
import pytest

from anchor_jax.landmarks.framing import CropRect
from anchor_jax.landmarks.proportions.measures import BodyMeasures, measure, median_measures
from anchor_jax.landmarks.proportions.retarget import retarget, scales
from anchor_jax.landmarks.tracks import ELBOWS, SHOULDERS, WRISTS

SIZE = 64
SQUARE = CropRect.square(20, 0, 120, SIZE)  # of a track's video of 160 x 120


def moving(track, seed=0):
  """The standing track with swinging arms, a nodding head and a swaying body."""
  frames = len(track)
  time = np.linspace(0, 2 * np.pi, frames, endpoint=False)
  body, face, hands = track.body.copy(), track.face.copy(), track.hands.copy()
  for side, sign in ((0, 1), (1, -1)):
    upper, fore = 0.3 * np.sin(time + seed), 0.6 * np.sin(2 * time + side + seed)
    old_elbow, old_wrist = body[:, ELBOWS[side]].copy(), body[:, WRISTS[side]].copy()
    body[:, ELBOWS[side]] = body[:, SHOULDERS[side]] + _turned(old_elbow - body[:, SHOULDERS[side]], sign * upper)
    body[:, WRISTS[side]] = body[:, ELBOWS[side]] + _turned(old_wrist - old_elbow, sign * (upper + fore))
    moved = (body[:, WRISTS[side]] - old_wrist)[:, None]
    hands[:, side] += moved
    body[:, [17 + side, 19 + side, 21 + side]] += moved
  nod = np.stack([np.sin(time), 0.5 * np.cos(time), 0 * time], axis=-1)[:, None].astype(np.float32)
  sway = np.stack([3 * np.sin(time + 1), np.cos(2 * time), 0 * time], axis=-1)[:, None].astype(np.float32)
  body[:, :11] += nod
  return dataclasses.replace(track, body=body + sway, face=face + nod + sway, hands=hands + sway[:, None])


def _turned(vectors, angle):
  c, s = np.cos(angle), np.sin(angle)
  x, y, z = vectors.T
  return np.stack([c * x - s * y, s * x + c * y, z], axis=-1).astype(np.float32)


@pytest.fixture
def driver(standing_track):
  return moving(standing_track(frames=40))


def scaled(measures, **factors):
  """The measures of another body: each length times its factor."""
  changed = {
    name: getattr(measures, name) * factor for name, factor in factors.items() if name not in ("face", "place")
  }
  if "face" in factors:
    changed["face"] = tuple(np.multiply(measures.face, factors["face"]).tolist())
  return dataclasses.replace(measures, place=factors.get("place", measures.place), **changed)


FACTORS = dict(shoulders=0.8, neck=0.7, torso=0.9, hips=1.1, palm=0.65, upper_arm=0.95, forearm=0.6, face=(0.7, 0.85))


def foreshortened(track, first, last, share):
  """The track with forearms shortened to `share` from frame `first` to `last`, as if they pointed at the camera."""
  body, hands = track.body.copy(), track.hands.copy()
  for side in (0, 1):
    forearm = body[first:last, WRISTS[side]] - body[first:last, ELBOWS[side]]
    body[first:last, WRISTS[side]] -= (1 - share) * forearm
    hands[first:last, side] -= ((1 - share) * forearm)[:, None]
  return dataclasses.replace(track, body=body, hands=hands)


def test_only_reliable_frames_are_measured(standing_track):
  film = moving(standing_track(frames=200))
  own = measure(film, SQUARE)
  assert_close = lambda found, but=(): [
    np.testing.assert_allclose(value, getattr(own, name), rtol=0.04)
    for name, value in dataclasses.asdict(found).items()
    if name not in ("widths", "rest", "evidence", "cloth", *but)
  ]
  # the person is not found on a title card at the start
  card = dataclasses.replace(film, body=film.body.copy(), has_body=np.arange(200) >= 100, cuts=(100,))
  card.body[:100] = card.body[100]
  card.body[:100, WRISTS] += 300
  assert_close(measure(card, SQUARE))
  # forearms toward the camera for half of the film, and for all of it
  assert_close(measure(foreshortened(film, 0, 100, 0.3), SQUARE))
  hidden = measure(foreshortened(film, 0, 200, 0.3), SQUARE)
  assert hidden.forearm is None
  assert_close(hidden, but=("forearm",))
  wide = scaled(own, place=(0.4, 0.5), shoulders=0.9)
  factors = scales(hidden, wide)
  assert factors is not None and factors.forearm == factors.shoulders  # the arm is not stretched
  # a second shot from half the distance does not change the proportions
  twice = lambda points: np.concatenate([points[:100], 2 * points[100:]])
  points = {name: twice(getattr(film, name)) for name in ("body", "face", "hands")}
  near = dataclasses.replace(film, width=320, height=240, cuts=(100,), **points)
  found = measure(near, SQUARE)
  for name in ("neck", "torso", "hips", "palm", "upper_arm", "forearm"):
    ratio = getattr(found, name) / found.shoulders
    assert ratio == pytest.approx(getattr(own, name) / own.shoulders, rel=0.05), name


def test_guessed_hands_and_faces_are_not_measured(standing_track):
  film = standing_track(frames=50)
  hands, seen = film.hands.copy(), np.arange(50)[:, None] >= [40, 50]
  hands[~seen] *= 3
  found = measure(dataclasses.replace(film, hands=hands, has_hands=seen), SQUARE)
  assert found.palm == pytest.approx(measure(film, SQUARE).palm)
  face = film.face.copy()
  face[:40] *= 1.5
  found = measure(dataclasses.replace(film, face=face, has_face=np.arange(50) >= 40), SQUARE)
  assert found.face == pytest.approx(measure(film, SQUARE).face)


def test_the_result_has_the_lengths_and_place_of_the_target(driver):
  own = measure(driver, SQUARE)
  target = scaled(own, place=(0.4, 0.5), **FACTORS)
  track, square = retarget(driver, SQUARE, own, target)
  assert (track.width, track.height, square) == (SIZE, SIZE, CropRect.square(0, 0, SIZE, SIZE))
  found = measure(track, square)
  for name in ("shoulders", "neck", "torso", "hips", "palm", "upper_arm", "forearm"):
    assert getattr(found, name) == pytest.approx(getattr(target, name), rel=0.03), name
    assert abs(getattr(found, name) / getattr(own, name) - 1) > 0.03, name
  np.testing.assert_allclose(found.face, target.face, rtol=0.03)
  np.testing.assert_allclose(found.place, target.place, atol=0.005)
  # every bone of every frame keeps its direction
  for ends in zip((SHOULDERS[0], ELBOWS[0], SHOULDERS[1], ELBOWS[1]), (ELBOWS[0], WRISTS[0], ELBOWS[1], WRISTS[1])):
    before, after = (points[:, ends[1]] - points[:, ends[0]] for points in (driver.body, track.body))
    cosine = np.sum(before * after, axis=-1) / np.linalg.norm(before, axis=-1) / np.linalg.norm(after, axis=-1)
    assert cosine.min() > 0.9999
  # hands stay on their wrists
  gap = lambda track: track.hands[:, :, 0] - track.body[:, WRISTS]
  np.testing.assert_allclose(gap(track), gap(driver) * SQUARE.scale * 0.65, atol=1e-3)


def test_retargeting_adds_no_jumps(driver):
  """No frame, the first ones included, moves faster than before relative to the shoulders."""
  own = measure(driver, SQUARE)
  track, _ = retarget(driver, SQUARE, own, scaled(own, place=(0.4, 0.5), **FACTORS))
  steps = lambda points, unit: np.linalg.norm(np.diff(points[:, :25], axis=0), axis=-1).max(axis=1) / unit
  before, after = steps(driver.body, own.shoulders * 120), steps(track.body, own.shoulders * 0.8 * SIZE)
  assert (after < 1.3 * before + 1e-3).all() and after[0] < 1.3 * before[0]


def test_a_persons_own_motion_is_unchanged(driver):
  own = measure(driver, SQUARE)
  assert retarget(driver, SQUARE, own, own) is None
  # another clip of the same person, measured slightly differently
  remeasured = scaled(
    own, place=(own.place[0] + 0.03, own.place[1] - 0.01), shoulders=1.02, forearm=0.94, face=(0.99, 1.02)
  )
  assert retarget(driver, SQUARE, own, remeasured) is None
  # filmed from farther away: only the framing changes
  far = dataclasses.replace(
    scaled(own, **dict.fromkeys(("shoulders", "neck", "torso", "hips", "palm", "upper_arm", "forearm", "face"), 0.6)),
    place=(0.45, 0.52),
  )
  track, _ = retarget(driver, SQUARE, own, far)
  shift = track.body[:, :1, :2] - 0.6 * SQUARE.points(driver.body)[:, :1, :2]
  for points in ("body", "face"):
    expected = 0.6 * SQUARE.points(getattr(driver, points))[..., :2] + shift
    np.testing.assert_allclose(getattr(track, points)[..., :2], expected, atol=1e-3)


def test_the_face_is_scaled_along_its_own_axes(driver):
  own = measure(driver, SQUARE)
  target = scaled(own, neck=0.8, face=(0.5, 1.5))
  tilt = np.full(len(driver), 0.6)
  face = np.stack([_turned(points.T.reshape(3, -1).T, 0.6) for points in driver.face])
  tilted = dataclasses.replace(driver, face=face, body=np.stack([_turned(points, 0.6) for points in driver.body]))
  track, square = retarget(tilted, SQUARE, own, target)
  np.testing.assert_allclose(measure(track, square).face, target.face, rtol=0.01)
  up = track.face[:, 10] - track.face[:, 152]
  np.testing.assert_allclose(np.arctan2(up[:, 0], -up[:, 1]), tilt, atol=0.02)


def test_unknown_limbs_get_the_factor_of_the_shoulders(driver, standing_track):
  own = measure(driver, SQUARE)
  outside = driver.body.copy()
  outside[:, WRISTS, 1] += 200  # below the picture
  cropped = measure(dataclasses.replace(driver, body=outside), SQUARE)
  assert cropped.forearm is None and cropped.upper_arm == own.upper_arm
  factors = scales(cropped, scaled(own, **FACTORS))
  assert factors.forearm == factors.shoulders == pytest.approx(0.8) and factors.upper_arm == pytest.approx(0.95)
  faceless = dataclasses.replace(driver, face=np.full_like(driver.face, np.nan))
  assert measure(faceless, SQUARE).face is None
  track, _ = retarget(faceless, SQUARE, measure(faceless, SQUARE), scaled(own, **FACTORS))
  assert np.isnan(track.face).all() and np.isfinite(track.body).all() and np.isfinite(track.hands).all()
  absurd = scales(own, scaled(own, **FACTORS | dict(forearm=1e-3)))
  assert absurd.forearm == pytest.approx(0.4)  # half of the shoulders' factor
  np.testing.assert_allclose(measure(standing_track(frames=1), SQUARE).shoulders, own.shoulders, rtol=1e-3)


def test_a_driver_seen_from_the_side_does_not_make_the_person_larger(driver):
  own = measure(driver, SQUARE)
  narrow = scaled(own, shoulders=0.4)
  factors = scales(narrow, scaled(own, neck=1.2))
  assert factors.shoulders == pytest.approx(1.4) and factors.face[1] == pytest.approx(1.0)
  assert scales(scaled(own, shoulders=0.8), scaled(own, neck=1.2)).shoulders == pytest.approx(1.25)


def test_measures_round_trip_through_json_and_are_averaged_over_videos(driver):
  own = measure(driver, SQUARE)
  stored = own.to_json()
  assert BodyMeasures.from_json(stored).to_json() == stored
  assert BodyMeasures.from_json(stored | {"face": None, "forearm": None, "later": 1}).forearm is None
  for change in ({"neck": -1}, {"neck": None}, {"face": [0.1]}, {"place": [float("nan"), 0]}, {"palm": 1e9}):
    with pytest.raises((ValueError, TypeError)):
      BodyMeasures.from_json(stored | change)
  with pytest.raises(KeyError):
    BodyMeasures.from_json({"neck": 1})
  wide, none = scaled(own, shoulders=1.1), dataclasses.replace(own, forearm=None)
  assert median_measures([wide, own, none], [50, 30, 10]) == dataclasses.replace(own, shoulders=wide.shoulders)
  assert median_measures([none], [3]).forearm is None
  assert median_measures([own, wide], [7, 7]).shoulders == pytest.approx(1.05 * own.shoulders)
