"""Optical flow from the texture of all frames to one frame."""

import cv2
import numpy as np

from anchor_jax.core.shapes import Bool, Float, NdArray, UInt8
from anchor_jax.texture.texels import LEVELS, TEXELS

HEIGHT = 128  # of the pictures; the following numbers are pixels
_SMOOTH, _LARGEST = 4.0, 4.0  # of the flow: a Gaussian's deviation, and its largest size
_KNOWN = 0.5  # share of an atlas texel that must be known


def flow_onto(
  atlas: UInt8[NdArray, "charts S S 3"],
  coverage: UInt8[NdArray, "charts S S"],
  frame: UInt8[NdArray, "H W 3"],
  surface: UInt8[NdArray, "H W 3"],
  person: UInt8[NdArray, "H W"],
) -> tuple[Float[NdArray, "H W 2"], Bool[NdArray, "H W"]]:
  """Returns where a frame shows what an atlas has at its surface, right and down in pixels, and where that is known.

  The flow is smooth and at most 4 pixels.

  Args:
    atlas, coverage: of `Texture`.
    frame: RGB, HEIGHT pixels high.
    surface: the frame's surface map.
    person: 255 where the frame shows the person.
  """
  chart, column, row = np.moveaxis(surface.astype(np.int64), -1, 0)
  place = chart, row * TEXELS // LEVELS, column * TEXELS // LEVELS
  seen = (chart > 0) & (coverage[place] > 255 * _KNOWN) & (person > 127)
  target = np.where(seen[..., None], atlas[place], frame)
  tracker = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
  tracker.setFinestScale(0)
  start = np.zeros((*frame.shape[:2], 2), np.float32)
  gray = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (target, frame)]
  flow = np.asarray(tracker.calc(gray[0], gray[1], start), np.float32)
  share = cv2.GaussianBlur(seen.astype(np.float32), (0, 0), _SMOOTH)
  flow = cv2.GaussianBlur(flow * seen[..., None], (0, 0), _SMOOTH) / np.maximum(share, 1e-3)[..., None]
  length = np.linalg.norm(flow, axis=-1, keepdims=True)
  return flow * np.minimum(1, _LARGEST / np.maximum(length, 1e-6)), seen
