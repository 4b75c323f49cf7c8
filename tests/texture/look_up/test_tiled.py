"""The look-up on CPUs gives the bytes of the plain one, whatever the tables and surface maps are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from globes import globe

from anchor_jax.texture.look_up import plain as look_up_module
from anchor_jax.texture.look_up import tiled
from anchor_jax.texture.look_up.plain import LookUpTables
from anchor_jax.texture.texels import CHART_TEXELS

CHARTS = 5
plain = jax.jit(lambda *operands: (255 * look_up_module.look_up(*operands)).round().astype(np.uint8))
look_up_tiled = jax.jit(tiled.look_up_tiled)


def tables(rng, size, key_frames, of_keys=None):
  """Tables of noise; places are smooth enough that most neighbors are on one side of an occlusion."""
  height, width = size
  rows, columns = of_keys or size
  texels = CHARTS * CHART_TEXELS
  smooth = np.arange(texels)[:, None] / 40 % [16 * columns, 16 * rows] + rng.integers(-40, 40, (key_frames, texels, 2))
  pixels = rng.choice([0, 1, 400, 4096, 2**17], (key_frames, texels, 1))
  outlines = rng.integers(-9, 10, (key_frames, rows, columns, 3))
  outlines[..., 2] = rng.integers(-1, 2, outlines.shape[:3])
  byte = lambda *shape: rng.integers(0, 256, shape, np.uint8)
  plate = byte(height, width, 4)
  plate[: height // 2, :, 3] = 0
  places = np.concatenate([np.rint(smooth), pixels], axis=-1).astype(np.float32)
  wraps = np.arange(CHARTS) % 2 == 1
  arrays = (wraps, byte(texels, 4), places, byte(key_frames, rows, columns, 3), outlines.astype(np.int16), plate)
  return LookUpTables(*map(jnp.asarray, arrays))


def surfaces(rng, size, count=2):
  """Blots of charts in an empty picture, with smooth u and v; every third pixel of the last one is noise."""
  height, width = size
  y, x = np.mgrid[:height, :width]
  maps = []
  for number in range(count):
    center = rng.uniform(0.2, 0.8, 2) * size
    here = np.hypot(y - center[0], x - center[1]) < 0.3 * min(size)
    smooth = np.stack([1 + (x + y) // 16 % CHARTS, 5 * x + number, 3 * y], axis=-1)
    found = np.where(here[..., None], smooth, 0)
    if number == count - 1:
      found[::3] = rng.integers(0, 256, found[::3].shape)
    maps.append(found.astype(np.uint8))
  return np.stack(maps)


@pytest.mark.parametrize(
  ("size", "key_frames", "of_keys"),
  [((48, 48), 3, None), ((80, 150), 2, (64, 96)), ((144, 70), 1, None), ((64, 64), 0, None)],
)
def test_tiles_have_the_bytes_of_the_plain_look_up(size, key_frames, of_keys):
  rng = np.random.default_rng(0)
  table, maps = tables(rng, size, key_frames, of_keys), surfaces(rng, size)
  found = np.asarray(look_up_tiled(table, maps))
  assert found.shape == (2, *size, 8 + 4 * key_frames)
  np.testing.assert_array_equal(found, plain(table, maps))
  for group in range(key_frames + 2):
    assert len(np.unique(found[..., 4 * group + 3])) > 2


def test_every_coverage_is_rounded_as_in_the_plain_look_up():
  """A weight of 1 to 64 times a coverage of 0 to 255, of one texel among empty ones."""
  empty = np.zeros((CHARTS, 64, 64, 4), np.uint8)
  empty[:, 1::3, 1::3] = 200
  values = np.arange(CHARTS * 21 * 21) % 256
  empty[:, 1::3, 1::3, 3] = values.reshape(CHARTS, 21, 21)
  rng = np.random.default_rng(0)
  table = tables(rng, (256, 256), 0)._replace(atlas=jnp.asarray(empty.reshape(-1, 4)))
  v, u = np.mgrid[:256, :256]
  maps = np.stack([np.stack([np.full_like(u, chart), u, v], axis=-1) for chart in range(1, CHARTS)]).astype(np.uint8)
  found = np.asarray(look_up_tiled(table, maps))
  assert len(np.unique(found[..., 3])) == 196  # the largest weight is 49 / 64
  np.testing.assert_array_equal(found, plain(table, maps))


def test_every_sum_of_pixels_is_rounded_as_in_the_plain_look_up():
  """Pictures of two values in which every place lies between pixels: totals of 0 to 255 * 256."""
  rng = np.random.default_rng(0)
  table = tables(rng, (128, 128), 3)
  places = np.array(table.key_places)
  places[..., 2] = 4096
  places[..., :2] = rng.integers(0, 16 * 127, places[:, ::1, :2].shape)
  table = table._replace(key_places=jnp.asarray(places))
  v, u = np.mgrid[:128, :128]
  maps = np.stack([np.full_like(u, 2), 2 * u, 2 * v], axis=-1).astype(np.uint8)[None]
  np.testing.assert_array_equal(look_up_tiled(table, maps), plain(table, maps))


def test_an_empty_picture_shows_the_plate():
  table = tables(np.random.default_rng(0), (48, 48), 2)
  found = np.asarray(look_up_tiled(table, np.zeros((1, 48, 48, 3), np.uint8)))[0]
  assert not found[..., :12].any()
  np.testing.assert_array_equal(found[24:, :, 12:], jnp.where(table.plate[24:, :, 3:] > 0, table.plate[24:], 0))
  assert not found[:24, :, 12:].any()


def test_each_frame_has_its_own_plate():
  rng = np.random.default_rng(1)
  table, maps = tables(rng, (48, 48), 1), surfaces(rng, (48, 48))
  plates = rng.integers(0, 256, (2, 48, 48, 4), np.uint8)
  np.testing.assert_array_equal(look_up_tiled(table, maps, plates), plain(table, maps, plates))


def test_frames_in_a_batch_are_looked_up_one_by_one():
  rng = np.random.default_rng(2)
  table = tables(rng, (48, 48), 2)
  maps = np.stack([globe(0.1).surface, globe(0.6, shift=9).surface])
  one = lambda surface: tiled.look_up_tiled(table, surface[None])[0]
  np.testing.assert_array_equal(jax.jit(jax.vmap(one))(maps), plain(table, maps))
