from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from globes import CHARTS, STAND, globe, globe_film
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from anchor_jax.evaluation.metrics import psnr
from anchor_jax.models.controlnet import COORDINATE_CHANNELS
from anchor_jax.texture.bilinear import texel_corners
from anchor_jax.texture.blocks import plan_blocks
from anchor_jax.texture.gather import FilmFrame, gather
from anchor_jax.texture.look_up import plain as look_up_module
from anchor_jax.texture.look_up.inverse import inverse_table
from anchor_jax.texture.texels import CHART_TEXELS, TEXELS, positions

KEY_FRAMES = 3
look_up = jax.jit(look_up_module.look_up)


@pytest.fixture(scope="module")
def texture():
  film = globe_film()
  return gather(film.__getitem__, plan_blocks([0] * len(film), 4), CHARTS, KEY_FRAMES).texture()


@pytest.fixture(scope="module")
def tables(texture):
  return look_up_module.look_up_tables(texture, KEY_FRAMES)


@pytest.fixture(scope="module")
def targets():
  return [globe(0.013 + 0.31 * i, shift=3 * i - 6) for i in range(4)]


def stacked(frames):
  return jnp.asarray(np.stack([frame.surface for frame in frames]))


def to_bytes(color):
  return np.rint(255 * np.asarray(color)).astype(np.uint8)


def quality(color, frame, where):
  return psnr(to_bytes(color), frame.frame, np.where(where, 255, 0).astype(np.uint8)[..., None])


def test_rectangles_see_what_squares_of_their_height_do(tables, targets):
  """Reaches are shares of the height, so a narrower target has the channels of the same part of the square."""
  surface, sides = stacked(targets[:1]), slice(8, 40)  # 32 x 48 pixels
  narrow = look_up(tables._replace(plate=tables.plate[:, sides]), surface[:, :, sides])
  inside = slice(3, -3)  # beyond it, skin outside of the narrow target is the nearest one
  np.testing.assert_array_equal(narrow[:, :, inside], look_up(tables, surface)[:, :, sides][:, :, inside])
  assert look_up_module.plate_size(tables._replace(plate=tables.plate[:, sides])) == (32, 48)


def test_unseen_turns_look_like_the_truth(tables, targets):
  found = look_up(tables, stacked(targets))
  assert found.shape == (4, 48, 48, look_up_module.texture_channels(KEY_FRAMES)) and found.dtype == jnp.float32
  assert found.min() >= 0 and found.max() <= 1
  for channels, frame in zip(np.asarray(found), targets, strict=True):
    person = frame.surface[..., 0] > 0
    assert (channels[person, 3] > 0).all()
    assert quality(channels[..., :3], frame, person) > 24
    views = 0
    for k in range(KEY_FRAMES):
      color, seen = channels[..., 4 + 4 * k : 7 + 4 * k], channels[..., 7 + 4 * k]
      assert not color[seen == 0].any() and not seen[~person].any()
      well = seen > 0.5
      views = views + (seen > 0.2)
      if well.sum() > 40:
        assert quality(color, frame, well) > 24
    assert (views > 0)[person].mean() > 0.6
    room = channels[..., -1] > 0
    assert quality(channels[..., -4:-1], frame, room & ~person) > 45 and not channels[..., :4][~person].any()


def test_a_key_frame_looked_up_for_its_own_pose_is_itself(texture, tables):
  channels = np.asarray(look_up(tables, jnp.asarray(texture.key_surfaces)))
  for k in range(KEY_FRAMES):
    own = channels[k, ..., 4 + 4 * k : 8 + 4 * k]
    well = own[..., 3] > 0.5
    assert well.mean() > 0.15
    truth = texture.key_frames[k]
    assert psnr(to_bytes(own[..., :3]), truth, np.where(well, 255, 0).astype(np.uint8)[..., None]) > 30


