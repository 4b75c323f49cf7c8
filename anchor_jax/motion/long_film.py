"""The motion of a long film while its landmarks are being found: the first frames are there early, in bounded memory.

Lengths, crop and scale are decided by the first seconds that show the person with a face, and for each further shot by
its first seconds. Points are filled and smoothed in blocks that overlap, so that they agree with those of the film as a
whole: nothing that is seen depends on pictures more than `CONTEXT` seconds away. What is not seen for longer than that
is filled differently: the person rests, and the landmarks of a missing face follow the head.

A film whose camera moves is followed as a whole (films/room.py), since the steady camera is the median of its path.
"""

import functools
from collections.abc import Callable, Iterator

import numpy as np

from anchor_jax.body.pose import PoseRenderer
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.core.shapes import Bool, Float, NdArray
from anchor_jax.films.crops import crop_of
from anchor_jax.films.poses import OpenedFilm, poses_of
from anchor_jax.films.room import film_cameras
from anchor_jax.films.search import FilmBlocks
from anchor_jax.landmarks.absence import Calm, absent_frames, calmest_frame, rest_while_absent
from anchor_jax.landmarks.filling import Lengths, fill_and_smooth, fill_missing, lengths_of, short_gaps
from anchor_jax.landmarks.framing import CropRect, full_crop
from anchor_jax.landmarks.proportions.measures import BodyMeasures, measure
from anchor_jax.landmarks.proportions.retarget import in_crop, retarget
from anchor_jax.landmarks.tracks import Track, five_landmarks, joined, seen_landmarks
from anchor_jax.motion.frames import MotionFrame

CONTEXT = 2.5  # seconds around a block that are looked at
WHOLE = 60.0  # seconds; shorter films are found as a whole
_MEASURED = 6.0  # seconds with a face that decide lengths, crop and scale
_LEAST_MEASURED = 0.5  # seconds that decide them for a further shot

# (filled track of the beginning, its crop rectangle, target, mapped) -> track, crop rectangle, measures to render with
Retarget = Callable[[Track, CropRect, BodyMeasures, bool], tuple[Track, CropRect, BodyMeasures]]


