"""The person's share of each pixel, picture by picture: the pose network's mask, steadied where it is unsure."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from anchor_jax.core.shapes import Float, NdArray, UInt8
from anchor_jax.landmarks.networks.bodies import Body

_UNSURE = (5.68842, -0.748699, -57.8051, 291.309, -624.717)  # polynomial: how unsure a pixel of the mask is
_SURE = 0.498  # distance of a share from one half, from which it stays as it is: the mask before counts 0.2 % there
_LARGEST = 640  # largest side at which the mask is computed, in pixels
_KEPT = 0.7  # share of the mask before where the new one is unsure
_ROWS = 64  # computed at a time: they stay in the processor's cache


class OutlineFinder:
  """Places the masks of a person's bodies in the pictures."""

  def __init__(self, network: Callable[..., Sequence[NdArray]]):
    """Starts without a mask before; `network` is `bodies.mask_network`."""
    self._network = network
    self.reset()

  def reset(self) -> None:
    """Forgets the pictures before."""
    self._share: Float[NdArray, "H W"] | None = None

  def find(self, picture: UInt8[NdArray, "H W C"], body: Body | None) -> UInt8[NdArray, "H W"]:
    """The person's share of each pixel of the next picture, 0 to 255."""
    shape = picture.shape[:2]
    if body is None or body.features is None:
      self._share = None
      return np.zeros(shape, np.uint8)
    logits = self._network(*body.features)[0][0, :, :, 0]
    share = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
    zoom = min(1.0, _LARGEST / max(shape))  # it has no more detail than 256 pixels a crop give
    size = (max(1, round(shape[1] * zoom)), max(1, round(shape[0] * zoom)))
    matrix = body.crop.matrix() / (256, 256, 1) * np.array([[size[0] / shape[1]], [size[1] / shape[0]]])
    new, before = cv2.warpAffine(share, matrix, size, flags=cv2.INTER_LINEAR), self._share
    levels = np.empty(new.shape, np.uint8)
    for row in range(0, len(new), _ROWS):
      rows = slice(row, row + _ROWS)
      if before is not None and before.shape == new.shape:
        now, last = new[rows].ravel(), before[rows].ravel()
        unsure = np.flatnonzero(np.abs(now - 0.5) < _SURE)
        here = now[unsure]
        now[unsure] += (last[unsure] - here) * _sure(here) * _KEPT
      np.multiply(new[rows], 255, out=levels[rows], casting="unsafe")
    self._share = new
    return levels if levels.shape == shape else cv2.resize(levels, shape[::-1], interpolation=cv2.INTER_LINEAR)


def _sure(share: Float[NdArray, " N"]) -> Float[NdArray, " N"]:
  x = np.square(share - 0.5)
  unsure = np.zeros_like(x)
  for factor in reversed(_UNSURE):
    unsure += factor
    unsure *= x
  return 1 - np.minimum(unsure, 1, out=unsure)
