"""The background of a film's full picture: gathered as a median, and stored beside the person's texture."""

import numpy as np
import pytest

from anchor_jax.core.errors import UserError
from anchor_jax.texture.background.film_plate import (
  FILM_PLATE,
  film_plate_of,
  gather_film_plate,
  read_film_plate,
  sample_count,
  write_film_plate,
)

HEIGHT, WIDTH, CROP = 48, 80, (20, 0, 40, 48)


def film(count=9):
  """Somebody of ten pixels who walks through a room, and one mask that misses the person."""
  room = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
  for number in range(count):
    frame, mask = room.copy(), np.zeros((HEIGHT, WIDTH), np.uint8)
    person = np.s_[20:, 8 * number : 8 * number + 10]
    frame[person] = (250, 0, 250)
    mask[person] = 255 * (number != 4)
    mask[:, 70:] = 255  # never seen
    yield frame, mask
  return room


def test_the_room_is_seen_behind_somebody_who_moves():
  room = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
  found = gather_film_plate(film(), CROP)
  assert (found.coverage[:, :68] == 255).all() and not found.coverage[:, 70:].any() and not found.plate[:, 70:].any()
  np.testing.assert_array_equal(found.plate[:, :68], room[:, :68])  # one wrong mask of nine has no influence
  assert sample_count(1080, 1920) == 25 and sample_count(4320, 7680) == 9
  with pytest.raises(ValueError, match="without frames"):
    gather_film_plate([], CROP)


def test_the_file_is_read_as_written_and_damage_is_found(tmp_path):
  assert film_plate_of(tmp_path) is None
  found = gather_film_plate(film(), CROP)
  for _ in range(2):
    write_film_plate(tmp_path / FILM_PLATE, found)
    stored = film_plate_of(tmp_path)
    assert stored is not None and stored.crop == CROP
    np.testing.assert_array_equal(stored.plate, found.plate)
    np.testing.assert_array_equal(stored.coverage, found.coverage)
  data = (tmp_path / FILM_PLATE).read_bytes()
  for damaged in (
    data[:-1],
    data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
    data.replace(b"[20, 0, ", b"[90, 0, "),
    b"x",
  ):
    (tmp_path / FILM_PLATE).write_bytes(damaged)
    with pytest.raises(UserError, match="prepare the person's film again"):
      read_film_plate(tmp_path / FILM_PLATE)
