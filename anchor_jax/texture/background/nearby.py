"""Continues known pixels of a picture into unknown ones, from the colors around."""

import cv2
import numpy as np

from anchor_jax.core.shapes import Bool, Float, NdArray, UInt8

_BLUR = 0.8  # pixels of each level: standard deviation of the smoothing, so that no seam shows
_ENOUGH = 0.1  # share of a cell with known colors at which it needs no larger cell


def nearby(
  values: Float[NdArray, "H W C"] | UInt8[NdArray, "H W C"], known: Bool[NdArray, "H W"]
) -> Float[NdArray, "H W C"]:
  """Means of the known values around each pixel, over as few pixels as suffice (push-pull; Gortler et al. 1996).

  0 if nothing is known.
  """
  level: NdArray = np.empty((*known.shape, values.shape[-1] + 1), np.float32)
  for channel in range(values.shape[-1]):  # NumPy is several times as slow along so short an axis
    np.multiply(values[..., channel], known, out=level[..., channel], dtype=np.float32)
  level[..., -1] = known
  levels: list[NdArray] = [level]
  while max(levels[-1].shape[:2]) > 1:
    height, width = levels[-1].shape[:2]
    levels.append(_resized(levels[-1], (height + 1) // 2, (width + 1) // 2, cv2.INTER_AREA))
  result = levels[-1][..., :-1] / np.maximum(levels[-1][..., -1:], 1e-6)
  for level in reversed(levels):
    height, width = level.shape[:2]
    *colors, total = (np.asarray(plane) for plane in cv2.split(cv2.GaussianBlur(level, (0, 0), _BLUR)))
    divisor, enough = np.maximum(total, 1e-6), np.minimum(total / _ENOUGH, 1)
    rest, result = 1 - enough, _resized(result, height, width, cv2.INTER_LINEAR)
    for channel, color in enumerate(colors):
      color /= divisor
      color *= enough
      result[..., channel] *= rest
      result[..., channel] += color
  return result


def _resized(values: NdArray, height: int, width: int, interpolation: int) -> NdArray:
  if values.shape[-1] <= 4:
    return cv2.resize(values, (width, height), interpolation=interpolation).reshape(height, width, -1)
  parts = np.split(values, range(4, values.shape[-1], 4), axis=-1)  # OpenCV resizes up to four channels at once
  resized = [cv2.resize(part, (width, height), interpolation=interpolation) for part in parts]
  return np.concatenate([part.reshape(height, width, -1) for part in resized], axis=-1)
