import dataclasses
import hashlib
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from anchor_jax import studio
from anchor_jax.body.solids import RoundCone
from anchor_jax.core.errors import UserError
from anchor_jax.studio.drawing.body import HAND, build_scene
from anchor_jax.studio.drawing.face import paint_face
from anchor_jax.studio.identity import HAIR_STYLES

SIZE = 64


def flat(picture):
  return b"".join(np.ascontiguousarray(getattr(picture, field.name)).tobytes() for field in dataclasses.fields(picture))


def digest(pictures):
  return hashlib.sha1(b"".join(flat(picture) for picture in pictures)).hexdigest()


@pytest.fixture(scope="module")
def people():
  """Twelve people at one instant each, as (seed, StudioFrame)."""
  return [(k, studio.render(studio.make_identity(k), studio.make_motion(k + 50), 1.7 * k, SIZE)) for k in range(12)]


def test_frames_have_the_documented_shapes_and_types(people):
  for _, picture in people:
    for name, shape in (
      ("frame", (SIZE, SIZE, 3)),
      ("pose", (SIZE, SIZE, 3)),
      ("person_mask", (SIZE, SIZE)),
      ("face_mask", (SIZE, SIZE)),
    ):
      array = getattr(picture, name)
      assert array.shape == shape and array.dtype == np.uint8
    assert picture.landmarks.shape == (5, 2) and picture.landmarks.dtype == np.float32
    assert set(np.unique(picture.person_mask)) == {0, 255} == set(np.unique(picture.face_mask))


def test_pictures_need_not_be_square(people):
  seed, square = people[3]
  identity, motion = studio.make_identity(seed), studio.make_motion(seed + 50)
  wide, tall = (studio.render(identity, motion, 1.7 * seed, size) for size in ((SIZE + 32, SIZE), (SIZE, SIZE + 32)))
  assert wide.frame.shape == (SIZE, SIZE + 32, 3) and tall.surface.shape == (SIZE + 32, SIZE, 3)
  # More room on both sides of the same person; places differ in the last bit of a float.
  assert (wide.person_mask[:, 16:-16] != square.person_mask).mean() < 0.002
  np.testing.assert_allclose(wide.landmarks, square.landmarks + (16, 0), atol=1e-3)
  assert (tall.person_mask > 0).mean() < (square.person_mask > 0).mean()  # more room above,
  eyes = [picture.landmarks[1, 0] - picture.landmarks[0, 0] for picture in (tall, square)]
  assert eyes[0] > 1.1 * eyes[1] and tall.person_mask[-1].any() and not tall.person_mask[0].any()  # and a larger person


def test_equal_seeds_give_equal_pixels_in_another_process(people):
  code = (
    "import sys; sys.path.insert(0, sys.argv[1]); import hashlib, dataclasses, numpy as np\n"
    "from anchor_jax import studio as s\n"
    "p = s.render(s.make_identity(3), s.make_motion(53), 1.7 * 3, 64)\n"
    "b = b''.join(np.ascontiguousarray(getattr(p, f.name)).tobytes() for f in dataclasses.fields(p))\n"
    "print(hashlib.sha1(b).hexdigest())"
  )
  root = studio.__file__.rsplit("/anchor_jax/", 1)[0]
  found = subprocess.run([sys.executable, "-c", code, root], capture_output=True, text=True, check=True).stdout.strip()
  assert found == digest([people[3][1]])


def test_identity_and_motion_are_independent():
  motion = studio.make_motion(5)
  one, other = studio.make_identity(1), studio.make_identity(2)
  a, b = (studio.render(person, motion, 2.0, SIZE) for person in (one, other))
  assert np.abs(a.frame.astype(int) - b.frame).mean() > 10  # they look different
  overlap = (a.pose.any(-1) & b.pose.any(-1)).sum() / (a.pose.any(-1) | b.pose.any(-1)).sum()
  assert overlap > 0.7  # and move the same way
  assert studio.make_identity(1) == one and studio.make_motion(5) == motion


