"""Reads a picture of a person from a file that may be damaged or hostile."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from anchor_jax.errors import UserError
from anchor_jax.shapes import NdArray, UInt8


def read_image(path: Path) -> UInt8[NdArray, "H W 3"]:
  """Returns the picture in a file, RGB.

  Raises:
    UserError: there is no such file, it is no picture, it is damaged, or it has more than 89 million pixels
      (PIL.Image.MAX_IMAGE_PIXELS), which a file of a few kilobytes can claim.
  """
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("error", Image.DecompressionBombWarning)
      with Image.open(path) as image:
        return np.array(image.convert("RGB"))
  except (Image.DecompressionBombError, Image.DecompressionBombWarning):
    raise UserError(f"{path} has more than {Image.MAX_IMAGE_PIXELS} pixels: give a smaller picture") from None
  except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as error:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    raise UserError(f"{path} is no picture that can be read ({reason}): give a PNG or JPEG file") from None
