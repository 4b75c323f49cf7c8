"""From films as they come to clips: the stretches that are used, in squares of one size, at a constant frame rate."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from anchor_jax.body.fit import fit_widths
from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Bool, NdArray
from anchor_jax.films.poses import CheckedVideo, FoundPoses, PosedClip, find_track, poses_of, square_of
from anchor_jax.films.stretches import GONE, GONE_FOR, Stretch, count, divide, runs
from anchor_jax.films.survey import Survey, survey
from anchor_jax.landmarks.framing import CropSquare, center_of
from anchor_jax.landmarks.measures import measure
from anchor_jax.landmarks.people import ChosenPerson
from anchor_jax.landmarks.sidecar import PosedVideo
from anchor_jax.landmarks.tracks import Track, guessed_hands
from anchor_jax.video.read import VideoInfo, read_frames
from anchor_jax.video.timing import pick, tick_frames

_MOVED = 0.25  # of a square's side: a stretch whose person is farther off than that gets a square of its own


class FilmLook(NamedTuple):
  """What is found in a film before it is divided; nothing here depends on other films.

  Attributes:
    survey: its first look.
    track: what the landmark model found, not mended; None where a sidecar has the poses.
    people: who is beside her; None where nobody is, or a sidecar has the poses.
  """

  survey: Survey
  track: Track | None
  people: ChosenPerson | None = None


class Film(NamedTuple):
  """A film that was divided into stretches.

  Attributes:
    name: of its file, without the ending.
    info: its facts.
    survey: its first look.
    stretches: all its frames, in order.
    guessed: frames in use whose left and whose right hand was not found for more than 0.4 s; None where a sidecar has
      the poses.
    clips: of the stretches in use, in order; their frames are made when they are iterated.
    people: who is beside her; None where nobody is.
  """

  name: str
  info: VideoInfo
  survey: Survey
  stretches: list[Stretch]
  guessed: tuple[int, int] | None
  clips: list[PosedClip]
  people: ChosenPerson | None = None


def look_at(video: CheckedVideo, *, person_at: tuple[float, float] | None = None, progress: bool = False) -> FilmLook:
  """Returns a first look at a video and, where it has no sidecar, its landmarks, found by the model now.

  Args:
    video: of `check_video`.
    person_at: where the person is when the film begins, if there are several; default the largest.
    progress: show a bar while the model runs.

  Raises:
    UserError: it is damaged, or nobody is there.
  """
  film = survey(read_frames(video.path, info=video.info), video.info.fps)
  if video.posed is not None:
    return FilmLook(film, None)
  return FilmLook(film, *find_track(video, cuts=film.cuts.tolist(), person_at=person_at, progress=progress))


def read_films(
  videos: Sequence[CheckedVideo],
  looks: Sequence[FilmLook],
  *,
  size: int,
  person: str,
  fps: float | int | None = None,
  square: CropSquare | None = None,
) -> list[Film]:
  """Returns videos of one person as films, whose clips `records.build` takes.

  The frames are the largest square around the person, resized; videos of the same picture size share one square, so
  that the room does not move from one to the next, but for stretches whose person is a quarter of its side off. The
  solids of the poses that the landmark model found are fitted to the person's masks in all videos together
  (body/fit.py).

  Args:
    videos: of `check_video`.
    looks: of `look_at`, one for each video.
    size: height and width of the clips' frames in pixels.
    person: name of who is in them.
    fps: frame rate of the clips; default that of each video.
    square: use this square instead, such as an earlier folder's; the videos must be checked with their bars then.

  Raises:
    UserError: a video has no stretch that can be used, or `square` does not fit into it.
  """
  divided = [stretches_of(video, look) for video, look in zip(videos, looks)]
  used = [(video, look, s) for video, look, every in zip(videos, looks, divided) for s in every if s.used]
  found = [poses_of(video, look.track, stretch.first, stretch.last) for video, look, stretch in used]
  squares = _squares([video for video, _, _ in used], found, size, square)
  measured = [None if p.track is None else measure(p.track, where) for p, where in zip(found, squares)]
  tracked = [(p.track, s, m) for p, s, m in zip(found, squares, measured) if p.track is not None and m is not None]
  widths = fit_widths(tracked)
  clips: dict[int, list[PosedClip]] = {id(video): [] for video in videos}
  for (video, _, stretch), poses, where, body in zip(used, found, squares, measured):
    info, measures = video.info, None if body is None else dataclasses.replace(body, widths=widths)
    frames = _at_rate(poses.frames(where, measures), info, stretch, fps)
    place = (where.left + info.geometry.bars[0], where.top + info.geometry.bars[1], where.side)
    clips[id(video)].append(PosedClip(video.path.stem, person, float(fps or info.fps), frames, place, measures))
  films = []
  for video, look, stretches in zip(videos, looks, divided):
    own = clips[id(video)]
    if len(own) > 1:
      own = [clip._replace(name=f"{clip.name} {number}") for number, clip in enumerate(own, start=1)]
    guessed = _guessed(look.track, stretches)
    films.append(Film(video.path.stem, video.info, look.survey, stretches, guessed, own, look.people))
  return films


def stretches_of(video: CheckedVideo, look: FilmLook) -> list[Stretch]:
  """Returns all stretches of a film, in order; each in use becomes a clip. Raises UserError where none can be used."""
  fps = video.info.fps
  if look.track is not None:
    seen = np.isfinite(look.track.body[:, 0, 0])
  else:
    assert video.posed is not None
    seen = _seen(video.posed, fps)
  stretches = divide(look.survey, seen, fps, None if look.people is None else look.people.crowded)
  if not any(stretch.used for stretch in stretches):
    left_out = count(stretches)
    if set(left_out) == {GONE}:
      raise UserError(f"{video.path}: no person is found in the video: use one that shows the upper body")
    told = ", ".join(f"{frames} of its frames are {reason}" for reason, frames in left_out.items())
    raise UserError(f"{video.path} has no stretch that can be used ({told}): film it again, with light and focus")
  return stretches


def _seen(posed: PosedVideo, fps: float) -> Bool[NdArray, " T"]:
  """In which frames of a video with a sidecar the person is: her face is known, or her mask is not empty."""
  seen = np.asarray(np.isfinite(posed.landmarks).all(axis=(1, 2)))
  for first, last in runs(seen):
    if not seen[first] and last - first >= GONE_FOR * fps:
      seen[first:last] = posed.shows_person(first, last)
  return seen


def _guessed(track: Track | None, stretches: Sequence[Stretch]) -> tuple[int, int] | None:
  if track is None:
    return None
  sides = [guessed_hands(track.part(s.first, s.last)).sum(axis=0) for s in stretches if s.used]
  left, right = np.sum(sides, axis=0).tolist()
  return left, right


def _squares(
  videos: Sequence[CheckedVideo], found: Sequence[FoundPoses], size: int, given: CropSquare | None
) -> list[CropSquare]:
  """The square of each stretch."""
  if given is not None:
    for video in videos:
      if given.left + given.side > video.info.width or given.top + given.side > video.info.height:
        raise UserError(
          f"{video.path} is {video.info.width}x{video.info.height}: the square of the other folder does not fit into it"
        )
    return [CropSquare(given.left, given.top, given.side, size)] * len(videos)
  groups: list[list[int]] = []
  for number, video in enumerate(videos):
    shape = video.info.width, video.info.height
    centre = np.array(center_of(found[number].anchors, *shape))
    for group in groups:
      first = videos[group[0]].info
      if (first.width, first.height) == shape:
        other = np.array(center_of(found[group[0]].anchors, *shape))
        if np.linalg.norm(centre - other) <= _MOVED * min(shape):
          group.append(number)
          break
    else:
      groups.append([number])
  squares: dict[int, CropSquare] = {}
  for group in groups:
    shared = square_of([found[number] for number in group], videos[group[0]].info, size)
    squares |= dict.fromkeys(group, shared)
  return [squares[number] for number in range(len(videos))]


def _at_rate(frames: Iterator[Any], info: VideoInfo, stretch: Stretch, fps: float | int | None) -> Iterator[Any]:
  """The frames of a stretch at a constant rate: the video's, or `fps`."""
  ticks = tick_frames(info)
  if ticks is not None:
    frames = pick(frames, [number - stretch.first for number in ticks if stretch.first <= number < stretch.last])
  return frames if fps is None or fps == info.fps else resample_frames(frames, info.fps, float(fps))


def resample_frames(frames: Iterable[Any], fps: float | int, wanted: float | int) -> Iterator[Any]:
  """Repeats or leaves out frames so that a clip of `fps` becomes one of `wanted` frames per second."""
  due = 0
  for number, frame in enumerate(frames):
    # a frame stands until the next one comes, at (number + 1) / fps; frames are due at 0, 1 / wanted, 2 / wanted, ...
    while due * fps < (number + 1) * wanted:
      yield frame
      due += 1
