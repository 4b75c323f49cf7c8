"""The Fréchet distance: closed forms of Gaussians, and sums that do not depend on how vectors come in."""

import numpy as np
import pytest

from anchor_jax.evaluation.frechet import Moments, frechet_distance


def moments(vectors, *cuts):
  found = Moments(vectors.shape[1])
  for part in np.split(vectors, cuts):
    found.add(part)
  return found


def gaussian(mean, covariance):
  """Vectors with exactly this mean and covariance: rows of a root, and their opposites."""
  values, vectors = np.linalg.eigh(np.asarray(covariance, float) * (2 * len(mean) - 1) / 2)
  root = (vectors * np.sqrt(values)).T
  return np.concatenate([root, -root]) + mean


def test_moments_are_those_of_all_vectors_together():
  vectors = np.random.default_rng(0).normal(1e4, [1, 2, 3], (37, 3))  # far from 0, where sums of squares lose digits
  found = moments(vectors, 1, 5, 5, 30)
  assert found.count == 37
  np.testing.assert_allclose(found.mean, vectors.mean(axis=0), rtol=1e-12)
  np.testing.assert_allclose(found.covariance, np.cov(vectors, rowvar=False), rtol=1e-9)


def test_distance_of_gaussians_along_the_axes():
  # |m - n|^2 + sum of (a - b)^2 for deviations a and b
  one, other = gaussian([1, 2, 3], np.diag([1, 4, 9])), gaussian([1, 0, 3.5], np.diag([25, 4, 0]))
  wanted = 2**2 + 0.5**2 + (1 - 5) ** 2 + (2 - 2) ** 2 + (3 - 0) ** 2
  assert frechet_distance(moments(one, 2), moments(other, 3)) == pytest.approx(wanted, rel=1e-9)
  assert frechet_distance(moments(one), moments(one, 1)) == pytest.approx(0, abs=1e-9)


def test_distance_of_turned_gaussians():
  a, b = np.array([[2.0, 0.6], [0.6, 1.0]]), np.array([[1.0, -0.5], [-0.5, 3.0]])
  # In two dimensions tr(AB)^1/2 = sqrt(tr(AB) + 2 sqrt(det A det B)).
  common = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a) * np.linalg.det(b)))
  found = frechet_distance(moments(gaussian([0, 0], a)), moments(gaussian([0, 3], b)))
  assert found == pytest.approx(9 + np.trace(a) + np.trace(b) - 2 * common, rel=1e-9)


def test_few_vectors_of_many_dimensions():
  """Singular covariances: the distance is that in the plane in which all vectors lie."""
  rng = np.random.default_rng(1)
  flat = [rng.normal(size=(5, 2)) * scale for scale in (1, 3)]
  plane = np.linalg.qr(rng.normal(size=(40, 2)))[0].T
  wide = frechet_distance(*(moments(part @ plane) for part in flat))
  assert wide == pytest.approx(frechet_distance(*map(moments, flat)), rel=1e-5)
