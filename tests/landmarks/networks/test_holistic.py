"""The landmark model finds what MediaPipe Holistic finds: golden points of a studio person (golden/landmarks)."""

import math
import pathlib
from unittest.mock import ANY

import numpy as np
import pytest
from landmark_files import needs_landmarks

from anchor_jax.landmarks.model import LandmarkModel, find_faces, track_video
from anchor_jax.landmarks.networks import hands
from anchor_jax.landmarks.networks.bodies import Body, BodyFinder, mask_network, refine
from anchor_jax.landmarks.networks.crops import Crop, full_square
from anchor_jax.landmarks.networks.detectors import FACE_NEAR, Detector
from anchor_jax.landmarks.networks.faces import FaceFinder
from anchor_jax.landmarks.networks.files import read_models
from anchor_jax.landmarks.networks.graphs import Graph
from anchor_jax.landmarks.networks.hands import HandFinder
from anchor_jax.landmarks.networks.litert import LiteNetwork, _Region
from anchor_jax.landmarks.networks.outlines import OutlineFinder
from anchor_jax.video.read import probe, read_frames

GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "landmarks"
FILM = GOLDEN / "person.mp4"


@pytest.fixture(scope="module")
def track():
  return track_video(FILM, probe(FILM))


@needs_landmarks
@pytest.mark.parametrize("part,mean,most", [("body", 1.0, 8.0), ("face", 0.1, 1.0), ("hands", 1.5, 8.0)])
def test_points_are_mediapipe_s(track, part, mean, most):
  found, true = getattr(track, part), np.load(GOLDEN / "mediapipe.npz")[part]
  assert found.shape == true.shape and (np.isfinite(found) == np.isfinite(true)).all()
  error = np.linalg.norm(found[..., :2] - true[..., :2], axis=-1)
  # below the picture the network guesses, and its guesses are sensitive to the last bit of its crop
  inside = ((true[..., :2] >= 0) & (true[..., :2] <= 384)).all(axis=-1)
  assert error[inside].mean() < mean and error[inside].max() < most


@needs_landmarks
def test_a_film_and_its_pictures_give_the_same(track):
  frames = list(read_frames(FILM, info=probe(FILM)))
  with LandmarkModel(FILM, masks=False) as model:
    model.start_shot(frames[0])
    found = [model.find(frame) for frame in frames]
  for part in ("body", "face", "hands"):
    np.testing.assert_array_equal(np.stack([getattr(one, part) for one in found]), getattr(track, part))
  assert found[0].share is None