class LongFilm:
  """A long film without a sidecar, whose motion is found as far as its frames are taken.

  Attributes:
    moving: whether the camera moves in the first seconds; then its motion can't be taken from here.
    length: number of frames.
  """

  def __init__(self, film: OpenedFilm, size: FrameSize, measures: BodyMeasures | None, mapped: bool, fit: Retarget):
    """Finds the first seconds that show the person.

    Args:
      film: from `open_film`.
      size: of the pose renders.
      measures, mapped: see `film.film_motion`.
      fit: `film.retarget_track`.

    Raises:
      UserError: see `find_poses`.
    """
    self._blocks, self._fps = FilmBlocks(film), film.info.fps
    self.length = film.info.frames
    self._context = round(CONTEXT * self._fps)
    raw = self._beginning()
    poses = poses_of(film, raw)
    assert poses.track is not None, "there is no sidecar"
    self.moving = film_cameras(film, poses.track) is not None
    if self.moving:
      self._blocks.close()
      return
    self._crop = crop_of(poses, film.info, size)
    self._driver, self._target, self._one_shot = measure(poses.track, self._crop), None, len(raw.shots) == 1
    self._render, self._rendered = self._driver, self._crop
    if measures is not None:
      _, _, self._render = fit(poses.track, self._crop, measures, mapped)
      if mapped:
        self._target, self._rendered = measures, full_crop(size)
    good = self._good(raw)
    if not len(good):
      fill_missing(poses.landmarks)  # raises: no face anywhere
    self._first_good = int(good[0])
    self._lengths: dict[tuple[int, int], Lengths | None] = {}
    self._measures: dict[tuple[int, int], BodyMeasures] = {}
    self._last: dict[tuple[int, bool], int | None] = {}
    # what does not fit into memory for a full film, and is needed again soon
    self._filled, self._mapped = functools.lru_cache(3)(self._fill), functools.lru_cache(3)(self._map)
    self._one_frame = functools.lru_cache(8)(lambda frame: self._blocks.part(frame, frame + 1))
    self._calm_of = functools.lru_cache(8)(self._calmest)

  def frames(self, first: int) -> Iterator[MotionFrame]:
    """Yields the motion's frames from frame `first` of the film on."""
    renderer = None
    for number in range(self._blocks.block_of(first), len(self._blocks.edges)) if first < self.length else ():
      start, end = self._blocks.edges[number]
      track, landmarks = self._resting(number)
      renderer = PoseRenderer(track, self._rendered, self._render) if renderer is None else renderer.with_track(track)
      for frame in range(max(first, start), end):
        item, points = renderer.render(frame - start), landmarks[frame - start]
        yield MotionFrame(np.ascontiguousarray(item.pose), item.face_mask[..., None], points, item.surface)
    self._blocks.close()

  def absent(self, count: int) -> Bool[NdArray, " T"]:
    """Returns for each of the first `count` frames whether nobody is seen in it; so far, the film is found for that."""
    seen, cuts = self._blocks.seen(min(self.length, count + self._context))
    nothing = lambda *shape: np.broadcast_to(np.float32(0), (len(seen), *shape))
    points = nothing(33, 3), nothing(1, 3), nothing(2, 21, 3)
    track = Track(1, 1, self._fps, *points, np.zeros((0, 3), np.int32), (), seen, cuts=cuts, has_body=seen)
    return absent_frames(track)[:count]

  def _beginning(self) -> Track:
    """The first blocks, with enough frames that show the person's face."""
    count, track = 0, None
    while track is None or (count < len(self._blocks.edges) and len(self._good(track)) < _MEASURED * self._fps):
      count += 1
      self._blocks.masked = count
      track = self._blocks.beginning(count)
    return track

  def _good(self, track: Track) -> NdArray:
    """The frames of a track with gaps that show the person with a face."""
    return np.flatnonzero(np.isfinite(track.body[:, 0, 0]) & track.has_face)

  def _window(self, number: int) -> tuple[int, int]:
    """First and last (exclusive) frame of the pictures on which a block depends."""
    start, end = self._blocks.edges[number]
    return max(0, start - self._context), min(self.length, end + self._context)

  def _shots(self, number: int) -> list[tuple[int, int, int]]:
    """The shots in a block's window: first and last (exclusive) frame there, and where the shot begins in the film."""
    first, end = self._window(number)
    shots = [(first + a, first + b) for a, b in self._blocks.part(first, end).shots]
    return [(a, b, self._blocks.shot_start(a)) for a, b in shots]

  def _shown_in(self, shot: int, number: int) -> int | None:
    """The first block up to this one whose window shows the person long enough in a shot; None without one.

    Of a shot that begins in the next block, it is that block.
    """
    start = self._blocks.block_of(shot)
    for each in range(start, max(start, number) + 1):
      if (shot, each) not in self._lengths:
        part = self._shot_part(shot, each)
        shown = np.isfinite(part.body[:, 0, 0]).sum() >= _LEAST_MEASURED * self._fps
        self._lengths[shot, each] = lengths_of(part) if shown else None
      if self._lengths[shot, each] is not None:
        return each
    return None

  def _shot_part(self, shot: int, number: int) -> Track:
    """What a block's window shows of a shot."""
    first, end = next((a, b) for a, b, start in self._shots(number) if start == shot)
    return self._blocks.part(first, end)

  def _last_before(self, frame: int, face: bool) -> int | None:
    """The last frame before this one that shows the person, with a face if asked for; None if there is none."""
    walked, number = [], self._blocks.block_of(max(frame - 1, 0))
    while True:
      first, track = self._blocks.edges[number][0], self._blocks.block(number)
      frames = first + (self._good(track) if face else np.flatnonzero(np.isfinite(track.body[:, 0, 0])))
      frames = frames[frames < frame]
      if len(frames) or number == 0:
        last = int(frames[-1]) if len(frames) else None
        break
      walked.append(number)
      if (number, face) in self._last:
        last = self._last[number, face]
        break
      number -= 1
    self._last |= dict.fromkeys(((each, face) for each in walked), last)  # before each of these blocks
    return last

  def _fill(self, number: int) -> Track:
    """A block's window, filled and smoothed."""
    first, end = self._window(number)
    last = self._last_before(first, face=True)
    anchor, track = self._one_frame(self._first_good if last is None else last), self._blocks.part(first, end)
    # a shot of its own, from which shots that show nobody, or no face, take what is missing
    both = joined([anchor, track], (1, *(cut + 1 for cut in track.cuts)))
    lengths: list[Lengths | None] = [lengths_of(anchor)]
    for _, _, shot in self._shots(number):
      shown = self._shown_in(shot, number)
      lengths.append(None if shown is None else self._lengths[shot, shown])
    return fill_and_smooth(both, lengths).slice(1, len(both))

  def _map(self, number: int) -> Track:
    """A block's window, filled, smoothed and retargeted."""
    track, (first, _) = self._filled(number), self._window(number)
    if self._target is None:
      return track
    parts = []
    for start, end, shot in self._shots(number):
      part = track.slice(start - first, end - first)
      retargeted = retarget(part, self._crop, self._measured(shot, number), self._target)
      parts.append(in_crop(part, self._crop) if retargeted is None else retargeted[0])
    return joined(parts, track.cuts)

  def _measured(self, shot: int, number: int) -> BodyMeasures:
    """The driver's measures in a shot, by the first of its seconds that show the driver."""
    if shot == 0 and self._one_shot:
      return self._driver
    shown = self._shown_in(shot, number)
    if shown is None:  # nobody yet: as in the shot before
      return (
        self._measured(self._blocks.shot_start(shot - 1), self._blocks.block_of(shot - 1)) if shot else self._driver
      )
    if (shot, shown) not in self._measures:
      first, end = next((a, b) for a, b, start in self._shots(shown) if start == shot)
      begin = self._window(shown)[0]
      part = self._filled(shown).slice(first - begin, end - begin)
      self._measures[shot, shown] = measure(part, self._crop)
    return self._measures[shot, shown]

  def _resting(self, number: int) -> tuple[Track, Float[NdArray, "T 5 2"]]:
    """A block as it is rendered, and the face's landmarks in the renders."""
    (first, stop), (start, end) = self._window(number), self._blocks.edges[number]
    track = rest_while_absent(self._mapped(number), lambda frame: self._calm(first + frame))
    points = self._rendered.points(seen_landmarks(track))
    known = np.isfinite(points[:, 0, 0])
    around = np.concatenate([[first == 0], known, [stop == self.length]])  # the film's ends count as known
    gaps = ~(around | short_gaps(around, self._context))[1:-1]
    points[gaps] = self._rendered.points(five_landmarks(track.face))[gaps]
    filled = fill_missing(points, track.cuts)
    return track.slice(start - first, end - first), filled[start - first : end - first]

  def _calm(self, frame: int) -> Calm:
    """How the person rests in the stretch without anybody that begins at, or before, a frame."""
    before = self._last_before(frame, face=False)
    return self._calm_of(self._first_good if before is None else before)

  def _calmest(self, frame: int) -> Calm:
    """The calmest frame of what the window around a frame shows of its shot."""
    number = self._blocks.block_of(frame)
    first, track = self._window(number)[0], self._mapped(number)
    start, end = next((a - first, b - first) for a, b, _ in self._shots(number) if a <= frame < b)
    calm = calmest_frame(track, np.flatnonzero(~absent_frames(track)[start:end]) + start)
    return Calm(track.body[calm], track.face[calm], track.hands[calm])
