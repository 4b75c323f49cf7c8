"""The landmarks of a long film, found block by block: the first ones are there early, and memory does not grow.

Blocks are found in order, each from the pictures around it and the block before, and kept (landmarks/kept.py), so that
each can be read again. Cuts, other people's columns and the model's place in the picture are decided with a second of
look-ahead; a film that is found as a whole (`poses.find_track`) looks at all of it.
"""

import collections
import dataclasses
import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.core.shapes import Bool, Float, Int, NdArray, UInt8
from anchor_jax.films.poses import OpenedFilm, kept_tracks
from anchor_jax.films.survey import Glance, cuts_between, glance
from anchor_jax.landmarks.model import FaceBoxes, LandmarkModel, track_pictures
from anchor_jax.landmarks.people import Boxes, find_person
from anchor_jax.landmarks.shown import without_guesses
from anchor_jax.landmarks.tracks import Track, joined
from anchor_jax.video.read import read_frames

FIRST, LATER = 4.0, 8.0  # seconds of the first two blocks, which the first frame waits for, and of all others
_AROUND = 1.0  # seconds around a block that decide where shots begin and where other people are
_RUN_IN = 0.24  # seconds for which the model looks at the end of the block before
_JOIN = 0.4  # seconds over which a step between two blocks is spread
_LARGEST_STEP = 0.05  # of the picture's height; a larger one is no inaccuracy, and stays
_HELD = 4  # blocks in memory


