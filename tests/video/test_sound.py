"""The sound of a film in a generated MP4: in sync, and in a codec that browsers play."""

import itertools
import logging
from fractions import Fraction

import av
import numpy as np
import pytest
from av.stream import Disposition
from film_files import clicks_in, pictures, trim, write_film

import anchor_jax as aj
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.motion.frames import Motion
from anchor_jax.video.read import probe, read_frames
from anchor_jax.video.resumable import ResumableWriter
from anchor_jax.video.sound import sound_of


def with_sound_of(film, path, frames=60, fps=25):
  """Writes an MP4 of `frames` pictures with the film's sound; returns its path."""
  writer = ResumableWriter(path, fps, {})
  for frame in pictures(frames):
    writer.write(frame)
  writer.finish({}, film)
  return path


def sound_facts(path):
  with av.open(str(path)) as file:
    (track,) = file.streams.audio
    return track.codec_context.codec.canonical_name, track.codec_context.sample_rate, track.codec_context.channels


@pytest.mark.parametrize("name, codec, rate, kind, begins", [
  ("film.mkv", "pcm_s16le", 48000, "aac", 0.0),
  ("film.mov", "pcm_s24le", 96000, "aac", 0.4),
  ("film.mkv", "ac3", 48000, "aac", 0.4),
  ("film.ts", "mp2", 48000, "aac", 0.4),
  ("film.avi", "adpcm_ms", 44100, "aac", 0.0),
  ("film.mov", "libopencore_amrnb", 8000, "aac", 0.4),
  ("film.ts", "aac", 48000, "aac", 0.4),
  ("film.mp4", "aac", 44100, "aac", 0.4),
  ("film.mkv", "libopus", 48000, "opus", 0.4),
  ("film.mkv", "flac", 48000, "flac", 0.0),
  ("film.mkv", "libmp3lame", 44100, "mp3", 0.0),
])  # fmt: skip
def test_sound_stays_in_sync_in_a_codec_that_browsers_play(tmp_path, caplog, name, codec, rate, kind, begins):
  picture = "mpeg4" if name == "film.avi" else "libx264"
  clicks = (0.6, 1.2, 2.0, 2.8)
  film = write_film(tmp_path / name, pictures(75), codec=picture, sound=(codec, rate, clicks, 3.0 - begins, begins))
  out = with_sound_of(film, tmp_path / "out.mp4")
  assert sound_facts(out)[0] == kind
  assert clicks_in(out) == pytest.approx(clicks[:3], abs=0.03)  # the picture ends before the last one
  messages = [record.getMessage() for record in caplog.records if "encoded as AAC" in record.getMessage()]
  assert len(messages) == (codec not in ("aac", "libopus", "flac", "libmp3lame"))
  with av.open(str(out)) as file:
    assert float(file.duration / av.time_base) == pytest.approx(60 / 25, abs=0.05)


@pytest.mark.parametrize("codec, suffix", [("aac", "mp4"), ("pcm_s16le", "mov"), ("alac", "mp4")])
def test_sound_of_a_trimmed_film_stays_in_sync(tmp_path, codec, suffix):
  """Each click is heard with the picture it was recorded with."""
  clicks = (0.5, 1.6, 2.4, 3.6)
  film = write_film(tmp_path / f"film.{suffix}", pictures(100), sound=(codec, 48000, clicks, 4.0), options={"g": "30"})
  with av.open(str(film)) as file:
    unit = file.streams.video[0].time_base
  assert unit is not None
  trim(film, [round(Fraction(35, 25) / unit), round(48000 * 35 / 25)], 50 * 40)
  info, frames = probe(film), list(read_frames(film))
  assert info.frames == len(frames) == 50 and np.abs(frames[0].astype(int) - pictures(36)[35]).mean() < 4
  assert clicks_in(with_sound_of(film, tmp_path / "out.mp4", 50)) == pytest.approx((1.6 - 1.4, 2.4 - 1.4), abs=0.03)


def test_a_picture_that_starts_after_its_sound(tmp_path):
  clicks = (1.0, 2.0)
  for name, codec in (("film.mkv", "pcm_s16le"), ("film.mp4", "aac")):
    stamps = range(15, 75)  # the picture begins 0.6 s after the sound
    film = write_film(tmp_path / name, pictures(60), stamps=stamps, sound=(codec, 48000, clicks, 3.0))
    assert clicks_in(with_sound_of(film, tmp_path / "out.mp4")) == pytest.approx((0.4, 1.4), abs=0.03)


