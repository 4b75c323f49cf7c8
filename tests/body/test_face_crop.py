"""Face crops: alignment, cropping and pasting."""

import cv2
import numpy as np

from anchor_jax.body import face_crop


def test_an_exact_similarity_is_found():
  points = face_crop.face_template(64)
  angle, scale, shift = 0.3, 1.7, np.array([5.0, -2.0])
  turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
  found = face_crop.similarity(points, points @ turn.T + shift)
  np.testing.assert_allclose(found, np.c_[turn, shift], atol=1e-9)


def test_the_similarity_is_the_least_squares_fit():
  rng = np.random.default_rng(1)
  source, target = rng.normal(size=(5, 2)), rng.normal(size=(5, 2))
  best = face_crop.similarity(source, target)

  def loss(m):
    return np.square(source @ m[:, :2].T + m[:, 2] - target).sum()

  for direction in ([[1, 0, 0], [0, 1, 0]], [[0, -1, 0], [1, 0, 0]], [[0, 0, 1], [0, 0, 0]], [[0, 0, 0], [0, 0, 1]]):
    for step in (-1e-3, 1e-3):
      assert loss(best + step * np.array(direction)) > loss(best)


def test_the_crop_aligns_with_the_template_at_any_size():
  image = np.zeros((96, 96, 3), np.uint8)
  landmarks = face_crop.face_template(50) + [20.3, 22.6]
  for x, y in landmarks:  # soft dots with sub-pixel centers
    yy, xx = np.indices((96, 96)) + 0.5
    image[..., 1] = np.maximum(image[..., 1], 255 * np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / 4)).astype(np.uint8)
  for size in (32, 64, 128):
    crop = face_crop.crop_image(image, face_crop.face_transform(landmarks, size), size)[..., 1].astype(float)
    for x, y in face_crop.face_template(size):
      yy, xx = np.indices(crop.shape) + 0.5
      near = crop * ((xx - x) ** 2 + (yy - y) ** 2 < (size / 10) ** 2)
      center = np.array([(near * xx).sum(), (near * yy).sum()]) / near.sum()
      np.testing.assert_allclose(center, [x, y], atol=0.02 * size)


def _picture(size=128):
  y, x = np.indices((size, size))
  return np.stack([x, y, (x + y) // 2], axis=-1).astype(np.uint8)


def _face(size=128):
  landmarks = (face_crop.face_template(40) + [44.0, 30.0]).astype(np.float32)
  mask = np.zeros((size, size), np.uint8)
  cv2.circle(mask, tuple(int(v) for v in landmarks.mean(0)), 16, 255, -1)
  return landmarks, mask


def test_pasting_an_unchanged_crop_changes_nothing_and_paint_stays_inside_the_mask():
  image = _picture()
  landmarks, mask = _face()
  transform = face_crop.face_transform(landmarks, 64)
  crop, keep = face_crop.crop_image(image, transform, 64), face_crop.keep_mask(mask, transform, 64)
  assert set(np.unique(keep)) == {0, 255}
  assert np.abs(face_crop.paste_face(image, crop, transform, keep).astype(int) - image).max() <= 2
  painted = face_crop.paste_face(image, np.full_like(crop, 250), transform, keep)
  changed = (painted != image).any(axis=-1)
  assert changed.any() and not (changed & (cv2.dilate(mask, np.ones((5, 5), np.uint8)) == 0)).any()
  center = landmarks.mean(0).astype(int)
  assert (painted[center[1], center[0]] > 240).all()


def test_crop_places_match_crop_image():
  y, x = np.mgrid[:50, :60]
  ramps = np.stack([4 * x, 5 * y, 0 * x], axis=-1).astype(np.uint8)
  for shift in (0.0, 18.0):  # the second crop reaches beyond the frame
    to_crop = face_crop.face_transform(face_crop.face_template(24) @ [[0.9, 0.3], [-0.3, 0.9]] + [20 + shift, 12], 32)
    places = face_crop.crop_places(to_crop, 32, (50, 60))
    assert places.min() >= 0 and (places.max(axis=(0, 1)) <= [59 * 16, 49 * 16]).all()
    read = face_crop.crop_image(ramps, to_crop, 32, extend=True)[..., :2] / [4, 5]
    assert np.abs(places / 16 - read).max() < 0.3
