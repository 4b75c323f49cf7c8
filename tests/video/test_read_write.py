import itertools
import os
from fractions import Fraction

import av
import numpy as np
import pytest

from anchor_jax.core.errors import UserError
from anchor_jax.video.container import frame_rate
from anchor_jax.video.read import probe, read_frames
from anchor_jax.video.write import VideoWriter, default_crf, write_video
from tests.helpers.strange import strange_files


def pictures(count=12, height=32, width=48):
  y, x = np.indices((height, width))
  return [np.stack([x * 4, y * 6, (x + y + 5 * i) % 200], axis=-1).astype(np.uint8) for i in range(count)]


def write(path, frames, **options):
  with VideoWriter(path, 25, **options) as writer:
    for frame in frames:
      writer.write(frame)
  return path


def test_small_videos_are_compressed_less(tmp_path):
  frames = pictures()
  error = lambda path: np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(read_frames(path), frames)])
  by_size, as_large = (write(tmp_path / f"{crf}.mp4", frames, crf=crf) for crf in (None, default_crf(512, 512)))
  assert error(by_size) < 0.9 * error(as_large)


def test_h264_round_trip(tmp_path):
  frames = pictures()
  path = write(tmp_path / "new" / "clip.mp4", frames, crf=10, metadata={"comment": "synthetic"})
  info = probe(path)
  assert (info.width, info.height, info.frames, info.fps, info.has_audio) == (48, 32, 12, 25.0, False)
  back = list(read_frames(path))
  assert len(back) == 12 and np.abs(back[5].astype(int) - frames[5]).mean() < 4
  with av.open(str(path)) as container:
    assert container.metadata["comment"] == "synthetic"
    context = container.streams.video[0].codec_context
    assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
  data = path.read_bytes()
  assert data.index(b"moov") < data.index(b"mdat")  # index in front
  assert [p.name for p in path.parent.iterdir()] == ["clip.mp4"]


def test_lossless_round_trip(tmp_path):
  frames = list(np.random.default_rng(0).integers(0, 256, (5, 17, 23, 3), np.uint8))
  path = write(tmp_path / "clip.mkv", frames, lossless=True)
  np.testing.assert_array_equal(np.stack(list(read_frames(path))), np.stack(frames))


def test_odd_sizes_are_padded(tmp_path):
  path = write(tmp_path / "clip.mp4", pictures(height=31, width=45))
  assert (probe(path).width, probe(path).height) == (46, 32)


def test_a_failed_write_leaves_the_earlier_file(tmp_path):
  path = write(tmp_path / "clip.mp4", pictures())
  before = path.read_bytes()
  with pytest.raises(RuntimeError):
    with VideoWriter(path, 25) as writer:
      writer.write(pictures(1)[0])
      raise RuntimeError("stopped")
  with pytest.raises(UserError, match="no frame"):
    write(path, [])
  assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_unwritable_outputs_are_refused(tmp_path):
  (tmp_path / "file").write_text("x")
  with pytest.raises(UserError, match="cannot write"):
    write(tmp_path / "file" / "clip.mp4", pictures(1))
  with pytest.raises(UserError, match="is a folder"):
    write(tmp_path, pictures(1))
  with pytest.raises(UserError, match=r"\.mp4"):
    write(tmp_path / "clip.nonsense", pictures(1))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.9])
def test_cut_off_files_are_refused(tmp_path, suffix, share):
  data = write(tmp_path / f"complete.{suffix}", pictures(40)).read_bytes()
  cut = tmp_path / f"cut.{suffix}"
  cut.write_bytes(data[: int(len(data) * share)])
  for read in (probe, lambda path: list(read_frames(path))):
    with pytest.raises(UserError) as error:
      read(cut)
    assert "\n" not in str(error.value) and str(cut) in str(error.value)


def test_files_that_are_not_videos_are_refused(tmp_path):
  write(tmp_path / "clip.mp4", pictures(2))
  (tmp_path / "text.mp4").write_text("no video" * 100)
  with pytest.raises(UserError, match="Did you mean"):
    probe(tmp_path / "clpi.mp4")
  with pytest.raises(UserError, match="not a video"):
    probe(tmp_path / "text.mp4")
  with pytest.raises(UserError, match="is a folder"):
    probe(tmp_path)
  for path, message in strange_files(tmp_path / "odd", ".mp4").items():
    for read in (probe, lambda path: list(read_frames(path))):
      with pytest.raises(UserError, match=message):
        read(path)


