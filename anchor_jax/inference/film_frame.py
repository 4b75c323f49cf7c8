"""Puts generated frames back into the full picture of the person's film, at the film's own resolution."""

import cv2
import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.core.shapes import Float, NdArray, UInt8
from anchor_jax.inference.backdrop import Backdrop
from anchor_jax.inference.backgrounds import TRANSPARENT, open_background
from anchor_jax.motion.frames import Motion
from anchor_jax.texture.background.film_plate import FilmPlate
from anchor_jax.texture.background.nearby import nearby
from anchor_jax.texture.stored import Texture

_FADE = 1 / 16  # of the frame's shorter side: width of the soft edge inside the film's picture
_SOFT = 1 / 64  # of the frame's height: blur of the border between known and unknown room


class FilmFrame:
  """Puts frames into the background of the film's full picture.

  The person comes from the frame, with the alpha that separates the person from the room; the room is the film's, where
  it was ever seen. Without a background plate of the frame, all of the frame is put in. Its edges fade in either case,
  except where the frame ends with the film's picture.
  """

  def __init__(self, film: FilmPlate | None, texture: Texture | None, size: FrameSize, start: int = 0):
    """Takes the film's background.

    Args:
      film: of the person's film.
      texture: of the person, with the background plate of the frame.
      size: of the frames.
      start: number of the first frame.

    Raises:
      UserError: the film's background is unknown, or its frames have another shape.
    """
    if film is None:
      raise UserError(
        "--frame=film needs the background of the film's full picture, which is larger than the frame and was stored"
        " with the person: prepare the film again, then train again or give its folder as --appearance"
      )
    _, _, width, height = film.crop
    if abs(width * size.height / (height * size.width) - 1) > 0.02:
      raise UserError(f"--frame=film: the film's part is {width}x{height} and frames are {size}: leave out --size")
    self._film = film
    has_plate = texture is not None and bool(texture.plate_coverage.any())
    self._cut_out = Backdrop(open_background(TRANSPARENT), texture, start) if has_plate else None
    self._edge = _edge(film)
    known = film.coverage > 0
    around = np.clip(np.rint(nearby(film.plate, known)), 0, 255).astype(np.uint8)
    self._picture = np.where(known[..., None], film.plate, around)
    blur = (0, 0), max(1.0, height * _SOFT)
    self._known = np.minimum(known, cv2.GaussianBlur(known.astype(np.float32), *blur))[*self._inside, None]

  @property
  def _inside(self) -> tuple[slice, slice]:
    left, top, width, height = self._film.crop
    return slice(top, top + height), slice(left, left + width)

  def watch(self, motion: Motion) -> Motion:
    """Returns the motion, recording what cutting out the person needs; it can be animated only once."""
    return motion if self._cut_out is None else self._cut_out.watch(motion)

  def around(self, frame: UInt8[NdArray, "h w 3"]) -> UInt8[NdArray, "H W 3"]:
    """Returns the film's picture with the next frame in it."""
    picture = self._picture.copy()
    room = picture[self._inside].astype(np.float32)
    painted = self._enlarged(frame)
    if self._cut_out is not None:
      cut_out = self._cut_out.behind(frame).astype(np.float32)
      alpha = np.clip(self._enlarged(cut_out[..., 3:]) / 255, 0, 1)
      person = self._enlarged(cut_out[..., :3])
      painted = self._known * (alpha * person + (1 - alpha) * room) + (1 - self._known) * painted
    blended = room + self._edge * (painted - room)
    picture[self._inside] = np.clip(np.rint(blended), 0, 255).astype(np.uint8)
    return picture

  def _enlarged(self, picture: NdArray) -> Float[NdArray, "H W C"]:
    _, _, width, height = self._film.crop
    smooth = cv2.INTER_AREA if height < len(picture) else cv2.INTER_CUBIC
    resized = cv2.resize(picture.astype(np.float32), (width, height), interpolation=smooth)
    return resized.reshape(height, width, -1)


def _edge(film: FilmPlate) -> Float[NdArray, "H W 1"]:
  """Weight of the frame: 1 inside, falling to 0 at edges that lie inside the film's picture."""
  left, top, width, height = film.crop
  below, right = film.plate.shape[0] - top - height, film.plate.shape[1] - left - width
  fade = max(1, round(min(width, height) * _FADE))

  def ramp(count: int, before: int, after: int) -> Float[NdArray, " N"]:
    place = np.arange(count, dtype=np.float32) + 0.5
    first = np.clip(place / fade, 0, 1) if before else np.ones(count, np.float32)
    return np.minimum(first, np.clip((count - place) / fade, 0, 1) if after else 1)

  weight = ramp(height, top, below)[:, None] * ramp(width, left, right)
  return (weight * weight * (3 - 2 * weight))[..., None].astype(np.float32)
