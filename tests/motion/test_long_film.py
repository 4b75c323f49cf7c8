"""The motion of a long film, found block by block, agrees with that of the film found as a whole."""

import dataclasses
import itertools
import sys
import types

import numpy as np
import pytest
from film_files import write_film
from landmark_files import use_networks
from people import make_track

from anchor_jax.body.pose import PoseRenderer
from anchor_jax.core.errors import UserError
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.films import search
from anchor_jax.films.poses import open_film
from anchor_jax.landmarks import model
from anchor_jax.landmarks.framing import CropRect
from anchor_jax.landmarks.networks.detectors import Find
from anchor_jax.landmarks.networks.holistic import Detection
from anchor_jax.landmarks.proportions.measures import measure
from anchor_jax.landmarks.sidecar import PoseRender
from anchor_jax.motion import film as motion_film
from anchor_jax.motion import long_film
from anchor_jax.motion.film import film_motion

RATE, COUNT, SIZE = 10, 220, (80, 48)  # 22 seconds; blocks end at 40, 80, 160 and 220
EMPTY = [*range(12), *range(60, 105), *range(140, 145)]  # one of them across blocks
CUT, FACELESS = 150, [*range(125, 131), *range(180, 212)]

SMALL = FrameSize(*SIZE)


def picture(number):
  """A room whose brightest spot is where the person stands; green without a face, none without a person."""
  x = 40 + 8 * np.sin(number / 17) + 3 * np.sin(number / 5)
  y = 24 + 2 * np.sin(number / 11)
  squares = np.random.default_rng(number >= CUT).integers(30, 110, (6, 10, 3), np.uint8)
  room = squares.repeat(8, axis=0).repeat(8, axis=1)
  if number not in EMPTY:
    yy, xx = np.indices(SIZE[::-1])
    spot = np.clip(1 - np.hypot(xx - x, yy - y) / 4, 0, 1)[..., None]
    color = np.array([60, 255, 60]) if number in FACELESS else np.array([255, 255, 255])
    room = (room * (1 - spot) + spot * color).astype(np.uint8)
  return room


class SpotModel:
  """A landmark model that finds a standing person at the brightest spot; each picture moves its crop a little."""

  runs = 0

  def __init__(self, files, masks, pose):
    self._masks, self._drift = masks, 0.0

  def reset(self):
    self._drift = 0.0

  def start(self, frame, late=False):
    SpotModel.runs += 1
    self._drift = 0.9 * self._drift + 0.01  # as the network's crop depends on all pictures before
    green = frame[..., 1].astype(float)
    weight = np.clip(green - 150, 0, None)
    person = make_track(1, SIZE)
    yy, xx = np.indices(weight.shape)
    share = np.zeros(SIZE[::-1], np.uint8) if self._masks else None
    if weight.max() < 40:
      nothing = [np.full_like(points[0], np.nan) for points in (person.body, person.face, person.hands)]
      return lambda: Detection(*nothing, share, np.zeros(33, np.float32))
    at = [(xx * weight).sum() / weight.sum() - 40 + self._drift, (yy * weight).sum() / weight.sum() - 24, 0]
    if share is not None:
      share[np.hypot(xx - 40 - at[0], yy - 24 - at[1]) < 7] = 255
    at, faceless = np.array(at, np.float32), frame[..., 0][weight > 40].mean() < 150
    points = [points[0] + at for points in (person.body, person.face)]
    hands = person.hands[0] + at * np.array([1, 1, 0], np.float32)
    face = np.full_like(points[1], np.nan) if faceless else points[1]
    return lambda: Detection(points[0], face, hands, share, np.ones(33, np.float32))

  def settle(self):
    pass

  def close(self):
    pass


@pytest.fixture(scope="module")
def path(tmp_path_factory):
  return write_film(tmp_path_factory.mktemp("long") / "film.mp4", [picture(number) for number in range(COUNT)], RATE)


