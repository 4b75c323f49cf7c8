"""How a person's clothes and hair slide with the pose, fitted to some frames of the person's films."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from anchor_jax.body.pose import PoseRenderer
from anchor_jax.core.shapes import Float, NdArray
from anchor_jax.films.poses import OpenedFilm
from anchor_jax.landmarks.framing import CropRect
from anchor_jax.landmarks.proportions.cloth import ClothShift
from anchor_jax.landmarks.proportions.measures import BodyMeasures
from anchor_jax.landmarks.tracks import Track, seen_landmarks
from anchor_jax.texture.gather import FilmFrame
from anchor_jax.texture.registration.fit import FRAMES, fit_cloth
from anchor_jax.texture.registration.flow import HEIGHT
from anchor_jax.video.read import read_frames


def cloth_of_films(
  stretches: Sequence[tuple[OpenedFilm, int, Track, CropRect, BodyMeasures]],
) -> ClothShift | None:
  """Returns how the clothes of a person slide with the pose; None if the films are short or do not show it.

  Args:
    stretches: of films of one person: the film, number of the stretch's first frame, filled track, crop rectangle, and
      the person's measures in it, widths included.

  Raises:
    UserError: a film cannot be read.
  """
  total = sum(len(track) for _, _, track, _, _ in stretches)
  if not all(track.masks for _, _, track, _, _ in stretches):
    return None
  wanted = np.unique(np.linspace(0, total - 1, min(total, FRAMES)).round().astype(int))
  start, chosen = 0, []
  for film, first, track, crop, measures in stretches:
    numbers = wanted[(wanted >= start) & (wanted < start + len(track))] - start
    chosen += _frames(film, first, track, crop, measures, numbers.tolist())
    start += len(track)
  if len({frame.frame.shape for frame, _, _ in chosen}) > 1:
    return None
  frames, features, shoulders = zip(*chosen)
  return fit_cloth(frames, np.stack(features), np.array(shoulders))


def _frames(
  film: OpenedFilm, first: int, track: Track, crop: CropRect, measures: BodyMeasures, numbers: Sequence[int]
) -> Iterator[tuple[FilmFrame, Float[NdArray, " F"], float]]:
  """Some frames of a stretch, HEIGHT pixels high, with the features of their poses and the width of the shoulders."""
  if not numbers:
    return
  small = dataclasses.replace(crop, size=crop.size.with_height(HEIGHT))
  renderer = PoseRenderer(track, small, dataclasses.replace(measures, cloth=None))
  points, chosen = seen_landmarks(track), set(numbers)
  pictures = itertools.islice(read_frames(film.path, first, film.info), max(numbers) + 1)
  for number, picture in enumerate(pictures):
    if number in chosen:
      mask = np.where(small.image(track.share(number)) > 127, 255, 0).astype(np.uint8)
      picture = small.image(track.only_person(number, picture))
      surface = renderer.render(number).surface
      assert surface is not None, "always drawn by the renderer"
      frame = FilmFrame(picture, surface, mask, small.points(points[number]))
      yield frame, renderer.features(number), measures.shoulders * HEIGHT
