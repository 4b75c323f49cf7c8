"""Turns films into clips: their usable stretches, cropped to frames of one size, at a constant frame rate."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from anchor_jax.body.fit import fit_body
from anchor_jax.core.errors import UserError
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.core.shapes import Bool, Float, NdArray, UInt8
from anchor_jax.films.cloth import cloth_of_films
from anchor_jax.films.crops import crops_of
from anchor_jax.films.poses import OpenedFilm, PosedClip, find_track, poses_of
from anchor_jax.films.room import STILL_SHARE, film_cameras
from anchor_jax.films.same_room import PICTURES, camera_in_room, room_of_clip
from anchor_jax.films.stretches import GONE, GONE_FOR, OUTSIDE, Stretch, count_skipped, divide, runs
from anchor_jax.films.survey import Survey, survey
from anchor_jax.landmarks.filling import guessed_hands
from anchor_jax.landmarks.framing import AutoSize, CropRect
from anchor_jax.landmarks.people import ChosenPerson
from anchor_jax.landmarks.proportions.alignment import align, join_measures
from anchor_jax.landmarks.proportions.measures import BodyMeasures, measure, shared_rest
from anchor_jax.landmarks.sidecar import PosedVideo
from anchor_jax.landmarks.tracks import Track
from anchor_jax.texture.background.camera_path import STILL, in_crop, joined, movement
from anchor_jax.video.read import VideoInfo, read_frames
from anchor_jax.video.timing import pick, tick_frames


class Findings(NamedTuple):
  """Measurements and landmarks of one film, independent of other films; the input for dividing it into stretches.

  Attributes:
    survey: measurements of its pictures.
    track: raw output of the landmark model; None if a sidecar has the poses.
    chosen: the person among several people; None if the film shows one person, or a sidecar has the poses.
    cameras: the camera path of the full picture; None if the camera is still.
  """

  survey: Survey
  track: Track | None
  chosen: ChosenPerson | None = None
  cameras: Float[NdArray, "T 4"] | None = None


class Film(NamedTuple):
  """A film divided into stretches.

  Attributes:
    name: file name without suffix.
    info: its properties.
    survey: measurements of its pictures.
    stretches: all its frames, in order.
    guessed: number of used frames whose left and right hand was not found for more than 0.4 s; None if a sidecar has
      the poses.
    clips: the used stretches, in order; frames are produced during iteration.
    chosen: the person among several people; None if the film shows one person.
    size: width and height of the clips' frames; None without clips.
  """

  name: str
  info: VideoInfo
  survey: Survey
  stretches: list[Stretch]
  guessed: tuple[int, int] | None
  clips: list[PosedClip]
  chosen: ChosenPerson | None = None
  size: FrameSize | None = None


def examine(film: OpenedFilm, *, progress: bool = False) -> Findings:
  """Returns the survey of a film and, if it has no sidecar, its landmarks, by running the model now.

  Args:
    film: from `open_film`.
    progress: show a progress bar while the landmark model runs.

  Raises:
    UserError: the film is damaged, or nobody is at its `person_at`.
  """
  measured = survey(read_frames(film.path, info=film.info), film.info.fps)
  if film.posed is not None:
    return Findings(measured, None, None, film_cameras(film, None, measured.cuts.tolist()))
  track, chosen = find_track(film, cuts=measured.cuts.tolist(), progress=progress)
  return Findings(measured, track, chosen, film_cameras(film, track))


def read_films(
  opened: Sequence[OpenedFilm],
  findings: Sequence[Findings],
  *,
  size: int | FrameSize | AutoSize,
  person: str,
  fps: float | int | None = None,
  crop: CropRect | None = None,
  body: BodyMeasures | None = None,
  section: tuple[float, float] = (0.0, 1.0),
  room: UInt8[NdArray, "H W 4"] | None = None,
) -> list[Film]:
  """Returns films of one person, with clips for `records.build`.

  Frames are resized crops around the person. Films of equal picture size share a crop, so that the background stays in
  place from clip to clip; a stretch whose person is more than a quarter of the picture's shorter side away gets another
  one. For landmark-model poses, all films show one body: its proportions are joined over the films and its widths
  fitted to the person masks of all of them (body/fit.py), and how its clothes slide with the pose is fitted to their
  pictures (films/cloth.py), unless `body` is given.

  Args:
    opened: from `open_film`.
    findings: `examine` of each.
    size: width and height of the clips' frames in pixels, or the side of squares; or how to decide it.
    person: name of the person.
    fps: frame rate of the clips; default that of each film.
    crop: crop rectangle to use instead, such as an earlier folder's; requires films opened with `bars`.
    body: body measures of the person to use, such as an earlier folder's; the films give only scale and place.
    section: the part of each film that is used, as shares of its length.
    room: RGB and coverage of an earlier folder's background plate; camera paths are then relative to its steady camera.

  Raises:
    UserError: a film has no usable stretch, `crop` does not fit into it, or the head is outside the frames.
  """
  divided = [stretches_of(film, found, section) for film, found in zip(opened, findings)]
  used = [(film, found, s) for film, found, all_of in zip(opened, findings, divided) for s in all_of if s.used]
  poses = [poses_of(film, found.track, stretch.first, stretch.last) for film, found, stretch in used]
  exact = size if isinstance(size, AutoSize) else FrameSize.of(size)
  crops = crops_of([film for film, _, _ in used], poses, exact, crop)
  measured = [None if p.track is None else measure(p.track, part) for p, part in zip(poses, crops)]
  tracked = [(p.track, part, m) for p, part, m in zip(poses, crops, measured) if p.track is not None and m is not None]
  if tracked and body is None:
    body = join_measures([measures for _, _, measures in tracked], [len(track) for track, _, _ in tracked])
    body = dataclasses.replace(body, rest=shared_rest(tracked))
    aligned = [(track, part, align(body, measures)) for track, part, measures in tracked]
    body = fit_body(body, aligned)
    moving = [
      (film, stretch.first, p.track, part, align(body, own))
      for (film, _, stretch), p, part, own in zip(used, poses, crops, measured)
      if p.track is not None and own is not None
    ]
    body = dataclasses.replace(body, cloth=cloth_of_films(moving))
  clips: dict[int, list[PosedClip]] = {id(film): [] for film in opened}
  paths = _CameraPaths(room, any(found.cameras is not None for found in findings))
  for (film, found, stretch), posed, part, own in zip(used, poses, crops, measured):
    info, measures = film.info, None if own is None or body is None else align(body, own)
    frames = _at_rate(posed.frames(part, measures), info, stretch, fps)
    in_full = part.shifted(*info.geometry.bars[:2]).to_json()
    cameras, rate = paths.of_clip(film, found, stretch, part), float(fps or info.fps)
    cameras = None if cameras is None else np.stack(list(_at_rate(iter(cameras), info, stretch, fps)))
    clips[id(film)].append(PosedClip(film.path.stem, person, rate, frames, in_full, measures, cameras))
  films = []
  for film, found, stretches in zip(opened, findings, divided):
    own = clips[id(film)]
    if len(own) > 1:
      own = [clip._replace(name=f"{clip.name} {number}") for number, clip in enumerate(own, start=1)]
    guessed = _guessed(found.track, stretches)
    films.append(Film(film.path.stem, film.info, found.survey, stretches, guessed, own, found.chosen, crops[0].size))
  return films


def stretches_of(film: OpenedFilm, found: Findings, part: tuple[float, float] = (0.0, 1.0)) -> list[Stretch]:
  """Returns all stretches of a film, in order; each used one becomes a clip. Raises UserError if none is usable."""
  fps = film.info.fps
  if found.track is not None:
    seen = np.isfinite(found.track.body[:, 0, 0])
  else:
    assert film.posed is not None
    seen = _seen(film.posed, fps)
  stretches = divide(found.survey, seen, fps, None if found.chosen is None else found.chosen.crowded, part)
  if not any(stretch.used for stretch in stretches):
    skipped = count_skipped(stretches)
    if set(skipped) - {OUTSIDE} == {GONE}:
      raise UserError(f"{film.path}: no person is found in the video: use one that shows the upper body")
    reasons = ", ".join(f"{frames} of its frames are {reason}" for reason, frames in skipped.items())
    raise UserError(f"{film.path} has no usable stretch ({reasons}): film it again, with light and focus")
  return stretches


def _seen(posed: PosedVideo, fps: float) -> Bool[NdArray, " T"]:
  """Whether each frame of a film with a sidecar shows the person: the face is known or the person mask is not empty."""
  seen = np.asarray(np.isfinite(posed.landmarks).all(axis=(1, 2)))
  for first, last in runs(seen):
    if not seen[first] and last - first >= GONE_FOR * fps:
      seen[first:last] = posed.shows_person(first, last)
  return seen


def _guessed(track: Track | None, stretches: Sequence[Stretch]) -> tuple[int, int] | None:
  if track is None:
    return None
  sides = [guessed_hands(track.slice(s.first, s.last)).sum(axis=0) for s in stretches if s.used]
  left, right = np.sum(sides, axis=0).tolist()
  return left, right


class _CameraPaths:
  """The camera paths of clips, relative to one steady camera for each crop."""

  def __init__(self, room: UInt8[NdArray, "H W 4"] | None, moves: bool):
    """Takes the room of another folder (see `read_films`), and whether any film's camera moves."""
    self._room, self._moves = room, moves
    self._rooms: dict[CropRect, tuple[tuple[OpenedFilm, int], UInt8[NdArray, "H W 4"]]] = {}  # with their first shot

  def of_clip(
    self, film: OpenedFilm, found: Findings, stretch: Stretch, crop: CropRect
  ) -> Float[NdArray, "N 4"] | None:
    """The path of a stretch in its crop, one camera for each frame of the film; None for a still camera."""
    if self._room is None and not self._moves:
      return None
    still = np.tile(STILL, (len(stretch), 1))
    own = still if found.cameras is None else found.cameras[stretch.first : stretch.last]
    own = in_crop(own, (film.info.height, film.info.width), (crop.left, crop.top, crop.width, crop.height))
    shot, room = (film, stretch.shot), self._room
    if room is None and crop in self._rooms:
      first, room = self._rooms[crop]
      room = None if first[0] is film and first[1] == stretch.shot else room
    elif room is None:
      self._rooms[crop] = shot, room_of_clip(film, found.track, stretch.first, crop, own)
    if room is not None:
      small = dataclasses.replace(crop, size=FrameSize(room.shape[1], room.shape[0]))
      numbers = np.unique(np.linspace(0, len(stretch) - 1, PICTURES).astype(int)).tolist()
      picture = lambda number: next(read_frames(film.path, stretch.first + number, film.info))
      place = camera_in_room(room, ((small.image(picture(number)), own[number]) for number in numbers))
      if place is not None and (movement(place[None], room.shape)[0] > STILL_SHARE or (own != still).any()):
        own = joined(own, place)
    return None if (own == still).all() else own


def _at_rate(frames: Iterator[Any], info: VideoInfo, stretch: Stretch, fps: float | int | None) -> Iterator[Any]:
  """The frames of a stretch at a constant rate: the film's, or `fps`."""
  ticks = tick_frames(info)
  if ticks is not None:
    frames = pick(frames, [number - stretch.first for number in ticks if stretch.first <= number < stretch.last])
  return frames if fps is None or fps == info.fps else resample_frames(frames, info.fps, float(fps))


def resample_frames(frames: Iterable[Any], fps: float | int, target_fps: float | int) -> Iterator[Any]:
  """Yields frames repeated or dropped so that a clip of `fps` becomes one of `target_fps` frames per second."""
  due = 0
  for number, frame in enumerate(frames):
    # A frame lasts until (number + 1) / fps; output frames are due at 0, 1 / target_fps, 2 / target_fps, ...
    while due * fps < (number + 1) * target_fps:
      yield frame
      due += 1
