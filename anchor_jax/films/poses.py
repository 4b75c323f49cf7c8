"""The poses of a video, or of a stretch of it: from its sidecar, or from the landmark model."""

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anchor_jax.body import pose
from anchor_jax.core.errors import UserError, printable
from anchor_jax.core.shapes import Float, NdArray
from anchor_jax.films.survey import film_cuts
from anchor_jax.landmarks.framing import CropSquare, center_of, square_around
from anchor_jax.landmarks.measures import BodyMeasures
from anchor_jax.landmarks.mediapipe import find_faces, require_mediapipe, track_video
from anchor_jax.landmarks.people import ChosenPerson, find_person
from anchor_jax.landmarks.sidecar import Posed, PosedFrame, PosedVideo, PoseRender, has_sidecar, open_posed_video
from anchor_jax.landmarks.tracks import SHOULDERS, Track, fill_and_smooth, seen_landmarks
from anchor_jax.video.bars import probe_film
from anchor_jax.video.read import VideoInfo, probe, read_frames

LANDMARK_MODELS = ("mediapipe",)
_ROOM = 1.6  # widths of her shoulders: a square that is as wide shows her from the head to the waist


FRAME_RATES = (1, 240)  # frames per second that cameras make


class PosedClip(NamedTuple):
  """A clip to be written to a prepared folder.

  Attributes:
    name: of the video, for people to read.
    person: name of who is in it; clips with the same name are the same person.
    fps: frames per second.
    frames: the frames with their poses, all of the prepared folder's size.
    square: left, top and side of the square of the video's picture with its black bars, in its pixels; stored in
      meta.json.
    measures: of the person's body in that square; None where they are not known.
  """

  name: str
  person: str
  fps: float
  frames: Iterable[Posed]
  square: tuple[int, int, int] | None = None
  measures: BodyMeasures | None = None


class CheckedVideo(NamedTuple):
  """A video that was checked by `check_video`.

  Attributes:
    path: the file.
    info: its facts.
    posed: the video with its sidecar; None where the landmark model is to find the poses.
  """

  path: Path
  info: VideoInfo
  posed: PosedVideo | None


class FoundPoses(NamedTuple):
  """The poses of a video or of a stretch of it, in pixels of the video; renders are made for a given square.

  Attributes:
    anchors: points that say where the person is, NaN where missing.
    landmarks: five face landmarks, NaN where the face was not found.
    frames: function from a square, and the person's measures in it where they are known, to an iterator over the frames
      with their poses.
    poses: function from a square and a frame's number (from 0, the stretch's first) to an iterator over the pose sides
      from that frame on; the video's own picture is not decoded.
    track: the person's points, mended; None where the poses are those of a sidecar.
  """

  anchors: Float[NdArray, "T N 2"]
  landmarks: Float[NdArray, "T 5 2"]
  frames: Callable[[CropSquare, BodyMeasures | None], Iterator[PosedFrame]]
  poses: Callable[[CropSquare, int], Iterator[PoseRender]]
  track: Track | None = None


def check_video(
  path: str | os.PathLike,
  landmarks: str = "mediapipe",
  fps: float | int | None = None,
  cut_off: bool = False,
  bars: bool = False,
) -> CheckedVideo:
  """Checks, before any long work, that the poses of a video can be found; each of its files is probed once.

  Args:
    path: the video.
    landmarks: the landmark model for a video without a sidecar.
    fps: the frame rate to take for that of a video which does not say a credible one.
    cut_off: take what is there of a video whose end is missing.
    bars: keep black bars in the picture; they are always kept with a sidecar, whose poses are those of the whole one.

  Raises:
    UserError: see `probe` and `open_posed_video`; the frame rate is not credible; or the landmark model is needed and
      missing, or of an unknown name.
  """
  path = Path(path)
  if landmarks not in LANDMARK_MODELS:
    raise UserError(f'there is no landmark model "{landmarks}": use {", ".join(LANDMARK_MODELS)}')
  posed = open_posed_video(path, cut_off) if has_sidecar(path) else None
  info = posed.info if posed is not None else probe(path, cut_off) if bars else probe_film(path, cut_off)
  if not FRAME_RATES[0] <= info.fps <= FRAME_RATES[1]:
    if fps is None:
      raise UserError(
        f"{path} has {info.fps:g} frames per second by its time stamps, which no camera makes: say how many it has with"
        " --fps=25 (or another number)"
      )
    info = dataclasses.replace(info, fps=float(fps), seconds=info.frames / fps, unit=None)
  if posed is None:
    require_mediapipe(path)
  return CheckedVideo(path, info, posed)


def find_poses(
  video: CheckedVideo,
  *,
  frames: int | None = None,
  person_at: tuple[float, float] | None = None,
  progress: bool = False,
) -> FoundPoses:
  """Returns the poses of a whole video, from its sidecar, else from the landmark model, which runs now.

  Args:
    video: of `check_video`.
    frames: the landmark model runs over the first so many frames only, and only those are known; default all.
    person_at: where the person is when the film begins, of several people in it; default the largest.
    progress: show a bar while the landmark model runs.

  Raises:
    UserError: no person in the video or at that point, a sidecar says already who is meant, or the video is damaged.
  """
  if video.posed is None:
    cuts = film_cuts(itertools.islice(read_frames(video.path, info=video.info), frames), video.info.fps)
    return poses_of(video, find_track(video, frames=frames, cuts=cuts, person_at=person_at, progress=progress)[0])
  check_no_point(video, person_at)
  return poses_of(video, None)


