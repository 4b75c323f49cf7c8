"""Array types for signatures, re-exported from jaxtyping, and their axis names; no other module imports jaxtyping.

  B  batch (clips, or windows of a clip)     T  frames of a clip        H W  height, width
  C  channels                                N  tokens                  D    features of a token
  K  windows of a clip                       S  sampling steps

An image is "H W C"; a frame is a clip with T = 1. Lower-case h, w are the height and width of latents or resampled
images. Pixels are uint8 0..255 on the host and float32 in models/.
"""

from typing import TYPE_CHECKING, Any

import jaxtyping
from jaxtyping import Bool, Float, Int, Key, Shaped, UInt8
from numpy import ndarray as NdArray

if TYPE_CHECKING:
  from jaxtyping import Array, PyTree

__all__ = ["Array", "Bool", "Float", "Int", "Key", "NdArray", "PyTree", "Shaped", "UInt8"]


def __getattr__(name: str) -> Any:
  """Returns `Array` or `PyTree`, for which jaxtyping imports JAX; numpy-only modules need neither."""
  if name in ("Array", "PyTree"):
    return getattr(jaxtyping, name)
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
