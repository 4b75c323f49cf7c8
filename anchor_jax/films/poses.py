"""Opens films and finds their poses, from a sidecar or with the landmark model."""

import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anchor_jax.body import pose
from anchor_jax.core.errors import UserError, printable
from anchor_jax.core.shapes import Float, NdArray
from anchor_jax.films.survey import film_cuts
from anchor_jax.landmarks.extents import Extents, landmark_extents, track_extents
from anchor_jax.landmarks.filling import fill_and_smooth
from anchor_jax.landmarks.framing import CropRect
from anchor_jax.landmarks.kept import KeptTracks
from anchor_jax.landmarks.model import find_faces, track_video
from anchor_jax.landmarks.networks.files import check_landmark_model, require_landmarks
from anchor_jax.landmarks.people import ChosenPerson, find_person
from anchor_jax.landmarks.proportions.measures import BodyMeasures
from anchor_jax.landmarks.shown import without_guesses
from anchor_jax.landmarks.sidecar import Posed, PosedFrame, PosedVideo, PoseRender, has_sidecar, open_posed_video
from anchor_jax.landmarks.tracks import SHOULDERS, Track, seen_landmarks
from anchor_jax.texture.matte import film_share
from anchor_jax.video.bars import probe_film
from anchor_jax.video.read import VideoInfo, probe, read_frames

FRAME_RATES = (1, 240)  # plausible frames per second of a camera


class PosedClip(NamedTuple):
  """A clip to write to a prepared folder.

  Attributes:
    name: display name of the video.
    person: name of the person; clips with equal names show the same person.
    fps: frames per second.
    frames: frames with their poses, all of the prepared folder's size.
    crop: the crop rectangle in pixels of the film's picture including black bars, as in meta.json
      (`CropRect.to_json`); None if there is none.
    measures: body measures of the person in that crop; None if unknown.
    cameras: the camera path in that crop (texture/background/camera_path.py); None if the camera is still.
  """

  name: str
  person: str
  fps: float
  frames: Iterable[Posed]
  crop: tuple[int, ...] | None = None
  measures: BodyMeasures | None = None
  cameras: Float[NdArray, "T 4"] | None = None


class OpenedFilm(NamedTuple):
  """A film whose properties and sidecar were read by `open_film`.

  Attributes:
    path: the file.
    info: its properties.
    posed: the film with its sidecar; None if the landmark model has to find the poses.
    person_at: a point (x, y) on the person when the film begins; None for the largest person.
    landmarks: the landmark model, if it has to.
  """

  path: Path
  info: VideoInfo
  posed: PosedVideo | None
  person_at: tuple[float, float] | None = None
  landmarks: str = "mediapipe"


class FoundPoses(NamedTuple):
  """The poses of a film or of a stretch of it, in pixels of the film; rendered on demand for a given crop.

  Attributes:
    anchors: points that locate the person, NaN where missing.
    landmarks: five face landmarks, NaN where the face was not found.
    frames: (crop, body measures or None) -> iterator over frames with their poses.
    poses: (crop, first) -> iterator over pose renders from index `first` of the stretch on, without decoding the
      film itself.
    extents: returns where the person is in the picture; True also reads the masks of a sidecar, which show the hands.
    track: the person's track, with gaps filled and smoothed; None if the poses come from a sidecar.
  """

  anchors: Float[NdArray, "T N 2"]
  landmarks: Float[NdArray, "T 5 2"]
  frames: Callable[[CropRect, BodyMeasures | None], Iterator[PosedFrame]]
  poses: Callable[[CropRect, int], Iterator[PoseRender]]
  extents: Callable[[bool], Extents]
  track: Track | None = None


def open_film(
  path: str | os.PathLike,
  landmarks: str = "mediapipe",
  fps: float | int | None = None,
  cut_off: bool = False,
  bars: bool = False,
  person_at: tuple[float, float] | None = None,
) -> OpenedFilm:
  """Returns a film whose poses can be found, probing each of its files once; fails before any long work starts.

  Args:
    path: the film.
    landmarks: the landmark model for a film without a sidecar.
    fps: frame rate to assume for a film whose own is implausible.
    cut_off: accept a film with a missing end.
    bars: keep black bars. They are always kept with a sidecar, whose poses refer to the full picture.
    person_at: a point (x, y) on the person when the film begins, if there are several; default the largest.

  Raises:
    UserError: see `probe` and `open_posed_video`; the frame rate is implausible; the landmark model is needed and not
      installed, or has an unknown name; or `person_at` is given for a film with a sidecar.
  """
  path = Path(path)
  check_landmark_model(landmarks)
  posed = open_posed_video(path, cut_off) if has_sidecar(path) else None
  info = posed.info if posed is not None else probe(path, cut_off) if bars else probe_film(path, cut_off)
  if not FRAME_RATES[0] <= info.fps <= FRAME_RATES[1]:
    if fps is None:
      raise UserError(
        f"{path} has {info.fps:g} frames per second by its time stamps, which is implausible: give its frame rate with"
        " --fps=25 (or another number)"
      )
    info = dataclasses.replace(info, fps=float(fps), seconds=info.frames / fps, unit=None)
  if posed is None:
    require_landmarks(path, landmarks)
  elif person_at is not None:
    raise UserError(f"{path}: its sidecar already says which person to use: leave out --person-at")
  return OpenedFilm(path, info, posed, person_at, landmarks)


