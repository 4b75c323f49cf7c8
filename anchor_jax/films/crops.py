"""The part of each film's picture that becomes the frame: one crop for all stretches whose person stays in place."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.films.poses import FoundPoses, OpenedFilm
from anchor_jax.landmarks.extents import Extents, join_extents
from anchor_jax.landmarks.framing import AutoSize, CropRect, center_of, frame_person, rect_around, tight_frame
from anchor_jax.landmarks.tracks import SHOULDERS, Track
from anchor_jax.video.read import VideoInfo

_MOVED = 0.25  # of the picture's shorter side; a stretch whose person moved further gets its own crop
_MIN_COLUMNS = 1.6  # shoulder widths; a crop this wide shows the person from head to waist
_MOST = 0.5  # of the frames; the head must be inside in more


def crops_of(
  films: Sequence[OpenedFilm], poses: Sequence[FoundPoses], size: FrameSize | AutoSize, fixed: CropRect | None = None
) -> list[CropRect]:
  """Returns the crop rectangle of each stretch, given the film and the poses of each.

  Args:
    films: the film of each stretch.
    poses: of each stretch.
    size: of the frames; with `AutoSize`, decided by the stretches with most frames that share a crop, and the crops are
      no larger than the person needs.
    fixed: crop to use for all instead.

  Raises:
    UserError: `fixed` does not fit into a film, or the head is outside the frames of a stretch most of the time.
  """
  if fixed is not None:
    for film in films:
      if fixed.right > film.info.width or fixed.bottom > film.info.height:
        raise UserError(
          f"{film.path} is {film.info.width}x{film.info.height}: the crop of the other folder does not fit into it"
        )
    return [fixed if isinstance(size, AutoSize) else dataclasses.replace(fixed, size=size)] * len(films)
  groups = [_Group(numbers, films, poses) for numbers in _grouped(films, poses)]
  scales = [np.inf] * len(groups)
  if isinstance(size, AutoSize):
    sides = [group.person_sides() for group in groups]
    longest = int(np.argmax([group.frames for group in groups]))
    size = size.of(*sides[longest], groups[longest].picture)
    # in films of one picture size, the person keeps their size from crop to crop
    scales = [max(max(s[0] / size.width, s[1] / size.height) for s, other in zip(sides, groups)
                  if other.picture == group.picture) for group in groups]  # fmt: skip
  crops: dict[int, CropRect] = {}
  for group, scale in zip(groups, scales):
    crop = group.crop(size, scale)
    group.check_head(crop)
    crops |= dict.fromkeys(group.numbers, crop)
  return [crops[number] for number in range(len(films))]


def crop_of(found: FoundPoses, info: VideoInfo, size: FrameSize) -> CropRect:
  """Returns the largest crop rectangle around the person of a film, for frames of `size`; see `frame_person`."""
  return _frame([found], info, size)


class _Group:
  """Stretches of films with the same picture size that share a crop."""

  def __init__(self, numbers: Sequence[int], films: Sequence[OpenedFilm], poses: Sequence[FoundPoses]):
    self.numbers, self._film, self._poses = numbers, films[numbers[0]], [poses[number] for number in numbers]
    self.frames = sum(len(found.anchors) for found in self._poses)
    self.picture = self._film.info.width, self._film.info.height

  def person_sides(self) -> tuple[float, float]:
    """Width and height of the part of the picture where the person ever is."""
    left, right = _columns(self._poses, self._film.info.width)
    tight = tight_frame(_joined(self._poses, True), right - left, self._film.info.height, left)
    return (right - left, self._film.info.height) if tight is None else (tight[2] - tight[0], tight[3] - tight[1])

  def crop(self, size: FrameSize, scale: float) -> CropRect:
    """The crop for frames of this size; `scale` is infinite for the largest one."""
    return _frame(self._poses, self._film.info, size, scale)

  def check_head(self, crop: CropRect) -> None:
    """Raises UserError if the head is cut off in most frames."""
    if all(found.track is None for found in self._poses) and (crop.width, crop.height) == self.picture:
      return  # a sidecar's film as it is
    extents, size = _joined(self._poses, False), crop.size
    if extents.inside(0, 0, *self.picture) < _MOST:
      raise UserError(
        f"{self._film.path} shows the head only in part in most frames: film the person with the head in the picture"
      )
    if extents.inside(crop.left, crop.top, crop.right, crop.bottom) < _MOST:
      raise UserError(
        f"{self._film.path}: frames of {size} can't show the head most of the time: give --size=auto for frames of the"
        " film's shape"
      )


def _grouped(films: Sequence[OpenedFilm], poses: Sequence[FoundPoses]) -> list[list[int]]:
  """Numbers of the stretches that share a crop."""
  groups: list[list[int]] = []
  for number, film in enumerate(films):
    shape = film.info.width, film.info.height
    center = np.array(center_of(poses[number].anchors, *shape))
    for group in groups:
      first = films[group[0]].info
      if (first.width, first.height) == shape:
        group_center = np.array(center_of(poses[group[0]].anchors, *shape))
        if np.linalg.norm(center - group_center) <= _MOVED * min(shape):
          group.append(number)
          break
    else:
      groups.append([number])
  return groups


def _frame(found: Sequence[FoundPoses], info: VideoInfo, size: FrameSize, scale: float = np.inf) -> CropRect:
  """The crop around the person in stretches of the same picture size; see `frame_person`."""
  left, right = _columns(found, info.width)
  full = rect_around(right - left, info.height, (0, 0), size, scale)
  if (full.width, full.height) == (right - left, info.height):
    return full.shifted(left, 0)  # there is nothing to choose
  extents, part = (
    _joined(found, bool(np.isfinite(scale))),
    {"width": right - left, "height": info.height, "first": left},
  )
  center = center_of(np.concatenate([poses.anchors for poses in found]), info.width, info.height)
  tight = tight_frame(extents, **part) if np.isfinite(scale) else None
  if tight is not None:
    center = (tight[0] + tight[2]) / 2, (tight[1] + tight[3]) / 2
  return frame_person(extents, center, size, **part, scale=scale)


def _joined(found: Sequence[FoundPoses], closely: bool) -> Extents:
  return join_extents([poses.extents(closely) for poses in found])


def _columns(found: Sequence[FoundPoses], width: int) -> tuple[int, int]:
  """The columns that belong to the person in all frames, if they are wide enough; otherwise all columns."""
  tracks: list[Track] = [poses.track for poses in found if poses.track is not None]
  columns = [track.columns for track in tracks if track.columns is not None]
  if not columns:
    return 0, width
  left = max(int(part[:, 0].max()) for part in columns)
  right = min(int(part[:, 1].min()) for part in columns)
  shoulders = np.concatenate([track.body[:, SHOULDERS, 0].ravel() for track in tracks])
  inside = left < np.nanmin(shoulders) and np.nanmax(shoulders) < right  # not so if the person walks around
  wide_enough = right - left >= _MIN_COLUMNS * max(track.shoulder_width for track in tracks)
  return (left, right) if inside and wide_enough else (0, width)
