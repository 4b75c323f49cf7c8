"""The picture or film of a person that the networks take as the reference of her appearance."""

import dataclasses
import functools
import logging
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from anchor_jax.body.face_crop import crop_image, face_transform
from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import NdArray, UInt8
from anchor_jax.landmarks.measures import BodyMeasures
from anchor_jax.texture.stored import Texture
from anchor_jax.video.picture import read_picture

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Reference:
  """A reference picture, or a film.

  Attributes:
    picture: of the person, for the body; any size.
    face: the aligned face crop (`body.face_crop`), for the head; None where the position of the face is not known. The
      head then takes the reference it was trained with.
    gather: of a film, returns texture, key frames and room of the person (from the file that `prepare` stored, else in
      seconds for each minute), or None where they are not known. Without it, a person trained with
      config.data.appearance keeps those of her training.
    measures: of a film, those of her body, where they are known.
  """

  picture: UInt8[NdArray, "H W 3"]
  face: UInt8[NdArray, "S S 3"] | None = None
  gather: Callable[[], Texture | None] | None = None
  measures: BodyMeasures | None = None

  @functools.cached_property
  def texture(self) -> Texture | None:
    """Texture, key frames and room, gathered when they are first asked for; None where they are not known.

    Raises:
      UserError: a record of the film can't be read.
    """
    return None if self.gather is None else self.gather()


def read_reference(path: str | Path) -> Reference:
  """The reference in a picture file or in a prepared folder.

  Of a folder the picture is the first frame that shows a face, with the face crop, and the person in it is the one
  whose texture, key frames and room are gathered where a network needs them.

  Raises:
    UserError: there is nothing that can be read, or no frame of the folder shows a face.
  """
  path = Path(path)
  if not os.path.isdir(path):  # Path.is_dir raises for a name that is too long
    return Reference(read_picture(path))
  # TensorFlow Datasets takes seconds to import.
  from anchor_jax.data.records import open_prepared
  from anchor_jax.data.textures import texture_of_prepared

  source = open_prepared(path)
  with_face = np.flatnonzero(source.has_landmarks)
  if not len(with_face):
    raise UserError(f"no frame of {path} shows a face: give another prepared folder, or a picture")
  first = int(with_face[0])
  record, person = source.read(first, ("frame", "landmarks")), int(source.people[first])
  to_crop = face_transform(record["landmarks"], source.size)

  def gather() -> Texture | None:
    if not source.has_surface[source.people == person].any():
      log.info("%s does not say where on the body its pixels lie: prepare it again, its texture is left out", path)
      return None
    return texture_of_prepared(source, person)

  crop = crop_image(record["frame"], to_crop, source.size, extend=True)
  return Reference(record["frame"], crop, gather, source.measures[person])


def square(image: UInt8[NdArray, "H W 3"], size: int) -> UInt8[NdArray, "{size} {size} 3"]:
  """The central square of a picture, resized to `size` x `size` pixels.

  CLIP's own preparation crops the centre too, so that nothing is stretched; what lies beyond the square has no effect.
  """
  height, width = image.shape[:2]
  side = min(height, width)
  top, left = (height - side) // 2, (width - side) // 2
  return cv2.resize(image[top : top + side, left : left + side], (size, size), interpolation=cv2.INTER_AREA)