@needs_landmarks
def test_a_part_of_a_network_computes_what_the_network_does():
  content, picture = read_models()["hand_recrop"], np.random.default_rng(0).random((1, 256, 256, 3), np.float32)
  graph = Graph(content)
  (points,) = LiteNetwork(content)(picture)
  half = graph.operators[len(graph.operators) // 2 :]
  between = sorted({t for op in half for t in op.inputs} & {t for op in graph.operators for t in op.outputs})
  between = [t for t in between if all(t not in op.outputs for op in half)]
  first, second = graph.part(graph.inputs, between), graph.part(between, graph.outputs)
  assert Graph(first).outputs == between and len(Graph(first).operators) < len(graph.operators)
  assert Graph(second).inputs == between and Graph(second).operators == [one._replace(place=ANY) for one in half]
  np.testing.assert_allclose(LiteNetwork(second)(*LiteNetwork(first)(picture))[0], points, rtol=1e-4, atol=1e-3)


@needs_landmarks
def test_a_cut_forgets_the_shot_before():
  frames = list(read_frames(FILM, info=probe(FILM)))[:2]
  with LandmarkModel(FILM) as model:
    mirrored = [np.ascontiguousarray(frame[:, ::-1]) for frame in frames]
    after = list(model.find_all([*mirrored, *frames], cuts=[2]))[2:]
  with LandmarkModel(FILM) as model:
    alone = list(model.find_all(frames))
  for one, other in zip(after, alone, strict=True):
    for part in ("body", "face", "hands", "share"):
      np.testing.assert_array_equal(getattr(one, part), getattr(other, part))


@needs_landmarks
def test_nobody_is_found_in_an_empty_room():
  with LandmarkModel(FILM) as model:
    found = model.find(np.full((90, 120, 3), 128, np.uint8))
  assert all(np.isnan(points).all() for points in found[:3]) and not found.share.any()


@needs_landmarks
def test_a_hand_that_the_first_crop_misses_is_looked_for_again(monkeypatch):
  """In two crops around the wrist; the surer one counts, and where neither shows a hand there is none."""
  frame = next(read_frames(FILM, info=probe(FILM)))
  tried, scores = [], [None, (0.6, np.full((21, 3), 1, np.float32)), (0.9, np.full((21, 3), 2, np.float32))]

  def points(finder, picture, crop):
    tried.append(crop.width)
    return scores[(len(tried) - 1) % 3]

  monkeypatch.setattr(HandFinder, "_in_crop", points)
  monkeypatch.setattr(hands, "_begins_at", lambda hand, *_: hand[0, 0] != 3)
  files = read_models()
  body, finder = BodyFinder(files, "pose_landmark_full", masks=False).find(frame), HandFinder(files, 0)
  found = finder.find(frame, body)
  assert body is not None and body.features is None and found is not None and found[0, 0] == 2
  assert len(tried) == 3 and tried[1] / tried[2] == pytest.approx(0.55 / 0.7)
  scores[0] = (1.0, np.full((21, 3), 3, np.float32))  # of the other arm
  found = finder.find(frame, body)
  assert found is not None and found[0, 0] == 2
  scores[1:] = None, None
  assert finder.find(frame, body) is None and finder.find(frame, None) is None
  scores[:] = [(0.9, found + np.array([0, 384, 0], np.float32))] * 3  # below the picture
  assert finder.find(frame, body) is None
  far, count = body._replace(points=body.points + np.array([0, 900, 0], np.float32)), len(tried)
  assert finder.find(frame, far) is None and len(tried) == count


@needs_landmarks
def test_a_hand_that_is_missing_is_looked_for_with_one_crop_a_picture(monkeypatch):
  """It misses no picture of a hand that comes, and gives the pictures' results in their order."""
  frame = next(read_frames(FILM, info=probe(FILM)))
  files, tried, now = read_models(), [], [0]
  body = BodyFinder(files, "pose_landmark_full", masks=False).find(frame)
  assert body is not None
  there = {20: 1, 21: 1, 22: 1, 60: 2, 61: 2, 62: 2}  # the picture's hand, and the only crop that shows it
  pictures = [frame.copy() for _ in range(70)]
  for number, picture in enumerate(pictures):
    picture[0, 0] = number

  def points(finder, picture, crop):
    number = int(picture[0, 0, 0])
    tried.append(now[0])
    which = round(crop.width / side, 2)
    shown = {1: 0.55, 2: 0.7}.get(there.get(number, 0))
    hand = np.full((21, 3), 100 + number, np.float32)
    return (0.9, hand) if shown is not None and abs(which - shown) < 0.01 else None

  finder = HandFinder(files, 0)
  wide = finder._around(frame, body)
  assert wide is not None
  side = wide.width
  monkeypatch.setattr(HandFinder, "_in_crop", points)
  monkeypatch.setattr(hands, "_begins_at", lambda *_: True)
  monkeypatch.setattr(hands, "_TRUSTED", 0)
  found = []
  for number, picture in enumerate(pictures):
    now[0] = number
    found += finder.find_late(picture, body)
    assert number - len(found) < 2
  found += finder.settle()
  assert len(found) == len(pictures)
  assert {number for number, hand in enumerate(found) if hand is not None} == set(there)
  assert all(hand is None or hand[0, 0] == 100 + number for number, hand in enumerate(found))
  assert tried.count(0) == tried.count(7) == 3 and tried.count(8) == tried.count(50) == 1
  assert tried.count(23) == 3  # just lost


@needs_landmarks
def test_late_results_are_settled_by_whatever_comes_next():
  frames = list(read_frames(FILM, info=probe(FILM)))
  with LandmarkModel(FILM, masks=False) as model:
    room = np.full_like(frames[0], 128)
    started = [model._model.start(room, late=True) for _ in range(12)]
    after = model.find(frames[0])  # settles
    assert all(np.isnan(one().hands).all() for one in started)
    assert np.isfinite(after.body).all()
    late = list(model.find_all([*[room] * 12, *frames[:3]], cuts=[12]))
    assert len(late) == 15 and np.isnan(late[11].hands).all() and np.isfinite(late[12].hands).any()


@needs_landmarks
def test_the_mask_network_computes_what_the_whole_network_does():
  files, frame = read_models(), next(read_frames(FILM, info=probe(FILM)))
  body = BodyFinder(files, "pose_landmark_full", masks=True).find(frame)
  assert body is not None and body.features is not None
  whole = LiteNetwork(files["pose_landmark_full"])(body.crop.cut(frame, 256))[2]
  np.testing.assert_allclose(mask_network(files, "pose_landmark_full")(*body.features)[0], whole, rtol=1e-4, atol=1e-3)


@needs_landmarks
def test_a_face_that_stays_is_not_detected_in_every_picture(monkeypatch):
  frame, asked = next(read_frames(FILM, info=probe(FILM))), []
  find = Detector.find
  monkeypatch.setattr(Detector, "find", lambda *args: asked.append(1) or find(*args))
  files = read_models()
  body, finder = BodyFinder(files, "pose_landmark_full", masks=False).find(frame), FaceFinder(files)
  asked.clear()
  assert body is not None
  assert all(finder.find(frame, body) is not None for _ in range(7)) and len(asked) == 3
  moved = body._replace(points=body.points + np.array([0.1 * np.ptp(body.points[:11, 0]) * 3, 0, 0], np.float32))
  finder.find(frame, moved)
  assert len(asked) == 4
  assert finder.find(frame, None) is None


def test_of_two_hands_each_begins_at_its_own_wrist():
  wrists = np.array([[10, 10, 0], [50, 10, 0]], np.float32)
  hand = np.linspace([12, 10, 0], [12, 40, 0], 21).astype(np.float32)
  assert hands._begins_at(hand, *wrists) and not hands._begins_at(hand, *wrists[::-1])
  between = hand + np.array([19, 0, 0], np.float32)  # of touching hands either may be meant
  assert hands._begins_at(between, *wrists) and hands._begins_at(between, *wrists[::-1])


@needs_landmarks
def test_the_face_is_found_where_its_mesh_is(track):
  (number, boxes), *_ = find_faces(FILM, probe(FILM))
  assert number == 0 and len(boxes) == 1
  left, top, width, height = boxes[0]
  nose = track.face[0, 1]
  assert left < nose[0] < left + width and top < nose[1] < top + height


def test_finds_of_one_thing_are_averaged():
  """Three anchors see one face, a fourth another; the surest comes first."""
  cells = FACE_NEAR.size // 8
  boxes, logits = np.zeros((1, 896, 16), np.float32), np.full((1, 896, 1), -9, np.float32)
  anchor = lambda row, column: (row * cells + column) * 2
  for row, column, score in ((4, 4, 2.0), (4, 5, 1.0), (12, 12, 3.0)):
    boxes[0, anchor(row, column), 2:4] = 40
    logits[0, anchor(row, column)] = score
  picture = np.zeros((128, 128, 3), np.uint8)
  found = Detector(lambda _: (boxes, logits), FACE_NEAR, 0.5).find(picture, full_square(picture))
  assert [round(face.score, 3) for face in found] == [round(1 / (1 + math.exp(-x)), 3) for x in (3, 2)]
  np.testing.assert_allclose(found[0].box, [80, 80, 120, 120], atol=1e-3)
  weights = [1 / (1 + math.exp(-x)) for x in (2, 1)]
  shift = 8 * weights[1] / sum(weights)
  np.testing.assert_allclose(found[1].box, [16 + shift, 16, 56 + shift, 56], atol=1e-3)
  assert found[1].points.shape == (6, 2)
  assert not Detector(lambda _: (boxes, logits - 9), FACE_NEAR, 0.5).find(picture, full_square(picture))


def test_a_region_is_cropped_level_around_its_points():
  mesh = np.zeros((468, 3), np.float32)
  mesh[:4, :2] = [[10, 10], [20, 20], [12, 16], [18, 14]]  # a line that falls to the right by 45 degrees
  region = _Region(np.arange(4), 0, 1, 8, 8, 1.5, 1.5)
  matrix = region.transform(mesh)
  place = lambda x, y: matrix[0, :2, :2] @ (x, y) + matrix[0, :2, 3]
  along = place(8, 4) - place(0, 4)
  np.testing.assert_allclose(along / np.linalg.norm(along), [math.sqrt(0.5)] * 2, atol=1e-5)
  assert np.linalg.norm(along) == pytest.approx(1.5 * math.hypot(10, 10), rel=1e-5)
  np.testing.assert_allclose(place(4, 4), [15, 15], atol=1e-4)
  ramp = np.broadcast_to(np.arange(32, dtype=np.float32)[None, None, :, None], (1, 32, 32, 1))
  made = region.crop(np.ascontiguousarray(ramp), matrix)[0, :, :, 0]
  inside = made > 0
  x = np.array([[place(column + 0.5, row + 0.5)[0] - 0.5 for column in range(8)] for row in range(8)])
  np.testing.assert_allclose(made[inside], x[inside], atol=1e-3)


def test_a_point_moves_to_the_middle_of_its_heat():
  heat = np.full((64, 64, 3), -20, np.float32)
  heat[20:23, 30:33] = 5  # its middle is at (31, 21)
  points = np.array([[33.2, 19.5, 0.1], [10, 50, 0.2], [-3, 20, 0.3]], np.float32) / (64, 64, 1)
  near, cold, outside = refine(points, heat)
  np.testing.assert_allclose(near, [31 / 64, 21 / 64, 0.1], atol=1e-4)
  np.testing.assert_array_equal([cold, outside], points[1:])


def test_a_mask_keeps_what_it_was_where_it_is_unsure():
  picture, points = np.zeros((300, 200, 3), np.uint8), np.zeros((33, 3), np.float32)
  crop, logits = Crop(100, 150, 300, 300), lambda logit: np.full((256, 256), logit, np.float32)
  body = lambda logit: Body(points, points[:, 0], points[:, 0], crop, (logits(logit),))
  finder = OutlineFinder(lambda logits: [logits[None, :, :, None]])
  assert (finder.find(picture, body(9.0))[10:-10] >= 254).all()  # sure of the person
  unsure = finder.find(picture, body(0.0))[10:-10]
  assert (unsure == unsure[0, 0]).all() and unsure[0, 0] == pytest.approx(255 * (0.5 + 0.7 * 0.5), abs=1)
  assert (finder.find(picture, body(-9.0))[10:-10] <= 1).all()  # sure of the room
  assert not finder.find(picture, None).any()
