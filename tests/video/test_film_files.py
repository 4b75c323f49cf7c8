"""Films as phones and editors write them: containers with odd timing, orientation, pixels and streams."""

import dataclasses
import itertools
from fractions import Fraction

import av
import numpy as np
import pytest
from av.stream import Disposition
from film_files import pictures, set_matrix, trim, write_film

from anchor_jax.core.errors import UserError
from anchor_jax.inference.backgrounds import open_background
from anchor_jax.landmarks.sidecar import open_posed_video, write_posed_video
from anchor_jax.video.camera import open_camera
from anchor_jax.video.geometry import orientation, square_pixels
from anchor_jax.video.read import probe, read_frames
from anchor_jax.video.timing import tick_frames

QUARTER, HALF = {0: (1, 0), 1: (0, -1), 2: (-1, 0), 3: (0, 1)}, 2**-0.5


def difference(shown, expected):
  """Mean absolute difference of two pictures in gray levels; infinite if their sizes differ."""
  if shown.shape != expected.shape:
    return np.inf
  return np.abs(shown.astype(float) - expected).mean()


def test_a_film_trimmed_without_reencoding_has_its_displayed_length(tmp_path):
  frames = pictures(80)
  path = write_film(tmp_path / "film.mp4", frames, options={"g": "30", "bf": "2"})
  with av.open(str(path)) as container:
    unit = container.streams.video[0].time_base
  trim(path, [round(35 / 25 / unit)], 20 * 40)
  with av.open(str(path)) as container:
    packets = [packet.is_discard for packet in container.demux(video=0) if packet.size]
    assert container.streams.video[0].frames == 80 and len(packets) > 20 and any(packets)
  info, found = probe(path), list(read_frames(path))
  assert (info.frames, info.missing, len(found)) == (20, 0, 20) and info.seconds == pytest.approx(20 / 25)
  assert max(difference(a, b) for a, b in zip(found, frames[35:55])) < 4
  assert tick_frames(info) is None
  for first in (0, 1, 19):
    np.testing.assert_array_equal(list(read_frames(path, first, info)), found[first:])
  cut = tmp_path / "cut.mp4"
  write_film(cut, frames, options={"g": "30", "movflags": "faststart"})
  with pytest.raises(UserError, match=r"cut off|damaged"):
    data = trim(cut, [round(35 / 25 / unit)], 20 * 40).read_bytes()
    cut.write_bytes(data[: len(data) // 2])
    probe(cut)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_all_orientations_are_undone(tmp_path, turns, mirrored):
  frame = pictures(1)[0]
  (cosine, minus_sine), sign = QUARTER[turns], -1 if mirrored else 1
  # (x, y) is shown at (a x + c y, b x + d y): mirrored, then turned counterclockwise, with y down
  path = set_matrix(
    write_film(tmp_path / "film.mp4", [frame] * 2), (sign * cosine, sign * minus_sine, -minus_sine, cosine)
  )
  expected = np.rot90(frame[:, ::-1] if mirrored else frame, turns)
  info, shown = probe(path), list(read_frames(path))
  assert (info.height, info.width) == expected.shape[:2] and difference(shown[0], expected) < 4
  np.testing.assert_array_equal(next(read_frames(path, 1, info)), shown[1])


@pytest.mark.parametrize("matrix", [(0, 0, 0, 0), (1, 0, 0, 0), (1, 1, 1, 1), (0, 1e-5, 0, 0)])
def test_a_degenerate_display_matrix_is_ignored(tmp_path, matrix):
  frame = pictures(1)[0]
  path = set_matrix(write_film(tmp_path / "film.mp4", [frame]), matrix)
  assert difference(next(read_frames(path)), frame) < 4


def test_orientation_is_rounded_and_ignores_scale():
  flat = lambda a, b, c, d: (a, b, 0, c, d, 0, 0, 0, 1)
  assert orientation(None) == (False, 0)
  assert orientation(flat(0.99, 0.05, -0.05, 0.99)) == (False, 0)
  assert orientation(flat(3, 0, 0, 0.5)) == (False, 0)
  assert orientation(flat(0, -3, 0.5, 0)) == (False, 1)
  assert orientation(flat(0, 0.5, 3, 0)) == (True, 1)


def test_nonsquare_pixels_become_square(tmp_path):
  frame = pictures(1, (72, 54))[0]
  wide = write_film(tmp_path / "wide.mp4", [frame], aspect=Fraction(4, 3))
  info, shown = probe(wide), next(read_frames(wide))
  assert (info.width, info.height) == (96, 54) and difference(shown, pictures(1, (96, 54))[0]) < 4
  tall = write_film(tmp_path / "tall.mkv", [frame], aspect=Fraction(8, 9))
  assert next(read_frames(tall)).shape == (61, 72, 3) and probe(tall).height == 61
  turned = set_matrix(wide, (0, 1, -1, 0))  # the aspect ratio applies before the rotation
  assert next(read_frames(turned)).shape == (96, 54, 3) and probe(turned).width == 54


def test_which_aspect_ratios_are_corrected():
  assert square_pixels(1440, 1080, Fraction(4, 3)) == (1920, 1080)
  assert square_pixels(720, 480, Fraction(8, 9)) == (720, 540)
  for aspect in (None, Fraction(0), Fraction(1), Fraction(640, 639), Fraction(1, 100), Fraction(9000)):
    assert square_pixels(640, 480, aspect) is None


def fields(count, width=96, height=64):
  """Interlaced pictures of a bar that moves by 4 pixels per field."""
  frames = np.zeros((count, height, width, 3), np.uint8)
  for number in range(2 * count):
    frames[number // 2, number % 2 :: 2, :, :][:, 4 * number % 72 : 4 * number % 72 + 12] = 200
  return list(frames)


@pytest.mark.parametrize("name, codec, options", [
  ("film.mp4", "libx264", {"x264-params": "tff=1", "g": "4"}),
  ("film.mpg", "mpeg2video", {"flags": "+ildct+ilme", "b": "5000k", "g": "4"}),
])  # fmt: skip
def test_interlaced_films_are_deinterlaced(tmp_path, name, codec, options):
  path = write_film(tmp_path / name, fields(12), codec=codec, options=options)
  info, frames = probe(path), list(read_frames(path))
  combs = lambda picture: np.abs(np.diff(picture[..., 1].astype(int), axis=0)).mean()
  assert info.interlaced and info.frames == len(frames) == 12
  assert combs(fields(1)[0]) > 10 and max(combs(frame) for frame in frames[1:]) < 2
  for first in (1, 5, 8):  # a result depends on its neighbors, wherever decoding starts
    np.testing.assert_array_equal(list(read_frames(path, first, info)), frames[first:])


def uneven(count):
  """Time stamps of a film at a varying rate: every third frame lasts four times as long."""
  return [0, *np.cumsum([1 if number % 3 else 4 for number in range(count - 1)]).tolist()]


@pytest.mark.parametrize("name, codec", [("film.mkv", "libx264"), ("film.avi", "mpeg4"), ("film.mp4", "libx264")])
def test_a_varying_rate_is_not_mistaken_for_a_missing_end(tmp_path, name, codec):
  stamps = uneven(31)[:-1]
  path = write_film(tmp_path / name, pictures(30), codec=codec, stamps=stamps)
  info = probe(path)
  assert info.frames == 30 and info.missing == 0 and len(list(read_frames(path))) == 30
  assert info.times is not None
  ticks = tick_frames(info)
  assert ticks is not None and abs(len(ticks) - (stamps[-1] + 1) * info.fps / 25) < 1.5
  # noise, so that half of the file is half of the film
  noise = list(np.random.default_rng(0).integers(0, 256, (60, 32, 48, 3), np.uint8))
  cut = write_film(tmp_path / f"cut_{name}", noise, codec=codec, stamps=uneven(60), options={"movflags": "faststart"})
  cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
  with pytest.raises(UserError, match="cut off"):
    probe(cut)


@pytest.mark.parametrize("name", ["film.mkv", "film.mp4", "film.ts"])
def test_time_stamps_need_not_start_at_zero(tmp_path, name):
  frames = pictures(12)
  path = write_film(tmp_path / name, frames, stamps=range(125, 137), options={"g": "5"})
  info, found = probe(path), list(read_frames(path))
  assert (info.frames, info.missing, len(found)) == (12, 0, 12) and info.seconds == pytest.approx(12 / 25, abs=0.01)
  np.testing.assert_array_equal(list(read_frames(path, 7, info)), found[7:])


def write_two_streams(path, sizes, dispositions, codecs=("libx264", "libx264")):
  """Writes a file with two video streams, in the order of `sizes`; returns its path."""
  with av.open(str(path), "w") as container:
    streams = []
    for size, disposition, codec in zip(sizes, dispositions, codecs):
      stream = container.add_stream(codec, rate=25)
      stream.width, stream.height = size
      stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
      stream.disposition = disposition
      streams.append(stream)
    for stream, size, codec in zip(streams, sizes, codecs):
      for number in range(1 if codec == "mjpeg" else 6):
        picture = av.VideoFrame.from_ndarray(pictures(1, size)[0], format="rgb24")
        picture.pts, picture.time_base = number, Fraction(1, 25)
        container.mux(stream.encode(picture))
      container.mux(stream.encode(None))
  return path


NONE, DEFAULT, COVER = Disposition(0), Disposition.default, Disposition.attached_pic


@pytest.mark.parametrize("name, sizes, dispositions, codecs", [
  ("cover.mp4", [(160, 120), (64, 48)], [COVER, DEFAULT], ("mjpeg", "libx264")),
  ("cover.mkv", [(160, 120), (64, 48)], [COVER, NONE], ("mjpeg", "libx264")),
  ("angles.mkv", [(96, 64), (64, 48)], [NONE, DEFAULT], ("libx264", "libx264")),
  ("small_first.mkv", [(32, 32), (64, 48)], [NONE, NONE], ("libx264", "libx264")),
])  # fmt: skip
def test_the_film_is_chosen_among_several_video_streams(tmp_path, name, sizes, dispositions, codecs):
  path = write_two_streams(tmp_path / name, sizes, dispositions, codecs)
  info = probe(path)
  assert (info.width, info.height, info.frames) == (64, 48, 6)
  assert [frame.shape for frame in read_frames(path)] == [(48, 64, 3)] * 6


def test_a_song_with_cover_art_is_not_a_video(tmp_path):
  path = tmp_path / "song.mp4"
  with av.open(str(path), "w") as container:
    cover = container.add_stream("mjpeg")
    cover.width, cover.height, cover.pix_fmt, cover.disposition = 32, 32, "yuvj420p", COVER
    container.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
    container.mux(cover.encode(None))
  with pytest.raises(UserError, match="no moving picture"):
    probe(path)


def test_a_recording_that_starts_between_key_frames(tmp_path):
  frames = pictures(20, (160, 96))
  path = write_film(tmp_path / "film.ts", frames, options={"g": "8", "keyint_min": "8", "sc_threshold": "0"})
  with av.open(str(path)) as container:
    third = [packet.pos for packet in container.demux(video=0) if packet.size][3]
  with av.open(str(path)) as container:
    head = next(packet.pos for packet in container.demux(video=0))
  data = path.read_bytes()
  path.write_bytes(data[:head] + data[third:])  # keep the tables, drop the first key frame
  info, found = probe(path), list(read_frames(path))
  assert info.frames == len(found) == 12 and info.times is not None and len(info.times) == 12
  assert max(difference(a, b) for a, b in zip(found, frames[8:])) < 4
  np.testing.assert_array_equal(list(read_frames(path, 5, info)), found[5:])


@pytest.mark.parametrize("name, codec", [
  ("film.avi", "mpeg4"), ("film.flv", "libx264"), ("film.mpg", "mpeg2video"), ("film.webm", "libvpx-vp9"),
  ("film.3gp", "mpeg4"), ("film.mkv", "libx265"), ("film.gif", "gif"),
])  # fmt: skip
def test_decoding_starts_at_any_frame_in_any_container(tmp_path, name, codec):
  options = {"g": "6"} | ({"bf": "2"} if codec in ("mpeg4", "mpeg2video") else {})
  options |= {"x265-params": "log-level=0:open-gop=1:keyint=6"} if codec == "libx265" else {}
  pixels = "rgb8" if codec == "gif" else "yuv420p"
  path = write_film(tmp_path / name, pictures(24, (96, 64)), codec=codec, options=options, pixels=pixels)
  info, frames = probe(path), list(read_frames(path))
  assert info.frames == len(frames) == 24 and info.missing == 0 and info.times is not None
  for first in (1, 5, 7, 23):
    np.testing.assert_array_equal(list(read_frames(path, first, info)), frames[first:])


def test_an_interlaced_stream_without_time_stamps_counts_frames_not_fields(tmp_path):
  path = write_film(tmp_path / "film.h264", fields(6), options={"x264-params": "tff=1"})
  info = probe(path)
  assert info.frames == len(list(read_frames(path, info=info))) == 6 and info.times is None


def test_frames_with_equal_time_stamps_keep_their_order(tmp_path):
  path = write_film(tmp_path / "film.mkv", pictures(10), stamps=range(10), options={"g": "4", "bf": "0"})
  info, found = probe(path), list(read_frames(path))
  doubled = np.array(info.times)
  doubled[5] = doubled[4]
  np.testing.assert_array_equal(list(read_frames(path, 5, dataclasses.replace(info, times=doubled))), found[5:])


def test_concatenated_files_keep_all_frames(tmp_path):
  """Their time stamps restart, so they are ignored and the rate is constant."""
  path = write_film(tmp_path / "film.ts", frames := pictures(80), options={"g": "10", "bf": "2"})
  path.write_bytes(path.read_bytes() * 2)
  info, found = probe(path), list(read_frames(path))
  assert info.times is None and info.fps == 25 and tick_frames(info) is None
  assert min(info.frames, len(found)) >= 158 and difference(found[100], frames[20]) < 4  # one may be lost at the seam
  np.testing.assert_array_equal(next(read_frames(path, 100, info)), found[100])


def test_backgrounds_and_camera_films_follow_time_stamps(tmp_path):
  frames = [np.full((32, 32, 3), level, np.uint8) for level in (40, 80, 120, 160, 200)]
  path = write_film(tmp_path / "film.mkv", frames, stamps=[0, 1, 2, 3, 11])  # the fourth lasts long
  levels = lambda pictures: [round(float(picture.mean()) / 40) for picture in pictures]
  expected = [1, 2, 3, *[4] * 4, *[5] * 5]  # nearest in time
  assert levels(itertools.islice(open_background(str(path)).frames(32, 25, 0), 13)) == [*expected, 1]
  camera = open_camera(path, sleep=lambda _: None)
  played = itertools.takewhile(lambda image: image is not None, (camera.read() for _ in itertools.count()))
  assert levels(played) == expected


def test_one_frame_is_a_film(tmp_path):
  for name in ("film.mp4", "film.mkv", "film.avi"):
    path = write_film(tmp_path / name, pictures(1), codec="mpeg4" if name == "film.avi" else "libx264")
    info = probe(path)
    assert (info.frames, info.missing, info.fps) == (1, 0, 25) and info.seconds == pytest.approx(1 / 25)
    assert len(list(read_frames(path, info=info))) == 1


def test_transparent_pixels_are_black(tmp_path):
  frame = np.full((32, 48, 4), 200, np.uint8)
  frame[:, :16, 3], frame[:, 16:32, 3], frame[:, 32:, 3] = 0, 128, 255
  path = write_film(tmp_path / "film.mov", [frame], codec="qtrle", pixels="argb")
  shown = next(read_frames(path))
  assert shown.shape == (32, 48, 3) and [int(shown[0, x, 0]) for x in (0, 20, 40)] == [0, 100, 200]


@pytest.mark.parametrize("pixels, codec", [("yuvj420p", "mjpeg"), ("yuv420p", "ffv1"), ("yuv444p10le", "ffv1")])
@pytest.mark.parametrize("colors", [{}, {"colorspace": 1}])
def test_levels_follow_the_declared_color_range(tmp_path, pixels, codec, colors):
  """Black, gray and white survive full and limited range, in 8 and 10 bits."""
  frame = np.repeat(np.array([0, 128, 255], np.uint8), 16)[None, :, None].repeat(33, 0).repeat(3, 2)
  frame = np.concatenate([frame, frame[:, -1:]], axis=1)  # an odd width and height
  path = tmp_path / "film.mkv"
  with av.open(str(path), "w") as container:
    stream = container.add_stream(codec, rate=25)
    stream.height, stream.width, stream.pix_fmt = 33, 49, pixels
    for name, value in colors.items():
      setattr(stream.codec_context, name, value)
    picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
    picture.pts, picture.time_base = 0, Fraction(1, 25)
    container.mux(stream.encode(picture))
    container.mux(stream.encode(None))
  shown = next(read_frames(path))
  assert shown.shape == (33, 49, 3)
  np.testing.assert_allclose(shown[16, 8::16][:3].mean(axis=-1), [0, 128, 255], atol=3)


def test_a_sidecar_from_before_square_pixel_correction_still_fits(tmp_path, posed_frames):
  """A sidecar's coordinates refer to the displayed picture; its size shows whether that was already corrected."""
  path = tmp_path / "film.mp4"
  write_posed_video(path, posed_frames(3, (48, 64)), 25)
  write_film(path, pictures(3, (64, 48)), aspect=Fraction(4, 3))
  assert (probe(path).width, probe(path).height) == (85, 48)
  posed = open_posed_video(path)
  assert (posed.info.width, posed.info.height) == (64, 48)
  assert [item.frame.shape for item in posed.frames()] == [(48, 64, 3)] * 3
  write_posed_video(path, posed_frames(3, (48, 85)), 25)
  write_film(path, pictures(3, (64, 48)), aspect=Fraction(4, 3))
  assert [item.frame.shape for item in open_posed_video(path).frames()] == [(48, 85, 3)] * 3
