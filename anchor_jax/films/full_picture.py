"""The full picture of a film beyond the frame: its background, for `generate --frame=film`."""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from anchor_jax.core.frame_size import FrameSize
from anchor_jax.core.shapes import NdArray, UInt8
from anchor_jax.films.clips import Film, Findings
from anchor_jax.films.poses import OpenedFilm
from anchor_jax.films.stretches import Stretch
from anchor_jax.texture.background.camera_path import inverse, matrix_of
from anchor_jax.texture.background.film_plate import FilmPlate, gather_film_plate, sample_count
from anchor_jax.video.read import read_frames


def film_plate(opened: OpenedFilm, found: Findings, film: Film, size: int | FrameSize) -> FilmPlate | None:
  """Returns the background of a film's full picture; None if the picture is no larger than the frame.

  Only stretches with the frame of the first clip count.

  Args:
    opened, found, film: the film, from `open_film`, `examine` and `read_films`.
    size: of the frames.

  Raises:
    UserError: the film is damaged.
  """
  first, info = film.clips[0].crop, opened.info
  if first is None or (info.width, info.height) == FrameSize.of(size):
    return None
  used = [stretch for stretch in film.stretches if stretch.used]
  same = [stretch for stretch, clip in zip(used, film.clips, strict=True) if clip.crop == first]
  left, top, width, *rest = first
  height = rest[0] if rest else width
  crop = left - info.geometry.bars[0], top - info.geometry.bars[1], width, height
  pictures = full_pictures(opened, found, same, sample_count(info.height, info.width))
  return gather_film_plate(pictures, crop)


def full_pictures(
  film: OpenedFilm, found: Findings, stretches: Sequence[Stretch], count: int
) -> Iterator[tuple[UInt8[NdArray, "H W 3"], UInt8[NdArray, "H W"]]]:
  """Yields frames of a film, evenly spaced over some of its stretches, and masks that are 255 where people are.

  Frames of a camera that moves are shown as the steady camera would show them.

  Args:
    film: from `open_film`.
    found: from `examine`.
    stretches: which frames may be used.
    count: number of frames, at most.

  Raises:
    UserError: the film is damaged.
  """
  numbers = np.concatenate([np.arange(stretch.first, stretch.last) for stretch in stretches])
  for number in numbers[np.unique(np.linspace(0, len(numbers) - 1, count).astype(int))].tolist():
    if film.posed is not None:
      posed = next(film.posed.frames(number))
      frame, mask = posed.frame, posed.person_mask
    else:
      assert found.track is not None, "only a sidecar replaces the track"
      frame, mask = next(read_frames(film.path, number, film.info)), found.track.mask(number)
      if found.track.columns is not None:  # beyond them are other people
        first, end = found.track.columns[number].tolist()
        mask[:, :first], mask[:, end:] = 255, 255
    if found.cameras is not None:
      matrix, size = matrix_of(inverse(found.cameras[number]), frame.shape), (frame.shape[1], frame.shape[0])
      frame = cv2.warpAffine(frame, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
      mask = np.where(cv2.warpAffine(mask, matrix, size, borderValue=(255,)) > 0, 255, 0).astype(np.uint8)
    yield frame, mask
