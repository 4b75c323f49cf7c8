"""Looked-up channels of body and head: each record's come from the film without the record's block."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from globes import film

from anchor_jax.body.face_crop import crop_image, crop_places, face_transform
from anchor_jax.data.encoded import EncodedSource
from anchor_jax.data.faces import head_source
from anchor_jax.data.records import build, open_prepared
from anchor_jax.films.poses import PosedClip
from anchor_jax.texture.channels import branch_channels
from anchor_jax.texture.look_up import plain as look_up
from anchor_jax.training.precompute import LOOKED_UP, FilmTextures, look_up_records

COUNT, SIZE = 20, 32
KINDS = ("coordinates", "atlas", "full")


@pytest.mark.parametrize("crop", [None, 16])
def test_a_record_s_channels_use_neither_its_own_block_nor_its_neighbors(globes, tmp_path, crop):
  source = open_prepared(globes)
  place = look_up_records("full", FilmTextures(source), [tmp_path], crop=crop)
  channels = EncodedSource(source, place, (LOOKED_UP,)).read(9, (LOOKED_UP,))[LOOKED_UP]
  gathered = FilmTextures(source).of_person(0).gathered
  block = int(gathered.blocks.of_frame[9])
  near = np.flatnonzero(np.abs(gathered.blocks.of_frame - block) <= 1)
  changed = [frame._replace(frame=255 - frame.frame) if i in near else frame for i, frame in enumerate(film())]
  build([PosedClip("clip", "ana", 4.0, changed)], tmp_path / "changed", SIZE)
  other = open_prepared(tmp_path / "changed")
  other_place = look_up_records("full", FilmTextures(other), [tmp_path], crop=crop)
  assert other_place != place
  other_channels = EncodedSource(other, other_place, (LOOKED_UP,)).read(9, (LOOKED_UP,))[LOOKED_UP]
  np.testing.assert_array_equal(other_channels, channels)
  assert channels[..., 3].any() and channels[..., -1].any()  # atlas and background plate have coverage
  assert look_up_records("full", FilmTextures(source), [tmp_path], (0, 1), crop) == place


@pytest.mark.parametrize("kind", KINDS)
def test_channels_are_those_of_the_look_up(globes, tmp_path, kind):
  source = open_prepared(globes)
  place = look_up_records(kind, FilmTextures(source), [tmp_path])
  channels = EncodedSource(source, place, (LOOKED_UP,)).read(3, (LOOKED_UP,))[LOOKED_UP]
  assert channels.shape == (SIZE, SIZE, branch_channels(kind) - 3) and channels.dtype == np.uint8
  surface = jnp.asarray(source.read(3, ("surface",))["surface"][None])
  if kind == "coordinates":
    truth = look_up.coordinates(surface)
  else:
    texture = FilmTextures(source).of_person(0).gathered.texture(FilmTextures(source).block_of(3)[1])
    truth = jax.jit(look_up.look_up)(look_up.look_up_tables(texture, 3), surface)[..., : channels.shape[-1]]
  np.testing.assert_allclose(channels / 255, truth[0], atol=0.51 / 255)


def test_a_record_sees_the_background_plate_through_its_own_camera(globes, tmp_path):
  source = open_prepared(globes)
  source.cameras = np.tile([1.0, 0.0, 0.0, 0.0], (COUNT, 1))
  source.cameras[:, 2] = np.arange(COUNT) % 3 / SIZE  # by whole pixels to the right
  textures = FilmTextures(source)
  place = look_up_records("full", textures, [tmp_path])
  for number in (3, 4):
    seen = EncodedSource(source, place, (LOOKED_UP,)).read(number, (LOOKED_UP,))[LOOKED_UP][..., -4:]
    texture = textures.of_person(0).gathered.texture(textures.block_of(number)[1])
    right, known = number % 3, texture.plate_coverage[:, : SIZE - number % 3] > 0
    np.testing.assert_array_equal(seen[:, right:, :3][known], texture.plate[:, : SIZE - right][known])


@pytest.mark.parametrize("kind", KINDS)
def test_the_head_s_channels_are_the_crop_of_the_body_s(globes, tmp_path, kind):
  source, size = open_prepared(globes), 20
  source.has_landmarks[2] = False
  frames, faces = (look_up_records(kind, FilmTextures(source), [tmp_path], (0, 1), crop) for crop in (None, size))
  assert frames != faces
  head = EncodedSource(head_source(source, size), faces, (LOOKED_UP,))
  assert len(head) == COUNT - 1
  record, channels = EncodedSource(source, frames, (LOOKED_UP,)).read(3, (LOOKED_UP,)), head.read(2, (LOOKED_UP,))
  to_crop = face_transform(source.read(3, ("landmarks",))["landmarks"], size)
  if kind == "coordinates":
    x, y = np.moveaxis((crop_places(to_crop, size, (SIZE, SIZE)) + 8) // 16, -1, 0)  # never between two charts
    np.testing.assert_array_equal(channels[LOOKED_UP], record[LOOKED_UP][y, x])
    return
  for group in range(0, channels[LOOKED_UP].shape[-1], 4):
    seen, crop = (fields[LOOKED_UP][..., group : group + 4].astype(np.float32) for fields in (record, channels))
    weighted = lambda channels: np.rint(channels[..., :3] * channels[..., 3:] / 255)
    for before, after in ((seen[..., 3:].repeat(3, axis=-1), crop[..., 3:]), (weighted(seen), weighted(crop))):
      cropped = crop_image(before.astype(np.uint8), to_crop, size, extend=True)
      error = np.abs(
        cropped - after
      )  # OpenCV rounds places to 1/32 pixel, we to 1/16: at an edge up to 255 * 2 * 3 / 64
      assert error.max() < 24 and error.mean() < 2
