"""Array types for signatures, re-exported from jaxtyping, and the legend of axis names; nothing else imports jaxtyping.

  B  batch (clips, or windows of a clip)     T  frames of a clip        H W  height, width
  C  channels                                N  tokens                  D    features of a token
  K  windows of a clip                       S  sampling steps

An image is "H W C"; a frame is a clip with T = 1. Lower case h, w are a resampled height and width. Pixels are uint8
0..255 in motion/, studio/ and data/, and float32 in models/.
"""

from typing import TYPE_CHECKING, Any

import jaxtyping
from jaxtyping import Bool, Float, Int, Key, Shaped, UInt8
from numpy import ndarray as NdArray

if TYPE_CHECKING:
  from jaxtyping import Array, PyTree

__all__ = ["Array", "Bool", "Float", "Int", "Key", "NdArray", "PyTree", "Shaped", "UInt8"]


def __getattr__(name: str) -> Any:
  """`Array` and `PyTree`, with which jaxtyping imports JAX: modules that handle only numpy arrays do without it."""
  if name in ("Array", "PyTree"):
    return getattr(jaxtyping, name)
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
