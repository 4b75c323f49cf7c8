"""Live video from a camera: frames in order without a queue, a file with the same timing, and how it ends."""

import contextlib
import itertools
import signal
import sys
import types

import av
import numpy as np
import pytest
from parts import make_part
from people import make_track

from anchor_jax.core.errors import UserError
from anchor_jax.generate import parse
from anchor_jax.inference.camera import LiveOutput, animate_camera, ended_by_interrupt, ppm, window
from anchor_jax.inference.live import follow
from anchor_jax.inference.person import Person
from anchor_jax.inference.request import Request
from anchor_jax.landmarks.networks.holistic import Detection
from anchor_jax.motion.following import pose_frame, track_live
from anchor_jax.motion.frames import live_motion
from anchor_jax.video.camera import Camera, Picture
from anchor_jax.video.resumable import ResumableWriter

PERSON = Person(make_part("body"), None).with_sampling(window=1, overlap=0, steps=1, guidance=1.0)
FRAME = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)


def test_file_has_the_camera_s_timing(tmp_path):
  stopped, shown = [], []
  writer = ResumableWriter(tmp_path / "a.mp4", 30.0, {}, live=True)
  show = lambda frame: shown.append(frame) or len(shown) < 4
  taken = LiveOutput(30.0, lambda frame: 255 - frame, writer, show, lambda: stopped.append(True))
  picture = np.full((32, 32, 3), 100, np.uint8)
  for time in (7.0, 7.01, 7.2, 7.5):  # the second arrives within a tick of the first
    taken(picture, time)
  writer.finish({})
  assert taken.frames == 4 and stopped == [True] and (shown[0] == 155).all()
  with av.open(str(tmp_path / "a.mp4")) as container:
    times = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
  assert times == pytest.approx([0, 1 / 30, 0.2, 0.5], abs=1e-3)


def test_first_ctrl_c_stops_and_the_second_interrupts():
  stopped, before = [], signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
  try:
    with pytest.raises(KeyboardInterrupt), ended_by_interrupt(lambda: stopped.append(True)):
      signal.raise_signal(signal.SIGINT)
      assert stopped == [True]
      signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
  finally:
    signal.signal(signal.SIGINT, before)


class Tk:
  """A stand-in for Tk: a root, a label and pictures."""

  TclError = ValueError

  def __init__(self):
    self.handlers, self.pictures, self.gone = {}, [], False
    self.Tk = self.Label = lambda *_: self
    self.PhotoImage = lambda data: self.pictures.append(data) or data
    self.title = self.pack = self.configure = self.update = lambda *_, **__: None
    self.bind = self.protocol = lambda name, handler: self.handlers.__setitem__(name, handler)

  def destroy(self):
    self.gone = True


@pytest.mark.parametrize("ends", ["q", "WM_DELETE_WINDOW"])
def test_window_shows_frames_until_it_is_closed(ends, monkeypatch):
  monkeypatch.setitem(sys.modules, "tkinter", tk := Tk())
  with window("ana") as show:
    assert show(FRAME)
    tk.handlers[ends](*[None] * (ends == "q"))
    assert not show(FRAME)
  assert tk.gone and tk.pictures[0].startswith(b"P6 512 512 255 ") and len(tk.pictures[0]) == 15 + 512 * 512 * 3
  assert ppm(FRAME) == b"P6 8 8 255 " + FRAME.tobytes()


def test_missing_screen_or_tk_gives_a_one_line_error(monkeypatch):
  def no_screen():
    raise ValueError("no display name")

  monkeypatch.setitem(sys.modules, "tkinter", types.SimpleNamespace(TclError=ValueError, Tk=no_screen))
  with pytest.raises(UserError, match=r"no screen \(no display name\)"), window("ana"):
    pass
  monkeypatch.setitem(sys.modules, "tkinter", None)
  with pytest.raises(UserError, match="needs Tk"), window("ana"):
    pass


