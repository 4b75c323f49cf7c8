"""Extrapolation beside unseen poses: hair around a globe, which no surface map covers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from globes import CHARTS, globe, wall
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from anchor_jax.texture.blocks import plan_blocks
from anchor_jax.texture.gather import gather
from anchor_jax.texture.look_up import extrapolate
from anchor_jax.texture.look_up import plain as look_up_module

SIZE = 48
look_up = jax.jit(look_up_module.look_up)


def hairy(turn, shift):
  """A globe with a ring of hair two pixels wide, red on the left and green on the right; and the ring's mask."""
  frame = globe(turn, SIZE, shift)
  y, x = np.mgrid[:SIZE, :SIZE] + 0.5
  x = x - SIZE / 2 - shift
  ring = (np.hypot(x, y - SIZE * 0.42) < SIZE * 0.32 + 2) & (frame.surface[..., 0] == 0) & (y < 0.6 * SIZE)
  picture, mask = frame.frame.copy(), frame.person_mask.copy()
  picture[ring] = np.where(x < 0, 1, 0)[ring, None] * [220, 10, 20] + np.where(x < 0, 0, 1)[ring, None] * [10, 220, 20]
  mask[ring] = 255
  return frame._replace(frame=picture, person_mask=mask), ring


@pytest.fixture(scope="module")
def texture():
  film = [hairy(0.01 * i, i % 5 - 2)[0] for i in range(8)]
  return gather(film.__getitem__, plan_blocks([0] * 8, 4), CHARTS).texture()


@pytest.mark.parametrize("masks", [True, False])
def test_hair_is_found_beside_unseen_poses(texture, masks):
  known = texture
  if not masks:  # without masks the background plate separates the person from the room
    room = dict(plate=wall(SIZE), plate_coverage=np.full((SIZE, SIZE), 255, np.uint8))
    known = dataclasses.replace(texture, key_masks=None, **room)
  target, ring = hairy(0.035, 4)
  channels = np.asarray(look_up(look_up_module.look_up_tables(known, 3), jnp.asarray(target.surface[None])))[0]
  colors, quality = channels[..., 4:16].reshape(SIZE, SIZE, 3, 4)[..., :3], channels[..., 7:16:4]
  best = np.take_along_axis(colors, quality.argmax(-1)[..., None, None], 2)[..., 0, :]
  found = ring & (quality.max(-1) > 0)
  assert found.sum() > 0.8 * ring.sum()
  assert (np.abs(255 * best - target.frame).max(-1)[found] < 40).mean() > 0.8
  extrapolated = quality[target.surface[..., 0] == 0]
  assert extrapolated.max() <= 0.25 and not colors[quality == 0].any()
  room = (target.person_mask == 0) & (quality.max(-1) > 0)
  assert room.sum() < 0.25 * ring.sum()  # the key frames show the room there too
  beside = channels[ring & found, 4:16:4]
  assert beside.any() and not channels[ring, :4].any()


def test_extrapolation_does_not_depend_on_batching_or_sharding(texture):
  tables = look_up_module.look_up_tables(texture, 1)
  surfaces = np.stack([hairy(0.02 + 0.01 * i, 2 * i - 3)[0].surface for i in range(4)])
  together = np.asarray(look_up(tables, surfaces))
  assert together[surfaces[..., 0] == 0][:, 7].any()
  alone = jnp.concatenate([look_up(tables, frame[None]) for frame in surfaces])
  assert np.array_equal(alone, together)
  mesh = Mesh(np.array(jax.devices()[:4]), "t")
  sharded = jax.device_put(surfaces, NamedSharding(mesh, PartitionSpec("t")))
  assert np.array_equal(look_up(tables, sharded), together)


def test_nearest_skin_matches_brute_force():
  covered = np.random.default_rng(0).random((32, 48)) < 0.03
  surface = np.repeat(covered[..., None], 3, axis=-1).astype(np.uint8)
  skin = extrapolate.nearest_skin(jnp.asarray(surface), 16)
  y, x = np.mgrid[:32, :48]
  away = np.hypot(y[..., None] - np.nonzero(covered)[0], x[..., None] - np.nonzero(covered)[1])
  nearest, index = away.min(axis=-1), np.asarray(skin.pixel)
  within = nearest <= 2  # 1/16 of the height
  assert within.mean() > 0.2 and not within.all()
  assert covered[index // 48, index % 48][within].all()
  np.testing.assert_allclose(np.hypot(index // 48 - y, index % 48 - x)[within], nearest[within])
  assert np.array_equal(index[~within], (y * 48 + x)[~within])
  assert np.array_equal(np.asarray(skin.weight) > 0, within & ~covered)
