"""Clothes that slide over the body: stored, drawn into surface maps, and found again in a film."""

import dataclasses
import json

import cv2
import numpy as np
import pytest

from anchor_jax.body.charts import CHARTS, chart
from anchor_jax.body.cloth import GROUPS, cells_of, moved_surface, shift_cloth, shift_field
from anchor_jax.body.pose import PoseRenderer
from anchor_jax.landmarks.framing import CropRect
from anchor_jax.landmarks.proportions.cloth import CELLS, FEATURES, ClothShift, pose_features
from anchor_jax.landmarks.proportions.measures import BodyMeasures, measure
from anchor_jax.texture.gather import FilmFrame
from anchor_jax.texture.registration.fit import fit_cloth
from anchor_jax.texture.registration.flow import HEIGHT
from anchor_jax.texture.texels import TEXELS

FRAMES, SQUARE = 48, CropRect.square(0, 0, HEIGHT, HEIGHT)
ELBOW = 0  # number of the feature that moves the shirt: the left elbow, across


def cloth_of(weight):
  """A shirt that follows the left elbow: all cells of the front by `weight` times how far it is from its mean."""
  front = [chart("chest"), chart("belly"), chart("hips")]
  cells = np.concatenate([number * CELLS**2 + np.arange(CELLS**2) for number in front])
  shifts = np.zeros((len(cells), 2, 1), np.float32)
  shifts[:, 0], shifts[:, 1] = 1.0, -0.5
  pattern = np.zeros((1, FEATURES + 1), np.float32)
  pattern[0, 1 + ELBOW] = weight
  zero, one = np.zeros(FEATURES, np.float32), np.ones(FEATURES, np.float32)
  return ClothShift(zero + np.float32(0.62), one, -3 * one, 3 * one, pattern, cells, shifts, 0.5)  # the elbow's mean


@pytest.fixture(scope="module")
def renderer(standing_track):
  """A person who swings the left arm away from the body, and leans a little."""
  track = standing_track(FRAMES, (HEIGHT, HEIGHT))
  body, hands = track.body.copy(), track.hands.copy()
  for number in range(FRAMES):
    out = np.float32([12 * np.sin(number / 4), -6 * np.cos(number / 7), 0])
    body[number, 13] += out
    body[number, [15, 17, 19]] += 2 * out
    hands[number, 0] += 2 * out
    body[number, :11, 0] += np.cos(number / 5)
  return PoseRenderer(dataclasses.replace(track, body=body, hands=hands), SQUARE)