@pytest.fixture
def film(path, monkeypatch):
  """The film, open, with a landmark model that finds the spot."""
  for module in (motion_film, long_film):
    monkeypatch.setattr(module, "WHOLE", 20.0)
  use_networks(monkeypatch, SpotModel)
  monkeypatch.setattr(SpotModel, "runs", 0)
  return open_film(path)


@pytest.fixture
def drawn(monkeypatch):
  """Pose renders are points as colors, three levels a pixel, which are quick to make and to compare."""

  def points(renderer, number):
    track, crop = renderer._track, renderer._crop
    places = crop.points(np.concatenate([track.body[number], *track.hands[number], track.face[number, ::20]]))
    colors = np.clip(np.rint(3 * places), 0, 255).astype(np.uint8)[None]
    return PoseRender(colors * np.array([1, 1, 0], np.uint8), np.zeros(colors.shape[:2], np.uint8))

  monkeypatch.setattr(PoseRenderer, "render", points)


def target():
  """Measures of another person."""
  own = measure(make_track(), CropRect.square(20, 0, 120, 32))
  return dataclasses.replace(own, place=(0.4, 0.6), shoulders=own.shoulders * 0.8)


@pytest.mark.parametrize(
  "measures, mapped", [(None, True), (target(), True), pytest.param(target(), False, marks=pytest.mark.slow)]
)
def test_blocks_agree_with_the_film_as_a_whole(film, drawn, measures, mapped):
  """Where the person is seen, points differ by at most 1 % of a frame's height from one offset for each shot.

  The offset is that of the place of a mapped driver, which the first seconds of a shot decide.
  """
  options = {"size": SMALL, "measures": measures, "mapped": mapped}
  whole, blocks = film_motion(film, whole=True, **options), film_motion(film, **options)
  assert whole.late is None and blocks.late is not None
  assert (blocks.length, blocks.fps, blocks.size) == (whole.length, whole.fps, whole.size)
  assert blocks.known().absent_stretches() == whole.absent_stretches()
  assert whole.absent_stretches() == [(0, 11), (60, 104), (140, 144)]
  frames = list(zip(blocks.frames(0), whole.frames(0), strict=True))
  apart = np.array([one.landmarks - other.landmarks for one, other in frames])
  for shot in (slice(CUT), slice(CUT, None)):
    offset = np.median(apart[shot], axis=(0, 1))
    assert np.abs(offset).max() < (4 if mapped and measures else 0.01)  # the spot walks 22 of 80 pixels
    apart[shot] -= offset
  apart = np.abs(apart).max(axis=(1, 2))
  drawn_apart = np.array([one.pose.astype(int) - other.pose for one, other in frames])
  seen = ~np.isin(np.arange(COUNT), [*EMPTY, *FACELESS])
  seen[125:131] = True  # a gap that is interpolated
  assert apart[seen].max() < 0.01 * SMALL.height
  if not (mapped and measures):
    assert np.abs(drawn_apart[seen]).max() <= 0.02 * 3 * SMALL.height  # hands and arms, in levels
  moved = np.array([np.abs(b.landmarks - a.landmarks).max() for a, b in itertools.pairwise(pair[0] for pair in frames)])
  for start, _ in search.FilmBlocks(film).edges[1:]:
    if start != CUT:  # nothing jumps from block to block, seen or not
      assert moved[start - 1] < 1.5 * max(moved[start - 2], moved[start]) + 0.05


def test_the_first_frame_waits_for_few_pictures(film):
  motion = film_motion(film, size=SMALL)
  first = next(motion.frames(0))
  # three of four blocks, with two run-ins and the model's warm-up in four shots
  assert first.pose.any() and SpotModel.runs <= 160 + 2 * 2 + 4 * 4


def test_no_frame_depends_on_where_reading_starts(film, drawn, tmp_path, monkeypatch):
  """Also in another process, and with nothing searched twice, after an interruption."""
  monkeypatch.setenv("ANCHOR_JAX_TRACKS", str(tmp_path / "tracks"))
  options = {"size": SMALL, "measures": target()}
  all_frames = list(film_motion(film, **options).frames(0))
  runs = SpotModel.runs
  assert runs < 1.25 * COUNT
  for start in (0, 90, 151, COUNT - 1):
    again = film_motion(film, **options).frames(start)
    for one, other in zip(itertools.islice(again, 10), all_frames[start:]):
      np.testing.assert_array_equal(one.pose, other.pose)
      np.testing.assert_array_equal(one.landmarks, other.landmarks)
  assert SpotModel.runs == runs


