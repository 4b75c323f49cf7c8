"""References: the picture or film that shows the networks what the person looks like."""

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
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.core.shapes import NdArray, UInt8
from anchor_jax.landmarks.proportions.measures import BodyMeasures
from anchor_jax.texture.background.film_plate import FilmPlate, film_plate_of
from anchor_jax.texture.background.reframe import reframed
from anchor_jax.texture.stored import Texture
from anchor_jax.video.picture import read_picture

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Reference:
  """A reference picture, or a film.

  Attributes:
    picture: reference image for the body; any size.
    face: aligned face crop (`body.face_crop`) for the head; None if the face's position is unknown. The head then uses
      the reference it was trained with.
    gather: for a film, returns the person's texture (from the file that `prepare` stored, else gathered in seconds per
      minute of film), or None if it is unknown. Without it, a person trained with config.data.pose_channels keeps the
      texture from training.
    measures: for a film, the body measures, if known.
    film_plate: for a film, the background of its full picture, if known.
  """

  picture: UInt8[NdArray, "H W 3"]
  face: UInt8[NdArray, "S S 3"] | None = None
  gather: Callable[[], Texture | None] | None = None
  measures: BodyMeasures | None = None
  film_plate: FilmPlate | None = None

  @functools.cached_property
  def texture(self) -> Texture | None:
    """The person's texture, gathered on first use; None if it is unknown.

    Raises:
      UserError: a record of the film can't be read.
    """
    return None if self.gather is None else self.gather()

  def with_size(self, size: FrameSize) -> "Reference":
    """Returns the reference for frames of another size (`texture.background.reframe`)."""
    if self.gather is None or (known := self.texture) is None:
      return self
    framed = reframed(known, size)
    return dataclasses.replace(self, gather=lambda: framed, measures=self.measures and framed.measures)


def read_reference(path: str | Path) -> Reference:
  """Returns the reference in a picture file or a prepared folder.

  For a folder, the picture is the first frame with a face, along with its face crop; the texture of the person in that
  frame is gathered if a network needs it.

  Raises:
    UserError: the file or folder can't be read, or no frame of the folder shows a face.
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
  face_side = min(source.size)
  to_crop = face_transform(record["landmarks"], face_side)

  def gather() -> Texture | None:
    if not source.has_surface[source.people == person].any():
      log.info("%s has no surface maps, so its texture is ignored: prepare it again to use it", path)
      return None
    return texture_of_prepared(source, person)

  crop = crop_image(record["frame"], to_crop, face_side, extend=True)
  return Reference(record["frame"], crop, gather, source.measures[person], film_plate_of(path))


def fitted(image: UInt8[NdArray, "H W 3"], size: FrameSize, above: float = 0.5) -> UInt8[NdArray, "h w 3"]:
  """Returns the largest part of a picture with the shape of frames, resized to their size; nothing is stretched.

  It is the middle across; what a tall picture has too much is cut `above` the part by this share, the rest below it.
  """
  height, width = image.shape[:2]
  across, down = (
    min(width, round(height * size.width / size.height)),
    min(height, round(width * size.height / size.width)),
  )
  top, left = int((height - down) * above), (width - across) // 2
  return cv2.resize(image[top : top + down, left : left + across], size, interpolation=cv2.INTER_AREA)


def fitted_reference(
  reference: Reference | None, own: UInt8[NdArray, "H W 3"] | None, size: FrameSize
) -> UInt8[NdArray, "h w 3"]:
  """Returns the reference image of a video, as large as the frames that the person was trained on.

  Args:
    reference: replaces the person's own; None keeps it.
    own: the reference saved by training, if any.
    size: of the frames.

  Raises:
    UserError: there is none.
  """
  picture = own if reference is None else reference.picture
  if picture is None:
    raise UserError("these weights have no reference image of the person: give one as appearance (--appearance=IMAGE)")
  filmed = reference is None or reference.gather is not None
  return fitted(picture, size, above=0.0 if filmed else 0.5)  # the head is at the top of frames; of pictures unknown
