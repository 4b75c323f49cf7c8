"""The background plate of a camera that moves: as sharp as the film, and where each camera shows it."""

import cv2
import numpy as np
import pytest
from hand_held import hand_path, in_sight, seen_by, textured_room
from people import make_posed_frames

from anchor_jax.evaluation.metrics import gradient_energy
from anchor_jax.texture.background.camera_path import STILL, inverse, joined, matrix_of, moved_points
from anchor_jax.texture.background.plate import ShownPlate
from anchor_jax.texture.blocks import plan_blocks
from anchor_jax.texture.gather import FilmFrame, gather
from anchor_jax.texture.stored import SEEN, read_texture, write_texture

COUNT = 30


def film(path):
  return list(seen_by(make_posed_frames(len(path), 120, 1), path, textured_room(120)))


def texture_of(items, cameras):
  nobody = np.zeros_like(items[0].frame)
  read = lambda number: FilmFrame(items[number].frame, nobody, items[number].person_mask, items[number].landmarks)
  return gather(read, plan_blocks([0] * len(items), 25), cameras=cameras).texture()


@pytest.fixture(scope="module")
def hand():
  path = hand_path(COUNT)
  items = film(path)
  return items, in_sight(path), texture_of(items, in_sight(path))


def room_only(item, plate):
  """Mask of the pixels that show the room in a frame and in a plate, away from edges."""
  return (cv2.dilate(item.person_mask, np.ones((7, 7))) == 0) & (cv2.erode(plate[..., 3], np.ones((5, 5))) > 0)


def test_the_plate_is_as_sharp_as_the_film_and_lies_where_each_camera_sees_it(hand):
  items, path, texture = hand
  shown, energy, true_energy = ShownPlate(texture), 0.0, 0.0
  for item, camera in list(zip(items, path))[::7]:
    plate = shown.through(camera)
    room = room_only(item, plate)
    error = plate[..., :3][room].astype(float) - item.frame[room]
    assert room.mean() > 0.3 and np.sqrt((error**2).mean()) < 4
    energy += gradient_energy(plate[None, ..., :3], room[None])
    true_energy += gradient_energy(item.frame[None], room[None])
  assert 0.8 < energy / true_energy < 1.2


def test_without_the_path_the_plate_is_a_smear(hand):
  items, _, texture = hand
  smear = texture_of(items, None)
  room = ((smear.plate_coverage == SEEN) & (texture.plate_coverage == SEEN))[None]
  assert gradient_energy(smear.plate[None], room) < 0.6 * gradient_energy(texture.plate[None], room)


def test_a_path_that_does_not_move_gives_the_plate_of_a_still_camera():
  still = np.tile(STILL, (8, 1))
  items = film(still)
  moving, fixed = texture_of(items, still), texture_of(items, None)
  np.testing.assert_array_equal(moving.plate, fixed.plate)
  np.testing.assert_array_equal(moving.plate_coverage, fixed.plate_coverage)
  assert fixed.room is None and moving.room is not None
  np.testing.assert_array_equal(ShownPlate(fixed).through(still[0])[..., :3], fixed.plate)


def test_the_steady_camera_shows_the_plate_itself(hand):
  _, _, texture = hand
  shown = ShownPlate(texture).through(np.array(STILL))
  np.testing.assert_array_equal(shown[..., :3], texture.plate)
  np.testing.assert_array_equal(shown[..., 3], texture.plate_coverage)


def test_the_room_is_larger_than_the_picture_and_comes_back_from_its_file(hand, tmp_path):
  _, _, texture = hand
  height, width = texture.plate.shape[:2]
  assert texture.room.pixels.shape[0] > height and texture.room.pixels.shape[1] > width
  write_texture(tmp_path / "room.safetensors", texture)
  again = read_texture(tmp_path / "room.safetensors")
  np.testing.assert_array_equal(again.room.pixels, texture.room.pixels)
  assert again.room.corner == texture.room.corner


def test_cameras_join_and_turn_back():
  one, other = hand_path(5, seed=1), hand_path(5, seed=2)
  np.testing.assert_allclose(joined(joined(one, other), inverse(other)), one, atol=1e-12)
  points = np.array([[3.0, 4.0], [20.0, 9.0]], np.float32)
  twice = moved_points(one[2], moved_points(other[2], points, (30, 40)), (30, 40))
  np.testing.assert_allclose(moved_points(joined(one, other)[2], points, (30, 40)), twice, atol=1e-4)
  at_pixels = cv2.transform(points[None] - 0.5, matrix_of(one[2], (30, 40)))[0] + 0.5
  np.testing.assert_allclose(moved_points(one[2], points, (30, 40)), at_pixels, atol=1e-4)
