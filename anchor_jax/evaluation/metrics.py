"""Measures of generated video over a region: PSNR, SSIM, flicker, sharpness, flow error.

Pictures are uint8; masks hold where above 127.
"""

from typing import NamedTuple

import cv2
import numpy as np

from anchor_jax.core.shapes import Bool, Float, NdArray, UInt8

PEAK = 255.0
# Wang et al. 2004: an 11 x 11 Gaussian window of deviation 1.5, K1 = 0.01, K2 = 0.03.
_WINDOW, _SIGMA, _K1, _K2 = 11, 1.5, 0.01, 0.03
_LEAST_SIDE = 16  # pixels: below it no optical flow is found
_LOST = 1.0  # pixels between a point and where forward and backward flow lead it: it is hidden in one of the frames


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
  return _decibels(error)


def _decibels(error: float) -> float:
  """PSNR of a mean squared error."""
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


class Flow(NamedTuple):
  """Where each pixel of a frame was in the frame before.

  Attributes:
    places: (x, y) in the frame before, in pixels.
    known: whether the pixel is seen in both frames.
  """

  places: Float[NdArray, "H W 2"]
  known: Bool[NdArray, "H W"]


class FlowFinder:
  """Finds the optical flow of a video that comes frame by frame, by OpenCV's DIS (Kroeger et al. 2016)."""

  def __init__(self):
    self._finder = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    self._previous: NdArray | None = None

  def next(self, frame: UInt8[NdArray, "H W 3"]) -> Flow | None:
    """The flow from the next frame to the one before; None for the first, and below 16 pixels height or width."""
    grey, before = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), self._previous
    self._previous = grey
    if before is None or min(grey.shape) < _LEAST_SIDE:
      return None
    back, forth = (
      self._finder.calc(*pair, np.zeros((*grey.shape, 2), np.float32)) for pair in ((grey, before), (before, grey))
    )
    height, width = grey.shape
    points = np.dstack(np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)))
    places = points + back
    returned = back + _moved(forth, places)
    inside = ((places >= 0) & (places <= (width - 1, height - 1))).all(axis=-1)
    return Flow(places, inside & (np.square(returned).sum(axis=-1) < _LOST**2))


def _moved(values: NdArray, places: NdArray) -> NdArray:
  """Values at (x, y), between pixels too; 0 outside."""
  x, y = np.ascontiguousarray(places.transpose(2, 0, 1))
  return cv2.remap(values, x, y, cv2.INTER_LINEAR)


def _followed(before: NdArray, flow: Flow) -> NdArray:
  """The frame before, moved to where its pixels are now."""
  return _moved(before, flow.places).astype(np.int16)


class VideoFigures:
  """PSNR, SSIM, flicker and sharpness of a video that comes frame by frame, over a mask's pixels, in constant memory.

  The figures equal those of `psnr`, `ssim`, `flicker` and `sharpness` on the stacked frames.
  """

  def __init__(self):
    self._pixels = self._changed = self._follows = 0
    self._squared = self._similar = self._flicker = self._energy = self._energy_of_truth = 0.0
    self._flow_error = self._flow_error_of_truth = 0.0
    self._previous: tuple[NdArray, NdArray, NdArray] | None = None  # image, truth, region

  @property
  def seen(self) -> bool:
    """Whether any pixel was in a mask."""
    return self._pixels > 0

  def add(
    self,
    image: UInt8[NdArray, "H W 3"],
    truth: UInt8[NdArray, "H W 3"],
    mask: UInt8[NdArray, "H W 1"],
    flow: Flow | None = None,
    similarity: Float[NdArray, "H W"] | None = None,
  ) -> dict[str, float]:
    """Takes in the next frame, and returns its own "psnr", "ssim" and "flicker", those that it has.

    A frame with an empty mask counts only towards flicker.

    Args:
      image, truth: the frame.
      mask: the region.
      flow: of the truth, from this frame to the one before; None: the frame does not count towards flow error.
      similarity: of `ssim_map`, where it is known already.
    """
    region, alone = mask[..., 0] > 127, {}
    difference = image.astype(np.int16) - truth
    pixels = int(region.sum())
    if pixels:
      squared = float(np.square(difference[region].astype(np.float64)).sum())
      similar = float((ssim_map(image, truth) if similarity is None else similarity)[region].sum())
      alone = {"psnr": _decibels(squared / (3 * pixels)), "ssim": similar / pixels}
      self._pixels += pixels
      self._squared += squared
      self._similar += similar
      self._energy += gradient_energy(image, region)
      self._energy_of_truth += gradient_energy(truth, region)
    if self._previous is not None:
      image_before, truth_before, region_before = self._previous
      either = region | region_before
      changed = int(either.sum())
      if changed:
        difference_before = image_before.astype(np.int16) - truth_before
        flickers = float(np.abs(difference - difference_before)[either].sum())
        alone["flicker"] = flickers / (3 * changed)
        self._changed, self._flicker = self._changed + changed, self._flicker + flickers
      if flow is not None and pixels:
        known = region & flow.known
        self._follows += int(known.sum())
        self._flow_error += float(np.abs(image - _followed(image_before, flow))[known].sum())
        self._flow_error_of_truth += float(np.abs(truth - _followed(truth_before, flow))[known].sum())
    self._previous = image, truth, region
    return alone

  def figures(self) -> dict[str, float]:
    """{"psnr": dB, "ssim": -1 to 1, "flicker": grey levels, "sharpness": 1 is the truth's, "flow_error": grey levels}.

    "flow_error" is the mean absolute change of a point along the true optical flow (of what moves with the person, only
    what flickers is left); "flow_error_of_truth" is the truth's own. Both only where `add`
    was given flow. Without flicker for a single frame, without sharpness where the truth is of one colour.

    Raises:
      ValueError: no pixel was in any mask.
    """
    if not self._pixels:
      raise ValueError("the mask is empty")
    figures = {"psnr": _decibels(self._squared / (3 * self._pixels)), "ssim": self._similar / self._pixels}
    if self._changed:
      figures["flicker"] = self._flicker / (3 * self._changed)
    if self._energy_of_truth:
      figures["sharpness"] = self._energy / self._energy_of_truth
    if self._follows:
      figures["flow_error"] = self._flow_error / (3 * self._follows)
      figures["flow_error_of_truth"] = self._flow_error_of_truth / (3 * self._follows)
    return figures
