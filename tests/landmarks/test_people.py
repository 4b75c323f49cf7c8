"""One person of several is chosen, and the others appear in nothing that is written."""

import numpy as np
import pytest
from landmark_files import needs_landmarks

from anchor_jax.core.errors import UserError
from anchor_jax.data.records import open_prepared
from anchor_jax.landmarks.framing import CropRect
from anchor_jax.landmarks.people import find_person, link, parse_point
from anchor_jax.landmarks.tracks import Track
from anchor_jax.prepare import prepare
from anchor_jax.video.read import read_frames
from anchor_jax.video.write import VideoWriter

FPS, SIZE = 10, (640, 360)


def face(x, y=100.0, width=60.0):
  return [x - width / 2, y - 40, width, 80]


def detections(count, *people):
  """Face boxes of `count` frames; each person is a function from the frame number to a box or None."""
  boxes = [[box for person in people if (box := person(number)) is not None] for number in range(count)]
  return [(number, np.array(found, np.float32).reshape(-1, 4)) for number, found in enumerate(boxes)]


def test_faces_are_linked_across_gaps_and_false_detections_are_dropped():
  walking = lambda n: face(100 + 10 * n)
  hidden = lambda n: None if 8 <= n < 20 else face(600 - 4 * n)
  false_detection = lambda n: face(300, 300) if n in (5, 6) else None
  found = link(detections(30, hidden, walking, false_detection), FPS)
  assert sorted(len(each.frames) for each in found) == [18, 30]
  longest = max(found, key=lambda each: len(each.frames))
  np.testing.assert_allclose(longest.at(np.arange(30))[:, 0], 100 + 10 * np.arange(30), atol=1e-3)
  long_gap = lambda n: None if 5 < n < 70 else face(100)
  assert len(link(detections(80, long_gap), FPS)) == 2  # after 5 s it may be somebody else


def test_the_largest_person_or_the_one_at_a_point_is_chosen():
  left, right = lambda n: face(150, width=50), lambda n: face(450, width=70)
  far = lambda n: face(300, 40, 15)  # in the background
  largest = find_person(detections(20, left, right, far), 20, FPS, SIZE)
  assert largest is not None and largest.count == 2 and not largest.crowded.any()
  np.testing.assert_allclose(largest.place, [450 / 640, 100 / 360], atol=1e-6)
  border = 150 + 300 * 50 / 120
  np.testing.assert_array_equal(largest.columns, [[border, 640]] * 20)
  for point in ((0.2, 0.9), (140.0, 330.0)):  # on the body, in shares and in pixels
    chosen = find_person(detections(20, left, right), 20, FPS, SIZE, at=point)
    assert chosen is not None
    np.testing.assert_array_equal(chosen.columns, [[0, border]] * 20)
  assert find_person(detections(20, left, far, lambda n: None), 20, FPS, SIZE) is None
  assert find_person(detections(20), 20, FPS, SIZE) is None
  with pytest.raises(UserError, match=r"--person-at=0.45,0.1: nobody is there .* faces are at 0.23,0.28, 0.70,0.28"):
    find_person(detections(20, left, lambda n: face(450)), 20, FPS, SIZE, at=(0.45, 0.1))
  assert parse_point("0.25,0.4") == (0.25, 0.4)
  for text in ("0.25", "a,b", "-1,2", "1,2,3", "inf,1"):
    with pytest.raises(UserError, match=r"give x,y"):
      parse_point(text)


