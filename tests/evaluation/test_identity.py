"""Identity: closed forms of distances over all pairs; real descriptors if the extra is installed."""

import importlib

import cv2
import numpy as np
import pytest

from anchor_jax.core.errors import UserError
from anchor_jax.evaluation import identity
from anchor_jax.studio.clips import render_clip
from anchor_jax.studio.identity import make_identity
from anchor_jax.studio.motion import make_motion


def spread(vectors):
  found = identity.Spread()
  for vector in vectors:
    found.add(vector)
    found.add(None)
  return found


def test_distances_agree_with_sums_over_all_pairs():
  rng = np.random.default_rng(0)
  true, generated = rng.normal(size=(7, 128)), rng.normal(0.3, 2, (5, 128))
  pairs = np.square(generated[:, None] - true).sum(axis=-1)
  assert spread(generated).distance(spread(true)) == pytest.approx(np.sqrt(pairs.mean()), rel=1e-12)
  own = np.square(true[:, None] - true).sum(axis=-1)[~np.eye(7, dtype=bool)]
  assert spread(true).own_distance() == pytest.approx(np.sqrt(own.mean()), rel=1e-12)
  assert spread(generated).count == 5


def test_detector_square_is_centered_on_the_face():
  mask = np.zeros((64, 64, 1), np.uint8)
  assert identity.face_square(mask) is None
  mask[10:30, 40:50] = 255
  place = identity.face_square(mask)
  corners = np.array([(39.5, 9.5, 1), (49.5, 29.5, 1), (44.5, 19.5, 1)]) @ place.T + 0.5
  np.testing.assert_allclose(corners, [(136, 96), (216, 256), (176, 176)])  # of 352 pixels; the face is 160 high


def test_missing_models_give_a_one_line_error(monkeypatch):
  def missing(name):
    raise ImportError(name)

  monkeypatch.setattr(importlib, "import_module", missing)
  with pytest.raises(UserError, match=r"anchor-jax\[identity\]"):
    identity.IdentityMeasure()


@pytest.mark.identity
def test_different_people_are_further_apart_than_one_person():
  """Two studio people: one's frames are closer to each other than to the other's; blank pictures have no face."""

  def frames(person):
    return list(render_clip(make_identity(person), make_motion(5), np.arange(6) / 3, 128, workers=1))

  ana, ben = frames(11), frames(12)
  measure = identity.IdentityMeasure()
  for one, other in zip(ana, ben):
    shift = np.float32([[1, 0, 0], [0, 1, 0]])
    shift[:, 2] = one.landmarks.mean(axis=0) - other.landmarks.mean(axis=0)
    moved = cv2.warpAffine(other.frame, shift, (128, 128), borderMode=cv2.BORDER_REPLICATE)
    images = {"same": one.frame, "other": moved, "nobody": np.zeros_like(moved)}
    measure.add(images, {"frame": one.frame, "face_mask": one.face_mask[..., None]})
  found, facts = measure.figures(), measure.details()
  assert facts["found"]["truth"] == facts["found"]["same"] == facts["frames"] == 6
  assert facts["found"]["nobody"] == 0 and "nobody" not in found
  assert found["same"] <= facts["of_truth"] < found["other"]
