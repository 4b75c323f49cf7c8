"""The crop around a person: the head first."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from anchor_jax.core.errors import UserError
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.films.crops import crops_of
from anchor_jax.films.poses import FoundPoses, OpenedFilm
from anchor_jax.landmarks.extents import track_extents
from anchor_jax.landmarks.filling import fill_and_smooth
from anchor_jax.landmarks.framing import AutoSize, CropRect, center_of, frame_person, parse_size, rect_around
from anchor_jax.landmarks.tracks import SHOULDERS
from anchor_jax.video.read import VideoInfo


def test_the_square_stays_inside_the_picture():
  assert rect_around(80, 48, (70.0, 10.0), FrameSize.of(24)) == CropRect.square(32, 0, 48, 24)
  assert rect_around(80, 48, (-5.0, 10.0), FrameSize.of(24)) == CropRect.square(0, 0, 48, 24)
  assert rect_around(48, 80, (20.0, 40.0), FrameSize.of(24)) == CropRect.square(0, 16, 48, 24)


def test_points_map_like_pixels():
  for size in (12, 24, 96):
    square = CropRect.square(10, 4, 48, size)
    picture = np.zeros((60, 80), np.uint8)
    picture[20:28, 30:38] = 255
    shrunk = square.image(picture).astype(float)
    yy, xx = np.indices(shrunk.shape) + 0.5
    center = np.array([(shrunk * xx).sum(), (shrunk * yy).sum()]) / shrunk.sum()
    np.testing.assert_allclose(square.points(np.array([34.0, 24.0], np.float32)), center, atol=0.05)
    assert set(np.unique(square.mask(picture))) == {0, 255}
  np.testing.assert_allclose(
    CropRect.square(10, 4, 48, 24).points(np.array([[34.0, 24.0, 8.0]], np.float32)), [[12, 10, 4]]
  )


def test_the_center_is_robust_to_outliers_and_missing_points():
  points = np.full((9, 5, 2), 20.0, np.float32)
  points[0] = 500
  points[1] = np.nan
  assert center_of(points, 80, 48) == (20, 20)
  assert center_of(points[1:2], 80, 48) == (40, 24)


def test_a_rectangle_has_the_proportions_of_its_frames():
  crop = rect_around(720, 1280, (400.0, 300.0), FrameSize(192, 256))
  assert crop == CropRect(0, 0, 720, 960, FrameSize(192, 256))
  assert rect_around(1281, 719, (900.0, 300.0), FrameSize(192, 256)) == CropRect(630, 0, 539, 719, crop.size)
  picture = np.zeros((1280, 720, 3), np.uint8)
  picture[480:, 360:] = 255
  assert crop.image(picture).shape == (256, 192, 3) and crop.surface(picture)[128:, 96:].min() == 255
  np.testing.assert_allclose(crop.points(np.array([360.0, 480.0], np.float32)), [96, 128])
  for other in (crop, CropRect.square(10, 4, 48, 24)):
    assert CropRect.from_json(other.to_json(), other.size) == other


# width and height of the picture; in its heights, width and middle of the shoulders and how far they move
FRAMINGS = {
  "wide": (640, 360, 0.15, (0.9, 0.45), (0, 0)),
  "wide, at the edge": (640, 360, 0.15, (0.2, 0.45), (0, 0)),
  "close": (640, 360, 0.5, (0.85, 0.8), (0, 0)),
  "portrait selfie": (360, 640, 0.3, (0.28, 0.75), (0, 0)),
  "portrait, head at the top": (360, 640, 0.16, (0.28, 0.2), (0, 0)),
  "portrait, far away": (360, 640, 0.1, (0.28, 0.4), (0, 0.1)),
  "moving": (640, 360, 0.2, (0.7, 0.5), (0.25, 0)),
  "leaning in": (360, 640, 0.2, (0.28, 0.5), (0.02, 0.2)),
}


@pytest.fixture(scope="module", params=FRAMINGS)
def framed(request, standing_track):
  """A filled track, and its extents, of each framing; the person moves steadily, the head most."""
  width, height, shoulders, (x, y), (across, down) = FRAMINGS[request.param]
  track = standing_track(30, (160, 120))
  middle, unit = np.array([80, 48, 0], np.float32), 120 / 3.2
  path = np.zeros((30, 1, 3), np.float32)
  path[:, 0, :2] = np.linspace((0, 0), (across * height, down * height), 30)
  place = lambda points, far=1.0: (
    (points - middle) * np.float32(shoulders * height / unit) + np.float32([x * height, y * height, 0]) + far * path
  )
  face, hands = place(track.face, 1.1), np.stack([place(track.hands[:, side]) for side in (0, 1)], axis=1)
  moved = dataclasses.replace(
    track, width=width, height=height, body=place(track.body), face=face, hands=hands, masks=()
  )
  filled = fill_and_smooth(moved)
  return filled, track_extents(filled)


def crop_in_film(track, size):
  """The crop for a film with this track and no masks."""
  extents = track_extents(track)
  nothing = lambda *_: iter(())
  found = FoundPoses(track.body[:, SHOULDERS, :2], track.body[:, :5, :2], nothing, nothing, lambda _: extents, track)
  info = VideoInfo(25.0, track.width, track.height, len(track), len(track) / 25, False)
  return crops_of([OpenedFilm(Path("film.mp4"), info, None)], [found], size)[0]


def held(boxes, crop):
  """Whether each box is inside a crop, across and down."""
  low, high = np.array([crop.left, crop.top]), np.array([crop.right, crop.bottom])
  return (boxes[:, :2] >= low - 1) & (boxes[:, 2:] <= high + 1)


@pytest.mark.parametrize("size", [FrameSize(128, 128), FrameSize(192, 256), FrameSize(320, 192), AutoSize()])
def test_head_and_hands_are_inside_in_every_frame(framed, size):
  track, extents = framed
  crop = crop_in_film(track, size)
  assert crop.left >= 0 and crop.top >= 0 and crop.right <= track.width and crop.bottom <= track.height
  assert abs(np.log(crop.width / crop.height * crop.size.height / crop.size.width)) < 0.01
  picture = np.array([track.width, track.height])
  inner = np.array([crop.width, crop.height])
  for boxes, others in ((extents.head, None), (extents.hands, extents.head)):
    every = boxes if others is None else np.concatenate([boxes, others])
    needed = np.minimum(every[:, 2:].max(axis=0), picture) - np.maximum(every[:, :2].min(axis=0), 0)
    fits = needed <= inner
    assert held(np.clip(boxes, 0, np.tile(picture, 2)), crop)[:, fits].all()
    if isinstance(size, AutoSize) or (others is None and size.height >= size.width):
      assert fits.all()
  air = (extents.head[:, 1] - crop.top) / (extents.head[:, 3] - extents.head[:, 1])
  assert (air > 0.05).all() or crop.top == 0 or extents.head[:, 3].max() > crop.bottom - 2


def test_a_square_that_shows_head_and_hands_stays_around_the_shoulders(standing_track):
  track = fill_and_smooth(standing_track(6, (160, 120)))
  center = center_of(track.body[:, SHOULDERS, :2], 160, 120)
  crop = frame_person(track_extents(track), center, FrameSize.of(64), width=160, height=120)
  assert crop == rect_around(160, 120, center, FrameSize.of(64))


def test_films_that_cut_the_head_are_refused_in_one_line(standing_track):
  track = fill_and_smooth(standing_track(20, (160, 120)))
  top = track_extents(track).face[0, 1]
  up = np.float32([0, top + 12, 0])
  cut = dataclasses.replace(track, face=track.face - up, body=track.body - up, hands=track.hands - up)
  with pytest.raises(
    UserError, match=r"^film.mp4 shows the head only in part in most frames: film the person"
  ) as error:
    crop_in_film(cut, FrameSize.of(64))
  assert "\n" not in str(error.value)
  walk = np.linspace(0, 1, 20, dtype=np.float32)[:, None, None] * np.float32([1000, 0, 0])
  walking = dataclasses.replace(
    track, width=1200, face=track.face + walk, body=track.body + walk, hands=track.hands + walk[:, None]
  )
  with pytest.raises(UserError, match=r"frames of 64 can't show the head most of the time: give --size=auto"):
    crop_in_film(walking, FrameSize.of(64))
  assert crop_in_film(walking, AutoSize()).width > 900


def test_sizes_by_the_film():
  assert AutoSize().of(470, 464, (640, 480)) == (128, 128)
  assert AutoSize().of(313, 480, (640, 480)) == (128, 192)
  assert AutoSize(256).of(1080, 1900, (1080, 1920)) == (256, 448)
  assert AutoSize().of(300, 1900, (1080, 1920)) == (128, 256)  # no narrower than 1 : 2
  for width, height in ((100, 900), (900, 100), (333, 444), (1920, 1080)):
    for side in (64, 128, 256, 512):
      size = AutoSize(side).of(width, height, (1920, 1080)).check()
      assert 0.7 <= size.width * size.height / side**2 <= 2
  assert parse_size("auto") == AutoSize() and parse_size("auto:256") == AutoSize(256)
  assert parse_size("384x640") == FrameSize(384, 640) and parse_size("128") == FrameSize(128, 128)
  for text in ("auto:", "auto:3", "auto:99999999", "auto:a", "autos", "100x64", "64x", "-1"):
    with pytest.raises(UserError, match=r"^--size=.*give "):
      parse_size(text)
