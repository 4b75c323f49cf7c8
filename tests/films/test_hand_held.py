"""A film from the hand, from `prepare` to what networks see and what motions are like."""

import json

import cv2
import numpy as np
import pytest
from films import studio_shot
from hand_held import hand_path, in_sight, seen_by, textured_room
from people import make_track

from anchor_jax.core.errors import UserError
from anchor_jax.data.records import open_prepared
from anchor_jax.data.textures import stored_texture, texture_of_prepared
from anchor_jax.evaluation.metrics import gradient_energy
from anchor_jax.inference.motions import read_motion
from anchor_jax.landmarks.framing import CropRect
from anchor_jax.landmarks.sidecar import write_posed_video
from anchor_jax.motion.steady import shaken_track, steady_track
from anchor_jax.prepare import prepare
from anchor_jax.texture.background.camera_path import STILL, in_crop, inverse, joined, median_camera, movement
from anchor_jax.texture.background.plate import ShownPlate
from anchor_jax.video.write import VideoWriter

SIZE, COUNT = 64, 16
CUT = 8  # pixels of the larger pictures on each side
SHARE = CUT / (SIZE + 2 * CUT)
GRAIN = 1.5  # of 255


def people():
  return studio_shot(1, COUNT, SIZE + 2 * CUT)


def filmed_from(cameras):
  return seen_by(people(), cameras, textured_room(SIZE + 2 * CUT), SHARE)


def write(path, cameras):
  """A film with grain, compressed without loss: what an encoder changes differs from run to run."""
  write_posed_video(path, filmed_from(cameras), 10)
  grain = np.random.default_rng(0)
  with VideoWriter(path, 10, lossless=True) as film:
    for item in filmed_from(cameras):
      film.write(np.clip(item.frame + grain.normal(0, GRAIN, item.frame.shape), 0, 255).astype(np.uint8))
  return path


@pytest.fixture(scope="module")
def hand(tmp_path_factory):
  """Film, prepared folder, and the true camera path."""
  place = tmp_path_factory.mktemp("hand")
  path = hand_path(COUNT, fps=10, shift=0.03)
  film = write(place / "hand.mp4", path)
  prepare(film, place / "data", size=SIZE)
  return film, place / "data", in_sight(path, SHARE)


def test_the_folder_holds_the_camera_path_and_a_sharp_room(hand):
  _, folder, truth = hand
  source = open_prepared(folder)
  missed = joined(source.cameras, inverse(truth))
  assert SIZE * movement(truth, (SIZE, SIZE)).max() > 3
  assert SIZE * movement(joined(missed, inverse(median_camera(missed))), (SIZE, SIZE)).max() < 0.8
  texture = stored_texture(source)
  assert texture is not None and texture.room is not None
  shown, filmed = ShownPlate(texture), list(filmed_from(hand_path(COUNT, fps=10, shift=0.03)))
  for number in range(0, COUNT, 6):
    record, true = source.read(number, ("frame", "person_mask")), filmed[number].frame.astype(float)
    plate = shown.through(source.cameras[number])
    room = (cv2.dilate(record["person_mask"], np.ones((9, 9))) == 0) & (cv2.erode(plate[..., 3], np.ones((5, 5))) > 0)
    # The grain makes the frames differ from what was filmed; the plate is nearer to it.
    assert np.abs(plate[..., :3] - true)[room].mean() < np.abs(record["frame"] - true)[room].mean()
    assert gradient_energy(plate[None, ..., :3], room[None]) > 0.75 * gradient_energy(
      filmed[number].frame[None], room[None]
    )


def test_a_still_film_is_prepared_as_before(tmp_path):
  film = write(tmp_path / "still.mp4", np.tile(STILL, (COUNT, 1)))
  prepare(film, tmp_path / "data", size=SIZE)
  source = open_prepared(tmp_path / "data")
  assert source.cameras is None and "cameras" not in json.loads((source.folder / "meta.json").read_text())["videos"][0]
  assert texture_of_prepared(source).room is None


def test_a_motion_is_seen_by_the_steady_camera_or_by_that_of_the_film(hand):
  _, folder, truth = hand
  as_filmed = list(read_motion(folder, camera="film").frames(0))
  steady = read_motion(folder)
  assert not steady.moving
  offset = []
  for item, moving, still, camera in zip(people(), as_filmed, steady.frames(0), truth):
    assert movement(joined(moving.camera, inverse(camera))[None], (SIZE, SIZE))[0] < 0.02
    assert still.camera is None
    offset.append((still.landmarks - (item.landmarks - CUT)).mean(axis=0))
  assert np.abs(np.array(offset) - np.median(offset, axis=0)).max() < 0.5


def test_a_driver_is_taken_from_a_moving_camera_to_the_steady_one_and_back():
  track, path = make_track(8), hand_path(8, fps=5)
  crop = CropRect.square(20, 0, 120, 60)
  shaken = shaken_track(track, in_crop(path, (track.height, track.width), (20, 0, 120, 120)), crop)
  assert np.abs(shaken.body - track.body)[..., :2].max() > 2
  for name in ("body", "face", "hands"):
    np.testing.assert_allclose(getattr(steady_track(shaken, path), name), getattr(track, name), atol=1e-2)


def test_a_camera_of_another_name_is_refused(hand):
  with pytest.raises(UserError, match="use still or film"):
    read_motion(hand[1], camera="drone")


def test_another_part_of_the_film_gets_the_steady_camera_of_the_first(hand, tmp_path):
  _, folder, truth = hand
  aside = hand_path(COUNT, seed=4, fps=10, shift=0.03)
  aside[:, 2] += 0.05
  prepare(write(tmp_path / "aside.mp4", aside), tmp_path / "alone", size=SIZE)
  prepare(tmp_path / "aside.mp4", tmp_path / "like", size=SIZE, like=folder)
  steady = joined(inverse(truth[:1]), open_prepared(folder).cameras[:1])  # the room of the first, in the true one
  true = joined(in_sight(aside, SHARE), steady)
  missed = {
    name: np.median(SIZE * movement(joined(open_prepared(tmp_path / name).cameras, inverse(true)), (SIZE, SIZE)))
    for name in ("like", "alone")
  }
  assert missed["like"] < 1 and missed["alone"] > 2


def test_two_films_of_a_room_have_one_steady_camera(hand, tmp_path):
  film, _, truth = hand
  aside = hand_path(COUNT, seed=4, fps=10, shift=0.03)
  aside[:, 3] += 0.05
  prepare([film, write(tmp_path / "aside.mp4", aside)], tmp_path / "both", size=SIZE)
  cameras = open_prepared(tmp_path / "both").cameras
  true = joined(in_sight(aside, SHARE), joined(inverse(truth[:1]), cameras[:1]))
  assert np.median(SIZE * movement(joined(cameras[COUNT:], inverse(true)), (SIZE, SIZE))) < 1
