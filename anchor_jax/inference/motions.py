"""Opens motions: of a video, a prepared folder, SMPL-X parameters or keypoints."""

import dataclasses
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from anchor_jax.core.errors import UserError, one_line
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.core.shapes import Bool, Float, NdArray
from anchor_jax.films.poses import open_film
from anchor_jax.landmarks.filling import fill_missing
from anchor_jax.landmarks.networks.files import check_landmark_model
from anchor_jax.landmarks.proportions.measures import BodyMeasures
from anchor_jax.landmarks.tracks import Track
from anchor_jax.motion.film import film_motion, track_motion
from anchor_jax.motion.frames import CAMERAS, Motion, MotionFrame
from anchor_jax.motion.keypoints import FPS, is_keypoints, open_keypoints
from anchor_jax.motion.steady import through_camera
from anchor_jax.smplx.parameters import is_parameters, read_parameters
from anchor_jax.video.timing import tick_frames

SIZE = FrameSize.of(128)  # default size of a video's pose renders, as in `prepare`
_LOG = logging.getLogger(__name__)

# By suffix, functions that read the landmarks in a file, neither filled nor smoothed; see docs/extending.md.
TRACK_FILES: dict[str, Callable[[Path], Track]] = {}


# (size, measures, mapped, camera) -> the motion, at its own frame rate or at the requested one
_Read = Callable[[FrameSize | None, BodyMeasures | None, bool, str], Motion]


@dataclasses.dataclass(frozen=True)
class OpenMotion:
  """A motion that was opened and checked; its frames and poses are not read yet.

  Attributes:
    path: the file or folder.
    fps: frames per second.
    length: number of frames, by the file's own account; None for keypoints, whose files are read as needed.
    has_renders: whether it comes with pose renders, as prepared folders and sidecars do; such a motion can't be mapped
      onto another body.
    has_sound: whether the file may have a sound track.
  """

  path: Path
  fps: float
  length: int | None
  has_renders: bool
  has_sound: bool
  _frames: int | None
  _read: _Read

  def read(
    self,
    size: int | tuple[int, int] | FrameSize | None = None,
    measures: BodyMeasures | None = None,
    mapped: bool = True,
    camera: str = "still",
  ) -> Motion:
    """Returns the motion; its frames are read or rendered when they are iterated.

    Args:
      size: width and height of the pose renders in pixels, or the side of squares; default the folder's, or 128.
      measures: body measures of the person to animate (`Person.measures`), onto which the motion is mapped and with
        which it is rendered; see `film_motion`. Ignored if the motion has renders.
      mapped: False only applies the measures' widths, cloth and rest pose.
      camera: if the film's camera moves, "still" takes that out of the motion, so that the room of the video stands
        still; "film" keeps it.

    Raises:
      UserError: the size is out of range or not the folder's, there is no face in any frame, or nobody is at
        `person_at`.
    """
    checked = None if size is None else FrameSize.of(size).check()
    if camera not in CAMERAS:
      raise UserError(f'camera="{one_line(camera, 40)}": use {" or ".join(CAMERAS)}')
    return self._read(checked, measures, mapped, camera).at_fps(self.fps).first(self._frames)


