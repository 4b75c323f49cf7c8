"""The Fréchet distance between Gaussians, from sums that grow frame by frame."""

import numpy as np

from anchor_jax.shapes import Float, NdArray


class Moments:
  """Mean and covariance of vectors that come in batches, in constant memory (Chan et al. 1979).

  Attributes:
    count: of the vectors so far.
    mean: of them.
  """

  def __init__(self, size: int):
    self.count, self.mean = 0, np.zeros(size)
    self._scatter = np.zeros((size, size))

  def add(self, vectors: Float[NdArray, "B D"]) -> None:
    """Takes in more vectors."""
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
    """The unbiased one, as numpy.cov has it; of two vectors and more."""
    return self._scatter / (self.count - 1)


def frechet_distance(one: Moments, other: Moments) -> float:
  """The squared Fréchet (2-Wasserstein) distance of the Gaussians with these moments (Dowson and Landau 1982).

  |m - n|^2 + tr(A) + tr(B) - 2 tr((A^1/2 B A^1/2)^1/2), by eigenvalues of symmetric matrices, which are exact also
  where fewer vectors than dimensions leave the covariances singular.
  """
  a, b = one.covariance, other.covariance
  values, vectors = np.linalg.eigh(a)
  root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
  common = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ b @ root), 0)).sum()
  return float(np.square(one.mean - other.mean).sum() + np.trace(a) + np.trace(b) - 2 * common)