def test_frames_with_a_person_too_near_are_crowded_and_a_cut_chooses_again():
  still, approaching = lambda n: face(200), lambda n: face(600 - 20 * n, width=40) if n < 20 else None
  people = find_person(detections(30, still, approaching), 30, FPS, SIZE)
  assert people is not None
  # closer than two face widths (100 pixels) after frame 15, and for a second after the last detection
  assert np.flatnonzero(~people.crowded).tolist() == [*range(16)]
  assert people.columns[0, 0] == 0 and abs(people.columns[0, 1] - (200 + 400 * 60 / 100)) < 15
  swapped = lambda n: face(200 if n < 10 else 460), lambda n: face(470 if n < 10 else 210, width=50)
  for at, places in (
    (None, (200, 460)),
    ((470, 100), (470, 460)),
  ):  # after the cut: the largest; the nearest
    people = find_person(detections(20, *swapped), 20, FPS, SIZE, cuts=[10], at=at)
    assert people is not None and people.count == 2
    for frame, place in zip((5, 15), places, strict=True):
      first, end = people.columns[frame]
      assert first < place < end and end - first < 500


def test_columns_of_other_people_are_gray_in_pictures():
  columns = np.array([[2, 5], [0, 9]])
  empty = np.zeros((2, 0, 3), np.float32)
  hands = np.zeros((2, 2, 21, 3), np.float32)
  masks, body = (b"", b""), np.zeros((2, 33, 3), np.float32)
  track = Track(9, 4, 10.0, body, empty, hands, np.zeros((0, 3), int), masks, np.zeros(2, bool), columns)
  picture = np.full((4, 9, 3), 7, np.uint8)
  assert [np.unique(track.only_person(0, picture)[:, at]).tolist() for at in (1, 2, 4, 5)] == [[128], [7], [7], [128]]
  np.testing.assert_array_equal(track.slice(1, 2).only_person(0, picture), picture)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
  """A film of 2 s with two studio people side by side; from frame 4 the right one moves 12 pixels left a frame."""
  from anchor_jax import studio

  times, shots = [0.1 * number for number in range(20)], []
  for identity, motion in ((1, 5), (4, 2)):
    clip = studio.render_clip(studio.make_identity(identity), studio.make_motion(motion), times, 256, workers=1)
    shots.append([frame.frame for frame in clip])
  path = tmp_path_factory.mktemp("pair") / "pair.mp4"
  with VideoWriter(path, FPS) as writer:
    for number, (left, right) in enumerate(zip(*shots, strict=True)):
      shift = 12 * max(0, number - 3)
      writer.write(np.hstack([left[:, : 256 - shift], right, right[:, -1:].repeat(shift, axis=1)]))
  return path


@pytest.mark.slow
@needs_landmarks
@pytest.mark.parametrize("at,side", [("0.25,0.9", "left"), (None, "right")])
def test_two_studio_people_side_by_side(pair, tmp_path, at, side):
  meta = prepare(pair, tmp_path / "one", size=128, person_at=at and parse_point(at))
  (film,) = meta["films"]
  assert film["people"]["seen"] == 2
  assert abs(film["people"]["place"][0] - {"left": 0.25, "right": 0.715}[side]) < 0.03
  # The left face is at 130 and 62 wide until the other picture covers it; the right one starts at 367 and is 55 wide.
  # They are closer than two face widths in the last 6 frames.
  assert film["left_out"].keys() == {"crowded"} and abs(film["left_out"]["crowded"] - 6) <= 1
  assert film["used"] + film["left_out"]["crowded"] == 20
  square = CropRect.square(*meta["videos"][0]["square"], 128)
  source, frames = open_prepared(tmp_path / "one"), list(read_frames(pair))
  place = (np.arange(128) + 0.5) / square.scale + square.left  # column of the film
  person, other = (place < 235, place > 275) if side == "left" else (place > 275, place < 235)
  for number in (0, 4):
    record = source.read(number, ("frame", "person_mask", "face_mask", "pose", "landmarks"))
    assert np.abs(record["frame"].astype(int) - square.image(frames[number]))[:, person].max() <= 2
    assert (record["frame"][:, other] == 128).all()
    for name in ("person_mask", "face_mask", "pose"):
      assert record[name][:, person].mean() > 1 and not record[name][:, other].any(), name
    assert person[record["landmarks"][:, 0].astype(int)].all()
  page = (tmp_path / "one" / "report.html").read_text()
  assert "2 people are visible at once" in page and "skipped: crowded" in page