def test_people_differ():
  identities = [studio.make_identity(k) for k in range(60)]
  assert {person.hair_style for person in identities} == set(HAIR_STYLES)
  assert (
    len({(person.outfit, person.pattern, person.room, person.hair_style, person.skin) for person in identities}) == 60
  )


def test_landmarks_and_masks_agree(people):
  for _, picture in people:
    # Fingers in front of the face may hide a point, so small gaps are closed.
    grown = cv2.morphologyEx(picture.face_mask, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    column, row = np.floor(picture.landmarks).astype(int).T
    assert grown[row, column].all()
    left, right, nose, mouth_left, mouth_right = picture.landmarks
    assert left[0] < right[0] and mouth_left[0] < mouth_right[0]
    assert max(left[1], right[1]) < nose[1] < min(mouth_left[1], mouth_right[1])
    person, face = picture.person_mask > 0, picture.face_mask > 0
    assert not (face & ~person).any() and not (face & ~picture.pose.any(-1)).any()
    assert 0.005 < face.mean() < 0.12 and 0.15 < person.mean() < 0.6
    # Clothes and hair only add to the body, up to half a pixel at the edge.
    body = cv2.erode(picture.pose.any(-1).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert (body & ~person).mean() < 0.002


def test_the_pose_render_does_not_depend_on_skin_color_or_hair(people):
  for _, picture in people:
    red, _, blue = picture.pose.reshape(-1, 3).astype(int).T
    lit = red > 60
    np.testing.assert_allclose(red[lit] / blue[lit], 0.80 / 0.90, atol=0.03)  # one material
  pale, dark = (
    dataclasses.replace(studio.make_identity(1), skin=(0.9, 0.7, 0.6)),
    dataclasses.replace(studio.make_identity(1), skin=(0.3, 0.2, 0.1)),
  )
  motion = studio.make_motion(1)
  np.testing.assert_array_equal(studio.render(pale, motion, 0, SIZE).pose, studio.render(dark, motion, 0, SIZE).pose)
  bald = dataclasses.replace(studio.make_identity(1), hair_style="bald")
  np.testing.assert_array_equal(studio.render(bald, motion, 0, SIZE).pose, studio.render(pale, motion, 0, SIZE).pose)


def test_the_pose_render_shows_an_open_mouth_and_a_blink():
  person, base = studio.make_identity(1), studio.make_motion(1).at(0.0)
  calm = dataclasses.replace(base, mouth=np.array([0.0, 0.0, 0.3]), blink=0.0)
  u, v = (
    grid.ravel().astype(np.float32) for grid in np.meshgrid(np.linspace(-0.7, 0.7, 80), np.linspace(-0.95, 0.6, 90))
  )
  shades = []
  for state in (calm, dataclasses.replace(calm, mouth=np.array([0.9, 0.0, 0.3])), dataclasses.replace(calm, blink=1.0)):
    paint = paint_face(person, state, u, v, 0.02)
    assert np.isfinite(paint.color).all() and np.isfinite(paint.slope).all()
    assert paint.pose_shade.min() >= 0 and paint.pose_shade.max() <= 1
    shades.append((paint.pose_shade, paint.eye))
  assert (shades[1][0] < 0.3).sum() > (shades[0][0] < 0.3).sum() + 50  # the dark inside of the mouth
  assert shades[0][1].sum() > 20 and shades[2][1].sum() < 0.1 * shades[0][1].sum()  # the eyeballs are covered
  assert build_scene(person, calm, 64).core


def test_motion_is_smooth_and_stateless():
  motion = studio.make_motion(9)
  step = 1 / 120
  times = 100 + np.arange(600) * step
  states = [motion.at(t) for t in times]
  for name, speed in (
    ("wrists", 6.0),
    ("fingers", 14.0),
    ("palms", 18.0),
    ("curls", 8.0),
    ("head", 4.0),
    ("torso", 1.5),
    ("shift", 0.5),
    ("mouth", 25.0),
    ("blink", 40.0),
    ("gaze", 25.0),
    ("brows", 6.0),
  ):
    values = np.array([np.atleast_1d(getattr(state, name)) for state in states])
    assert np.abs(np.diff(values, axis=0)).max() / step < speed, name
  np.testing.assert_array_equal(motion.at(times[400]).wrists, states[400].wrists)
  for name in ("fingers", "palms"):
    np.testing.assert_allclose(np.linalg.norm([getattr(state, name) for state in states], axis=-1), 1, atol=1e-6)


@pytest.mark.slow  # many poses of many people
def test_motion_is_aperiodic_and_varied():
  motion = studio.make_motion(4)
  wrists = np.array([motion.at(t).wrists.ravel() for t in np.arange(0, 200, 0.5)])
  wrists -= wrists.mean(0)
  energy = (wrists**2).sum(1).mean()
  for lag in range(4, 320, 3):  # two seconds and more
    assert (wrists[lag:] * wrists[:-lag]).sum(1).mean() < 0.5 * energy
  states = [motion.at(t) for t in np.arange(0, 80, 0.2)]
  assert 0.02 < np.mean([state.blink > 0.5 for state in states]) < 0.2
  assert np.ptp([state.mouth[0] for state in states]) > 0.6
  assert np.ptp([state.head[0] for state in states]) > 0.3
  assert np.ptp([state.curls for state in states]) > 0.9


@pytest.mark.slow  # many poses of many people
def test_hands_stay_in_the_picture_and_out_of_the_body():
  inside, hidden = [], []
  for seed in range(3):
    person, motion = studio.make_identity(seed), studio.make_motion(seed)
    for t in np.arange(0, 40, 0.5):
      scene = build_scene(person, motion.at(t), 100)
      tips = np.array([solid.end for solid, part in scene.core if part == HAND and isinstance(solid, RoundCone)])
      inside.append(((tips[:, :2] > 0) & (tips[:, :2] < 100)).all(1).mean())
      x, y, z = scene.torso.to_local(*tips.T)
      hidden.append(((np.abs(x) < 0.12) & (y < -0.02) & (z < 0.10)).mean())
      u, v, w = scene.head.to_local(*tips.T)
      hidden.append(((u / 0.7) ** 2 + v**2 + (w / 0.85) ** 2 < 1).mean())
  assert np.mean(inside) > 0.9 and np.mean(hidden) < 0.01


@pytest.mark.parametrize("size", [8, 37, 96])
def test_frames_of_other_sizes_show_the_same(size):
  picture = studio.render(studio.make_identity(6), studio.make_motion(6), 3.0, size)
  assert picture.frame.shape == (size, size, 3)
  large = studio.render(studio.make_identity(6), studio.make_motion(6), 3.0, 4 * size)
  np.testing.assert_allclose(large.landmarks / 4, picture.landmarks, atol=1e-3)
  if size > 8:
    small = cv2.resize(large.frame, (size, size), interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - picture.frame).mean() < 4


def test_render_clip_yields_in_order_with_any_number_of_processes():
  person, motion, times = studio.make_identity(2), studio.make_motion(3), np.arange(20) / 10
  alone = list(studio.render_clip(person, motion, times, 16, workers=1))
  shared = list(studio.render_clip(person, motion, times, 16, workers=2))
  assert len(alone) == len(shared) == 20
  assert digest(alone) == digest(shared)
  assert digest(alone[7:8]) == digest([studio.render(person, motion, 0.7, 16)])
  assert not list(studio.render_clip(person, motion, [], 16))


def test_rendering_takes_less_than_half_a_second():
  person, motion = studio.make_identity(2), studio.make_motion(3)
  studio.render(person, motion, 0, 128)
  start = time.process_time()  # not affected by other programs
  for k in range(5):
    studio.render(person, motion, k, 128)
  assert (time.process_time() - start) / 5 < 0.5  # about 0.02


def test_bad_seeds_and_sizes_are_refused():
  with pytest.raises(UserError, match="seed"):
    studio.make_identity(-1)
  with pytest.raises(UserError, match="seed"):
    studio.make_motion(-1)
  with pytest.raises(UserError, match="pixels"):
    studio.render(studio.make_identity(0), studio.make_motion(0), 0, 4)
