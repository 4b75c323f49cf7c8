"""Metrics of generated video over a region: PSNR, SSIM, flicker, sharpness, flow error.

Pictures are uint8; a mask covers the pixels above 127.
"""

from typing import NamedTuple

import cv2
import numpy as np

from anchor_jax.core.shapes import Bool, Float, NdArray, UInt8

PEAK = 255.0
# Wang et al. 2004: an 11 x 11 Gaussian window with sigma 1.5, K1 = 0.01, K2 = 0.03.
_WINDOW, _SIGMA, _K1, _K2 = 11, 1.5, 0.01, 0.03
_LEAST_SIDE = 16  # pixels: no optical flow in smaller frames
_ROUND_TRIP = 1.0  # pixels of error of backward, then forward flow: beyond it the point is hidden in one of the frames


def _region(mask: UInt8[NdArray, "*T H W 1"] | None, shape: tuple[int, ...]) -> Bool[NdArray, "*T H W"]:
  region = np.ones(shape, bool) if mask is None else np.broadcast_to(mask[..., 0] > 127, shape)
  if not region.any():
    raise ValueError("the mask is empty")
  return region


def psnr(
  image: UInt8[NdArray, "*T H W 3"], truth: UInt8[NdArray, "*T H W 3"], mask: UInt8[NdArray, "*T H W 1"] | None = None
) -> float:
  """Returns the PSNR in dB over the mask's pixels, all frames pooled; infinite for equal pictures."""
  region = _region(mask, truth.shape[:-1])
  error = np.square(image[region].astype(np.float64) - truth[region]).mean()
  return _decibels(error)


def _decibels(error: float) -> float:
  """The PSNR for a mean squared error."""
  return float(10 * np.log10(PEAK**2 / error)) if error else float("inf")


def ssim_map(image: UInt8[NdArray, "H W 3"], truth: UInt8[NdArray, "H W 3"]) -> Float[NdArray, "H W"]:
  """Returns the structural similarity at each pixel, averaged over channels, -1 to 1 (Wang et al. 2004, equation 13).

  Equals scikit-image's structural_similarity(gaussian_weights=True, use_sample_covariance=False, full=True).
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
  """Returns the mean of the SSIM maps over the mask's pixels, all frames pooled."""
  region = _region(mask, truth.shape[:-1])
  total = sum(ssim_map(a, b)[inside].sum() for a, b, inside in zip(images, truth, region, strict=True))
  return float(total / region.sum())


def flicker(
  images: UInt8[NdArray, "T H W 3"], truth: UInt8[NdArray, "T H W 3"], mask: UInt8[NdArray, "T H W 1"] | None = None
) -> float:
  """Returns the mean absolute error of frame-to-frame changes, in gray levels (0 to 510); 0 is perfect.

  The mask of a change is the union of its two frames' masks. A still picture of a moving person scores the motion that
  it lacks. Needs at least two frames.
  """
  region = _region(mask, truth.shape[:-1])
  changes = [np.diff(video.astype(np.int16), axis=0) for video in (images, truth)]
  return float(np.abs(changes[0] - changes[1])[region[1:] | region[:-1]].mean())


def gradient_energy(image: UInt8[NdArray, "*T H W 3"], region: Bool[NdArray, "*T H W"]) -> float:
  """Returns the sum of squared differences between neighbors along rows and columns, both in the region."""
  values, total = image.astype(np.float64), 0.0
  for axis in (-3, -2):
    both = np.diff(region.astype(np.int8), axis=axis + 1) == 0
    both &= np.take(region, np.arange(region.shape[axis + 1] - 1), axis + 1)
    total += float(np.square(np.diff(values, axis=axis)[both]).sum())
  return total


def sharpness(
  images: UInt8[NdArray, "T H W 3"], truth: UInt8[NdArray, "T H W 3"], mask: UInt8[NdArray, "T H W 1"] | None = None
) -> float:
  """Returns the gradient energy relative to the truth's, all frames pooled: below 1 if blurred, above 1 if noisy.

  It does not measure whether details are in the right place. Infinite if the truth has a single color.
  """
  region = _region(mask, truth.shape[:-1])
  return _ratio(gradient_energy(images, region), gradient_energy(truth, region))


def _ratio(energy: float, true_energy: float) -> float:
  return energy / true_energy if true_energy else float("inf")


class Flow(NamedTuple):
  """Where each pixel of a frame was in the previous frame.

  Attributes:
    places: (x, y) in the previous frame, in pixels.
    known: whether the pixel is visible in both frames.
  """

  places: Float[NdArray, "H W 2"]
  known: Bool[NdArray, "H W"]


