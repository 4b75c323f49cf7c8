"""What a film does not show comes from the person's rest pose, and arrives and leaves smoothly."""

import dataclasses

import numpy as np
import pytest

from anchor_jax.landmarks.absence import absent_frames, rest_while_absent
from anchor_jax.landmarks.filling import fill_and_smooth
from anchor_jax.landmarks.framing import CropRect
from anchor_jax.landmarks.placing import place_unseen
from anchor_jax.landmarks.proportions.measures import BodyMeasures, measure
from anchor_jax.landmarks.proportions.rest import RestPose, gather_rest, standard_rest
from anchor_jax.landmarks.proportions.retarget import retarget_shots
from anchor_jax.landmarks.shown import steady, weights, without_guesses
from anchor_jax.landmarks.tracks import ELBOWS, INDEXES, SHOULDERS, WRISTS

ARM = (14, 16, 18, 20, 22)  # the right one, in front of the chest in `standing_track`
SQUARE = CropRect.square(20, 0, 120, 64)


def raised(track, first, last, *, below=200.0):
  """The track with the right arm in the picture from frame `first` to `last` only; else its joints jump about below."""
  body, hands = track.body.copy(), track.hands.copy()
  out = np.ones(len(track), bool)
  out[first:last] = False
  noise = np.random.default_rng(0).normal(0, 20, (int(out.sum()), len(ARM), 2))
  body[np.ix_(np.flatnonzero(out), ARM, (0, 1))] += noise + (0, below)
  hands[out, 1] = np.nan
  return dataclasses.replace(track, body=body, hands=hands)


def gap(track, first, last):
  """The track with the right arm guessed below the picture from frame `first` to `last`."""
  body, hands = track.body.copy(), track.hands.copy()
  body[first:last, ARM, 1] += 200
  hands[first:last, 1] = np.nan
  return dataclasses.replace(track, body=body, hands=hands)


def placed(track, rest=None, square=SQUARE):
  body = measure(track, square)
  return place_unseen(track, rest or body.rest_pose, body.shoulders * square.height, body.palm * square.height)


def test_an_arm_out_of_the_picture_rests_and_comes_and_goes_smoothly(standing_track):
  plain = fill_and_smooth(standing_track(frames=75))
  filled = fill_and_smooth(raised(standing_track(frames=75), 25, 50))
  track = placed(filled)
  seen = slice(25, 50)
  np.testing.assert_array_equal(filled.shown[seen], 1)
  np.testing.assert_allclose(track.body[seen], plain.body[seen], atol=1e-3)  # nothing that is seen changes
  rest, unit = standard_rest(), track.shoulder_width
  hanging = track.body[[5, 70]][:, WRISTS[1]] - track.body[[5, 70]][:, SHOULDERS[1]]
  assert (hanging[:, 1] > 1.3 * unit).all()
  assert (track.shown[[5, 70]][:, ARM] == 0).all() and (filled.shown[:, ELBOWS[0]] == 1).all()
  steps = np.linalg.norm(np.diff(track.body[:, ARM, :2], axis=0), axis=-1).max()
  assert steps < 0.25 * unit  # from hanging down to the chest within 0.4 s
  hand_steps = np.linalg.norm(np.diff(track.hands[:, 1, :, :2], axis=0), axis=-1).max()
  assert hand_steps < 0.4 * unit
  assert rest.arm(1)[0, 0] < 0


def test_a_joint_that_is_unsure_counts_as_hidden(standing_track):
  visible = np.ones((40, 33), np.float32)
  visible[:, [16, 18, 20, 22]] = 0.05
  hidden = dataclasses.replace(standing_track(frames=40), visible=visible)
  assert (fill_and_smooth(hidden).shown[:, WRISTS[1]] == 1).all()  # its hand is found
  hands = hidden.hands.copy()
  hands[:, 1] = np.nan
  filled = fill_and_smooth(dataclasses.replace(hidden, hands=hands))
  assert (filled.shown[:, WRISTS[1]] == 0).all() and (filled.shown[:, WRISTS[0]] == 1).all()


def test_a_body_of_which_nothing_is_sure_is_nobody(standing_track):
  track = standing_track(frames=4)
  visible = np.full((4, 33), 0.2, np.float32)
  visible[2, 12] = 0.9
  face = track.face.copy()
  face[:3] = np.nan
  found = without_guesses(dataclasses.replace(track, face=face, has_face=np.arange(4) == 3, visible=visible))
  assert np.isfinite(found.body[:, 0, 0]).tolist() == [False, False, True, True]
  assert without_guesses(track) is track