def test_the_inverse_table_has_the_places_of_the_texels():
  frame = globe(0.0)
  table = inverse_table(frame.surface, np.array([False, True, False]))[1]
  rows, columns = np.nonzero(table[..., 2] > 0)
  u, v = (columns + 0.5) / 64, (rows + 0.5) / 64
  radius, angle = 48 * 0.32, 2 * np.pi * u
  x = np.sin(angle) * np.sin(np.pi * v) * radius + 24 - 0.5
  y = -np.cos(np.pi * v) * radius + 48 * 0.42 - 0.5
  # x is distance from the axis times sin(longitude): the globe above maps longitude by atan2(x, z).
  front = (np.abs((u + 0.5) % 1 - 0.5) < 0.2) & (np.abs(v - 0.5) < 0.3)
  error = np.hypot(table[rows, columns, 0] - x, table[rows, columns, 1] - y)[front]
  assert front.sum() > 800 and error.mean() < 0.4 and error.max() < 1.2


@pytest.mark.parametrize("side", [64, 192, 448])
def test_large_texels_are_no_blocks(side):
  """One chart fills the picture, with up to 7 x 7 pixels for each texel; places between texels are interpolated."""
  y, x = np.mgrid[:side, :side]
  level = lambda place: (256 * place // side).astype(np.uint8)
  surface = np.stack([np.full((side, side), 1, np.uint8), level(x), level(y)], axis=-1)
  waves = [128 + 100 * np.sin(place * 25 / side + phase) for place, phase in ((x, 0), (y, 1), (x + y, 2))]
  picture = np.rint(np.stack(waves, axis=-1)).astype(np.uint8)
  frame = FilmFrame(picture, surface, np.full((side, side), 255, np.uint8), np.full((5, 2), np.nan, np.float32))
  film = [frame] * 5
  texture = gather(film.__getitem__, plan_blocks([0] * 5, 4), (("none", False), ("sheet", False)), 1).texture()
  found = np.asarray(look_up(look_up_module.look_up_tables(texture, 1), surface[None]))[0, ..., 4:7]
  inside = slice(side // 16, -side // 16)
  wrong = np.abs(to_bytes(found).astype(int) - picture)[inside, inside]
  assert wrong.mean() < 5, wrong.mean()
  # From one pixel to the next a block would jump by its whole width.
  steps = np.abs(np.diff(to_bytes(found).astype(int), axis=1))[inside, inside]
  assert steps.max() < 3.5 * np.abs(np.diff(picture.astype(int), axis=1)).max()


def test_charts_do_not_mix(tables, targets):
  found = np.asarray(look_up(tables, stacked(targets)))
  for channels, frame in zip(found, targets, strict=True):
    stand = frame.surface[..., 0] == 2
    assert np.abs(255 * channels[stand, :3] - STAND).max() < 2


def test_the_seam_of_a_periodic_chart_does_not_show(tables):
  seam = globe(0.0)
  across = np.asarray(look_up(tables, jnp.asarray(seam.surface[None])))[0]
  near = (seam.surface[..., 0] == 1) & (np.abs(seam.surface[..., 1].astype(int) - 128) > 122)
  assert near.sum() > 20 and quality(across[..., :3], seam, near) > 24


def corners_on_the_host(chart, column, row, wraps):
  """Texels around float positions, upper ones first, and weights that sum to 1: `texel_corners` in plain NumPy."""
  left, top = np.floor(column), np.floor(row)
  index, weight = [], []
  for down in (0, 1):
    for across in (0, 1):
      columns, rows = (left + across).astype(np.int64), (top + down).astype(np.int64)
      columns = np.where(wraps[chart], columns % TEXELS, np.clip(columns, 0, TEXELS - 1))
      index.append(chart * CHART_TEXELS + np.clip(rows, 0, TEXELS - 1) * TEXELS + columns)
      weight.append(np.abs(1 - across - (column - left)) * np.abs(1 - down - (row - top)))
  return np.stack(index), np.stack(weight).astype(np.float32)


def test_device_and_host_agree_on_texels(targets):
  wraps = np.array([periodic for _, periodic in CHARTS])
  surface = targets[1].surface
  index, weight = texel_corners(jnp.asarray(wraps), jnp.asarray(surface))
  chart, u, v = surface.reshape(-1, 3).T
  host = corners_on_the_host(chart.astype(np.int64), positions(u), positions(v), wraps)
  person = chart > 0
  assert np.array_equal(np.asarray(index).reshape(4, -1)[:, person], host[0][:, person])
  assert np.array_equal(np.asarray(weight).reshape(4, -1)[:, person], 64 * host[1][:, person])


def test_channels_do_not_depend_on_batching_or_sharding(tables, targets):
  together = look_up(tables, stacked(targets))
  alone = jnp.concatenate([look_up(tables, stacked([frame])) for frame in targets])
  assert np.array_equal(together, alone)
  mesh = Mesh(np.array(jax.devices()[:4]), "t")
  sharded = jax.device_put(stacked(targets), NamedSharding(mesh, PartitionSpec("t")))
  assert np.array_equal(look_up(tables, sharded), together)


def test_missing_key_frames_show_nothing(texture, targets):
  one_more = look_up_module.look_up_tables(texture, KEY_FRAMES + 1)
  channels = np.asarray(look_up(one_more, stacked(targets)))
  assert channels.shape[-1] == look_up_module.texture_channels(KEY_FRAMES + 1)
  assert not channels[..., 4 + 4 * KEY_FRAMES : 8 + 4 * KEY_FRAMES].any()


def test_a_plate_of_another_size_is_refused(tables):
  with pytest.raises(ValueError, match="plate"):
    look_up_module.look_up(tables, jnp.zeros((1, 32, 32, 3), jnp.uint8))


def test_coordinates_are_distinct_for_charts_and_periodic_in_u():
  surface = np.zeros((1, 64, 3), np.uint8)
  surface[0, :, 0] = np.arange(64)
  codes = np.asarray(look_up_module.coordinates(jnp.asarray(surface)))[0]
  assert codes.shape == (64, COORDINATE_CHANNELS) and codes.min() >= 0 and codes.max() <= 1
  assert not codes[0].any() and len(np.unique(codes[:, :3], axis=0)) == 64
  around = np.array([[[1, 0, 7], [1, 255, 7]]], np.uint8)
  ends = np.asarray(look_up_module.coordinates(jnp.asarray(around)))[0]
  assert np.abs(ends[0] - ends[1]).max() < 0.02


def test_quality_falls_with_the_angle_of_view():
  target = globe(0.0)
  front = np.index_exp[18:22, 22:26]  # pixels that face the camera
  film = [globe(turn) for turn in (0.0, 0.12, 0.2)]
  found = []
  for frame in film:
    one = gather([frame].__getitem__, plan_blocks([0], 4), CHARTS).texture()
    channels = np.asarray(look_up(look_up_module.look_up_tables(one, 1), jnp.asarray(target.surface[None])))[0]
    found.append(channels[..., 7][front].mean())
  turned = np.cos(2 * np.pi * np.array([0.12, 0.2]))
  assert found[0] > 0.85 and np.abs(found[1:] - turned).max() < 0.2 and found[0] > found[1] > found[2]


def test_a_feature_one_pixel_high_is_grown_by_a_pixel():
  surface = np.zeros((16, 16, 3), np.uint8)
  surface[8, 4:12] = [[1, 16 + 32 * i, 128] for i in range(8)]  # eight texels a pixel
  table = inverse_table(surface, np.array([False, False]))[1]
  rows = np.flatnonzero((table[..., 2] > 0).all(axis=1))
  assert rows.tolist() == list(range(20, 44))  # v = 128 is row 32: the pixel's eight rows, and as many on each side
  assert np.abs(table[32, :, 0] - (4 + (np.arange(64) - 4) / 8)).max() < 1
  assert table[rows[0], 32, 2] < 0.5 * table[32, 32, 2]


def test_quotients_are_rounded_like_exact_fractions():
  rng = np.random.default_rng(0)
  by = rng.integers(1, 65, 20000)
  sums = rng.integers(0, 2048 * by)
  sums[:5000] = by[:5000] * rng.integers(0, 2048, 5000) + by[:5000] // 2  # many are ties
  expected = np.array([round(Fraction(int(a), int(b))) for a, b in zip(sums, by, strict=True)])
  inputs = (jnp.asarray(values, jnp.float32)[None] for values in (sums, by))
  np.testing.assert_array_equal(jax.jit(look_up_module._divided)(*inputs)[0], expected)