def open_motion(
  path: str | os.PathLike,
  *,
  frames: int | None = None,
  fps: float | int | None = None,
  video: int | None = None,
  smplx_model: str | os.PathLike | None = None,
  person_at: tuple[float, float] | None = None,
  whole: bool = False,
  landmarks: str = "mediapipe",
) -> OpenMotion:
  """Opens and checks a motion; neither pictures nor poses are read yet, and each file is probed once.

  Args:
    path: a video (with a sidecar, or for the landmark model), a prepared folder, a file of SMPL-X parameters (.npz,
      .npy, .pkl) as SHOW and TalkSHOW write them, or OpenPose's keypoints (.json, or a folder of such files).
    frames: only the first `frames` frames (at `fps`); default all.
    fps: frame rate of the motion; default that of the video or the folder.
    video: number of the video in a prepared folder, from 0; by default the first, with a warning if there are more.
    smplx_model: the body model for SMPL-X parameters, such as SMPLX_NEUTRAL.npz.
    person_at: of several people, follow the one at this point (x, y) in a video's first frame: fractions of the
      picture's width and height if both are at most 1, else pixels; default the largest person.
    whole: find all poses of a long film before the first frame; by default they are found as frames are taken.
    landmarks: the landmark model for a video without a sidecar: "mediapipe", or "mediapipe-heavy", which is slower.

  Raises:
    UserError: there is no such file or folder, it is damaged, a number is out of range, a video needs the landmark
      model and it is not installed, SMPL-X parameters come without a body model, or `person_at` is given for anything
      but a video without a sidecar.
  """
  if frames is not None and frames < 1:
    raise UserError(f"frames={frames}: give at least 1")
  if fps is not None and not 0 < fps <= 240:
    raise UserError(f"fps={fps}: give frames per second above 0, at most 240")
  check_landmark_model(landmarks)
  if person_at is not None and (os.path.isdir(path) or is_keypoints(path) or is_parameters(path)):
    raise UserError(f"{path} is not a film of several people: leave out --person-at")
  path = Path(path)
  if is_keypoints(path) and not video and smplx_model is None:
    return _open_keypoints(path, frames, fps)
  if os.path.isdir(path):
    return _open_folder(path, frames, fps, video)
  if video:
    raise UserError(f"video={video}: {path} is not a prepared folder, it has only one video")
  if path.suffix.lower() in TRACK_FILES:
    return _open_track(path, frames, fps)
  if (model := _body_model(path, smplx_model)) is not None:
    return _open_smplx(path, model, frames, fps)
  return _open_video(path, frames, fps, person_at, landmarks, whole)


def read_motion(
  path: str | os.PathLike,
  *,
  size: int | tuple[int, int] | FrameSize | None = None,
  frames: int | None = None,
  fps: float | int | None = None,
  video: int | None = None,
  measures: BodyMeasures | None = None,
  mapped: bool = True,
  camera: str = "still",
  smplx_model: str | os.PathLike | None = None,
  person_at: tuple[float, float] | None = None,
  landmarks: str = "mediapipe",
) -> Motion:
  """Returns the motion of a video, of one video of a prepared folder, of SMPL-X parameters or of keypoints.

  Frames are read or rendered when they are iterated. The motion of a video equals that of the folder prepared from it
  at the same size, given that folder's body measures.

  Args:
    path, frames, fps, video, smplx_model, person_at, landmarks: see `open_motion`.
    size, measures, mapped, camera: see `OpenMotion.read`.

  Raises:
    UserError: as `open_motion` and `OpenMotion.read`.
  """
  if size is not None:
    FrameSize.of(size).check()
  options = {"video": video, "smplx_model": smplx_model, "person_at": person_at, "landmarks": landmarks}
  opened = open_motion(path, frames=frames, fps=fps, **options)
  return opened.read(size, measures, mapped, camera)


def _opened(
  path: Path,
  native_fps: float,
  count: int | None,
  frames: int | None,
  fps: float | int | None,
  read: _Read,
  *,
  has_renders: bool = False,
  has_sound: bool = False,
) -> OpenMotion:
  """An open motion of `count` frames at `native_fps`; only the first `frames` at `fps` are used."""
  counted = Motion(native_fps, SIZE, count, lambda first: iter(()))
  length = None if count is None else counted.at_fps(fps).first(frames).length
  return OpenMotion(path, float(fps or native_fps), length, has_renders, has_sound, frames, read)


def _open_video(
  path: Path,
  frames: int | None,
  fps: float | int | None,
  person_at: tuple[float, float] | None,
  landmarks: str,
  whole: bool,
) -> OpenMotion:
  film = open_film(path, landmarks, fps=fps, person_at=person_at)

  def read(size: FrameSize | None, measures: BodyMeasures | None, mapped: bool, camera: str) -> Motion:
    options = {"frames": frames, "fps": fps, "measures": measures, "mapped": mapped, "camera": camera, "whole": whole}
    return film_motion(film, size=size or SIZE, **options)

  count = len(tick_frames(film.info) or range(film.info.frames))
  return _opened(path, film.info.fps, count, frames, fps, read, has_renders=film.posed is not None, has_sound=True)