def test_one_hand_found_from_both_wrists_is_drawn_once(standing_track):
  track = standing_track(frames=30)
  body, hands = track.body.copy(), track.hands.copy()
  body[:, WRISTS[0]] = body[:, WRISTS[1]] + [3, 0, 0]
  hands[:, 0] = hands[:, 1] + [1, 0, 0]
  visible = np.ones((30, 33), np.float32)
  visible[:, WRISTS[0]] = 0.2
  filled = fill_and_smooth(dataclasses.replace(track, body=body, hands=hands, visible=visible))
  assert not filled.has_hands[:, 0].any() and filled.has_hands[:, 1].all()
  assert (filled.shown[:, WRISTS[0]] == 0).all()


def test_short_gaps_and_blinks_do_not_count():
  shown = np.array([0, 0, 1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0], bool)
  assert steady(shown, 10.0, 0.2).tolist() == [False] * 2 + [True] * 10 + [False] * 2
  assert steady(shown, 10.0, 0.1).tolist() == [False] * 5 + [True] * 7 + [False] * 2
  fading = weights(np.arange(20) >= 10, 10.0)
  assert (fading[10:] == 1).all() and (fading[:6] == 0).all() and (np.diff(fading[5:11]) > 0.1).all()


def test_a_hand_that_is_lost_inside_the_picture_stays(standing_track):
  """For a second, the model guesses below the picture; a hand that was lost at the edge may have left."""
  for up, stays in ((0, True), (58, False)):  # pixels of 120 between the hand and where it is in the picture's middle
    track = standing_track(frames=75)
    body, hands = track.body.copy(), track.hands.copy()
    body[:, ARM, 1] += up
    hands[:, 1, :, 1] += up
    moved = dataclasses.replace(track, body=body, hands=hands)
    filled = fill_and_smooth(gap(moved, 25, 50))
    assert (filled.shown[[*range(25), *range(50, 75)]][:, WRISTS[1]] == 1).all()
    assert (filled.shown[:, WRISTS[1]] == 1).all() == stays
    if stays:
      np.testing.assert_allclose(filled.hands[:, 1, :, :2], moved.hands[:, 1, :, :2], atol=0.5)


def test_the_rest_pose_is_gathered_and_kept_as_json(standing_track):
  still = measure(fill_and_smooth(standing_track(frames=30)), SQUARE)  # one hand down, one before the chest
  wrist = lambda rest, side: rest.arm(side)[0] + rest.arm(side)[1]
  np.testing.assert_allclose(wrist(still.rest, 1)[:2], [0.4, 0.5], atol=0.02)
  assert BodyMeasures.from_json(still.to_json()).to_json() == still.to_json()
  old = BodyMeasures.from_json({name: value for name, value in still.to_json().items() if name != "rest"})
  assert old.rest is None
  lengths = np.linalg.norm(old.rest_pose.arm(0)[:2, :2], axis=1) * old.shoulders
  np.testing.assert_allclose(lengths, [old.upper_arm, old.forearm], rtol=0.02)
  mostly_down = fill_and_smooth(raised(standing_track(frames=100), 40, 60))
  gathered = gather_rest([(mostly_down, mostly_down.shoulder_width)])
  np.testing.assert_allclose(gathered.arm(1)[1], standard_rest().arm(1)[1])  # the film never shows it at rest
  for change in ({"left": [[0, 0, 0]] * 4}, {"right": [[0, 0, float("nan")]] * 5}, {"left": [[9, 0, 0]] * 5}):
    with pytest.raises(ValueError, match="rest pose"):
      RestPose.from_json(gathered.to_json() | change)


def close_up(track, zoom=4.0):
  """The track as a film of head and neck alone, with joints below it that a landmark model guesses over the mouth."""
  middle = track.body[0, 0] - [0, 4, 0]
  corner = np.array([track.width / 2, track.height / 2, 0])
  zoomed = lambda points: ((points - middle) * zoom + corner * [1, 1, 0]).astype(np.float32)
  body, visible = zoomed(track.body), np.ones((len(track), 33), np.float32)
  guesses = [13, 14, 15, 16, 17, 18, 19, 20, 21, 22]
  rng = np.random.default_rng(1)
  body[:, guesses] = body[:, :1] + rng.normal(0, 10, (len(track), len(guesses), 3))
  visible[:, guesses] = 0.1
  hands = np.full_like(track.hands, np.nan)
  return dataclasses.replace(track, body=body, face=zoomed(track.face), hands=hands, visible=visible)


