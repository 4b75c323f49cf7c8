import dataclasses

import cv2
import numpy as np
import pytest
from globes import CHARTS, STAND, globe, globe_film, pattern, wall

from anchor_jax.body.charts import CHARTS as BODY
from anchor_jax.body.charts import chart
from anchor_jax.texture.blocks import plan_blocks
from anchor_jax.texture.gather import FilmFrame, gather, person_surface
from anchor_jax.texture.stored import GUESSED, SEEN

FPS = 4
OWN, WALL = (60, 40, 30), (200, 200, 200)


@pytest.fixture(scope="module")
def film():
  return globe_film()


@pytest.fixture(scope="module")
def gathered(film):
  return gather(film.__getitem__, plan_blocks([0] * len(film), FPS), CHARTS)


def changed(film, numbers, change):
  return [frame._replace(frame=change(frame.frame)) if i in numbers else frame for i, frame in enumerate(film)]


def same(a, b):
  return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))


def test_the_atlas_is_the_globes_pattern(gathered):
  texture = gathered.texture()
  texels = (np.arange(64) + 0.5) / 64
  truth = pattern(texels[None, :], texels[:, None])
  middle = slice(16, 48)  # around the equator; towards the poles a pixel covers many texels
  assert (texture.coverage[1, middle] >= 127).all()
  assert np.abs(texture.atlas[1, middle].astype(float) - truth[middle]).mean() < 8
  assert np.abs(texture.atlas[2][texture.coverage[2] == 255].astype(float) - STAND).max() < 2
  assert not texture.coverage[0].any() and not texture.atlas[texture.coverage == 0].any()


def test_a_block_sees_nothing_of_itself_and_its_neighbors(film, gathered):
  blocks = gathered.blocks
  for block in (0, 4, blocks.count - 1):
    hidden = {i for i, b in enumerate(blocks.of_frame) if abs(b - block) <= 1}
    other = gather(changed(film, hidden, lambda frame: 255 - frame).__getitem__, blocks, CHARTS)
    assert same(gathered.texture(block), other.texture(block))
    assert not same(gathered.texture(), other.texture())
    assert not hidden & set(gathered.key_frames(block))


def test_leaving_a_block_out_equals_gathering_without_it(film, gathered):
  seen = gathered.blocks.seen_by(3)
  numbers = [i for i, block in enumerate(gathered.blocks.of_frame) if seen[block]]
  blocks = dataclasses.replace(gathered.blocks, of_frame=gathered.blocks.of_frame[numbers])
  shorter = gather([film[i] for i in numbers].__getitem__, blocks, CHARTS)
  assert same(gathered.texture(3), shorter.texture())


def test_a_temporary_occlusion_leaves_no_trace(film, gathered):
  covered = {i for i, block in enumerate(gathered.blocks.of_frame) if block in (1, 5)}
  occluded = gather(changed(film, covered, lambda frame: np.zeros_like(frame)).__getitem__, gathered.blocks, CHARTS)
  for name, index in (("plate", ...), ("atlas", 2)):
    truth, found = (getattr(g.texture(), name)[index].astype(int) for g in (gathered, occluded))
    change = np.abs(truth - found).max(axis=-1)[truth.any(axis=-1)]
    assert np.median(change) <= 5  # some texels are seen in few blocks only; a mean would be off by up to 40


def test_spread_is_the_deviation_of_the_samples(film, gathered):
  flicker = [
    frame._replace(frame=np.clip(frame.frame + 20.0 * (-1) ** i, 0, 255).astype(np.uint8))
    for i, frame in enumerate(film)
  ]
  flickering = gather(flicker.__getitem__, gathered.blocks, CHARTS).texture()
  stand = flickering.coverage[2] == 255
  assert np.abs(gathered.texture().spread[2][stand].astype(float)).max() <= 1
  assert np.abs(np.median(flickering.spread[2][stand].astype(float)) - 20) <= 2


def test_the_plate_is_the_wall_and_its_coverage_marks_holes(gathered):
  texture = gathered.texture()
  known = texture.plate_coverage > 0
  assert np.abs(texture.plate.astype(int) - wall(48))[known].max() <= 1
  assert not known[20, 24] and not texture.plate[~known].any()  # always behind the globe
  assert known[:, :4].all() and known.mean() > 0.4


def test_key_frames_show_all_sides_and_avoid_blurred_frames(film, gathered):
  turns = np.array(gathered.key_frames()) / len(film)
  assert len(turns) == 3
  apart = np.abs((turns[:, None] - turns + 0.5) % 1 - 0.5)[np.triu_indices(3, 1)]
  assert apart.min() > 0.2
  first = gathered.key_frames()[0]
  blurred = changed(film, {first}, lambda frame: np.full_like(frame, 128))
  assert first not in gather(blurred.__getitem__, gathered.blocks, CHARTS).key_frames()
  lost = [f._replace(landmarks=np.full((5, 2), np.nan, np.float32)) if i == first else f for i, f in enumerate(film)]
  assert gather(lost.__getitem__, gathered.blocks, CHARTS).key_frames()[0] != first


