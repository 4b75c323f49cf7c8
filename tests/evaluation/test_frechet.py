"""The Fréchet distance: closed forms of Gaussians, and moments that do not depend on the batches.

Processors add in different orders, so results agree only to a few roundings of the largest term of a sum, however small
the sum is: tolerances are `EPSILON` times that term, times the length of the chain of additions (rounded up).
"""

import numpy as np
import pytest

from anchor_jax.evaluation.frechet import Moments, frechet_distance

EPSILON = np.finfo(np.float64).eps


def moments(vectors, *cuts):
  found = Moments(vectors.shape[1])
  for part in np.split(vectors, cuts):
    found.add(part)
  return found


def gaussian(mean, covariance):
  """Vectors with exactly this mean and covariance: rows of a matrix root, and their negatives."""
  values, vectors = np.linalg.eigh(np.asarray(covariance, float) * (2 * len(mean) - 1) / 2)
  root = (vectors * np.sqrt(values)).T
  return np.concatenate([root, -root]) + mean


def test_moments_of_batches_are_those_of_all_vectors():
  vectors = np.random.default_rng(0).normal(1e4, [1, 2, 3], (37, 3))  # far from 0, where sums of squares lose digits
  found = moments(vectors, 1, 5, 5, 30)
  assert found.count == 37
  np.testing.assert_allclose(found.mean, vectors.mean(axis=0), rtol=1e-12)
  # The mean is rounded to EPSILON * 1e4 a batch, and a covariance errs by that times deviations of 3 and less.
  np.testing.assert_allclose(found.covariance, np.cov(vectors, rowvar=False), rtol=0, atol=5 * EPSILON * 1e4 * 3)


def test_distance_of_gaussians_along_the_axes():
  # |m - n|^2 + sum of (a - b)^2 for deviations a and b
  one, other = gaussian([1, 2, 3], np.diag([1, 4, 9])), gaussian([1, 0, 3.5], np.diag([25, 4, 0]))
  expected = 2**2 + 0.5**2 + (1 - 5) ** 2 + (2 - 2) ** 2 + (3 - 0) ** 2
  assert frechet_distance(moments(one, 2), moments(other, 3)) == pytest.approx(expected, rel=100 * EPSILON)
  assert 0 <= frechet_distance(moments(one), moments(one, 1)) <= 100 * EPSILON * (1 + 4 + 9)


def test_distance_of_rotated_gaussians():
  a, b = np.array([[2.0, 0.6], [0.6, 1.0]]), np.array([[1.0, -0.5], [-0.5, 3.0]])
  # In two dimensions tr(AB)^1/2 = sqrt(tr(AB) + 2 sqrt(det A det B)).
  common = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a) * np.linalg.det(b)))
  found = frechet_distance(moments(gaussian([0, 0], a)), moments(gaussian([0, 3], b)))
  assert found == pytest.approx(9 + np.trace(a) + np.trace(b) - 2 * common, rel=100 * EPSILON)


def test_few_vectors_in_many_dimensions():
  """Singular covariances: the distance is the one within the plane that contains all vectors."""
  rng = np.random.default_rng(1)
  flat = [rng.normal(size=(5, 2)) * scale for scale in (1, 3)]
  plane = np.linalg.qr(rng.normal(size=(40, 2)))[0].T
  wide = frechet_distance(*(moments(part @ plane) for part in flat))
  assert wide == pytest.approx(frechet_distance(*map(moments, flat)), rel=40 * 100 * EPSILON)


@pytest.mark.parametrize("count", [2, 5, 20])
def test_equal_gaussians_have_distance_zero_and_never_negative(count):
  """Few vectors in many dimensions, where roots of rounded zero eigenvalues once added up to -5e-4."""
  vectors = np.random.default_rng(count).normal(size=(count, 200))
  same, apart = moments(vectors), moments(vectors + [3, *[0] * 199])
  bound = 10 * 200 * EPSILON * np.trace(same.covariance)  # 200 singular values, each to roundings of the largest
  assert 0 <= frechet_distance(same, moments(vectors[::-1], 1)) <= bound
  assert frechet_distance(same, apart) == pytest.approx(9, abs=bound + 9 * EPSILON)