def test_resumed_and_shorter_videos_have_reencoded_sound(tmp_path):
  film = write_film(tmp_path / "film.mov", pictures(75), sound=("pcm_s16le", 48000, (0.4, 1.0, 2.0), 3.0))
  for length, heard in ((60, (0.4, 1.0, 2.0)), (20, (0.4,))):
    first = ResumableWriter(tmp_path / "out.mp4", 25, {})
    for frame in pictures(10):
      first.write(frame)
    first.close()
    second = ResumableWriter(tmp_path / "out.mp4", 25, {}, resume=True)
    assert second.frames == 10
    for frame in pictures(length)[10:]:
      second.write(frame)
    second.finish({}, film)
    assert probe(tmp_path / "out.mp4").frames == length
    assert clicks_in(tmp_path / "out.mp4") == pytest.approx(heard, abs=0.03)


def write_sound(path, parts, tracks=1):
  """Writes a 3 s film; `parts` is (codec, rate, layout, [(start, level) of half-second tones]) for each audio track."""
  codec, rate, layout, tones = parts
  with av.open(str(path), "w") as file:
    picture = file.add_stream("libx264", rate=25)
    picture.width, picture.height, picture.pix_fmt = 32, 32, "yuv420p"
    sounds = [file.add_stream(codec, rate=rate, layout=layout) for _ in range(tracks)]
    for number, sound in enumerate(sounds):
      sound.disposition = Disposition.default if number == tracks - 1 else Disposition.comment
      for begin, level in tones:
        channels = sound.codec_context.layout.nb_channels
        wave = np.full((1, round(rate * 0.5) * channels), level / (1 + tracks - 1 - number), np.float32)
        wave[0, channels::2] *= -1
        for first in range(0, wave.shape[1] // channels, 1024):
          part = wave[:, first * channels : (first + 1024) * channels]
          part = av.AudioFrame.from_ndarray((part * 32767).astype(np.int16), format="s16", layout=layout)
          part.sample_rate, part.time_base, part.pts = rate, Fraction(1, rate), round(begin * rate) + first
          file.mux(sound.encode(part))
      file.mux(sound.encode(None))
    for frame in pictures(75, (32, 32)):
      file.mux(picture.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
    file.mux(picture.encode(None))
  return path


def write_tone(path, seconds, rate=48000, tone=100):
  """Writes a film with a low tone."""
  with av.open(str(path), "w") as file:
    picture = file.add_stream("libx264", rate=25)
    picture.width, picture.height, picture.pix_fmt = 32, 32, "yuv420p"
    sound = file.add_stream("pcm_s16le", rate=rate, layout="mono")
    wave = (0.5 * 32767 * np.sin(2 * np.pi * tone * np.arange(round(seconds * rate)) / rate)).astype(np.int16)
    part = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
    part.sample_rate, part.time_base, part.pts = rate, Fraction(1, rate), 0
    file.mux(sound.encode(part))
    file.mux(sound.encode(None))
    for frame in pictures(round(seconds * 25), (32, 32)):
      file.mux(picture.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
    file.mux(picture.encode(None))
  return path


def levels_of(path):
  """Mean absolute level of each half second."""
  heard = np.zeros(6)
  with av.open(str(path)) as file:
    for frame in file.decode(audio=0):
      loud = np.abs(frame.to_ndarray()).mean(axis=0)
      half = ((frame.time + np.arange(len(loud)) / frame.sample_rate) * 2).astype(int)
      np.add.at(heard, half.clip(0, 5), loud / frame.sample_rate * 2)
  return heard


def test_gaps_are_silent_and_sound_after_them_is_in_sync(tmp_path):
  film = write_sound(tmp_path / "film.mkv", ("pcm_s16le", 16000, "mono", [(0.0, 0.5), (1.5, 0.25)]))
  heard = levels_of(with_sound_of(film, tmp_path / "out.mp4"))
  assert heard[0] > 0.15 and 0.05 < heard[3] < 0.7 * heard[0] and heard[[1, 2]].max() < 0.01


def test_surround_becomes_stereo(tmp_path):
  film = write_sound(tmp_path / "film.mkv", ("ac3", 48000, "5.1", [(0.0, 0.5)]))
  out = with_sound_of(film, tmp_path / "out.mp4")
  assert sound_facts(out) == ("aac", 48000, 2) and levels_of(out)[0] > 0.02


def test_the_default_audio_track_is_used(tmp_path):
  film = write_sound(tmp_path / "film.mkv", ("pcm_s16le", 16000, "mono", [(0.0, 0.6)]), tracks=2)
  assert levels_of(with_sound_of(film, tmp_path / "out.mp4"))[0] > 0.25  # the commentary is half as loud


def test_video_and_audio_packets_are_interleaved(tmp_path):
  """So players need not seek, and neither stream is buffered in memory until the other ends."""
  film = write_film(tmp_path / "film.mkv", pictures(75), sound=("aac", 48000, (), 3.0))
  with av.open(str(with_sound_of(film, tmp_path / "out.mp4"))) as file:
    places = [(packet.pos, packet.stream.type) for packet in file.demux() if packet.size]
  kinds = [kind for _, kind in sorted(places)]
  turns = sum(one != other for one, other in itertools.pairwise(kinds))
  assert turns > 20


def test_damaged_sound_does_not_lose_the_picture(tmp_path, caplog):
  film = write_film(tmp_path / "film.ts", pictures(75), sound=("ac3", 48000, (0.5, 2.0), 3.0))
  data = bytearray(film.read_bytes())
  middle = len(data) // 2 // 188 * 188
  data[middle : middle + 188 * 8] = np.random.default_rng(0).integers(0, 256, 188 * 8, np.uint8).tobytes()
  film.write_bytes(data)
  assert probe(with_sound_of(film, tmp_path / "out.mp4")).frames == 60


@pytest.mark.parametrize("codec", ["aac", "mp2"])
def test_sound_ends_where_its_time_stamps_restart(tmp_path, caplog, codec):
  film = write_film(tmp_path / "film.ts", pictures(50), sound=(codec, 48000, (0.4, 1.2), 2.0))
  film.write_bytes(film.read_bytes() * 2)
  out = with_sound_of(film, tmp_path / "out.mp4", 90)
  assert probe(out).frames == 90 and clicks_in(out) == pytest.approx((0.4, 1.2), abs=0.03)
  assert "time stamps restart" in caplog.text


def test_sound_that_the_muxer_refuses_does_not_lose_the_picture(tmp_path, caplog, monkeypatch):
  film = write_film(tmp_path / "film.mkv", pictures(50), sound=("aac", 48000, (0.4, 1.2), 2.0))
  monkeypatch.setattr("anchor_jax.video.sound._increasing", lambda packets: (item for p in packets for item in (p, p)))
  assert probe(with_sound_of(film, tmp_path / "out.mp4", 40)).frames == 40 and "is dropped" in caplog.text


def test_sound_without_a_decoder_is_dropped_and_reported(tmp_path, caplog, monkeypatch):
  film = write_film(tmp_path / "film.mkv", pictures(10), sound=("pcm_s16le", 48000, (), 0.4))
  monkeypatch.setattr("anchor_jax.video.sound._encoder", lambda *_: None)
  out = with_sound_of(film, tmp_path / "out.mp4", 10)
  assert not probe(out).has_audio
  with caplog.at_level(logging.WARNING):
    assert "pcm_s16le) is dropped" in caplog.text


def sound_in(path):
  """The samples of a file's sound on its first channel, from time 0, and their rate."""
  with av.open(str(path)) as file:
    frames = list(file.decode(audio=0))
  rate = frames[0].sample_rate
  wave = np.zeros(round(frames[-1].time * rate) + frames[-1].samples)
  for frame in frames:
    first = round(frame.time * rate)
    heard = frame.to_ndarray()[0, max(0, -first) :]
    wave[max(0, first) : max(0, first) + len(heard)] = heard
  return wave, rate


@pytest.mark.parametrize("name, codec, begins", [
  ("film.mp4", "aac", 0.0), ("film.mkv", "pcm_s16le", 0.0), ("film.mkv", "libopus", 0.3), ("film.ts", "mp2", 0.3),
])  # fmt: skip
def test_sound_is_cut_like_its_picture(tmp_path, name, codec, begins):
  """A click in a frame that stays is heard with that frame; one in a stretch that is left out is gone."""
  kept = [*range(5, 20), *range(30, 40), *range(58, 75)]  # at 25 frames a second
  clicks = (0.44, 0.9, 1.3, 1.44, 1.8, 2.4, 2.7)  # in frames 11, 22, 32, 36, 45, 60 and 67
  sound = (codec, 48000, clicks, 3.0 - begins, begins)
  film = write_film(tmp_path / name, pictures(75), sound=sound)
  motion = Motion(25.0, FrameSize.of(8), 75, lambda first: iter(()), ~np.isin(np.arange(75), kept)).without_absent()
  expected = [
    (kept.index(frame) + at * 25 - frame) / 25
    for at, frame in zip(clicks, (11, 22, 32, 36, 45, 60, 67))
    if frame in kept
  ]
  writer = ResumableWriter(tmp_path / "out.mp4", 25, {})
  for frame in pictures(len(kept)):
    writer.write(frame)
  writer.finish({}, film, motion.stretches)
  assert clicks_in(tmp_path / "out.mp4") == pytest.approx(expected, abs=0.005)
  for stream in ("video", "audio"):
    with av.open(str(tmp_path / "out.mp4")) as file:
      track = getattr(file.streams, stream)[0]
      assert float(track.duration * track.time_base) == pytest.approx(len(kept) / 25, abs=1 / 25)
  count = aj.write_video(tmp_path / "api.mp4", pictures(len(kept)), 25, audio=film, stretches=motion.stretches)
  assert count == len(kept) and not list(tmp_path.glob("*finishing*"))
  np.testing.assert_array_equal(sound_in(tmp_path / "api.mp4")[0], sound_in(tmp_path / "out.mp4")[0])


def test_cuts_in_a_loud_tone_do_not_click(tmp_path):
  """A cut in the middle of a low tone fades out and in; without fades the sound jumps there."""
  film = write_tone(tmp_path / "film.mkv", 3.0)
  whole, cut = ((0.0, 3.0),), ((0.0, 1.01), (1.5075, 3.0))
  steps = []
  for stretches in (whole, cut):
    aj.write_video(tmp_path / "out.mp4", pictures(60), 25, audio=film, stretches=stretches)
    wave, rate = sound_in(tmp_path / "out.mp4")
    steps.append(np.abs(np.diff(wave[round(0.9 * rate) : round(1.1 * rate)])).max())
  assert steps[1] < 2 * steps[0]
  around = np.abs(wave[round(1.0095 * rate) : round(1.0105 * rate)])
  assert around.max() < 0.15 < np.abs(wave).max()


def test_many_cuts_do_not_add_up(tmp_path):
  """After 116 cuts at times between two samples, a click is still on its frame."""
  stretches = [(number / 30 + 1e-5, (number + 0.5) / 30) for number in range(116)]
  film = write_film(tmp_path / "film.mkv", pictures(100), sound=("pcm_s16le", 44100, (3.95,), 4.0))
  aj.write_video(tmp_path / "out.mp4", pictures(60), 25, audio=film, stretches=[*stretches, (3.9, 4.0)])
  before = sum(end - begin for begin, end in stretches)
  assert clicks_in(tmp_path / "out.mp4") == pytest.approx([before + 0.05], abs=0.002)


def test_a_file_without_sound_is_refused_or_silent(tmp_path):
  (tmp_path / "film.txt").write_text("no film")
  with pytest.raises(aj.UserError, match="can't be read as audio"):
    aj.write_video(tmp_path / "out.mp4", pictures(3), 25, audio=tmp_path / "film.txt")
  with pytest.raises(aj.UserError, match=r"ends in \.mp4"):
    aj.write_video(tmp_path / "out.mkv", pictures(3), 25, audio=tmp_path / "film.txt")
  silent = write_film(tmp_path / "silent.mp4", pictures(3))
  assert aj.write_video(tmp_path / "out.mp4", pictures(3), 25, audio=silent, stretches=[(0.0, 0.04)]) == 3
  assert not probe(tmp_path / "out.mp4").has_audio


def test_a_silent_film_yields_no_packets(tmp_path):
  film = write_film(tmp_path / "film.mp4", pictures(3))
  with av.open(str(tmp_path / "out.mp4"), "w") as output, sound_of(film, output, 1.0) as packets:
    assert list(packets) == [] and not output.streams
    output.add_stream("libx264", rate=25)