def test_rotation_of_the_track_header_is_undone(tmp_path):
  frames = pictures(3)
  path = tmp_path / "turned.mp4"
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=25)
    stream.width, stream.height, stream.pix_fmt, stream.options = 48, 32, "yuv420p", {"crf": "5"}
    for frame in frames:
      picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
      container.mux(stream.encode(picture))
    container.mux(stream.encode(None))
  # write the display matrix of a picture turned by 90 degrees into the track header
  data = bytearray(path.read_bytes())
  at = data.index(b"tkhd") + 4 + 40
  data[at : at + 36] = np.array([0, 65536, 0, -65536, 0, 0, 0, 0, 2**30], ">i4").tobytes()
  path.write_bytes(bytes(data))
  info, shown = probe(path), next(read_frames(path))
  assert (info.width, info.height) == (32, 48) and shown.shape == (48, 32, 3)
  expected = np.rot90(frames[0], -1)  # clockwise
  assert np.abs(shown.astype(int) - expected).mean() < 4


def encode(path, claim, stamps, **options):
  """Writes a video whose header claims a rate, with frames at these time stamps in units of 1 / claim seconds."""
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=claim)
    stream.width, stream.height, stream.pix_fmt, stream.options = 32, 32, "yuv420p", options
    stream.codec_context.time_base = 1 / Fraction(claim)
    for number, stamp in enumerate(stamps):
      picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 4 * number, np.uint8), format="rgb24")
      picture.pts, picture.time_base = stamp, 1 / Fraction(claim)
      container.mux(stream.encode(picture))
    container.mux(stream.encode(None))
  return path


def test_time_stamps_override_a_wrong_frame_rate(tmp_path):
  old = encode(tmp_path / "old.mkv", 1800, range(0, 72 * 30, 72))  # 25 a second
  with av.open(str(old)) as container:
    assert container.streams.video[0].average_rate == 1800
  info = probe(old)
  assert info.fps == 25 and info.seconds == 30 / 25
  assert probe(encode(tmp_path / "true.mp4", 1800, range(30))).fps == 1800
  for suffix in ("mp4", "mkv"):  # Matroska rounds to milliseconds, but its claim is exact
    for rate in (Fraction(30000, 1001), 30, 24, 60, 12):
      assert probe(encode(tmp_path / f"fine.{suffix}", rate, range(7))).fps == float(rate)
    assert probe(encode(tmp_path / f"one.{suffix}", 25, range(1))).fps == 25


def test_frame_rate_of_given_time_stamps():
  stamps = lambda *steps: np.cumsum([0, *steps])
  unit = Fraction(1, 1000)
  assert frame_rate(Fraction(25), None, unit) == 25 and frame_rate(None, None, unit) is None
  assert frame_rate(Fraction(25), stamps(0, 0), unit) == 25
  assert frame_rate(None, stamps(33, 33, 34), unit) == 30
  # a phone that drops frames: its average rate, which preserves the duration
  assert frame_rate(Fraction(3000, 133), stamps(33, 33, 67), unit) == 3000 / 133
  # one long pause does not lower the rate
  assert frame_rate(Fraction(1800), stamps(*[40] * 9, 60_000), unit) == 25


@pytest.mark.parametrize("name, options", [("clip.mp4", {"g": "8", "bf": "2"}), ("clip.mkv", {"g": "8", "bf": "0"})])
def test_decoding_starts_at_the_key_frame_before_any_frame(tmp_path, name, options):
  path = encode(tmp_path / name, 25, range(30), **options)
  info, frames = probe(path), list(read_frames(path))
  for first in (0, 1, 7, 8, 20, 29, 30, 31):
    found = list(read_frames(path, first, info))
    assert len(found) == max(0, 30 - first)
    np.testing.assert_array_equal(found, frames[first:] if found else [])
    np.testing.assert_array_equal(list(itertools.islice(read_frames(path, first), 2)), frames[first : first + 2])
  # nothing before the last key frame is decoded
  with av.open(str(path)) as container:
    first = next(container.demux(container.streams.video[0]))
    place, size = first.pos, first.size
  data = bytearray(path.read_bytes())
  data[place + 8 : place + size] = bytes(size - 8)
  path.write_bytes(bytes(data))
  with pytest.raises(UserError, match="damaged"):
    list(read_frames(path))
  np.testing.assert_array_equal(list(read_frames(path, 20, info)), frames[20:])


def test_undecodable_or_long_names_are_a_one_line_error(tmp_path):
  odd = tmp_path / os.fsdecode(b"odd\xff.mp4")
  os.replace(write(tmp_path / "clip.mp4", pictures(1)), odd)
  for access in (probe, lambda path: next(read_frames(path)), lambda path: write(path, pictures(1))):
    with pytest.raises(UserError, match=r"odd\\xff.mp4 has bytes that are not UTF-8") as error:
      access(odd)
    assert str(error.value).isprintable()
  with pytest.raises(UserError, match="there is no video"):
    probe(tmp_path / ("n" * 300))
  with pytest.raises(UserError, match="too long"):
    write(tmp_path / ("n" * 300 + ".mp4"), pictures(1))


