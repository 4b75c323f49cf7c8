"""The Fréchet distance between Gaussians, from running moments."""

import numpy as np

from anchor_jax.core.shapes import Float, NdArray


class Moments:
  """Running mean and covariance of vectors that arrive in batches, in constant memory (Chan et al. 1979).

  Attributes:
    count: number of vectors so far.
    mean: their mean.
  """

  def __init__(self, size: int):
    self.count, self.mean = 0, np.zeros(size)
    self._scatter = np.zeros((size, size))

  def add(self, vectors: Float[NdArray, "B D"]) -> None:
    """Adds vectors."""
    batch = vectors.astype(np.float64)
    new, total = len(batch), self.count + len(batch)
    if not new:
      return
    mean = batch.mean(axis=0)
    centred, shift = batch - mean, mean - self.mean
    self._scatter += centred.T @ centred + np.outer(shift, shift) * (self.count * new / total)
    self.mean += shift * (new / total)
    self.count = total

  @property
  def covariance(self) -> Float[NdArray, "D D"]:
    """The unbiased covariance, as `numpy.cov` computes it; needs at least two vectors."""
    return self._scatter / (self.count - 1)


def frechet_distance(one: Moments, other: Moments) -> float:
  """Returns the squared Fréchet (2-Wasserstein) distance of the Gaussians with these moments, at least 0.

  |m - n|^2 + tr(A) + tr(B) - 2 tr((A^1/2 B A^1/2)^1/2) (Dowson and Landau 1982). The last trace is the sum of the
  singular values of A^1/2 B^1/2, which keeps full precision. The eigenvalues of A^1/2 B A^1/2 are their squares: where
  one should be 0 (fewer vectors than dimensions), the root of its rounding error is 1e-8 of the covariance, not 1e-16.
  """
  a, b = one.covariance, other.covariance
  common = np.linalg.svd(_root(a) @ _root(b), compute_uv=False).sum()
  distance = np.square(one.mean - other.mean).sum() + np.trace(a) + np.trace(b) - 2 * common
  # For equal Gaussians only rounding error is left, of either sign.
  return float(np.maximum(distance, 0))


def _root(covariance: Float[NdArray, "D D"]) -> Float[NdArray, "D D"]:
  """The symmetric square root; eigenvalues within rounding error of 0 count as 0."""
  values, vectors = np.linalg.eigh(covariance)
  least = len(values) * np.finfo(values.dtype).eps * values[-1]  # the tolerance of numpy.linalg.matrix_rank
  return (vectors * np.sqrt(np.where(values > least, values, 0))) @ vectors.T