class FilmBlocks:
  """The landmarks of a film without a sidecar, block by block, with gaps and not smoothed.

  Attributes:
    film: the film.
    edges: first and last (exclusive) frame of each block.
  """

  def __init__(self, film: OpenedFilm):
    """Takes a film from `open_film`; nothing is read yet."""
    self.film, info = film, film.info
    first, later = (max(2, round(seconds * info.fps)) for seconds in (FIRST, LATER))
    starts = [0, first, *range(2 * first, info.frames, later)]
    starts = [start for start in starts if start < info.frames]
    self.edges = list(itertools.pairwise([*starts, info.frames]))
    self._starts = np.array(starts)
    self._kept = kept_tracks(film)
    self._held: collections.OrderedDict[int, Track] = collections.OrderedDict()
    self._beginnings: dict[int, int] = {}
    self._seen: dict[int, tuple[Bool[NdArray, " T"], tuple[int, ...]]] = {}  # frames with the person, and cuts
    self._faces: dict[int, Float[NdArray, "2"] | None] = {}  # the last one in each block
    self._scout, self._pictures = _Scout(film), _Pictures(film)
    self._model: tuple[bool, LandmarkModel] | None = None
    self.masked = 0  # blocks from the start whose masks are found, too

  def block_of(self, frame: int) -> int:
    """Returns the number of the block with this frame."""
    return int(np.searchsorted(self._starts, frame, side="right")) - 1

  def block(self, number: int) -> Track:
    """Returns the track of a block; a cut at 0 says that a shot begins with it.

    Raises:
      UserError: the film can't be read, or nobody is at its `person_at`.
    """
    if number not in self._held:
      missing = list(itertools.takewhile(lambda each: self._read(each) is None, range(number, -1, -1)))
      for each in reversed(missing):  # each needs the one before
        self._hold(each, self._find(each))
        self._kept.write(self._name(each), self._held[each])
    self._held.move_to_end(number)
    return self._held[number]

  def part(self, first: int, end: int) -> Track:
    """Returns the track of frames `first` to `end` (exclusive), without masks and columns."""
    numbers = range(self.block_of(first), self.block_of(end - 1) + 1)
    blocks = [(self.edges[number][0], self.block(number)) for number in numbers]
    cuts = tuple(start + cut for start, block in blocks for cut in block.cuts)
    plain = [dataclasses.replace(block, masks=(), columns=None, cuts=()) for _, block in blocks]
    start = blocks[0][0]
    track = joined(plain, tuple(cut - start for cut in cuts)) if len(plain) > 1 else plain[0]
    track = dataclasses.replace(track, cuts=tuple(cut - start for cut in cuts))
    return track.slice(first - start, end - start)

  def beginning(self, count: int) -> Track:
    """Returns the track of the first `count` blocks, with masks and columns."""
    blocks = [self.block(number) for number in range(count)]
    cuts = tuple(first + cut for (first, _), block in zip(self.edges, blocks) for cut in block.cuts if first + cut > 0)
    return dataclasses.replace(joined(blocks, ()), cuts=cuts)

  def shot_start(self, frame: int) -> int:
    """Returns the number of the first frame of the shot with this frame."""
    number, earlier = self.block_of(frame), []
    while True:
      first = self.edges[number][0]
      cuts = [first + cut for cut in self.block(number).cuts if first + cut <= frame]
      start = max(cuts) if cuts else 0 if number == 0 else self._beginnings.get(number)
      if start is not None:
        break
      earlier.append(number)
      number, frame = number - 1, first - 1
    self._beginnings |= dict.fromkeys(earlier, start)  # the shot in which each of these blocks begins
    return start

  def seen(self, end: int) -> tuple[Bool[NdArray, " T"], tuple[int, ...]]:
    """Returns in which of the first `end` frames the person is found, and the cuts in them; finds what is missing."""
    for number in range(self.block_of(end - 1) + 1):
      if number not in self._seen:
        self.block(number)
    found = [self._seen[number] for number in range(self.block_of(end - 1) + 1)]
    cuts = (first + cut for (first, _), (_, cuts) in zip(self.edges, found) for cut in cuts)
    return np.concatenate([seen for seen, _ in found])[:end], tuple(cut for cut in cuts if 0 < cut < end)

  def _name(self, number: int) -> str:
    first, end = self.edges[number]
    return f"block-{first}-{end}" + ("-masks" if number < self.masked else "")

  def _read(self, number: int) -> Track | None:
    """A block that was found before."""
    if number not in self._held:
      track, (first, end) = self._kept.read(self._name(number)), self.edges[number]
      if track is None or len(track) != end - first:
        return None
      self._hold(number, track)
    return self._held[number]

  def _hold(self, number: int, track: Track) -> None:
    self._held[number] = track
    self._faces[number] = _last_face(track)
    self._seen[number] = np.isfinite(track.body[:, 0, 0]), track.cuts
    while len(self._held) > max(_HELD, self.masked + 1):
      self._held.popitem(last=False)

  def _find(self, number: int) -> Track:
    """Finds a block, given the one before."""
    info, (first, end) = self.film.info, self.edges[number]
    before = self._held.get(number - 1) if number else None
    around, run_in = round(_AROUND * info.fps), max(2, round(_RUN_IN * info.fps))
    start, stop = max(0, first - around), min(info.frames, end + around)
    cuts, faces = self._scout.look(start, stop)
    begin = max([first - run_in, 0, *(cut for cut in cuts if cut <= first)])
    columns = self._columns(number, faces, cuts, start, stop)
    pictures = self._pictures.frames(begin, end, keep=run_in)
    inside = [cut - begin for cut in cuts if begin < cut < end]
    model = self._finder(number < self.masked)
    options = {"cuts": inside, "columns": None if columns is None else columns[begin - start : end - start]}
    if (picture := next(pictures, None)) is not None:
      pictures = itertools.chain([picture], pictures)
      track = without_guesses(track_pictures(model, pictures, info, **options, reset=True))
    elif before is not None:
      track = before.slice(0, 0)
    else:
      raise UserError(f"{self.film.path} has no picture that can be read: record or copy it again")
    track = _padded(track, end - begin, before)
    if before is not None and begin < first:
      track = _without_step(track, before, first - begin, round(_JOIN * info.fps))
    track = track.slice(first - begin, end - begin)
    if track.columns is None:
      track = dataclasses.replace(track, columns=np.tile(np.array([0, info.width]), (len(track), 1)))
    return dataclasses.replace(track, cuts=tuple(cut - first for cut in cuts if first <= cut < end))

  def _columns(
    self, number: int, faces: list[tuple[int, Boxes]], cuts: list[int], start: int, stop: int
  ) -> Int[NdArray, "T 2"] | None:
    """The person's columns in frames `start` to `stop`, as in `poses.find_track`; None if nobody else is seen."""
    info, last = self.film.info, self._face_before(number)
    at = self.film.person_at if number == 0 or last is not None else None  # a point in the film's first picture
    left, top, right, bottom = info.geometry.bars
    corner, full = np.array([left, top, 0, 0], np.float32), (left + info.width + right, top + info.height + bottom)
    found = [(frame - start, boxes + corner) for frame, boxes in faces]
    inside = [cut - start for cut in cuts if cut > start]
    last = None if last is None else last + np.array([left, 0], np.float32)
    chosen = find_person(found, stop - start, info.fps, full, cuts=inside, at=at, before=last)
    return None if chosen is None else np.clip(chosen.columns - left, 0, info.width)

  def _face_before(self, number: int) -> Float[NdArray, "2"] | None:
    """Middle (x) and width of the person's last face before a block; None if there was none."""
    while number > 0:
      number -= 1
      face = self._faces[number] if number in self._faces else _last_face(self.block(number))
      if face is not None:
        return face
    return None

  def _finder(self, masks: bool) -> LandmarkModel:
    """The landmark model, which stays open for the next block."""
    if self._model is not None and self._model[0] != masks:
      self.close()
    if self._model is None:
      self._model = masks, LandmarkModel(self.film.path, masks, self.film.landmarks)
    return self._model[1]

  def close(self) -> None:
    """Closes the landmark model; it opens again when a block has to be found."""
    if self._model is not None:
      self._model[1].__exit__()
      self._model = None


