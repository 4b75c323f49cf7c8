"""Picture files: reads one as an RGB array, after its header has said that it fits into memory."""

import os
import warnings

import cv2
import numpy as np
from PIL import Image

from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import NdArray, UInt8
from anchor_jax.files.inputs import regular_file

MAX_PIXELS = 100_000_000  # a small file can unpack to many gigabytes; no camera makes as many pixels
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")


def read_picture(path: str | os.PathLike) -> UInt8[NdArray, "H W 3"]:
  """Returns a picture file as RGB, upright, without its transparency.

  Raises:
    UserError: no such file, not a picture, damaged, or of more than `MAX_PIXELS`.
  """
  path = regular_file(path, "picture")
  problem = UserError(f"{path} is no picture that can be read: give a PNG or JPEG file")
  try:
    with warnings.catch_warnings():  # Pillow warns of large pictures on its own
      warnings.simplefilter("ignore", Image.DecompressionBombWarning)
      with Image.open(path, formats=_FORMATS) as header:
        width, height = header.size
    if width * height > MAX_PIXELS:
      raise Image.DecompressionBombError
    image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
  except Image.DecompressionBombError:
    raise UserError(f"{path} has more than {MAX_PIXELS // 10**6} million pixels: give a smaller picture") from None
  except (OSError, ValueError, SyntaxError, cv2.error) as error:  # Pillow raises SyntaxError for damaged headers
    raise problem from error
  if image is None:
    raise problem
  return np.ascontiguousarray(image[..., ::-1])