def _open_keypoints(path: Path, frames: int | None, fps: float | int | None) -> OpenMotion:
  keypoints = open_keypoints(path)

  def read(size: FrameSize | None, measures: BodyMeasures | None, mapped: bool, camera: str) -> Motion:
    return keypoints.motion(size=size or SIZE, frames=frames, fps=fps, measures=measures, mapped=mapped)

  return _opened(path, float(fps or FPS), None, frames, fps, read)


def _open_track(path: Path, frames: int | None, fps: float | int | None) -> OpenMotion:
  track = TRACK_FILES[path.suffix.lower()](path)
  read = lambda size, measures, mapped, _: track_motion(track, size or SIZE, measures, mapped)
  return _opened(path, track.fps, len(track), frames, fps, read)


def _open_smplx(path: Path, model: Path, frames: int | None, fps: float | int | None) -> OpenMotion:
  parameters = read_parameters(path)

  def read(size: FrameSize | None, measures: BodyMeasures | None, mapped: bool, camera: str) -> Motion:
    from anchor_jax.smplx.motion import smplx_motion  # imports JAX

    options = {"size": size or SIZE, "frames": frames, "fps": fps, "measures": measures, "mapped": mapped}
    return smplx_motion(parameters, model, **options)

  return _opened(path, parameters.fps, len(parameters), frames, fps, read)


def _body_model(path: Path, model: str | os.PathLike | None) -> Path | None:
  """The body model for a file of SMPL-X parameters; None for other files."""
  if not is_parameters(path):
    if model is not None:
      raise UserError(f"smplx_model={model}: {path} holds no SMPL-X parameters, leave it out")
    return None
  if model is None:
    raise UserError(f"{path} holds SMPL-X parameters: name the body model with --smplx-model=SMPLX_NEUTRAL.npz")
  if not os.path.isfile(model):
    raise UserError(f"there is no SMPL-X model {model}")
  return Path(model)


def _open_folder(folder: Path, limit: int | None, fps: float | int | None, video: int | None) -> OpenMotion:
  from anchor_jax.data.records import open_prepared  # imports TFDS, which videos do not need

  source = open_prepared(folder)
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

  def read(size: FrameSize | None, measures: BodyMeasures | None, mapped: bool, camera: str) -> Motion:
    if size is not None and size != source.size:
      raise UserError(
        f"{folder} is prepared at {source.size} pixels and the person was trained at {size}: prepare it again with"
        f" --size={size}"
      )
    landmarks = _Landmarks(
      source.has_landmarks[start : start + count],
      lambda number: source.read(start + number, ("landmarks",))["landmarks"],
    )
    landmarks[0]  # raises if no frame has a face

    def frames(first: int) -> Iterator[MotionFrame]:
      for number in range(first, count):
        record = source.read(start + number, ("pose", "face_mask", "surface"))
        surface = record["surface"] if source.has_surface[start + number] else None
        yield MotionFrame(record["pose"], record["face_mask"], landmarks[number], surface)

    motion = Motion(float(chosen["fps"]), source.size, count, frames)
    cameras = None if source.cameras is None else source.cameras[start : start + count]
    return through_camera(motion, None if chosen.get("cameras") is None else cameras, camera)

  return _opened(folder, float(chosen["fps"]), count, limit, fps, read, has_renders=True)


class _Landmarks:
  """The landmarks of a video's frames, read on demand; missing ones are interpolated over time."""

  def __init__(self, known: Bool[NdArray, " T"], read: Callable[[int], Float[NdArray, "5 2"]]):
    """Takes for each frame whether all its landmarks are known, and a function that reads a frame's landmarks."""
    self._known, self._all, self._read = np.asarray(known), np.flatnonzero(known), read
    self._gap, self._filled = range(0), np.zeros((0, 5, 2), np.float32)

  def __getitem__(self, number: int) -> Float[NdArray, "5 2"]:
    if self._known[number]:
      return self._read(number)
    if number not in self._gap:
      place = int(np.searchsorted(self._all, number))
      # bounded by the nearest frames with all landmarks, if any
      first = int(self._all[place - 1]) if place else 0
      last = int(self._all[place]) if place < len(self._all) else len(self._known) - 1
      self._gap = range(first, last + 1)
      self._filled = fill_missing(np.stack([self._read(i) for i in self._gap]))
    return self._filled[number - self._gap.start]
