"""Frames put back into the film's full picture: a soft edge inside the picture, the film's room behind the person."""

import dataclasses

import cv2
import numpy as np
import pytest
from globes import CHARTS, globe, globe_film, wall

from anchor_jax.core.errors import UserError
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.inference.film_frame import FilmFrame
from anchor_jax.motion.frames import Motion, MotionFrame
from anchor_jax.texture.background.film_plate import FilmPlate
from anchor_jax.texture.blocks import plan_blocks
from anchor_jax.texture.gather import gather

SIZE = FrameSize.of(48)
CROP = (40, 24, 96, 96)  # twice the frame; it reaches the film's lower edge


@pytest.fixture(scope="module")
def texture():
  frames = globe_film(8)
  return gather(frames.__getitem__, plan_blocks([0] * len(frames), 4), CHARTS).texture()


@pytest.fixture(scope="module")
def film():
  """The globe's wall, continued around the frame and twice as large; never seen where the globe stands."""
  plate = np.full((120, 200, 3), (10, 200, 10), np.uint8)
  plate[24:, 40:136] = cv2.resize(wall(48), (96, 96), interpolation=cv2.INTER_CUBIC)
  coverage = np.full((120, 200), 255, np.uint8)
  coverage[90:, 84:92] = 0
  plate[coverage == 0] = 0
  return FilmPlate(plate, coverage, CROP)


def test_the_edges_of_a_frame_fade_inside_the_picture(film):
  frame = np.full((48, 48, 3), 250, np.uint8)
  picture = FilmFrame(film, None, SIZE).around(frame)
  assert picture.shape == (120, 200, 3)
  np.testing.assert_array_equal(picture[:24], film.plate[:24])
  np.testing.assert_array_equal(picture[:, :40], film.plate[:, :40])
  row = picture[72, 40:136].astype(int).sum(axis=-1)
  assert (row[8:-8] == 750).all() and (np.diff(row[:7]) > 0).all() and np.abs(row[0] - film.plate[72, 40].sum()) < 40
  assert (picture[119, 60:116] == 250).all()  # the frame ends with the film's picture there


def test_behind_the_person_is_the_room_of_the_film(film, texture):
  shown = globe(0.4, shift=2)
  gray = np.where(shown.person_mask[..., None] > 0, shown.frame, shown.frame // 2 + 60)  # a network's own idea of it
  motion = Motion(
    10.0,
    SIZE,
    2,
    lambda first: iter(
      [MotionFrame(shown.surface, np.zeros((48, 48, 1), np.uint8), np.zeros((5, 2), np.float32), shown.surface)] * 2
    ),
  )
  frames = FilmFrame(film, texture, SIZE)
  list(frames.watch(motion).frames(0))
  picture = frames.around(gray.astype(np.uint8))
  np.testing.assert_array_equal(picture[:30], film.plate[:30])  # above the globe, the film's own pixels
  middle = picture[24 + 36 : 24 + 44, 40 + 46 : 40 + 58].astype(int)
  own = cv2.resize(shown.frame, (96, 96), interpolation=cv2.INTER_CUBIC)[36:44, 46:58]
  assert np.abs(middle - own).mean() < 3
  assert picture[119, 88].astype(int).min() > 0  # never seen there: from the frame
  frames.around(gray.astype(np.uint8))  # the second frame


def test_what_cannot_be_put_back_is_refused(film, texture):
  with pytest.raises(UserError, match="prepare the film again"):
    FilmFrame(None, texture, SIZE)
  with pytest.raises(UserError, match="96x96 and frames are 64x48: leave out --size"):
    FilmFrame(film, texture, FrameSize(64, 48))
  unknown = dataclasses.replace(film, plate=0 * film.plate, coverage=0 * film.coverage)
  assert FilmFrame(unknown, None, SIZE).around(np.full((48, 48, 3), 99, np.uint8)).shape == (120, 200, 3)