def test_write_video_consumes_a_generator(tmp_path):
  frames = (np.full((16, 16, 3), 10 * number, np.uint8) for number in range(5))
  assert write_video(tmp_path / "out.mp4", frames, 10, metadata={"title": "gray"}) == 5
  levels = [int(frame.mean().round()) for frame in read_frames(tmp_path / "out.mp4")]
  assert np.abs(np.subtract(levels, range(0, 50, 10))).max() <= 2
  with pytest.raises(UserError, match="no frame"):
    write_video(tmp_path / "none.mp4", iter(()), 10)
  assert not (tmp_path / "none.mp4").exists()


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_missing_frames_are_counted(tmp_path, suffix):
  noise = np.random.default_rng(0).integers(0, 256, (60, 8, 12, 3), np.uint8).repeat(4, axis=1).repeat(4, axis=2)
  complete = write(tmp_path / f"complete.{suffix}", noise)
  frames, data, cut = list(read_frames(complete)), complete.read_bytes(), tmp_path / f"cut.{suffix}"
  for share, options in ((0.98, {}), (0.5, {"cut_off": True})):
    cut.write_bytes(data[: int(len(data) * share)])
    info = probe(cut, **options)
    assert info.frames + info.missing == 60 and info.missing > 0
    found = list(read_frames(cut, info=info))  # including the frames that the decoder still buffers at the end
    assert len(found) == info.frames
    assert np.abs(np.subtract(found, frames[: info.frames], dtype=float)).mean(axis=(1, 2, 3))[:-4].max() < 1
  with pytest.raises(UserError, match="--cut-off"):
    probe(cut)
  assert probe(complete).missing == 0


def write_ten_bit_film(path, signal, transfer):
  """Writes eight gray columns with these levels (0 to 1) in 10-bit BT.2020, 65 by 33 pixels; returns the path."""
  level = np.minimum(np.arange(65) // 8, 7)
  with av.open(str(path), "w") as container:
    stream = container.add_stream("ffv1", rate=25)  # lossless, and takes odd sizes
    stream.width, stream.height, stream.pix_fmt = 65, 33, "yuv420p10le"
    colors = {"color_range": 1, "colorspace": 9, "color_primaries": 9, "color_trc": transfer}
    picture = av.VideoFrame(65, 33, "yuv420p10le")
    for name, value in colors.items():
      setattr(stream.codec_context, name, value)
      setattr(picture, name, value)
    for plane, values in zip(
      picture.planes, (64 + 876 * np.asarray(signal)[level], np.full(33, 512), np.full(33, 512))
    ):
      rows = np.frombuffer(plane, np.uint16).reshape(plane.height, -1)
      rows[:, : len(values)] = np.round(values)
    picture.pts, picture.time_base = 0, Fraction(1, 25)
    container.mux(stream.encode(picture))
    container.mux(stream.encode(None))
  return path


def test_ten_bit_and_hdr_films(tmp_path):
  shown = lambda *film: next(read_frames(write_ten_bit_film(tmp_path / "ten.mkv", *film)))
  plain = shown(np.arange(8) / 7, 1)
  assert plain.shape == (33, 65, 3) and not probe(tmp_path / "ten.mkv").hdr
  assert (
    np.abs(plain[16, 4::8].astype(float) - np.append(np.arange(8), 7)[: len(plain[16, 4::8]), None] * 255 / 7).max()
    <= 2
  )
  # PQ (ITU-R BT.2100): black, 10, 50, 100, 203 (reference white), 400, 1,000 and 10,000 candela per square meter
  light = np.array([0, 10, 50, 100, 203, 400, 1000, 10_000]) / 10_000
  root = light ** (2610 / 16384)
  pq = ((3424 / 4096 + 2413 / 128 * root) / (1 + 2392 / 128 * root)) ** (2523 / 32)
  graded = shown(pq, 16)
  gray = graded[16, 4:64:8].astype(int)
  assert probe(tmp_path / "ten.mkv").hdr and np.ptp(gray, axis=-1).max() <= 1
  # below 0.6 of reference white, levels match an SDR display (ITU-R BT.1886)
  np.testing.assert_allclose(gray[:4, 0], 255 * (light[:4] * 10_000 / 203) ** (1 / 2.4), atol=2)
  assert (np.diff(gray[:6, 0]) > 10).all() and 235 <= gray[4, 0] <= 242 and gray[7, 0] == 255
  assert abs(int(shown([0.75] * 8, 18)[16, 16, 0]) - gray[4, 0]) <= 2  # HLG's reference white is at 75 % (BT.2408)
