"""The camera path of a film: still, from the hand, with cuts, and where the room can't be followed."""

import functools

import numpy as np
import pytest
from films import studio_shot
from hand_held import hand_path, in_sight, seen_by, textured_room
from people import make_posed_frames

from anchor_jax.films.room import follow_room
from anchor_jax.texture.background.camera_path import STILL, inverse, joined, median_camera, movement

SIZE, COUNT = 160, 24
KEPT = 128  # pixels of the films' sides


@functools.cache
def hand_film():
  return film(hand_path(COUNT))


def film(path, seed=0, room=None):
  items = make_posed_frames(len(path), SIZE, seed)
  return list(seen_by(items, path, textured_room(SIZE, seed) if room is None else room))


def followed(items, cuts=(), mask=lambda item: item.person_mask):
  pictures = lambda: (item.frame for item in items)
  return follow_room(pictures, lambda number: mask(items[number]), len(items), 25, cuts)


def error(path, truth, size=KEPT):
  """In pixels: how far a corner of the room is from where a camera of that path sees it, up to one steady camera."""
  missed = joined(path, inverse(truth))
  return size * movement(joined(missed, inverse(median_camera(missed))), (size, size))


def test_shift_turn_and_zoom_of_a_hand_are_found():
  truth = in_sight(hand_path(COUNT))
  found = followed(hand_film())
  assert found is not None and KEPT * movement(truth, (KEPT, KEPT)).max() > 5
  assert error(found, truth).max() < 0.25 and error(found, truth).mean() < 0.1


@pytest.mark.parametrize("room", [None, np.full((SIZE, SIZE, 3), 90, np.uint8)], ids=["textured", "plain wall"])
def test_a_still_camera_has_no_path(room):
  assert followed(film(np.tile(STILL, (COUNT, 1)), room=room)) is None


def test_a_room_that_cannot_be_seen_is_not_followed():
  items = hand_film()
  assert followed(items, mask=lambda item: np.full_like(item.person_mask, 255)) is None


def test_errors_do_not_add_up():
  slow = hand_path(2 * COUNT, seed=3, fps=12)
  found = followed(film(slow))
  assert found is not None and error(found, in_sight(slow))[-COUNT:].max() < 0.25


@pytest.mark.parametrize("seed", range(3))
def test_grain_that_hides_the_corners_of_key_pictures_does_not_lose_the_room(seed):
  hand, grain, size = hand_path(16, fps=10, shift=0.03), np.random.default_rng(seed), SIZE // 2
  items = seen_by(studio_shot(1, 16, size), hand, textured_room(size))
  noisy = lambda item: np.clip(item.frame + grain.normal(0, 2, item.frame.shape), 0, 255).astype(np.uint8)
  found = followed([item._replace(frame=noisy(item)) for item in items])
  assert found is not None and error(found, in_sight(hand), size).max() < 0.8


def test_each_shot_has_its_own_steady_camera():
  hand = hand_path(COUNT)
  items = hand_film() + film(np.tile(STILL, (COUNT, 1)), seed=5)
  found = followed(items, cuts=(COUNT,))
  assert found is not None
  np.testing.assert_array_equal(found[COUNT:], np.tile(STILL, (COUNT, 1)))
  assert error(found[:COUNT], in_sight(hand)).max() < 0.25


def test_a_picture_in_which_the_room_is_lost_is_interpolated():
  hand, items = hand_path(COUNT), list(hand_film())
  items[20] = items[20]._replace(frame=np.zeros_like(items[20].frame))
  found = followed(items)
  assert found is not None and error(found, in_sight(hand)).max() < 0.5


@pytest.mark.parametrize("number", [0, COUNT - 1])
def test_a_wrong_picture_at_an_end_is_replaced_by_where_the_camera_was_going(number):
  hand, items = hand_path(COUNT), list(hand_film())
  items[number] = items[abs(number - COUNT // 2)]
  found, truth = followed(items), in_sight(hand)
  there = truth[[number, abs(number - COUNT // 2)]]
  assert KEPT * movement(joined(there[:1], inverse(there[1:])), (KEPT, KEPT))[0] > 2
  assert found is not None and error(found, truth).max() < 1