def test_a_close_up_moves_head_and_face_alone(standing_track):
  target = measure(fill_and_smooth(standing_track(frames=30)), SQUARE)
  film = standing_track(frames=60)
  face = film.face.copy()
  face[:, 20, 1] += 3 * np.sin(np.arange(60) / 5)  # a point of the face that moves
  body = film.body.copy()
  nod = np.sin(np.arange(60) / 7)[:, None]
  body[:, :11, 0] += 3 * nod
  face[:, :, 0] += 3 * nod
  driver = fill_and_smooth(close_up(dataclasses.replace(film, face=face, body=body)))
  assert (driver.body[:, SHOULDERS, 1] > driver.height).all()
  track, square = retarget_shots(driver, SQUARE, target)
  track = place_unseen(track, target.rest_pose, target.shoulders * 64, target.palm * 64)
  for side in (0, 1):
    vectors = (track.body[:, WRISTS[side], :2] - track.body[:, SHOULDERS[side], :2]) / (target.shoulders * 64)
    rest = target.rest_pose.arm(side)
    np.testing.assert_allclose(vectors - (rest[0] + rest[1])[:2], 0, atol=0.06)
  np.testing.assert_allclose(measure(track, square).place, target.place, atol=0.02)
  tall = lambda track: np.linalg.norm(track.face[:, 10] - track.face[:, 152], axis=-1)
  inside = lambda track: (track.face[:, 20, 1] - track.face[:, 10, 1]) / tall(track)
  np.testing.assert_allclose(inside(track), inside(driver), atol=0.01)
  np.testing.assert_allclose(tall(track), target.face[1] * 64, rtol=0.02)
  assert np.ptp(track.body[:, 0, 0]) > 1 and np.ptp(track.body[:, WRISTS[0], 0]) < 0.7 * np.ptp(track.body[:, 0, 0])


def test_each_shot_is_retargeted_by_its_own_measures(standing_track):
  near = standing_track(frames=60)
  far = lambda points: (points * 0.5 + [90, 10, 0]).astype(np.float32)
  later = np.arange(60)[:, None, None] >= 30
  body, face = np.where(later, far(near.body), near.body), np.where(later, far(near.face), near.face)
  hands = np.where(later[..., None], far(near.hands), near.hands)
  film = fill_and_smooth(dataclasses.replace(near, body=body, face=face, hands=hands, cuts=(30,)))
  target = dataclasses.replace(measure(film.slice(0, 30), SQUARE), place=(0.3, 0.6), shoulders=0.2)
  track, _ = retarget_shots(film, SQUARE, target)
  for name in ("body", "face"):
    first, second = (getattr(track, name)[frame] for frame in (10, 50))
    np.testing.assert_allclose(first[:25, :2], second[:25, :2], atol=0.3)
  assert track.cuts == (30,) and len(track) == 60
  assert retarget_shots(film.slice(0, 30), SQUARE, measure(film.slice(0, 30), SQUARE)) is None


def test_while_nobody_is_seen_the_person_rests(standing_track):
  """A title card, a scene, and a cut-away of two seconds within it."""
  film = standing_track(frames=150)
  points = {name: getattr(film, name).copy() for name in ("body", "face", "hands")}
  wave = 6 * np.sin(np.arange(150) / 3)[:, None]
  points["body"][:, :25, 0] += wave
  points["face"][..., 0] += wave
  points["hands"][..., 0] += wave[:, :, None]
  for values in points.values():
    values[:30] = values[80:130] = np.nan
  filled = fill_and_smooth(dataclasses.replace(film, **points, cuts=(30,)))
  assert np.flatnonzero(absent_frames(filled)).tolist() == [*range(30), *range(80, 130)]
  track = rest_while_absent(filled)
  seen = ~absent_frames(filled)
  for name in ("body", "face", "hands", "shown"):
    np.testing.assert_array_equal(getattr(track, name)[seen], getattr(filled, name)[seen])
  assert (track.shown[[5, 100]][:, [14, 16]] == 0).all()
  np.testing.assert_array_equal(track.body[95:110, :13], np.repeat(track.body[95:96, :13], 15, axis=0))
  arrived = placed(track)
  steps = np.linalg.norm(np.diff(arrived.body[:, [0, *SHOULDERS, *ELBOWS, *WRISTS, *INDEXES], :2], axis=0), axis=-1)
  assert steps.max() < 0.3 * film.shoulder_width
