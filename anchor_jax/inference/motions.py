"""The motion in a video, in a prepared folder, or in a file of SMPL-X parameters."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Bool, Float, NdArray
from anchor_jax.films.poses import open_film
from anchor_jax.landmarks.filling import fill_missing
from anchor_jax.landmarks.framing import check_size
from anchor_jax.landmarks.measures import BodyMeasures
from anchor_jax.motion.film import film_motion
from anchor_jax.motion.frames import Motion, MotionFrame
from anchor_jax.motion.keypoints import is_keypoints, open_keypoints
from anchor_jax.smplx.parameters import is_parameters, read_parameters

SIZE = 128  # pixels, of a video's pose renders where no size is given; that of `prepare` too
_LOG = logging.getLogger(__name__)


def read_motion(
  path: str | os.PathLike,
  *,
  size: int | None = None,
  frames: int | None = None,
  fps: float | int | None = None,
  video: int | None = None,
  measures: BodyMeasures | None = None,
  mapped: bool = True,
  smplx_model: str | os.PathLike | None = None,
  person_at: tuple[float, float] | None = None,
) -> Motion:
  """Returns the motion in a video, that of one video of a prepared folder, or that of SMPL-X parameters.

  Frames are read or rendered when they are iterated; a motion of a video is the same as that of the folder prepared
  from it at the same size, with the measures that the folder has of her.

  Args:
    path: a video (with a sidecar, or for the landmark model), a prepared folder, a file of SMPL-X parameters (.npz,
      .npy, .pkl) as SHOW and TalkSHOW write them, or OpenPose's keypoints (.json, or a folder of such files).
    size: height and width of the pose renders in pixels, as the person was trained; default the folder's, or 128.
    frames: only the first so many frames (at `fps`); default all.
    fps: frame rate of the motion; default that of the video or the folder.
    video: number of the video in a prepared folder, from 0; by default the first, and a warning is logged where the
      folder has others.
    measures: of the person who is to make the motion (`Person.measures`): that of a video without a sidecar is mapped
      onto her body and her place in the picture, and rendered with her solids; see `film_motion`. Prepared
      folders and sidecars hold renders, which stay as they are.
    mapped: whether the motion is mapped; otherwise only the widths of the solids are hers.
    smplx_model: the body model that poses SMPL-X parameters, such as SMPLX_NEUTRAL.npz.
    person_at: a point (x, y) on who makes the motion when a video begins, of several people in it: shares of the
      picture's width and height if both are at most 1, else pixels; default the largest.

  Raises:
    UserError: no such file or folder, damaged, of another size, without a face in any frame, a number out of range,
      nobody at `person_at`, or something else than a video without a sidecar with it.
  """
  if size is not None:
    check_size(size)
  if frames is not None and frames < 1:
    raise UserError(f"frames={frames}: at least 1")
  if fps is not None and not 0 < fps <= 240:
    raise UserError(f"fps={fps}: give frames per second above 0, at most 240")
  _check_point(path, person_at)
  if is_keypoints(path) and not video and smplx_model is None:
    options = {"size": SIZE if size is None else size, "frames": frames, "measures": measures, "mapped": mapped}
    return open_keypoints(path).motion(fps=fps, **options)
  if not os.path.isdir(path):
    if video:
      raise UserError(f"video={video}: {path} is not a prepared folder, it has only one video")
    size = SIZE if size is None else size
    if (model := _body_model(path, smplx_model)) is not None:
      from anchor_jax.smplx.motion import smplx_motion  # imports JAX

      options = {"frames": frames, "fps": fps, "measures": measures, "mapped": mapped}
      return smplx_motion(read_parameters(path), model, size=size, **options)
    film = open_film(path, fps=fps, person_at=person_at)
    return film_motion(film, size=size, frames=frames, fps=fps, measures=measures, mapped=mapped)
  return _folder_motion(Path(path), size, video).at_fps(fps).first(frames)


def check_motion(
  path: str | os.PathLike,
  fps: float | int | None = None,
  smplx_model: str | os.PathLike | None = None,
  person_at: tuple[float, float] | None = None,
) -> None:
  """Checks, before a person is read, that `read_motion` will find a motion; neither frames nor poses are read.

  Raises:
    UserError: no such file or folder, a damaged one, a video that needs the landmark model where there is none, or
      SMPL-X parameters without a model, or a point on a person where there can't be several.
  """
  _check_point(path, person_at)
  if is_keypoints(path) and smplx_model is None:
    open_keypoints(path)
  elif os.path.isdir(path):
    from anchor_jax.data.records import open_prepared

    open_prepared(path)
  elif _body_model(path, smplx_model) is not None:
    read_parameters(path)
  else:
    open_film(path, fps=fps, person_at=person_at)


def _check_point(path: str | os.PathLike, person_at: tuple[float, float] | None) -> None:
  if person_at is not None and (os.path.isdir(path) or is_keypoints(path) or is_parameters(path)):
    raise UserError(f"{path} is no film of several people: leave out --person-at")


def _body_model(path: str | os.PathLike, given: str | os.PathLike | None) -> Path | None:
  """The body model for a file of SMPL-X parameters; None where the path is named otherwise."""
  if not is_parameters(path):
    if given is not None:
      raise UserError(f"smplx_model={given}: {path} holds no SMPL-X parameters, leave it out")
    return None
  if given is None:
    raise UserError(f"{path} holds SMPL-X parameters: name the body model with --smplx-model=SMPLX_NEUTRAL.npz")
  if not os.path.isfile(given):
    raise UserError(f"there is no SMPL-X model {given}")
  return Path(given)


def _folder_motion(folder: Path, size: int | None, video: int | None) -> Motion:
  from anchor_jax.data.records import open_prepared  # imports TFDS, which videos do not need

  source = open_prepared(folder)
  if size is not None and size != source.size:
    raise UserError(
      f"{folder} is prepared at {source.size} pixels and the person was trained at {size}: prepare it again with"
      f" --size={size}"
    )
  videos = source.meta["videos"]
  if video is None and len(videos) > 1:
    _LOG.warning(
      "%s holds %d videos: the motion is that of the first (%s), the other %d are left out",
      *(folder, len(videos), videos[0]["name"], len(videos) - 1),
    )
  if not 0 <= (video or 0) < len(videos):
    raise UserError(f"video={video}: {folder} holds {len(videos)} videos, numbered from 0")
  chosen = videos[video or 0]
  start, count = chosen["first"], chosen["frames"]
  read = lambda number: source.read(start + number, ("landmarks",))["landmarks"]
  landmarks = _Landmarks(source.has_landmarks[start : start + count], read)
  landmarks[0]  # raises where no frame has a face

  def frames(first: int) -> Iterator[MotionFrame]:
    for number in range(first, count):
      record = source.read(start + number, ("pose", "face_mask", "surface"))
      surface = record["surface"] if source.has_surface[start + number] else None
      yield MotionFrame(record["pose"], record["face_mask"], landmarks[number], surface)

  return Motion(float(chosen["fps"]), source.size, count, frames)


class _Landmarks:
  """The landmarks of a video's frames, missing ones interpolated over time, read as they are needed."""

  def __init__(self, known: Bool[NdArray, " T"], read: Callable[[int], Float[NdArray, "5 2"]]):
    """Takes for each frame whether all its landmarks are known, and what reads those of a frame."""
    self._known, self._all, self._read = np.asarray(known), np.flatnonzero(known), read
    self._gap, self._filled = range(0), np.zeros((0, 5, 2), np.float32)

  def __getitem__(self, number: int) -> Float[NdArray, "5 2"]:
    if self._known[number]:
      return self._read(number)
    if number not in self._gap:
      place = int(np.searchsorted(self._all, number))
      # up to the frames with all landmarks on both sides, where there are any
      first = int(self._all[place - 1]) if place else 0
      last = int(self._all[place]) if place < len(self._all) else len(self._known) - 1
      self._gap = range(first, last + 1)
      self._filled = fill_missing(np.stack([self._read(i) for i in self._gap]))
    return self._filled[number - self._gap.start]