class FlowFinder:
  """Finds the optical flow of a video frame by frame, with OpenCV's DIS (Kroeger et al. 2016)."""

  def __init__(self):
    self._finder = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    self._previous: NdArray | None = None

  def next(self, frame: UInt8[NdArray, "H W 3"]) -> Flow | None:
    """Returns the flow from the next frame back to the previous one; None for the first, or if a side is below 16."""
    gray, previous = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), self._previous
    self._previous = gray
    if previous is None or min(gray.shape) < _LEAST_SIDE:
      return None
    backward, forward = (
      self._finder.calc(*pair, np.zeros((*gray.shape, 2), np.float32)) for pair in ((gray, previous), (previous, gray))
    )
    height, width = gray.shape
    points = np.dstack(np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)))
    places = points + backward
    error = backward + _sample(forward, places)
    inside = ((places >= 0) & (places <= (width - 1, height - 1))).all(axis=-1)
    return Flow(places, inside & (np.square(error).sum(axis=-1) < _ROUND_TRIP**2))


def _sample(values: NdArray, places: NdArray) -> NdArray:
  """Bilinear samples at (x, y); 0 outside."""
  x, y = np.ascontiguousarray(places.transpose(2, 0, 1))
  return cv2.remap(values, x, y, cv2.INTER_LINEAR)


def _warp(previous: NdArray, flow: Flow) -> NdArray:
  """The previous frame, warped to the current one."""
  return _sample(previous, flow.places).astype(np.int16)


class VideoFigures:
  """PSNR, SSIM, flicker and sharpness of a video over a mask's pixels, frame by frame in constant memory.

  The figures equal those of `psnr`, `ssim`, `flicker` and `sharpness` on the stacked frames.
  """

  def __init__(self):
    self._pixels = self._changed = self._flow_pixels = 0
    self._squared = self._similar = self._flicker = self._energy = self._true_energy = 0.0
    self._flow_error = self._true_flow_error = 0.0
    self._previous: tuple[NdArray, NdArray, NdArray] | None = None  # image, truth, region

  @property
  def has_pixels(self) -> bool:
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
    """Adds the next frame and returns its own "psnr", "ssim" and "flicker", as far as they are defined.

    A frame with an empty mask counts only toward flicker.

    Args:
      image, truth: the generated and the true frame.
      mask: the region.
      flow: of the truth, from this frame to the previous one; without it the frame does not count toward flow error.
      similarity: the `ssim_map`, if already computed.
    """
    region, of_frame = mask[..., 0] > 127, {}
    difference = image.astype(np.int16) - truth
    pixels = int(region.sum())
    if pixels:
      squared = float(np.square(difference[region].astype(np.float64)).sum())
      similar = float((ssim_map(image, truth) if similarity is None else similarity)[region].sum())
      of_frame = {"psnr": _decibels(squared / (3 * pixels)), "ssim": similar / pixels}
      self._pixels += pixels
      self._squared += squared
      self._similar += similar
      self._energy += gradient_energy(image, region)
      self._true_energy += gradient_energy(truth, region)
    if self._previous is not None:
      previous_image, previous_truth, previous_region = self._previous
      either = region | previous_region
      changed = int(either.sum())
      if changed:
        previous_difference = previous_image.astype(np.int16) - previous_truth
        flicker = float(np.abs(difference - previous_difference)[either].sum())
        of_frame["flicker"] = flicker / (3 * changed)
        self._changed, self._flicker = self._changed + changed, self._flicker + flicker
      if flow is not None and pixels:
        known = region & flow.known
        self._flow_pixels += int(known.sum())
        self._flow_error += float(np.abs(image - _warp(previous_image, flow))[known].sum())
        self._true_flow_error += float(np.abs(truth - _warp(previous_truth, flow))[known].sum())
    self._previous = image, truth, region
    return of_frame

  def figures(self) -> dict[str, float]:
    """Returns "psnr" (dB), "ssim" (-1 to 1), "flicker" (gray levels), "sharpness" (1 is the truth's) and "flow_error".

    "flow_error" (gray levels) is the mean absolute change of a point along the true optical flow, so that motion
    cancels and flicker is left; "flow_error_of_truth" is the same for the truth. Both need flow in `add`. There is no
    flicker for a single frame, and no sharpness if the truth has a single color.

    Raises:
      ValueError: no pixel was in any mask.
    """
    if not self._pixels:
      raise ValueError("the mask is empty")
    figures = {"psnr": _decibels(self._squared / (3 * self._pixels)), "ssim": self._similar / self._pixels}
    if self._changed:
      figures["flicker"] = self._flicker / (3 * self._changed)
    if self._true_energy:
      figures["sharpness"] = self._energy / self._true_energy
    if self._flow_pixels:
      figures["flow_error"] = self._flow_error / (3 * self._flow_pixels)
      figures["flow_error_of_truth"] = self._true_flow_error / (3 * self._flow_pixels)
    return figures