def find_poses(film: OpenedFilm, *, frames: int | None = None, progress: bool = False) -> FoundPoses:
  """Returns the poses of a full film, from its sidecar or by running the landmark model now.

  What the landmark model finds is kept (landmarks/kept.py), and not looked for again.

  Args:
    film: from `open_film`.
    frames: limits the landmark model, and the result, to the first frames; default all.
    progress: show a progress bar while the landmark model runs.

  Raises:
    UserError: no person in the film or at its `person_at`, or the film is damaged.
  """
  if film.posed is not None:
    return poses_of(film, None)
  count = film.info.frames if frames is None else min(frames, film.info.frames)
  kept, name = kept_tracks(film), f"first-{count}"
  track = kept.read(name)
  if track is None or len(track) > count:
    cuts = film_cuts(itertools.islice(read_frames(film.path, info=film.info), frames), film.info.fps)
    track = find_track(film, frames=frames, cuts=cuts, progress=progress)[0]
    kept.write(name, track)
  return poses_of(film, track)


def kept_tracks(film: OpenedFilm) -> KeptTracks:
  """Returns the tracks that were found in a film before."""
  return KeptTracks(film.path, dataclasses.asdict(film.info), film.person_at, film.landmarks)


def find_track(
  film: OpenedFilm,
  *,
  frames: int | None = None,
  cuts: Sequence[int] = (),
  progress: bool = False,
) -> tuple[Track, ChosenPerson | None]:
  """Returns the landmark model's raw track of one person, and where the person is if the film shows several people.

  Of several people it follows the largest, or the one at the film's `person_at`; see `find_person` and `track_video`.
  """
  path, info = film.path, film.info
  count = info.frames if frames is None else min(frames, info.frames)
  left, top, right, bottom = info.geometry.bars  # points in flags, messages and reports refer to the full picture
  corner, full = np.array([left, top, 0, 0], np.float32), (left + info.width + right, top + info.height + bottom)
  faces = [(number, boxes + corner) for number, boxes in find_faces(path, info, frames=frames)]
  chosen = find_person(faces, count, info.fps, full, cuts=cuts, at=film.person_at)
  if chosen is not None:
    chosen = dataclasses.replace(chosen, columns=np.clip(chosen.columns - left, 0, info.width))
  bar = f"landmarks of {printable(path.name)}" if progress else None
  columns = None if chosen is None else chosen.columns
  options = {"columns": columns, "model": film.landmarks, "progress": bar}
  track = track_video(path, info, frames=frames, cuts=cuts, **options)
  return dataclasses.replace(without_guesses(track), cuts=tuple(int(cut) for cut in cuts)), chosen


def poses_of(film: OpenedFilm, track: Track | None, first: int = 0, last: int | None = None) -> FoundPoses:
  """Returns the poses of frames `first` to `last` (exclusive; default all) of a film.

  Args:
    film: from `open_film`.
    track: from `find_track`; its gaps are filled and smoothed here, within these frames and each shot. None for a film
      with a sidecar.
    first, last: frame indices.

  Raises:
    UserError: no person in these frames.
  """
  posed = film.posed
  if posed is not None:
    end = len(posed.landmarks) if last is None else last
    landmarks = posed.landmarks[first:end]
    return FoundPoses(
      landmarks,
      landmarks,
      lambda crop, _: (_in_crop(item, crop) for item in itertools.islice(posed.frames(first), end - first)),
      lambda crop, number: (
        PoseRender(crop.image(item.pose), crop.mask(item.face_mask), crop.surface(item.surface))
        for item in itertools.islice(posed.poses(first + number), max(0, end - first - number))
      ),
      functools.cache(
        lambda closely: landmark_extents(
          landmarks, posed.person_masks(first, end) if closely else (), (film.info.width, film.info.height)
        )
      ),
    )
  assert track is not None, "only a sidecar replaces the track"
  try:
    smoothed = fill_and_smooth(track.slice(first, len(track) if last is None else last))
  except UserError as error:
    raise UserError(f"{film.path}: {error}") from None
  poses = lambda crop, number: pose.pose_renders(smoothed, crop, number)
  frames_in = lambda crop, measures: _all_matted(
    pose.posed_frames(film.path, smoothed, crop, measures, first, film.info)
  )
  assert smoothed.has_body is not None, "always set by fill_and_smooth"
  anchors = np.where(smoothed.has_body[:, None, None], smoothed.body[:, SHOULDERS, :2], np.float32(np.nan))
  extents = functools.cache(lambda _: track_extents(smoothed))
  return FoundPoses(anchors, seen_landmarks(smoothed), frames_in, poses, extents, smoothed)


def _all_matted(frames: Iterable[PosedFrame]) -> Iterator[PosedFrame]:
  """`_matted` of each frame, in order; on another core, while this one renders the next frame and encodes the last."""
  with ThreadPoolExecutor(1) as thread:
    ahead = None
    for item in frames:
      ahead, done = thread.submit(_matted, item), ahead
      if done is not None:
        yield done.result()
    if ahead is not None:
      yield ahead.result()


def _matted(item: PosedFrame) -> PosedFrame:
  """The frame with the person's share of each pixel near the outline, instead of the landmark model's rough one."""
  alpha = film_share(item.frame, item.person_mask)
  return item._replace(person_mask=np.rint(255 * alpha).astype(np.uint8))


def _in_crop(item: PosedFrame, crop: CropRect) -> PosedFrame:
  return PosedFrame(
    crop.image(item.frame),
    crop.image(item.pose),
    crop.mask(item.person_mask),
    crop.mask(item.face_mask),
    crop.points(item.landmarks),
    crop.surface(item.surface),
  )
