"""A video's motion equals that of the folder prepared from it, and is decoded only as far as it is used."""

import dataclasses
import itertools
import logging
import types

import numpy as np
import pytest
from landmark_files import use_networks

from anchor_jax import prepare as command
from anchor_jax.body import fit
from anchor_jax.core.errors import UserError
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.data.records import PreparedSource, build, open_prepared
from anchor_jax.films import poses as clips
from anchor_jax.films.poses import PosedClip, open_film
from anchor_jax.inference import motions
from anchor_jax.inference.motions import read_motion
from anchor_jax.landmarks import model, sidecar
from anchor_jax.landmarks.filling import fill_missing
from anchor_jax.landmarks.framing import CropRect
from anchor_jax.landmarks.networks.detectors import Find
from anchor_jax.landmarks.networks.holistic import Detection
from anchor_jax.landmarks.proportions.measures import measure
from anchor_jax.motion.film import film_motion
from anchor_jax.motion.frames import live_motion
from anchor_jax.video import read as video_files

COUNT = 60
STREAMS = ("masks.mkv", "pose.mkv", "surface.mkv")


@pytest.fixture(scope="module")
def film(tmp_path_factory, posed_frames):
  """A landscape video with a sidecar; some frames have no face."""
  path = tmp_path_factory.mktemp("film") / "clip.mp4"
  frames = (
    frame._replace(surface=frame.pose // 2 + np.uint8(number))
    for number, frame in enumerate(posed_frames(COUNT, (48, 80), missing=(0, 7, 8, 30, COUNT - 1)))
  )
  sidecar.write_posed_video(path, frames, 25)
  return path


@pytest.fixture(scope="module")
def folder(film):
  """The same film, prepared."""
  command.prepare([film], film.parent / "prepared", size=32)
  return film.parent / "prepared"


def same(found, expected):
  found, expected = list(found), list(expected)
  assert len(found) == len(expected)
  for one, other in zip(found, expected):
    for field, true in zip(one, other):
      assert (field is None) == (true is None)
      assert field is None or field.dtype == true.dtype
      np.testing.assert_array_equal(field, true)


@pytest.fixture
def decoded(monkeypatch):
  """Number of decoded pictures, by file name."""
  counts, read = {}, video_files.read_frames

  def counted(path, *arguments):
    for frame in read(path, *arguments):
      counts[path.name] = counts.get(path.name, 0) + 1
      yield frame

  monkeypatch.setattr(sidecar, "read_frames", counted)
  return counts


@pytest.mark.parametrize("fps", [None, 25, 10, 12.5, 40])
def test_video_has_the_motion_of_the_folder_prepared_from_it(film, folder, fps):
  direct, prepared = read_motion(film, size=32, fps=fps), read_motion(folder, fps=fps)
  assert (direct.fps, direct.size, direct.length) == (prepared.fps, prepared.size, prepared.length)
  same(direct.frames(0), prepared.frames(0))
  same(read_motion(film, size=32, fps=fps, frames=9).frames(0), itertools.islice(prepared.frames(0), 9))
  same(direct.frames(8), itertools.islice(prepared.frames(0), 8, None))


def test_only_the_frames_used_are_decoded(film, decoded):
  motion = read_motion(film, size=32, frames=25)
  assert motion.length == 25 and not decoded
  frames = motion.frames(0)
  next(frames)
  assert decoded == dict.fromkeys(STREAMS, 1)  # the video itself is not decoded
  assert len(list(frames)) == 24 and decoded == dict.fromkeys(STREAMS, 25)
  decoded.clear()
  assert len(list(motion.frames(20))) == 5 and decoded == dict.fromkeys(STREAMS, 5)


def test_only_the_records_used_are_read(folder, monkeypatch):
  read, records = PreparedSource.read, []
  monkeypatch.setattr(PreparedSource, "read", lambda self, i, fields: (records.append(i), read(self, i, fields))[1])
  assert len(list(read_motion(folder, frames=5).frames(0))) == 5
  assert max(records) <= 5
  records.clear()
  assert len(list(itertools.islice(read_motion(folder).frames(40), 3))) == 3
  assert set(records) <= {0, 1, 40, 41, 42}


def test_each_file_is_probed_once(film, monkeypatch, tmp_path):
  probed, real = [], video_files.probe
  for module in (clips, sidecar):
    monkeypatch.setattr(module, "probe", lambda path, *more: (probed.append(path.name), real(path, *more))[1])
  opened, load = [], sidecar.read_arrays
  monkeypatch.setattr(sidecar, "read_arrays", lambda *args, **more: (opened.append(args), load(*args, **more))[1])
  command.prepare([film], tmp_path / "out", size=32)
  assert sorted(probed) == ["clip.mp4", *STREAMS] and len(opened) == 1
  probed.clear()
  list(read_motion(film, size=32).frames(50))
  assert sorted(probed) == ["clip.mp4", *STREAMS]


def test_missing_landmarks_are_interpolated_as_over_the_full_video(tmp_path, posed_frames):
  frames = list(posed_frames(20, missing=(0, 1, 5, 6, 11, 19)))
  partly = frames[12].landmarks.copy()
  partly[3] = np.nan  # one point of a frame is missing
  frames[12] = frames[12]._replace(landmarks=partly)
  partly = frames[1].landmarks.copy()
  partly[2] = 5
  frames[1] = frames[1]._replace(landmarks=partly)
  build([PosedClip("clip", "ann", 25.0, frames)], tmp_path / "one", 32)
  expected = fill_missing(np.stack([frame.landmarks for frame in frames]))
  for first in (0, 5, 6, 12, 19):
    found = [frame.landmarks for frame in read_motion(tmp_path / "one").frames(first)]
    np.testing.assert_array_equal(found, expected[first:])
  build([PosedClip("clip", "ann", 25.0, posed_frames(3, missing=(0, 1, 2)))], tmp_path / "none", 32)
  with pytest.raises(UserError, match="no face"):
    read_motion(tmp_path / "none")


def test_folder_of_several_videos_warns_and_lets_one_choose(tmp_path, posed_frames, caplog):
  clips = [
    PosedClip(name, "ann", fps, posed_frames(4, seed=n)) for n, (name, fps) in enumerate([("a", 25.0), ("b", 10.0)])
  ]
  build(clips, tmp_path / "two", 32)
  with caplog.at_level(logging.WARNING):
    first = read_motion(tmp_path / "two")
  assert "holds 2 videos" in caplog.text and "first (a)" in caplog.text and "other 1" in caplog.text
  caplog.clear()
  with caplog.at_level(logging.WARNING):
    same(read_motion(tmp_path / "two", video=0).frames(0), first.frames(0))
    second = read_motion(tmp_path / "two", video=1)
  assert not caplog.text and (second.fps, second.length) == (10.0, 4)
  source = open_prepared(tmp_path / "two")
  np.testing.assert_array_equal([f.pose for f in second.frames(1)], [source[i]["pose"] for i in (5, 6, 7)])
  for number in (2, -1):
    with pytest.raises(UserError, match="holds 2 videos, numbered from 0"):
      read_motion(tmp_path / "two", video=number)


def test_mistakes_give_one_line_errors(film, folder, tmp_path):
  for arguments, message in (
    (dict(path=folder, size=64), "prepared at 32 pixels"),
    (dict(path=film, video=1), "only one video"),
    (dict(path=film, frames=0), "at least 1"),
    (dict(path=film, size=0), "multiples of 8"),
    (dict(path=film, size=100_000), "multiples of 8"),
    (dict(path=film, fps=float("nan")), "above 0"),
    (dict(path=tmp_path), "not a prepared folder"),
    (dict(path=tmp_path / "nothing.mp4"), "there is no video"),
    (dict(path=tmp_path / ("n" * 300)), "there is no video"),
  ):
    with pytest.raises(UserError, match=message) as error:
      read_motion(**arguments)
    assert "\n" not in str(error.value)


def test_first_frames_of_a_live_motion_read_no_further(posed_frames):
  taken = []
  live = live_motion(25.0, 32, (taken.append(i) or i for i in range(10)))
  assert list(live.first(4).frames(1)) == [1, 2, 3] and taken == [0, 1, 2, 3]
  assert live.first(None) is live and live.at_fps(None) is live


@pytest.fixture
def model_runs(monkeypatch, standing_track):
  """Frames per run of a fake landmark model, which finds a standing person that sinks 2 pixels per second."""
  runs = []

  class Model:
    def __init__(self, files, masks, kind):
      runs.append(0)

    def find(self, frame):
      return self.start(frame)()

    def start(self, frame, late=False):
      runs[-1] += 1
      lower = np.array([0, max(0, runs[-1] - 5) * 2 / 25, 0], np.float32)
      person = standing_track(1, (80, 48))
      hands = np.stack([person.hands[0, 0] + lower, np.full((21, 3), np.nan, np.float32)])
      share = np.full(frame.shape[:2], 255, np.uint8)
      return lambda: Detection(person.body[0] + lower, person.face[0] + lower, hands, share)

    def settle(self):
      pass

    def close(self):
      pass

  monkeypatch.setattr(fit, "FRAMES", 2)  # the masks are fake, so the fit need not be good
  use_networks(monkeypatch, Model)
  return runs


@pytest.fixture
def bare(film, tmp_path):
  """The film without its sidecar."""
  (tmp_path / "clip.mp4").write_bytes(film.read_bytes())
  return tmp_path / "clip.mp4"


def test_landmark_model_runs_only_over_the_frames_needed(bare, tmp_path, model_runs):
  short = read_motion(bare, size=32, frames=2, fps=5)
  assert model_runs == [4 + 10 + 25] and short.length == 2  # warm-up; 2 of 5 per second; one second more
  command.prepare([bare], tmp_path / "prepared", size=32)
  (own,) = open_prepared(tmp_path / "prepared").measures
  same(
    read_motion(bare, size=32, measures=own).first(3).frames(0), read_motion(tmp_path / "prepared", frames=3).frames(0)
  )
  assert model_runs[1:] == [4 + COUNT] * 2


def test_no_film_is_searched_twice(bare, tmp_path, model_runs, monkeypatch):
  monkeypatch.setenv("ANCHOR_JAX_TRACKS", str(tmp_path / "tracks"))
  first = list(read_motion(bare, size=32).frames(0))
  assert model_runs == [4 + COUNT]
  same(read_motion(bare, size=32).frames(0), first)
  same(read_motion(bare, size=32).frames(20), first[20:])
  assert model_runs == [4 + COUNT]
  read_motion(bare, size=32, frames=2)  # a part of a film is searched by itself: cuts look ahead
  assert model_runs == [4 + COUNT, 4 + 2 + 25]


@pytest.mark.slow
def test_another_person_s_motion_is_retargeted(bare, tmp_path, model_runs):
  command.prepare([bare], tmp_path / "prepared", size=32)
  (own,) = open_prepared(tmp_path / "prepared").measures
  assert own is not None and own.forearm is not None and own.face is not None
  plain = list(read_motion(bare, size=32, measures=own).frames(0))
  target = dataclasses.replace(
    own, place=(0.3, 0.6), shoulders=own.shoulders * 0.8, neck=own.neck, face=tuple(0.7 * x for x in own.face)
  )
  motion = read_motion(bare, size=32, measures=target)
  fitted = list(motion.frames(0))
  assert len(fitted) == motion.length == COUNT
  spread = lambda frame: np.linalg.norm(frame.landmarks[0] - frame.landmarks[1])
  middle = lambda frame: np.argwhere(frame.pose.any(axis=-1)).mean(axis=0)
  for before, after in zip(plain, fitted, strict=True):
    assert spread(after) == pytest.approx(0.7 * spread(before), rel=0.01)
    assert middle(after)[1] < middle(before)[1] - 4  # columns: the target stands further left
    assert after.surface.shape == after.pose.shape and after.face_mask.any()
  # movements in the picture scale with the target's shoulders
  moved = lambda frames: frames[-1].landmarks[0, 1] - frames[0].landmarks[0, 1]
  assert moved(fitted) == pytest.approx(0.8 * moved(plain), rel=0.02) and moved(plain) > 2
  # no frame depends on where reading starts or ends
  same(motion.frames(17), fitted[17:])
  model_runs.clear()
  same(read_motion(bare, size=32, frames=3, measures=target).frames(0), fitted[:3])
  assert model_runs == [4 + COUNT]  # the film is shorter than the 30 seconds that are measured
  # solids have the fitted widths, mapped or not, and standard widths if none were fitted
  lit = lambda **options: sum((frame.pose > 0).sum() for frame in read_motion(bare, size=32, **options).frames(0))
  bare_body = dataclasses.replace(target, widths=None)
  assert own.widths is not None and max(own.widths.torso) > 1.2
  assert lit(measures=target) > 1.1 * lit(measures=bare_body)
  assert lit(measures=target, mapped=False) == lit(measures=own) > 1.1 * lit()
  assert lit(measures=bare_body, mapped=False) == lit()
  # renders can't be retargeted
  same(read_motion(tmp_path / "prepared", measures=target).frames(0), plain)


def test_one_of_several_people_is_followed(bare, film, tmp_path, model_runs, monkeypatch):
  width, height = video_files.probe(bare).width, video_files.probe(bare).height
  face = lambda x: Find(
    0.9, np.array([x, 0.2, x + 0.1, 0.34], np.float32) * np.float32([width, height] * 2), np.zeros((6, 2))
  )
  two = types.SimpleNamespace(find=lambda *_: [face(0.1), face(0.7)])
  monkeypatch.setattr(model, "Detector", lambda *_: two)
  seen, track_video = [], clips.track_video
  kept = lambda *given, columns, **options: seen.append(columns) or track_video(*given, columns=columns, **options)
  monkeypatch.setattr(clips, "track_video", kept)
  for at in ((0.17, 0.9), (0.78, 0.9)):
    assert next(read_motion(bare, size=32, frames=2, person_at=at).frames(0)).pose.any()
  left, right = [columns[0].tolist() for columns in seen]
  assert left[0] == 0 and right[1] == width and abs(left[1] - right[0]) <= 1
  with pytest.raises(UserError, match=r"nobody is there .* faces are at 0.15,0.27, 0.75,0.27"):
    read_motion(bare, size=32, frames=2, person_at=(0.45, 0.2))
  command.prepare([film], tmp_path / "prepared", size=32)
  for path, message in ((film, "its sidecar already says"), (tmp_path / "prepared", "not a film of several people")):
    for ask in (read_motion, motions.open_motion):
      with pytest.raises(UserError, match=message):
        ask(path, person_at=(0.2, 0.3))


def test_the_landmark_model_of_a_film_can_be_chosen(bare, folder, tmp_path, model_runs, monkeypatch):
  """What each model found is kept apart."""
  monkeypatch.setenv("ANCHOR_JAX_TRACKS", str(tmp_path / "tracks"))
  monkeypatch.setattr(clips, "require_landmarks", lambda *_: None)
  asked, track_video = [], clips.track_video
  monkeypatch.setattr(clips, "track_video", lambda *a, model, **b: asked.append(model) or track_video(*a, **b))
  for chosen in ("mediapipe-heavy", "mediapipe", "mediapipe-heavy"):
    assert next(read_motion(bare, size=32, frames=2, landmarks=chosen).frames(0)).pose.any()
  assert asked == ["mediapipe-heavy", "mediapipe"]
  for path in (bare, folder):
    with pytest.raises(UserError, match='no landmark model "magic": use mediapipe, mediapipe-heavy'):
      read_motion(path, landmarks="magic")


def test_sidecar_is_not_retargeted(film, standing_track):
  target = measure(standing_track(), CropRect.square(20, 0, 120, 32))
  same(read_motion(film, size=32, measures=target).frames(0), read_motion(film, size=32).frames(0))


def test_open_motion_knows_its_length_and_opens_each_file_once(film, folder, monkeypatch):
  probed, real = [], video_files.probe
  for module in (clips, sidecar):
    monkeypatch.setattr(module, "probe", lambda path, *more: (probed.append(path.name), real(path, *more))[1])
  for path, options in (
    (film, {}),
    (film, {"fps": 10}),
    (folder, {"frames": 9}),
    (folder, {"fps": 12.5, "frames": 40}),
  ):
    opened = motions.open_motion(path, **options)
    motion = opened.read(32)
    assert (opened.length, opened.fps, opened.has_renders) == (motion.length, motion.fps, True)
    assert opened.has_sound == (path == film)
  assert sorted(probed) == sorted(["clip.mp4", *STREAMS] * 2)


def test_defaults_are_those_of_prepare(film):
  assert read_motion(film).size == motions.SIZE == FrameSize.of(128)
  assert film_motion(open_film(film), size=64).size == FrameSize(64, 64)
