"""The only importer of jaxtyping, and the legend of axis names used in signatures.

  B  batch (clips, or windows of a clip)     T  frames of a clip        H W  height, width
  C  channels                                N  tokens                  D    features of a token
  K  windows of a clip                       S  sampling steps

An image is "H W C"; a frame is a clip with T = 1. Pixels are uint8 0..255 in data/ and float in models/.
"""

from jaxtyping import Array, Bool, Float, Int, Key, PyTree, Shaped, UInt8
from numpy import ndarray as NdArray

__all__ = ["Array", "Bool", "Float", "Int", "Key", "NdArray", "PyTree", "Shaped", "UInt8"]
