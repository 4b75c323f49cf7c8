"""The studio's surface maps: a point on the skin has the same coordinates in every pose."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from anchor_jax import studio
from anchor_jax.body.charts import CHARTS, chart, face_mask, hands_mask
from anchor_jax.body.face_crop import crop_places, face_transform
from anchor_jax.body.rasterize import draw, empty_surface
from anchor_jax.body.skins import surface_map, surface_points
from anchor_jax.body.solids import Loft
from anchor_jax.landmarks.framing import CropRect
from anchor_jax.studio.camera import FLIP, turn
from anchor_jax.studio.drawing import body
from anchor_jax.texture.look_up.plain import crop_surface

SIZE = 224
TEXEL = 4  # of 256 levels: the atlas has 64 x 64 texels per chart


def unit(vector):
  return vector / np.linalg.norm(vector)


def on_loft(loft, across, height):
  """The point on the front of a loft at local x and y, in pixels."""
  tables = np.linspace(loft.low, loft.high, len(loft.width))
  width, depth, middle = (np.interp(height, tables, table) for table in (loft.width, loft.depth, loft.center))
  deep = middle + depth * np.sqrt(1 - (across / width) ** 2)
  return np.asarray(loft.origin) + loft.rotation @ (across, height, deep)


def painted_dots(person, state, scene):
  """Points on a person's skin, from the coordinate frames and joints of the scene: {name: (solid, pixels)}."""
  torso = next(solid for solid, part in scene.nude if part == body.TORSO and isinstance(solid, Loft))
  face = next(solid for solid, part in scene.core if part == body.FACE)
  trunk, head = scene.torso.unit, scene.head.unit
  dots = {
    "chest": (torso, on_loft(torso, 0.06 * trunk, -0.12 * trunk)),
    "cheek": (face, on_loft(face, -0.4 * head, -0.3 * head)),
  }
  arms = [solid for solid, part in scene.nude if part == body.ARM]
  hands = [solid for solid, part in scene.core if part == body.HAND]
  for side, (upper, fore) in enumerate((arms[:2], arms[2:])):
    shoulder, elbow, wrist = (np.array(joint) for joint in (upper.start, upper.end, fore.end))
    along, bend = unit(elbow - shoulder), unit(np.cross(elbow - shoulder, wrist - elbow))
    for name, angle in (("arm in front", -40), ("arm outside", 170)):
      outward = bend * np.cos(np.radians(angle)) + np.cross(along, bend) * np.sin(np.radians(angle))
      dots[f"{name}, {side}"] = upper, (shoulder + elbow) / 2 + outward * (upper.radius_start + upper.radius_end) / 2
    # The bones of the index finger bend in the plane of the first bone and the palm's normal.
    arm = body._arm(person, state, side, turn(*state.torso), np.zeros(3))
    cones = body._hand(side, arm, state.curls[side], float(state.spread[side]), person.hand, None)
    first, last = (unit(FLIP @ (cones[number][1] - cones[number][0])) for number in (1, 3))
    tip = hands[side * len(hands) // 2 + 4]
    for name, sign in (("pad", 1), ("nail", -1)):
      outward = np.cross(np.cross(first, FLIP @ arm.palm), last)
      axis = unit(np.subtract(tip.end, tip.start))
      outward = sign * unit(outward - axis * (axis @ outward))
      dots[f"{name}, {side}"] = tip, np.array(tip.end) + outward * tip.radius_end
  return dots


def around(value, base):
  """Differences of u on the circle, -128 to 127."""
  return (np.asarray(value, int) - int(base) + 128) % 256 - 128


@pytest.fixture(scope="module")
def seen_dots():
  """For each dot, over 100 frames: its coordinates, its place, the surface map around it, and whether it is visible."""
  person, motion = studio.make_identity(1), studio.make_motion(4)
  found = {}
  for number in range(100):
    state = motion.at(number * 0.23)
    scene = body.build_scene(person, state, SIZE)
    solids = [solid for solid, _ in scene.core + scene.nude]
    surface = draw(empty_surface(SIZE, 2), solids)
    picture = surface_map(surface, solids)
    for name, (solid, place) in painted_dots(person, state, scene).items():
      index = next(k for k, other in enumerate(solids) if other is solid)
      own = surface_points(solids, np.array([index]), *place[:, None], np.zeros(1))[0]
      column, row = np.floor(place[:2]).astype(int)
      pixel = (2 * row + 1, 2 * column + 1)
      inside = min(row, column) >= 2 and max(row, column) < SIZE - 2
      # Where solids are blended, a dot on one of them may be more than a pixel below the surface.
      visible = inside and surface.index[pixel] == index and surface.depth[pixel] < place[2] + 1
      visible = visible and surface.normal[(2, *pixel)] > 0.5
      found.setdefault(name, []).append((own, place, picture[row - 1 : row + 2, column - 1 : column + 2], visible))
  return found


def read_at(patch, place):
  """(u, v) at a place in the center of 3 x 3 pixels, by a plane fit on its chart; and the largest step per pixel."""
  middle = patch[1, 1].astype(int)
  row, column = np.nonzero(patch[..., 0] == middle[0])
  u, v = around(patch[row, column, 1], middle[1]), patch[row, column, 2].astype(int) - middle[2]
  x, y = (numbers - 1 + 0.75 - offset for numbers, offset in ((column, place[0] % 1), (row, place[1] % 1)))
  plane = np.linalg.lstsq(np.stack([np.ones(len(x)), x, y], axis=1), np.stack([u, v], axis=1), rcond=None)[0]
  return middle[1:] + plane[0], np.abs(plane[1:]).max()


def test_a_dot_on_the_skin_has_constant_coordinates(seen_dots):
  names = {"chest": "chest", "cheek": "face", "arm": "upper_arm", "pad": "index", "nail": "index"}
  for name, frames in seen_dots.items():
    side = {"0": "right", "1": "left"}.get(name[-1])  # the person's right is on the picture's left
    number = chart(names[name.split()[0].strip(",")], side)
    own = np.array([frame[0] for frame in frames])
    assert set(own[:, 0]) == {number}, name
    assert np.ptp(around(own[:, 1], own[0, 1])) <= TEXEL and np.ptp(own[:, 2].astype(int)) <= TEXEL, name


def test_the_surface_map_has_the_dots_coordinates_at_its_pixel(seen_dots):
  for name, frames in seen_dots.items():
    if name.startswith("nail"):
      continue  # a few pixels, partly hidden by other fingers
    visible_dots = [(own, place, patch) for own, place, patch, visible in frames if visible]
    assert len(visible_dots) >= 4, name
    for own, place, patch in visible_dots:
      assert patch[1, 1, 0] == own[0], name
      (u, v), _ = read_at(patch, place)
      assert abs((u - frames[0][0][1] + 128) % 256 - 128) <= TEXEL and abs(v - frames[0][0][2]) <= TEXEL, name


@pytest.fixture(scope="module")
def dotted():
  """Frames of a person in a dotted hoodie."""
  person, motion = studio.make_identity(1_000_003), studio.make_motion(1_000_003)
  return [studio.render(person, motion, 0.61 * number, 128) for number in range(24)]


def test_palms_and_backs_of_both_hands_have_separate_charts():
  person = studio.make_identity(2)
  rest = studio.make_motion(3).at(0.0)
  straight = np.array([[0.0, 1.0, 0.0]] * 2)
  maps = {}
  for name, forward in (("palm", 1.0), ("hand_back", -1.0)):
    state = dataclasses.replace(
      rest, wrists=np.array([[0.6, -0.1, 0.45]] * 2), fingers=straight, palms=np.array([[0.0, 0.0, forward]] * 2),
      curls=np.zeros((2, 5)), torso=np.zeros(3),
    )  # fmt: skip
    scene = body.build_scene(person, state, 128)
    solids = [solid for solid, _ in scene.core + scene.nude]
    maps[name] = surface_map(draw(empty_surface(128, 2), solids), solids)
  for name, other in (("palm", "hand_back"), ("hand_back", "palm")):
    picture = maps[name][..., 0]
    for side, half in (("right", np.s_[:, :64]), ("left", np.s_[:, 64:])):
      many, few = (np.sum(picture == chart(part, side)) for part in (name, other))
      assert many > 40 and few < 0.1 * many
      assert np.sum(picture[half] == chart(name, side)) == many
      for finger in ("thumb", "index", "middle", "ring", "little"):
        assert np.sum(picture[half] == chart(finger, side)) == np.sum(picture == chart(finger, side)) > 8


def test_lips_lids_and_mouth_have_separate_charts():
  person, rest = studio.make_identity(1), studio.make_motion(1).at(0.0)
  rows = {}
  for name, opening, blink in (("calm", 0.0, 0.0), ("open", 1.0, 0.0), ("blink", 0.0, 1.0)):
    state = dataclasses.replace(
      rest, mouth=np.array([opening, 0.0, 0.3]), blink=blink, wrists=np.array([[0.3, -0.9, 0.2]] * 2)
    )
    scene = body.build_scene(person, state, SIZE)
    solids = [solid for solid, _ in scene.core]
    rows[name] = surface_map(draw(empty_surface(SIZE, 2), solids), solids)
  count = lambda name, part, side=None: int((rows[name][..., 0] == chart(part, side)).sum())
  place = lambda name, part: np.nonzero(rows[name][..., 0] == chart(part))[0].mean()
  assert count("calm", "mouth") == 0 and count("open", "mouth") > 30
  assert place("calm", "upper_lip") < place("calm", "lower_lip") < place("open", "lower_lip") - 2
  assert place("open", "upper_lip") < place("open", "mouth") < place("open", "lower_lip")
  for side in ("left", "right"):
    assert count("calm", "eye", side) > 10 and count("blink", "eye", side) == 0
    assert count("blink", "upper_lid", side) > 1.5 * count("calm", "upper_lid", side)
    assert count("calm", "lower_lid", side) > 5


def test_photographed_skin_and_cloth_stay_on_their_texels():
  person, motion = studio.make_identity(1), studio.make_motion(2)
  texels, colors = [], []
  for number in range(24):
    picture = studio.render(person, motion, number * 0.37, 96)
    on = (picture.surface[..., 0] > 0) & (picture.person_mask > 0)
    number, u, v = picture.surface[on].astype(int).T
    texels.append(number * 4096 + u // TEXEL * 64 + v // TEXEL)
    colors.append(picture.frame[on].astype(float))
  texels, colors = np.concatenate(texels), np.concatenate(colors)
  _, texel, count = np.unique(texels, return_inverse=True, return_counts=True)
  mean = np.stack([np.bincount(texel, color) / count for color in colors.T], axis=1)
  often = count[texel] > 5
  within, all_over = ((np.square(colors - base).sum(1)[often]).mean() for base in (mean[texel], colors.mean(0)))
  assert often.mean() > 0.5
  assert np.sqrt(within) < 0.35 * np.sqrt(all_over)


@pytest.mark.parametrize(("name", "most"), [("upper_arm", 0.35), ("forearm", 0.45)])
def test_the_pattern_of_a_sleeve_turns_with_the_arm(dotted, name, most):
  spread, colors = 0.0, []
  for side in ("left", "right"):
    cells, seen = [], []
    for picture in dotted:
      on = picture.surface[..., 0] == chart(name, side)
      u, v = picture.surface[on][:, 1:].astype(int).T // 8
      color = picture.frame[on].astype(float)
      cells.append(32 * u + v)
      seen.append(color / (color.sum(axis=1, keepdims=True) + 1))  # without light and shadow
    _, cell, count = np.unique(np.concatenate(cells), return_inverse=True, return_counts=True)
    seen = np.concatenate(seen)
    mean = np.stack([np.bincount(cell, values) / count for values in seen.T], axis=1)
    spread += np.square(seen - mean[cell]).sum()
    colors.append(seen)
  colors = np.concatenate(colors)
  # A pattern that faces the camera gives 0.65 and 0.57.
  assert spread / np.square(colors - colors.mean(axis=0)).sum() < most


def test_crops_and_sizes_never_mix_charts():
  picture = studio.render(studio.make_identity(5), studio.make_motion(5), 1.0, 96)
  values = {tuple(value) for value in picture.surface.reshape(-1, 3)}
  places = crop_places(face_transform(picture.landmarks, 64), 64, (96, 96))
  head = np.asarray(crop_surface(jnp.asarray(picture.surface), jnp.asarray(places)))
  for other in (head, *(CropRect.square(10, 5, 80, size).surface(picture.surface) for size in (32, 80, 113))):
    assert other.dtype == np.uint8 and {tuple(value) for value in other.reshape(-1, 3)} <= values | {(0, 0, 0)}
  np.testing.assert_array_equal(CropRect.square(10, 5, 80, 80).surface(picture.surface), picture.surface[5:85, 10:90])
  assert face_mask(head)[32, 32] == 255  # the center of the crop


def test_masks_of_hands_and_face_match_the_render():
  picture = studio.render(studio.make_identity(1), studio.make_motion(4), 0.3, 128)
  hands, face = hands_mask(picture.surface), face_mask(picture.surface)
  assert set(np.unique(hands)) == {0, 255} == set(np.unique(face))
  assert not (hands & face).any() and (hands > 0).sum() > 100
  assert ((face > 0) & (picture.face_mask > 0)).sum() > 0.95 * (picture.face_mask > 0).sum()
  lit = picture.pose.any(axis=-1)
  assert not (picture.surface[~lit].any()) and (picture.surface[lit][:, 0] > 0).mean() > 0.93
  assert len(CHARTS) <= 64 and len({one.name for one in CHARTS}) == len(CHARTS)