def check_no_point(video: CheckedVideo, person_at: tuple[float, float] | None) -> None:
  """Raises UserError where a point is given for a video whose sidecar says already who is meant."""
  if person_at is not None and video.posed is not None:
    raise UserError(f"{video.path}: its sidecar says already who is meant: leave out --person-at")


def find_track(
  video: CheckedVideo,
  *,
  frames: int | None = None,
  cuts: Sequence[int] = (),
  person_at: tuple[float, float] | None = None,
  progress: bool = False,
) -> tuple[Track, ChosenPerson | None]:
  """Returns what the landmark model finds of one person in a video, not mended, and who is beside her.

  Of several people it is the largest, or the one at `person_at` when the film begins; see `find_person` and
  `track_video`.
  """
  path, info = video.path, video.info
  count = info.frames if frames is None else min(frames, info.frames)
  left, top, right, bottom = info.geometry.bars  # points that are said, given and shown are those of the whole picture
  corner, whole = np.array([left, top, 0, 0], np.float32), (left + info.width + right, top + info.height + bottom)
  faces = [(number, boxes + corner) for number, boxes in find_faces(path, info, frames=frames)]
  people = find_person(faces, count, info.fps, whole, cuts=cuts, at=person_at)
  if people is not None:
    people = dataclasses.replace(people, columns=np.clip(people.columns - left, 0, info.width))
  bar = f"landmarks of {printable(path.name)}" if progress else None
  columns = None if people is None else people.columns
  track = track_video(path, info, frames=frames, cuts=cuts, columns=columns, progress=bar)
  return dataclasses.replace(track, cuts=tuple(int(cut) for cut in cuts)), people


def poses_of(video: CheckedVideo, track: Track | None, first: int = 0, last: int | None = None) -> FoundPoses:
  """Returns the poses of frames `first` to `last` (exclusive; default all) of a video.

  Args:
    video: of `check_video`.
    track: of `find_track`, mended here over these frames alone, each shot by itself; None for a video with a sidecar.
    first, last: numbers of frames.

  Raises:
    UserError: no person in these frames.
  """
  posed = video.posed
  if posed is not None:
    end = len(posed.landmarks) if last is None else last
    landmarks = posed.landmarks[first:end]
    return FoundPoses(
      landmarks,
      landmarks,
      lambda square, _: (_in_square(item, square) for item in itertools.islice(posed.frames(first), end - first)),
      lambda square, number: (
        PoseRender(square.image(item.pose), square.mask(item.face_mask), square.surface(item.surface))
        for item in itertools.islice(posed.poses(first + number), max(0, end - first - number))
      ),
    )
  assert track is not None, "only a sidecar replaces the track"
  try:
    mended = fill_and_smooth(track.part(first, len(track) if last is None else last))
  except UserError as error:
    raise UserError(f"{video.path}: {error}") from None
  poses = lambda square, number: pose.pose_renders(mended, square, number)
  frames_in = lambda square, measures: pose.posed_frames(video.path, mended, square, measures, first, video.info)
  assert mended.has_body is not None, "it is known of mended tracks"
  anchors = np.where(mended.has_body[:, None, None], mended.body[:, SHOULDERS, :2], np.float32(np.nan))
  return FoundPoses(anchors, seen_landmarks(mended), frames_in, poses, mended)


def square_of(found: Sequence[FoundPoses], info: VideoInfo, size: int) -> CropSquare:
  """Returns the square around the person in one or several videos of the same picture size."""
  anchors = np.concatenate([poses.anchors for poses in found])
  centre = center_of(anchors, info.width, info.height)
  left, right = _common_columns([poses.track for poses in found if poses.track is not None], info.width)
  square = square_around(right - left, info.height, (centre[0] - left, centre[1]), size)
  return dataclasses.replace(square, left=left + square.left)


def _common_columns(tracks: Sequence[Track], width: int) -> tuple[int, int]:
  """The columns that are hers in all frames, where there is room for her between them; else all columns."""
  columns = [track.columns for track in tracks if track.columns is not None]
  if not columns:
    return 0, width
  left = max(int(part[:, 0].max()) for part in columns)
  right = min(int(part[:, 1].min()) for part in columns)
  shoulders = np.concatenate([track.body[:, SHOULDERS, 0].ravel() for track in tracks])
  inside = left < np.nanmin(shoulders) and np.nanmax(shoulders) < right  # she may walk about herself
  room = right - left >= _ROOM * max(track.shoulder_width for track in tracks)
  return (left, right) if inside and room else (0, width)


def _in_square(item: PosedFrame, square: CropSquare) -> PosedFrame:
  return PosedFrame(
    square.image(item.frame),
    square.image(item.pose),
    square.mask(item.person_mask),
    square.mask(item.face_mask),
    square.points(item.landmarks),
    square.surface(item.surface),
  )