def test_an_interrupted_search_goes_on_where_it_was(film, tmp_path, monkeypatch):
  found = []
  for folder, stop in (("one", None), ("two", 2), ("two", None)):
    monkeypatch.setenv("ANCHOR_JAX_TRACKS", str(tmp_path / folder))
    blocks = search.FilmBlocks(film)
    found.append([blocks.block(number) for number in range(len(blocks.edges))[:stop]])
    if folder == "one":
      complete = SpotModel.runs
  assert SpotModel.runs == 2 * complete
  for one, other in zip(found[0], found[2], strict=True):
    for field in dataclasses.fields(one):
      np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), err_msg=field.name)


def test_memory_holds_a_few_blocks(film, monkeypatch):
  monkeypatch.setattr(search, "_HELD", 2)
  blocks = search.FilmBlocks(film)
  for number in range(len(blocks.edges)):
    blocks.block(number)
    assert len(blocks._held) <= search._HELD
  assert [end - first for first, end in blocks.edges] == [40, 40, 80, 60]


def test_frames_and_rates_of_long_films(film, drawn):
  motion = film_motion(film, size=SMALL, frames=210, fps=RATE)
  assert motion.length == 210 and motion.known().absent.shape == (210,)
  slower = film_motion(film, size=SMALL, fps=5)
  assert slower.length == COUNT // 2 and slower.known().absent_stretches()[0] == (0, 5)
  assert slower.without_absent().length == (~slower.known().absent).sum()
  beginning = film_motion(film, size=SMALL).first(30)
  SpotModel.runs = 0
  assert beginning.known().absent_stretches() == [(0, 11)] and SpotModel.runs == 0  # looks no further
  assert film_motion(film, size=SMALL, frames=150).late is None  # short ones are found as a whole


def test_one_of_several_people_is_followed_from_block_to_block(film, tmp_path, monkeypatch):
  """The spot's face moves; another one, larger, stays at the right. Each can be chosen, and is not lost at an edge."""

  monkeypatch.setattr(sys.modules[__name__], "EMPTY", EMPTY[12:])
  path = write_film(tmp_path / "film.mp4", [picture(number) for number in range(COUNT)], RATE)
  film = open_film(path)

  def faces(frame, _):
    green = frame[..., 1].astype(float)
    weight = np.clip(green - 150, 0, None)
    boxes = [(66, 8, 80, 24)]
    if weight.max() >= 40:
      x = (np.arange(SIZE[0]) * weight.sum(axis=0)).sum() / weight.sum()
      boxes.append((x - 4, 12, x + 4, 22))
    return [Find(0.9, np.array(box, np.float32), np.zeros((6, 2))) for box in boxes]

  monkeypatch.setattr(model, "Detector", lambda *_: types.SimpleNamespace(find=faces))
  spot, other = film._replace(person_at=(0.5, 0.4)), film._replace(person_at=(0.91, 0.4))
  blocks = search.FilmBlocks(spot)
  for number in range(len(blocks.edges)):
    columns = blocks.block(number).columns
    assert (columns[:, 0] == 0).all() and columns[:, 1].min() < 70
  seen = [np.isfinite(blocks.block(number).body[:, 0, 0]).mean() for number in range(len(blocks.edges))]
  assert seen == [1 - np.isin(np.arange(*edge), EMPTY).mean() for edge in blocks.edges]
  blocks = search.FilmBlocks(other)  # whom the model does not see, as only the spot is a body to it
  assert (blocks.block(0).columns[20:, 0] > 40).all()
  with pytest.raises(UserError, match="nobody is there when the film begins"):
    search.FilmBlocks(film._replace(person_at=(0.1, 0.1))).block(0)