def film_of(renderer, cloth, shoulders, noise=None):
  """Frames of a person in a printed shirt, with the surface maps of the solids, which do not know how it slides."""
  rng = np.random.default_rng(5)
  atlas = cv2.GaussianBlur(rng.normal(size=(len(CHARTS) * TEXELS, TEXELS, 3)), (0, 0), 4)
  atlas = np.clip(128 + 90 * atlas / atlas.std(), 0, 255).reshape(len(CHARTS), TEXELS, TEXELS, 3)
  frames = []
  for number in range(FRAMES):
    surface = renderer.render(number).surface
    features = renderer.features(number) if noise is None else noise[number]
    number, u, v = np.moveaxis(shift_cloth(surface, cloth, features, shoulders).astype(int), -1, 0)
    picture = np.where(number[..., None] > 0, atlas[number, v * TEXELS // 256, u * TEXELS // 256], 90)
    mask = np.where(surface[..., 0] > 0, 255, 0).astype(np.uint8)
    frames.append(FilmFrame(picture.astype(np.uint8), surface, mask, np.full((5, 2), np.nan, np.float32)))
  return frames


def test_a_film_shows_how_the_shirt_follows_the_arm(renderer):
  shoulders, true = renderer.unit * 0.36, cloth_of(0.25)
  frames, features = film_of(renderer, true, shoulders), np.stack([renderer.features(i) for i in range(FRAMES)])
  found = fit_cloth(frames, features, np.full(FRAMES, shoulders))
  assert found is not None and found.explained > 0.8
  wanted = np.stack([true.of_pose(f) for f in features]) * shoulders
  got = np.stack([found.of_pose(f) for f in features]) * shoulders
  pixels = np.stack([np.bincount(cells_of(f.surface).ravel(), minlength=len(wanted[0])) for f in frames])
  cells = np.intersect1d(np.flatnonzero(np.median(pixels, axis=0) > 4), true.cells)
  # The picture in which nothing has moved is anywhere: what counts is how cells move from frame to frame.
  wanted, got = (table[:, cells] - table[:, cells].mean(axis=0) for table in (wanted, got))
  moved, left = np.square(wanted).mean(), np.square(got - wanted).mean()
  assert moved > 0.5 and left < 0.35 * moved, (moved, left, found.explained)


def test_what_the_pose_does_not_explain_is_left_alone(renderer):
  shoulders, rng = renderer.unit * 0.36, np.random.default_rng(3)
  noise = rng.normal(size=(FRAMES, FEATURES)).astype(np.float32)
  frames = film_of(renderer, cloth_of(0.1), shoulders, noise)
  features = np.stack([renderer.features(i) for i in range(FRAMES)])
  assert fit_cloth(frames, features, np.full(FRAMES, shoulders)) is None
  assert fit_cloth(frames[:8], features[:8], np.full(8, shoulders)) is None
  assert fit_cloth(frames, features, np.full(FRAMES, 1.0)) is None  # a person of a few pixels


def test_shirts_slide_under_arms_and_outlines_stay(renderer):
  surface, features = renderer.render(5).surface, renderer.features(5)
  cloth = dataclasses.replace(cloth_of(0.0), patterns=np.float32([[0.1, *[0] * FEATURES]]))
  moved = shift_cloth(surface, cloth, features, 40.0)
  np.testing.assert_array_equal(GROUPS[moved[..., 0]], GROUPS[surface[..., 0]])
  np.testing.assert_array_equal(moved[..., 0] > 0, surface[..., 0] > 0)
  still = GROUPS[surface[..., 0]] != 1
  np.testing.assert_array_equal(moved[still], surface[still])
  assert (moved != surface).any(axis=-1)[~still].mean() > 0.5
  inside = surface[64, :, 0] == chart("chest")
  inside &= np.roll(inside, 4) & np.roll(inside, -4)
  middle = np.flatnonzero(inside)[len(np.flatnonzero(inside)) // 2]
  np.testing.assert_array_equal(moved[64, middle], surface[66, middle - 4])  # 4 to the right, 2 up


def test_shifts_are_the_same_at_every_size(renderer):
  table = cloth_of(0.2).of_pose(renderer.features(9)) * 40
  surface = renderer.render(9).surface
  large = surface.repeat(2, axis=0).repeat(2, axis=1)
  small, twice = shift_field(surface, table), shift_field(large, 2 * table)
  torso = (GROUPS[surface[..., 0]] == 1).astype(np.uint8)
  inside = cv2.erode(torso, np.ones((5, 5), np.uint8)) > 0  # at an edge, half a pixel of the coarse map counts
  np.testing.assert_allclose(twice[::2, ::2][inside], 2 * small[inside], atol=0.5)
  half = shift_field(surface[::2, ::2], table / 2)
  np.testing.assert_allclose(half[inside[::2, ::2]], small[::2, ::2][inside[::2, ::2]] / 2, atol=0.25)
  far = shift_field(surface, 1000 * table)
  assert 5.9 < np.linalg.norm(far, axis=-1).max() < 6.1  # nothing moves farther
  np.testing.assert_array_equal(moved_surface(surface, np.zeros_like(small)), surface)


def test_shifts_belong_to_the_measures_and_survive_a_file(renderer, standing_track):
  cloth = ClothShift.from_json(json.loads(json.dumps(cloth_of(0.3).to_json())))
  assert cloth.to_json() == cloth_of(0.3).to_json()
  body = dataclasses.replace(measure(standing_track(2, (64, 64)), CropRect.square(0, 0, 64, 64)), cloth=cloth)
  read = BodyMeasures.from_json(json.loads(json.dumps(body.to_json())))
  assert read.cloth is not None and read.cloth.to_json() == cloth.to_json()
  older = {name: value for name, value in body.to_json().items() if name != "cloth"}
  assert BodyMeasures.from_json(older).cloth is None
  features = renderer.features(3)
  outside = features + np.float32(100)
  np.testing.assert_array_equal(cloth.of_pose(outside), cloth.of_pose(features * 0 + 4))  # as at the edge of the range


@pytest.mark.parametrize(
  ("name", "value"),
  [
    ("mean", [0.0]),
    ("mean", ["1"] * FEATURES),
    ("scale", [1e-60] * FEATURES),
    ("low", [5.0] * FEATURES),
    ("patterns", [[1e300] * (FEATURES + 1)]),
    ("patterns", [[0.0] * (FEATURES + 1)] * 9),
    ("cells", [1.7]),
    ("cells", [-1]),
    ("shifts", [[1e5, 0]]),
    ("shifts", [[0]]),
    ("explained", float("nan")),
    ("explained", "0.5"),
  ],
)
def test_damaged_shifts_are_refused(name, value):
  one = cloth_of(0.3)
  values = dataclasses.replace(one, cells=one.cells[:1], shifts=one.shifts[:1]).to_json()
  assert ClothShift.from_json(values).cells.tolist() == [chart("chest") * CELLS**2]
  with pytest.raises(ValueError, match="cloth shift"):
    ClothShift.from_json(values | {name: value})


def test_cells_are_named_once():
  values = cloth_of(0.3).to_json()
  with pytest.raises(ValueError, match="cloth shift"):
    ClothShift.from_json(values | {"cells": values["cells"][:1] * len(values["cells"])})


def test_features_do_not_depend_on_the_size_or_place_of_the_person(standing_track):
  body = standing_track(1, (64, 64)).body
  np.testing.assert_allclose(pose_features(body * 3 + 7, 30.0), pose_features(body, 10.0), atol=1e-4)