class _Scout:
  """Looks ahead: for cuts, and for the faces of all people."""

  def __init__(self, film: OpenedFilm):
    self._film = film
    self._first = self._next = 0
    self._glances: list[Glance] = []
    self._faces: list[tuple[int, Boxes]] = []
    self._frames: Iterator[UInt8[NdArray, "H W 3"]] | None = None

  @functools.cached_property
  def _finder(self) -> FaceBoxes:
    return FaceBoxes(self._film.path, self._film.info.fps)

  def look(self, first: int, end: int) -> tuple[list[int], list[tuple[int, Boxes]]]:
    """Returns the cuts in frames `first` to `end` (exclusive), and the faces in them by number of the frame."""
    if self._frames is None or not self._first <= first <= self._next:
      self._first = self._next = first
      self._glances, self._faces = [], []
      self._frames = iter(read_frames(self._film.path, first, self._film.info))
    del self._glances[: first - self._first]
    self._first, self._faces = first, [each for each in self._faces if each[0] >= first]
    for number, frame in zip(range(self._next, end), self._frames):
      self._glances.append(glance(frame))
      self._faces += self._finder.find(number, frame)
      self._next = number + 1
    cuts = cuts_between(self._glances, self._film.info.fps) if self._glances else ()
    return [first + cut for cut in cuts], self._faces


class _Pictures:
  """Reads a film once, in order; the end of each part can be read again."""

  def __init__(self, film: OpenedFilm):
    self._film, self._next = film, 0
    self._kept: list[tuple[int, UInt8[NdArray, "H W 3"]]] = []
    self._frames: Iterator[UInt8[NdArray, "H W 3"]] | None = None

  def frames(self, first: int, end: int, keep: int) -> Iterator[UInt8[NdArray, "H W 3"]]:
    """Yields frames `first` to `end` (exclusive), and keeps the last `keep` of them."""
    kept = [frame for number, frame in self._kept if number >= first]
    if self._frames is None or self._next - len(kept) != first:
      kept, self._next = [], first
      self._frames = iter(read_frames(self._film.path, first, self._film.info))
    self._kept = self._kept[len(self._kept) - len(kept) :]
    yield from kept
    for number, frame in zip(range(self._next, end), self._frames):
      self._next = number + 1
      self._kept = [*self._kept, (number, frame)][-keep:]
      yield frame


def _last_face(track: Track) -> Float[NdArray, "2"] | None:
  """Middle (x) and width of the last face in a track; None without any."""
  known = np.flatnonzero(track.has_face)
  if not len(known):
    return None
  x = track.face[known[-1], :, 0]
  return np.array([(x.min() + x.max()) / 2, x.max() - x.min()], np.float32)


def _padded(track: Track, count: int, before: Track | None) -> Track:
  """A track of `count` frames: where a film ends early, nobody is found."""
  missing, known = count - len(track), track if len(track) or before is None else before
  if missing <= 0:
    return track
  last = known.slice(len(known) - 1, len(known))
  nobody: dict[str, Any] = {name: np.full_like(getattr(last, name), np.nan) for name in ("body", "face", "hands")}
  empty = dataclasses.replace(last, **nobody, has_face=np.zeros(1, bool))
  return joined([track, *[empty] * missing] if len(track) else [empty] * missing, track.cuts)


def _without_step(track: Track, before: Track, join: int, length: int) -> Track:
  """A block with its run-in, so that it goes on where the block before ends.

  The model's crops depend on all pictures before, so both differ a little in the last frame of the block before.

  Args:
    track: the block, after `join` frames of run-in.
    before: the block before.
    join: number of frames of run-in.
    length: number of frames over which the difference is spread.
  """
  share = np.zeros(len(track), np.float32)
  count = min(length, len(track) - join)
  share[join : join + count] = 1 - (np.arange(count, dtype=np.float32) + 1) / (count + 1)
  inside = [cut for cut in track.cuts if cut > join]
  share[min(inside, default=len(track)) :] = 0

  def moved(points: Float[NdArray, "T *N"], last: Float[NdArray, "*N"]) -> Float[NdArray, "T *N"]:
    step = last - points[join - 1]
    small = np.isfinite(step).all() and np.abs(step[..., :2]).max() < _LARGEST_STEP * track.height
    weight = share.reshape(-1, *[1] * step.ndim)
    return (points + weight * step).astype(np.float32) if small else points

  hands = [moved(track.hands[:, side], before.hands[-1, side]) for side in (0, 1)]
  return dataclasses.replace(
    track, body=moved(track.body, before.body[-1]), face=moved(track.face, before.face[-1]), hands=np.stack(hands, 1)
  )
