"""Measures of generated video over a region: PSNR, SSIM, flicker, sharpness.

Pictures are uint8; masks hold where above 127.
"""

import cv2
import numpy as np

from anchor_jax.shapes import Bool, Float, NdArray, UInt8

PEAK = 255.0
# Wang et al. 2004: an 11 x 11 Gaussian window of deviation 1.5, K1 = 0.01, K2 = 0.03.
_WINDOW, _SIGMA, _K1, _K2 = 11, 1.5, 0.01, 0.03


def _region(mask: UInt8[NdArray, "*T H W 1"] | None, shape: tuple[int, ...]) -> Bool[NdArray, "*T H W"]:
  region = np.ones(shape, bool) if mask is None else np.broadcast_to(mask[..., 0] > 127, shape)
  if not region.any():
    raise ValueError("the mask is empty")
  return region


def psnr(
  image: UInt8[NdArray, "*T H W 3"], truth: UInt8[NdArray, "*T H W 3"], mask: UInt8[NdArray, "*T H W 1"] | None = None
) -> float:
  """Peak signal to noise ratio in dB over the mask's pixels, all frames together; infinite for equal pictures."""
  region = _region(mask, truth.shape[:-1])
  error = np.square(image[region].astype(np.float64) - truth[region]).mean()
  return float(10 * np.log10(PEAK**2 / error)) if error else float("inf")


def ssim_map(image: UInt8[NdArray, "H W 3"], truth: UInt8[NdArray, "H W 3"]) -> Float[NdArray, "H W"]:
  """Structural similarity around each pixel, mean of the channels, -1 to 1 (Wang et al. 2004, equation 13).

  Equal to scikit-image's structural_similarity(gaussian_weights=True, use_sample_covariance=False, full=True).
  """
  x, y = image.astype(np.float64), truth.astype(np.float64)

  def mean(values: NdArray) -> NdArray:
    return cv2.GaussianBlur(values, (_WINDOW, _WINDOW), _SIGMA, borderType=cv2.BORDER_REFLECT)

  mean_x, mean_y = mean(x), mean(y)
  variance_x, variance_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
  covariance = mean(x * y) - mean_x * mean_y
  c1, c2 = (_K1 * PEAK) ** 2, (_K2 * PEAK) ** 2
  luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
  structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
  return (luminance * structure).mean(axis=-1)


def ssim(
  images: UInt8[NdArray, "T H W 3"], truth: UInt8[NdArray, "T H W 3"], mask: UInt8[NdArray, "T H W 1"] | None = None
) -> float:
  """Mean of the SSIM maps over the mask's pixels, all frames together."""
  region = _region(mask, truth.shape[:-1])
  total = sum(ssim_map(a, b)[here].sum() for a, b, here in zip(images, truth, region, strict=True))
  return float(total / region.sum())


def flicker(
  images: UInt8[NdArray, "T H W 3"], truth: UInt8[NdArray, "T H W 3"], mask: UInt8[NdArray, "T H W 1"] | None = None
) -> float:
  """Mean absolute difference between the generated and the true change from frame to frame, in grey levels (0 to 510).

  The mask of a change is the union of its two frames' masks. A still picture of a moving person has the flicker of the
  motion it misses; 0 is perfect. At least two frames.
  """
  region = _region(mask, truth.shape[:-1])
  changes = [np.diff(video.astype(np.int16), axis=0) for video in (images, truth)]
  return float(np.abs(changes[0] - changes[1])[region[1:] | region[:-1]].mean())


def gradient_energy(image: UInt8[NdArray, "*T H W 3"], region: Bool[NdArray, "*T H W"]) -> float:
  """Sum of squared differences between neighbouring pixels, both in the region; along rows and columns."""
  values, total = image.astype(np.float64), 0.0
  for axis in (-3, -2):
    both = np.diff(region.astype(np.int8), axis=axis + 1) == 0
    both &= np.take(region, np.arange(region.shape[axis + 1] - 1), axis + 1)
    total += float(np.square(np.diff(values, axis=axis)[both]).sum())
  return total


def sharpness(
  images: UInt8[NdArray, "T H W 3"], truth: UInt8[NdArray, "T H W 3"], mask: UInt8[NdArray, "T H W 1"] | None = None
) -> float:
  """Gradient energy over the truth's, all frames together: below 1 for blurred pictures, above 1 for noisy ones.

  It says nothing of whether details are in their place. Infinite where the truth is of one colour.
  """
  region = _region(mask, truth.shape[:-1])
  return _ratio(gradient_energy(images, region), gradient_energy(truth, region))


def _ratio(energy: float, of_truth: float) -> float:
  return energy / of_truth if of_truth else float("inf")


class VideoFigures:
  """PSNR, SSIM, flicker and sharpness of a video that comes frame by frame, over a mask's pixels, in constant memory.

  The figures equal those of `psnr`, `ssim`, `flicker` and `sharpness` on the stacked frames.
  """

  def __init__(self):
    self._pixels = self._changed = 0
    self._squared = self._similar = self._flicker = self._energy = self._energy_of_truth = 0.0
    self._previous: tuple[NdArray, NdArray] | None = None  # difference to the truth, region

  @property
  def seen(self) -> bool:
    """Whether any pixel was in a mask."""
    return self._pixels > 0

  def add(self, image: UInt8[NdArray, "H W 3"], truth: UInt8[NdArray, "H W 3"], mask: UInt8[NdArray, "H W 1"]) -> None:
    """Takes in the next frame; a frame with an empty mask counts only towards flicker."""
    region = mask[..., 0] > 127
    difference = image.astype(np.int16) - truth
    self._pixels += int(region.sum())
    self._squared += float(np.square(difference[region].astype(np.float64)).sum())
    if region.any():
      self._similar += float(ssim_map(image, truth)[region].sum())
      self._energy += gradient_energy(image, region)
      self._energy_of_truth += gradient_energy(truth, region)
    if self._previous is not None:
      before, region_before = self._previous
      either = region | region_before
      self._changed += int(either.sum())
      self._flicker += float(np.abs(difference - before)[either].sum())
    self._previous = difference, region

  def figures(self) -> dict[str, float]:
    """{"psnr": dB, "ssim": -1 to 1, "flicker": grey levels, "sharpness": 1 is the truth's}.

    Without flicker for a single frame, without sharpness where the truth is of one colour.

    Raises:
      ValueError: no pixel was in any mask.
    """
    if not self._pixels:
      raise ValueError("the mask is empty")
    error = self._squared / (3 * self._pixels)
    figures = {"psnr": float(10 * np.log10(PEAK**2 / error)) if error else float("inf")}
    figures["ssim"] = self._similar / self._pixels
    if self._changed:
      figures["flicker"] = self._flicker / (3 * self._changed)
    if self._energy_of_truth:
      figures["sharpness"] = self._energy / self._energy_of_truth
    return figures
