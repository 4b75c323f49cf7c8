"""Pasting faces in batches agrees with single frames to one gray level; frames without a face stay untouched."""

import cv2
import numpy as np
import pytest

from anchor_jax.body import face_crop
from anchor_jax.inference.animate import _pasted
from anchor_jax.inference.paste import paste_faces


def batch(size, crop_size, shares):
  """Frames with a rotated, shifted face that fills these shares of their width, and noisy repainted crops."""
  rng = np.random.default_rng(size)
  frames = rng.integers(0, 256, (len(shares), size, size, 3), dtype=np.uint8)
  crops = rng.integers(0, 256, (len(shares), crop_size, crop_size, 3), dtype=np.uint8)
  transforms, keeps = [], []
  for number, share in enumerate(shares):
    mask = np.zeros((size, size), np.uint8)
    center = np.array([0.5, 0.55]) * size + rng.normal(0, 0.05 * size, 2)
    cv2.ellipse(
      mask, center.round().astype(int).tolist(), [int(0.4 * share * size), int(0.5 * share * size)], 5, 0, 360, 255, -1
    )
    turn = np.deg2rad(10 * number - 10)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = (face_crop.TEMPLATE_512 / 512 - 0.55) @ matrix.T * share * size * 1.3 + center
    transforms.append(face_crop.face_transform(points, crop_size))
    keeps.append(face_crop.keep_mask(mask, transforms[-1], crop_size))
  return frames, crops, np.stack(transforms), np.stack(keeps)


@pytest.mark.parametrize("size,crop_size,shares", [(96, 64, (0.5, 0.9, 0.3)), (64, 128, (0.3, 0.8, 0.5))])
def test_batches_equal_single_frames(size, crop_size, shares):
  arrays = batch(size, crop_size, shares)
  found = np.asarray(paste_faces(*arrays))
  expected = np.stack([face_crop.paste_face(*one) for one in zip(*arrays)])
  assert np.abs(found.astype(int) - expected).max() <= 1
  assert (expected != arrays[0]).mean() > 0.02


def test_frame_without_a_face_is_untouched():
  frames, crops, transforms, keeps = batch(96, 64, (0.5, 0.9, 0.3))
  keeps[0] = 255  # nothing to repaint
  transforms[1] = np.nan  # no landmarks
  found = np.asarray(paste_faces(frames, crops, transforms, keeps))
  np.testing.assert_array_equal(found[:2], frames[:2])
  np.testing.assert_array_equal(face_crop.paste_face(frames[0], crops[0], transforms[0], keeps[0]), frames[0])
  assert (found[2] != frames[2]).any()


def test_single_frames_and_batches_keep_the_order():
  frames, crops, transforms, keeps = batch(96, 64, (0.5, 0.9, 0.3, 0.6, 0.4))
  faces = list(zip(crops, zip(frames, transforms, keeps)))
  one, many = (list(_pasted(faces, at_once)) for at_once in (1, 3))
  assert len(one) == len(many) == 5
  for (alone, before), (together, also_before), frame in zip(one, many, frames):
    np.testing.assert_array_equal(before, frame)
    np.testing.assert_array_equal(also_before, frame)
    assert np.abs(alone.astype(int) - together).max() <= 1 and (alone != frame).any()