def test_key_frames_have_no_surface_outside_the_person(film):
  wide = [frame._replace(person_mask=np.where(frame.surface[..., 0] == 1, 255, 0).astype(np.uint8)) for frame in film]
  texture = gather(wide.__getitem__, plan_blocks([0] * len(film), FPS), CHARTS).texture()
  assert set(np.unique(texture.key_surfaces[..., 0])) == {0, 1} and not texture.coverage[2].any()


def test_a_film_of_one_frame_has_no_texture_for_that_frame():
  one = gather([globe(0)].__getitem__, plan_blocks([0], FPS), CHARTS)
  assert one.texture().key_frames.shape == (1, 48, 48, 3)
  itself = one.texture(0)
  assert itself.key_frames.shape == (0, 48, 48, 3)
  assert not itself.coverage.any() and not itself.plate_coverage.any()


def test_frames_that_do_not_fit_are_refused(film):
  blocks = plan_blocks([0, 0], FPS)
  with pytest.raises(ValueError, match="frame 1"):
    gather([film[0], globe(0, 32)].__getitem__, blocks, CHARTS)
  with pytest.raises(ValueError, match="chart 2"):
    gather(film.__getitem__, blocks, CHARTS[:2])


def test_hands_in_front_of_the_trunk_leave_no_fringe():
  surface = np.zeros((64, 64, 3), np.uint8)
  surface[8:56, 8:56, 0] = chart("chest")
  surface[20:30, 20:30, 0] = chart("palm", "left")
  mask = np.full((64, 64), 255, np.uint8)
  certain = person_surface(FilmFrame(surface, surface, mask, np.zeros((5, 2), np.float32)), BODY)[..., 0]
  assert (certain[20:30, 20:30] == chart("palm", "left")).all()
  assert not certain[19, 20:30].any() and not certain[30, 20:30].any() and (certain[18, 20:30] == chart("chest")).all()


def test_frames_with_a_hidden_face_are_no_key_frames(film, gathered):
  first = gathered.key_frames()[0]
  hidden = film[first].surface.copy()
  hidden[hidden[..., 0] == 2] = 1
  covered = [frame._replace(surface=hidden) if i == first else frame for i, frame in enumerate(film)]
  assert gather(covered.__getitem__, gathered.blocks, CHARTS).key_frames()[0] != first


def soft_film(count=8):
  """Frames of a dark globe that moves in front of a bright wall; each mask is the globe's true share of each pixel."""
  smaller = lambda image: cv2.resize(image, (48, 48), interpolation=cv2.INTER_AREA)
  frames = []
  for number in range(count):
    shift = number % 5 - 2
    fine = globe(0.02 * number, 4 * 48, 4 * shift)
    picture = np.where(fine.person_mask[..., None] > 0, OWN, WALL).astype(np.uint8)
    frames.append(
      globe(0.02 * number, 48, shift)._replace(frame=smaller(picture), person_mask=smaller(fine.person_mask))
    )
  return frames


@pytest.fixture(scope="module")
def soft():
  film = soft_film()
  return gather(film.__getitem__, plan_blocks([0] * len(film), FPS), CHARTS)


def test_soft_masks_give_the_person_s_own_colors_without_a_rim(soft):
  texture = soft.texture()
  assert np.abs(texture.atlas[texture.coverage > 0].astype(int) - OWN).max() <= 8  # the wall differs by 140 and more
  beside = (texture.key_masks > 0) & (texture.key_masks < 255)
  assert beside.any() and np.abs(texture.key_frames[beside].astype(int) - OWN).max() <= 30


def test_soft_masks_leave_no_holes_in_the_room_and_the_body(soft):
  texture = soft.texture()
  assert set(np.unique(texture.plate_coverage)) == {GUESSED, SEEN}
  assert np.abs(texture.plate.astype(int) - WALL).max() <= 2
  assert (texture.coverage[1:] > 0).all() and not texture.coverage[0].any()


def test_a_block_of_a_film_with_soft_masks_sees_nothing_of_itself(soft):
  hidden = {i for i, block in enumerate(soft.blocks.of_frame) if abs(block - 0) <= 1}
  other = gather(changed(soft_film(), hidden, lambda frame: 255 - frame).__getitem__, soft.blocks, CHARTS)
  assert same(soft.texture(0), other.texture(0)) and len(soft.key_frames(0))