class Standing:
  """Finds a standing person in every picture, and counts the pictures."""

  def __init__(self):
    track = make_track(1)
    self.triangles, self.found, self.pictures = (
      track.triangles,
      Detection(track.body[0], track.face[0], track.hands[0], None),
      0,
    )

  def start_shot(self, frame, reset=False):
    pass

  def find(self, frame):
    self.pictures += 1
    return self.found


def pictures(count, finder, now):
  """Yields pictures a tenth of a second apart, of which every other one was dropped."""
  for number in range(count):
    now[0] += 0.1
    yield Picture(2 * number, now[0], np.zeros((120, 160, 3), np.uint8))


def watched(count, finder, now):
  coming = pictures(count, finder, now)
  options = {"size": 32, "measures": None, "mapped": True, "report": lambda line: None, "seconds": 0.25}
  return track_live(lambda: next(coming, None), finder, clock=lambda: now[0], **options)


def test_frames_come_in_order_and_poses_are_not_found_far_ahead():
  now, finder, written, ahead = [0.0], Standing(), [], []

  def write(frame, time):
    written.append((frame, time))
    ahead.append(finder.pictures - 4 - len(written))

  timing = follow(PERSON, watched(16, finder, now), 30.0, write, clock=lambda: now[0])
  poses = [pose_frame(item.driver, item.track) for item in watched(16, Standing(), [0.0])]
  expected = list(PERSON.animate(live_motion(30.0, 32, iter(poses))))
  np.testing.assert_array_equal([frame for frame, _ in written], expected)
  assert len(written) == 12 and [time for _, time in written] == pytest.approx([0.1 * n for n in range(5, 17)])
  assert max(ahead) <= 5  # one each being found, rendered, denoised and decoded, and one in between
  figures = timing.to_json()
  assert figures["dropped_share"] == pytest.approx(1 - 12 / 23) and figures["frames"] == 12
  assert all(latency >= 0 for latency in timing.latencies) and figures["poses_per_second"] == 30.0


def test_it_stops_after_the_given_frames_and_needs_at_least_one():
  written = []
  timing = follow(PERSON, watched(100, Standing(), [0.0]), 30.0, lambda frame, _: written.append(frame), frames=2)
  assert len(written) == len(timing.latencies) == 2
  with pytest.raises(UserError, match="no frames"):
    follow(PERSON, watched(4, Standing(), [0.0]), 30.0, lambda frame, _: None)
  with pytest.raises(UserError, match="before a person and their face were seen"):
    follow(PERSON, watched(2, Standing(), [0.0]), 30.0, lambda frame, _: None)


@pytest.mark.slow
@pytest.mark.parametrize("frames", [5, None])
def test_camera_to_a_file(tmp_path, frames, monkeypatch):
  ticks, closed = itertools.count(), []
  image = np.zeros((120, 160, 3), np.uint8)
  read = lambda: image if next(ticks) < 10**9 and not closed else None
  camera = Camera(30.0, read, lambda: closed.append(True))
  model = contextlib.nullcontext(Standing())
  flags = [f"--checkpoint={tmp_path}", f"--motion={tmp_path}", f"--output={tmp_path / 'a.mp4'}"]
  monkeypatch.setattr(sys, "argv", ["generate", *flags, *([] if frames is None else [f"--frames={frames}"])])
  marks = []

  def marked(frame):
    marks.append(frame)
    if frames is None and len(marks) == 3:
      signal.raise_signal(signal.SIGINT)
    return frame

  count, timing = animate_camera(Request(parse(), camera=camera), PERSON, marked, model)
  assert count == len(marks) == (frames or count) and 3 <= count <= 9 and closed == [True]
  figures = timing.to_json()
  assert figures["frames"] == count and 0 < figures["dropped_share"] < 1
  assert {"landmarks_median", "drawing_median", "latency_95"} < figures.keys()
  with av.open(str(tmp_path / "a.mp4")) as container:
    assert sum(1 for _ in container.decode(video=0)) == count and container.metadata["synthetic"] == "true"
  assert not (tmp_path / "a.partial.mp4").exists()
