"""Reads an image file as an RGB array, after checking its size in the header."""

import os
import warnings

import cv2
import numpy as np
from PIL import Image

from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import NdArray, UInt8
from anchor_jax.files.inputs import regular_file

MAX_PIXELS = 100_000_000  # more than any camera takes; guards against decompression bombs
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")


def read_picture(path: str | os.PathLike) -> UInt8[NdArray, "H W 3"]:
  """Returns the image in a file as RGB, upright, with any alpha channel dropped.

  Raises:
    UserError: no such file, not an image, damaged, or more than `MAX_PIXELS`.
  """
  path = regular_file(path, "picture")
  problem = UserError(f"{path} is not a readable picture: give a PNG or JPEG file")
  try:
    with warnings.catch_warnings():  # our own limit replaces Pillow's warning
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
