"""A person's texture for frames of another size: the person stays as large, the room grows or shrinks around."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from globes import CHARTS, globe, globe_film
from people import make_measures

from anchor_jax.core.frame_size import FrameSize
from anchor_jax.texture.background.reframe import reframed
from anchor_jax.texture.blocks import plan_blocks
from anchor_jax.texture.gather import gather
from anchor_jax.texture.look_up.plain import look_up, look_up_tables

SIZE = 48  # of the globe's frames; it stands on their lower edge


@pytest.fixture(scope="module")
def texture():
  film = globe_film(12)
  gathered = gather(film.__getitem__, plan_blocks([0] * len(film), 4), CHARTS).texture()
  return dataclasses.replace(gathered, measures=dataclasses.replace(make_measures(), place=(0.5, 0.75)))


def corner_of(texture, size):
  """Where the old frame's corner is in the new one, by the measures."""
  x, y = reframed(texture, size).measures.place
  return round(x * size.height - 0.5 * SIZE), round(y * size.height - 0.75 * SIZE)


def test_the_room_grows_around_the_person_or_shrinks(texture):
  assert reframed(texture, FrameSize.of(SIZE)) is texture
  assert corner_of(texture, FrameSize(80, 48)) == (16, 0)  # wider: on both sides
  assert corner_of(texture, FrameSize(48, 80)) == (0, 32)  # taller: above a person who stands on the lower edge
  assert corner_of(texture, FrameSize(32, 48)) == (-8, 0)  # narrower: around the middle
  head = int(np.flatnonzero(texture.key_masks.any(axis=(0, 2)))[0])
  assert corner_of(texture, FrameSize(48, 32)) == (0, -(head - 2))  # lower: from above the head
  aside = dataclasses.replace(texture, measures=dataclasses.replace(texture.measures, place=(0.1, 0.75)))
  assert reframed(aside, FrameSize(32, 48)).measures.place[0] == pytest.approx(0.1)  # from the left edge


def test_lengths_stay_in_pixels(texture):
  tall = reframed(texture, FrameSize(48, 96)).measures
  assert tall.shoulders == pytest.approx(texture.measures.shoulders / 2) and tall.upper_arm == pytest.approx(0.125)
  assert tall.face == pytest.approx((0.0625, 0.075)) and tall.forearm is None and tall.widths is texture.measures.widths


def test_the_plate_keeps_what_is_known_and_continues_beyond(texture):
  wide = reframed(texture, FrameSize(80, 64))
  own = np.s_[16:64, 16:64]
  np.testing.assert_array_equal(wide.plate[own], texture.plate)
  np.testing.assert_array_equal(wide.plate_coverage[own], texture.plate_coverage)  # nothing behind the person
  beyond = wide.plate_coverage.copy()
  beyond[own] = 255
  assert (beyond == 255).all()
  seam = np.abs(wide.plate[16:, 16].astype(int) - wide.plate[16:, 15])  # a smooth wall shows no edge
  assert seam.max() < 10 and np.median(seam) <= 2
  narrow = reframed(texture, FrameSize(32, 48))
  np.testing.assert_array_equal(narrow.plate, texture.plate[:, 8:40])


def test_key_frames_show_the_person_as_before(texture):
  surface = globe(0.3).surface
  wide = np.pad(surface, ((0, 0), (16, 16), (0, 0)))
  before, after = (look_up_tables(one, 3) for one in (texture, reframed(texture, FrameSize(80, 48))))
  np.testing.assert_array_equal(after.key_outlines, before.key_outlines)
  seen = jax.jit(look_up)(before, jnp.asarray(surface[None]))
  found = jax.jit(look_up)(after, jnp.asarray(wide[None]))
  np.testing.assert_array_equal(found[:, :, 16:-16], seen)
