"""Videos with a varying frame rate: time stamps decide when a frame is shown."""

from fractions import Fraction

import av
import numpy as np
import pytest

from anchor_jax.data.records import open_prepared
from anchor_jax.inference.motions import read_motion
from anchor_jax.landmarks.sidecar import write_posed_video
from anchor_jax.prepare import prepare
from anchor_jax.video.read import VideoInfo, probe
from anchor_jax.video.timing import pick, tick_count, tick_frames


def info(stamps, fps=30.0, unit=Fraction(1, 1000)):
  times = None if stamps is None else np.array(stamps)
  return VideoInfo(fps, 32, 32, 0 if stamps is None else len(stamps), 1.0, False, times, unit)


def test_a_constant_rate_has_no_tick_table():
  assert tick_frames(info([round(1000 * n / 30) for n in range(3000)])) is None
  assert tick_frames(info([round(1000 * n / 29.97) for n in range(3000)], 30000 / 1001)) is None
  assert tick_frames(info(None)) is None and tick_frames(info([0])) is None
  assert tick_frames(info([0, 500, 501], unit=None)) is None


def test_each_tick_shows_the_frame_nearest_in_time():
  ticks = tick_frames(info([5, 38, 138, 171]))  # frames at ticks 0, 1, 4 and 5
  assert ticks == [0, 1, 1, 2, 2, 3]
  fast = tick_frames(info([0, 8, 17, 25, 33, 100], 30.0))
  assert fast == [0, 4, 5, 5]
  slow = np.arange(3000) / 29.9  # the header says 30: after a minute, sound would be off by a fifth of a second
  ticks = tick_frames(info(np.round(1000 * slow).astype(int)))
  assert ticks is not None
  assert np.abs(slow[np.array(ticks)] - np.arange(len(ticks)) / 30).max() < 0.51 / 29.9 + 0.001


def test_a_long_pause_is_ignored_with_a_warning(caplog):
  paused = info([*range(0, 400, 40), *range(60_000, 60_400, 40)], 25.0)
  assert tick_frames(paused) is None and "spread 20 frames over 60 s" in caplog.text
  assert tick_count(paused) == 20


def test_pick_repeats_and_skips_items():
  assert list(pick("abcde", [0, 0, 2, 4, 4])) == list("aacee")
  assert list(pick("cde", [2, 3, 3, 9], first=2)) == list("cdd")


@pytest.fixture(scope="module")
def uneven(tmp_path_factory, posed_frames):
  """A video with poses whose frames 10 to 19 last twice as long as the others."""
  path = tmp_path_factory.mktemp("phone") / "phone.mp4"
  write_posed_video(path, posed_frames(20, (32, 32)), 25)
  moved = path.with_name("moved.mp4")
  with av.open(str(path)) as source, av.open(str(moved), "w") as target:
    stream = source.streams.video[0]
    copied, step = target.add_stream_from_template(stream), round(1 / (25 * stream.time_base))
    late = lambda stamp: stamp + max(0, stamp // step - 10) * step
    for packet in source.demux(stream):
      if packet.pts is not None:
        packet.pts, packet.dts, packet.stream = late(packet.pts), late(packet.dts), copied
        target.mux(packet)
  moved.replace(path)
  return path


def test_prepare_and_read_motion_follow_the_time_stamps(uneven, tmp_path, posed_frames):
  shown = [*range(11), *np.repeat(range(11, 20), 2)]  # a frame is shown until halfway to the next one
  assert probe(uneven).frames == 20
  truth = list(posed_frames(20, (32, 32)))
  prepare(uneven, tmp_path / "data", size=32, fps=25)
  source = open_prepared(tmp_path / "data")
  motion = read_motion(uneven, size=32, fps=25)
  assert len(source) == motion.length
  nearest = []
  for number, frame in enumerate(motion.frames(0)):
    record = source.read(number, ("pose", "landmarks"))
    np.testing.assert_array_equal(record["pose"], frame.pose)
    distances = [np.abs(item.pose.astype(int) - frame.pose).sum() for item in truth]
    nearest.append(int(np.argmin(distances)))
  assert np.abs(np.array(nearest) - shown[: len(nearest)]).max() <= 1 and len(nearest) in (29, 30)
  late_start = [frame.pose for frame in motion.frames(17)]
  np.testing.assert_array_equal(late_start, [frame.pose for frame in motion.frames(0)][17:])
  assert len(list(read_motion(uneven, size=32, fps=25, frames=12).frames(0))) == 12
