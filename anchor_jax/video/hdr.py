"""Tone-maps high dynamic range video to SDR: phones film in 10-bit PQ or HLG."""

import functools

import av
import cv2
import numpy as np

from anchor_jax.core.shapes import Float, NdArray, UInt8

# Codes of the transfer functions in ISO/IEC 23091-2, table 3.
PQ, HLG = 16, 18
_BT2020 = 9  # code of its primaries and of its matrix
_WHITE = 203.0  # reference white in candela per square meter (ITU-R BT.2408, 2.1)
_HLG_PEAK, _HLG_GAMMA = 1000.0, 1.2  # nominal HLG display (ITU-R BT.2100, table 5)
_KNEE = 0.6  # share of reference white below which levels are unchanged; brighter ones are compressed below 1
_DISPLAY_GAMMA = 2.4  # ITU-R BT.1886
_LEVELS = 2**16
# Linear BT.2020 to BT.709 (ITU-R BT.2087, the inverse of table 2).
_TO_BT709 = np.array(
  [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]], np.float32
)


def is_hdr(frame: av.VideoFrame) -> bool:
  """Returns whether the frame uses the PQ or HLG transfer function."""
  return frame.color_trc in (PQ, HLG)


def to_sdr(frame: av.VideoFrame) -> UInt8[NdArray, "H W 3"]:
  """Returns a PQ or HLG frame as SDR RGB; reference white lands at 93 % of the range, highlights above it."""
  levels = frame.to_ndarray(format="rgb48le")
  light = _light(frame.color_trc)[levels.astype(np.uint16)]
  if frame.color_trc == HLG:  # the display's system gamma acts on luminance and preserves hue
    bright = np.maximum(cv2.transform(light, np.array([[0.2627, 0.6780, 0.0593]], np.float32)), np.float32(1e-6))
    light *= (bright ** np.float32(_HLG_GAMMA - 1))[..., None]
  light *= np.float32((10_000.0 if frame.color_trc == PQ else _HLG_PEAK) / _WHITE)
  if frame.color_primaries == _BT2020:
    light = cv2.transform(light, _TO_BT709)
  return np.round(255 * bend(np.maximum(light, 0)) ** np.float32(1 / _DISPLAY_GAMMA)).astype(np.uint8)


def bend(light: Float[NdArray, "*N"]) -> Float[NdArray, "*N"]:
  """Returns linear light compressed below 1: unchanged up to the knee, then approaching 1 exponentially."""
  over = np.maximum(light - _KNEE, 0) / (1 - _KNEE)
  return np.where(light < _KNEE, light, _KNEE + (1 - _KNEE) * -np.expm1(-over)).astype(np.float32)


@functools.cache
def _light(transfer: int) -> Float[NdArray, " N"]:
  """Linear light for each 16-bit level, 1 at the peak (ITU-R BT.2100, tables 4 and 5)."""
  signal = np.arange(_LEVELS) / (_LEVELS - 1)
  if transfer == PQ:
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    root = signal ** (1 / m2)
    return ((np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)).astype(np.float32)
  a, b, c = 0.17883277, 0.28466892, 0.55991073
  return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12).astype(np.float32)
