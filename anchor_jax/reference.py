"""The picture of a person that the networks take as the reference of her appearance."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np

from anchor_jax.errors import UserError
from anchor_jax.motion.face import crop_image, face_transform
from anchor_jax.motion.picture import read_picture
from anchor_jax.shapes import NdArray, UInt8


@dataclasses.dataclass(frozen=True)
class Reference:
  """A reference picture.

  Attributes:
    picture: of the person, for the body; any size.
    face: the aligned face crop (`motion.face`), for the head; None where the position of the face is not known. The
      head then takes the reference it was trained with.
  """

  picture: UInt8[NdArray, "H W 3"]
  face: UInt8[NdArray, "S S 3"] | None = None


def read_reference(path: str | Path) -> Reference:
  """The reference in a picture file, or in a prepared folder: its first frame that shows a face, with the face crop.

  Raises:
    UserError: there is nothing that can be read, or no frame of the folder shows a face.
  """
  path = Path(path)
  if not path.is_dir():
    return Reference(read_picture(path))
  from anchor_jax.data.records import open_prepared  # TensorFlow Datasets takes seconds to import

  source = open_prepared(path)
  with_face = np.flatnonzero(source.has_landmarks)
  if not len(with_face):
    raise UserError(f"no frame of {path} shows a face: give another prepared folder, or a picture")
  record = source.read(int(with_face[0]), ("frame", "landmarks"))
  to_crop = face_transform(record["landmarks"], source.size)
  return Reference(record["frame"], crop_image(record["frame"], to_crop, source.size, extend=True))


def square(image: UInt8[NdArray, "H W 3"], size: int) -> UInt8[NdArray, "{size} {size} 3"]:
  """The central square of a picture, resized to `size` x `size` pixels.

  CLIP's own preparation crops the centre too, so that nothing is stretched; what lies beyond the square has no effect.
  """
  height, width = image.shape[:2]
  side = min(height, width)
  top, left = (height - side) // 2, (width - side) // 2
  return cv2.resize(image[top : top + side, left : left + side], (size, size), interpolation=cv2.INTER_AREA)
