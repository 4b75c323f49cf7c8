"""The generate command on a tiny person: sound, partial files, resuming, odd motions, watermarks."""

import dataclasses
import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from fractions import Fraction

import av
import jax
import numpy as np
import pytest
from bodies import doll_parameters, make_doll_file
from people import make_measures
from tiny import write_untrained

from anchor_jax import generate
from anchor_jax.core.errors import UserError
from anchor_jax.data.records import build, open_prepared
from anchor_jax.films.poses import PosedClip
from anchor_jax.formats.folders import read_models
from anchor_jax.inference.motions import open_motion, read_motion
from anchor_jax.inference.person import load
from anchor_jax.landmarks.sidecar import write_posed_video
from anchor_jax.motion.frames import live_motion
from anchor_jax.prepare import prepare
from anchor_jax.video.read import probe, read_frames
from anchor_jax.video.resumable import ResumableWriter
from anchor_jax.video.write import VideoWriter


@pytest.fixture(scope="module")
def person(tmp_path_factory, initialized_runs):
  """A workdir with a body and a head."""
  workdir = tmp_path_factory.mktemp("person")
  for part in ("body", "head"):
    config = initialized_runs(part, steps=1)
    record = open_prepared(config.data.path).read(0, ("frame",))
    write_untrained(workdir / part, config, read_models(pathlib.Path(config.init), part)[1], record["frame"])
  return workdir


@functools.cache
def lively(path, **options):
  """The person with an effective pose branch, as after long training."""
  person = load(path, **options)
  stir = lambda leaf: leaf + 0.3 * jax.random.normal(jax.random.key(leaf.size), leaf.shape)
  stirred = lambda part: dataclasses.replace(
    part, weights={**part.weights, "controlnet": jax.tree.map(stir, part.weights["controlnet"])}
  )
  return type(person)(stirred(person.body), person.head and stirred(person.head))


@pytest.fixture
def run(monkeypatch, person, prepared):
  """Runs generate with these flags, on one device, in this process."""
  monkeypatch.setattr(generate, "sampling_mesh_of", lambda flag: None)
  monkeypatch.setattr("anchor_jax.inference.request.load", lively)

  def call(output, *flags, motion=prepared):
    argv = ["generate", f"--checkpoint={person}", f"--motion={motion}", f"--output={output}", *flags]
    monkeypatch.setattr(sys, "argv", argv)
    return generate.generate(generate.parse())

  return call


def encoded(monkeypatch):
  """A list that collects the frames passed to the encoder."""
  frames, write = [], ResumableWriter.write
  monkeypatch.setattr(ResumableWriter, "write", lambda self, frame: (frames.append(frame), write(self, frame))[1])
  return frames


def test_writes_a_video_that_says_what_it_is(tmp_path, run):
  output = tmp_path / "out.mp4"
  assert run(output, "--seed=3", "--watermark=AI") == 10
  info = probe(output)
  assert (info.frames, info.fps, info.width) == (10, 10.0, 32) and not info.has_audio
  with av.open(str(output)) as file:
    comment = json.loads(file.metadata["comment"])
  assert comment["synthetic"] is True and comment["seed"] == 3 and comment["body"]["window"] == 4
  assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


@pytest.mark.slow
def test_smplx_parameters_are_a_motion_without_sound(tmp_path, run):
  make_doll_file(tmp_path / "SMPLX_NEUTRAL.npz")
  np.savez(tmp_path / "talk.npz", **doll_parameters(3))
  flags = ["--no-head", "--no-retarget", f"--smplx-model={tmp_path / 'SMPLX_NEUTRAL.npz'}"]
  assert run(tmp_path / "out.mp4", *flags, motion=tmp_path / "talk.npz") == 3
  assert probe(tmp_path / "out.mp4").fps == 30
  with pytest.raises(UserError, match="leave it out"):
    run(tmp_path / "other.mp4", *flags, motion=tmp_path / "out.mp4")


def test_the_watermark_is_in_the_picture_and_nowhere_else(tmp_path, run, monkeypatch):
  frames = encoded(monkeypatch)
  run(tmp_path / "plain.mp4", "--frames=2")
  run(tmp_path / "marked.mp4", "--frames=2", "--watermark=AI")
  changed = np.abs(frames[0].astype(int) - frames[2]).max(axis=-1) > 0
  assert changed[20:, :16].any() and not changed[:16].any()


def test_another_background_in_place_of_the_room(tmp_path, run, monkeypatch, globes):
  frames = encoded(monkeypatch)
  run(tmp_path / "plain.mp4", "--no-head", "--frames=2", f"--appearance={globes}", motion=globes)
  run(tmp_path / "green.mp4", "--no-head", "--frames=2", f"--appearance={globes}", "--background=green", motion=globes)
  for before, after in zip(frames[:2], frames[2:], strict=True):
    assert (after[:2, :2] == (0, 177, 64)).all()
    np.testing.assert_array_equal(after[12:15, 15:17], before[12:15, 15:17])  # well inside the body
  clear = ["--no-head", "--frames=2", f"--appearance={globes}", "--background=transparent"]
  assert run(tmp_path / "clear.webm", *clear, motion=globes) == 2
  with av.open(str(tmp_path / "clear.webm")) as file:
    metadata = {key.lower(): value for key, value in file.metadata.items()}
    assert file.streams.video[0].metadata["alpha_mode"] == "1"
  assert metadata["synthetic"] == "true" and json.loads(metadata["comment"])["background"] == "transparent"
  for output, flags, message in (
    ("out.mp4", ["--background=green"], "needs the background plate"),
    ("out.mp4", ["--background=transparent"], r"ends in \.webm or \.mov"),
    ("out.webm", ["--background=transparent", "--resume"], "excludes --resume"),
    ("out.mp4", ["--background=beach.png"], "no such file"),
    ("out.mp4", ["--frame=film"], "prepare the film again, then train again"),
    ("out.mp4", ["--frame=film", "--background=green"], "can't be combined with --frame=film"),
  ):
    with pytest.raises(UserError, match=message):
      run(tmp_path / output, "--frames=2", *flags)


def test_resumes_where_it_was_stopped(tmp_path, run, monkeypatch):
  frames = encoded(monkeypatch)
  run(tmp_path / "complete.mp4")
  complete = list(frames)
  frames.clear()
  write = ResumableWriter.write

  def stop_after_six(self, frame):
    if self.frames == 6:
      raise KeyboardInterrupt
    write(self, frame)

  monkeypatch.setattr(ResumableWriter, "write", stop_after_six)
  with pytest.raises(KeyboardInterrupt):
    run(tmp_path / "out.mp4")
  monkeypatch.setattr(ResumableWriter, "write", write)
  there = len(list(read_frames(tmp_path / "out.partial.mp4")))
  assert there == 6
  frames.clear()
  assert run(tmp_path / "out.mp4", "--resume") == 10
  np.testing.assert_array_equal(frames, complete[6:])
  assert probe(tmp_path / "out.mp4").frames == 10 and not (tmp_path / "out.partial.mp4").exists()
  with pytest.raises(UserError, match="other settings"):
    (tmp_path / "complete.mp4").rename(tmp_path / "next.partial.mp4")
    run(tmp_path / "next.mp4", "--resume", "--seed=1")


def test_sampling_flags_reach_the_sampler(tmp_path, run, person, monkeypatch):
  samples = []

  def animate(self, motion, *rest):
    samples.append(self.body.sample)
    return (frame.pose for frame in motion.frames(0))

  monkeypatch.setattr("anchor_jax.inference.person.Person.animate", animate)
  for flags in ((), ("--solver=ddim",), ("--window=5", "--overlap=2", "--tail=loop")):
    run(tmp_path / "out.mp4", "--no-head", "--whole-clip", "--steps=4", *flags)
  trained = load(person).body.sample
  plain = dataclasses.replace(trained, steps=4, whole_clip=True)
  loop = dataclasses.replace(plain, window=5, overlap=2, tail="loop")
  assert samples == [plain, dataclasses.replace(plain, solver="ddim"), loop]


def test_streaming_and_the_whole_clip_agree(tmp_path, run, monkeypatch):
  frames = encoded(monkeypatch)
  run(tmp_path / "out.mp4", "--no-head")
  run(tmp_path / "out.mp4", "--no-head", "--whole-clip")
  assert np.std(frames[:10], axis=0).max() > 1  # they move
  assert np.abs(np.subtract(frames[:10], frames[10:], dtype=float)).max() <= 1  # gray levels


@pytest.mark.parametrize("frames", [1, 3])
def test_motions_shorter_than_a_window(tmp_path, run, frames):
  assert run(tmp_path / "out.mp4", f"--frames={frames}") == frames


def test_another_frame_rate_takes_the_nearest_frames(tmp_path, run, prepared):
  assert run(tmp_path / "out.mp4", "--fps=5", "--frames=4") == 4
  assert probe(tmp_path / "out.mp4").fps == 5
  motion = read_motion(prepared)
  slow, fast = motion.at_fps(4), motion.at_fps(25)
  original = [frame.pose for frame in motion.frames(0)]
  np.testing.assert_array_equal([f.pose for f in slow.frames(0)], [original[i] for i in (0, 2, 5, 8)])
  assert fast.length == 25 and len(list(fast.frames(0))) == 25 and len(list(fast.frames(7))) == 18


def test_a_video_and_the_folder_prepared_from_it_give_the_same_frames(tmp_path, run, monkeypatch, posed_frames):
  film = tmp_path / "film.mp4"
  write_posed_video(film, posed_frames(10), 10)
  frames = encoded(monkeypatch)
  assert run(tmp_path / "direct.mp4", "--frames=3", motion=film) == 3
  prepare([film], tmp_path / "prepared", size=32)
  assert run(tmp_path / "by_folder.mp4", "--frames=3", motion=tmp_path / "prepared") == 3
  np.testing.assert_array_equal(frames[:3], frames[3:])


def test_another_person_s_motion_is_retargeted_by_default(tmp_path, run, monkeypatch, prepared, posed_frames, capsys):
  read_measures, retargeted, bare = [], [], tmp_path / "bare.mp4"
  write_posed_video(tmp_path / "posed.mp4", posed_frames(10), 10)
  bare.write_bytes((tmp_path / "posed.mp4").read_bytes())

  def read(size, measures, mapped, camera):
    read_measures.append(measures)
    retargeted.append(mapped)
    return read_motion(prepared, frames=2)

  def opened(path, **options):
    if path == bare:  # opening it would need the landmark model
      return dataclasses.replace(open_motion(prepared), path=path, has_renders=False, _read=read)
    return dataclasses.replace(open_motion(path, **options), _read=read)

  monkeypatch.setattr("anchor_jax.inference.request.open_motion", opened)
  measured = tmp_path / "measured"
  build([PosedClip("clip", "ana", 10.0, posed_frames(2), measures=make_measures())], measured, 32)
  run(tmp_path / "out.mp4", motion=bare)
  assert read_measures.pop() is None and "prepare the person's videos again" in capsys.readouterr().out
  run(tmp_path / "out.mp4", f"--appearance={measured}", motion=bare)
  assert read_measures.pop() == make_measures()
  with av.open(str(tmp_path / "out.mp4")) as file:
    assert json.loads(file.metadata["comment"])["retarget"] == make_measures().to_json()
  run(tmp_path / "out.mp4", f"--appearance={measured}", "--no-retarget", motion=bare)
  assert read_measures.pop() == make_measures() and not retargeted.pop()  # only for the widths of the solids
  for flags, motion in (([], tmp_path / "posed.mp4"), ([], prepared)):
    run(tmp_path / "out.mp4", f"--appearance={measured}", *flags, motion=motion)
    assert read_measures.pop() is None
  assert "prepare the person's videos again" not in capsys.readouterr().out


def test_a_motion_that_is_still_being_filmed(person, prepared):
  motion, taken = read_motion(prepared), []

  def live():
    for _ in range(6):
      for frame in motion.frames(0):
        taken.append(frame)
        yield frame

  first = next(load(person).animate(live_motion(10.0, 32, live())))
  assert first.shape == (32, 32, 3) and len(taken) < 60


@pytest.mark.slow
def test_live_video_and_its_figures(tmp_path, run):
  assert run(tmp_path / "out.mp4", "--live", "--decoder=exact", f"--json={tmp_path / 'live.json'}") == 10
  assert probe(tmp_path / "out.mp4").frames == 10 and not (tmp_path / "out.partial.mp4").exists()
  figures = json.loads((tmp_path / "live.json").read_text())
  assert figures["frames"] == 10 and figures["poses_per_second"] == 10.0
  assert 0 < figures["latency_median"] <= figures["latency_largest"] < figures["start_up_seconds"]


def test_preview_writes_the_first_second(tmp_path, run):
  run(tmp_path / "out.mp4", "--preview")
  assert probe(tmp_path / "out.preview.mp4").frames == 10


def filmed_with_a_tone(path, seconds=2.0, late=0.0):
  """A film with a tone of 440 Hz; its picture starts `late` seconds after the sound, which is 880 Hz until then."""
  with VideoWriter(path.with_suffix(".silent.mp4"), 10) as writer:
    for _ in range(round(seconds * 10)):
      writer.write(np.zeros((32, 32, 3), np.uint8))
  with av.open(str(path), "w") as file, av.open(str(path.with_suffix(".silent.mp4"))) as silent:
    picture = file.add_stream_from_template(silent.streams.video[0])
    sound = file.add_stream("aac", rate=16000, layout="mono")
    for packet in silent.demux(silent.streams.video[0]):
      if packet.size:
        shift = round(late / packet.time_base)
        packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, picture
        file.mux(packet)
    clock = np.arange(round((seconds + late) * 16000)) / 16000
    tone = np.sin(2 * np.pi * np.where(clock < late, 880, 440) * clock).astype(np.float32)
    for start in range(0, len(tone), 1024):
      frame = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], format="fltp", layout="mono")
      frame.sample_rate, frame.pts, frame.time_base = 16000, start, Fraction(1, 16000)
      file.mux(sound.encode(frame))
    file.mux(sound.encode(None))
  return path


def test_the_sound_is_copied_and_cut_to_the_length_of_the_picture(tmp_path):
  film = filmed_with_a_tone(tmp_path / "film.mp4")
  writer = ResumableWriter(tmp_path / "out.mp4", 10, {})
  for _ in range(10):
    writer.write(np.zeros((32, 32, 3), np.uint8))
  writer.finish({"title": "tone"}, film)
  with av.open(str(tmp_path / "out.mp4")) as file:
    sound = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
  assert 0.9 < len(sound) / 16000 < 1.2
  spectrum = np.abs(np.fft.rfft(sound[1600:14400]))
  assert abs(np.argmax(spectrum) * 16000 / 12800 - 440) < 5
  assert probe(tmp_path / "out.mp4").frames == 10


def test_the_sound_starts_with_the_picture(tmp_path):
  film = filmed_with_a_tone(tmp_path / "film.mkv", late=0.5)
  writer = ResumableWriter(tmp_path / "out.mp4", 10, {})
  for _ in range(10):
    writer.write(np.zeros((32, 32, 3), np.uint8))
  writer.finish({}, film)
  with av.open(str(tmp_path / "out.mp4")) as file:
    heard = [frame for frame in file.decode(audio=0) if frame.time is not None and frame.time >= 0]
    sound = np.concatenate([frame.to_ndarray()[0] for frame in heard])
  assert 0.8 < len(sound) / 16000 < 1.2 and abs(heard[0].time) < 0.1
  for start in (1600, 9600):  # the tone of the picture, from the start
    spectrum = np.abs(np.fft.rfft(sound[start : start + 3200]))
    assert abs(np.argmax(spectrum) * 16000 / 3200 - 440) < 10


_FILM = """
import sys, time, numpy as np
from anchor_jax.video.resumable import ResumableWriter
writer = ResumableWriter(sys.argv[1], 10, {"a": 1}, resume=True)
print(writer.frames, flush=True)
for number in range(writer.frames, int(sys.argv[2])):
  writer.write(np.full((32, 32, 3), number, np.uint8))
  time.sleep(0.02)
if number < 199:
  time.sleep(600)  # a busy machine may kill late, but not after the end
writer.finish({})
"""


def held(path):
  """Number of frames that a player can show of an unfinished file."""
  try:
    with av.open(str(path)) as file:
      return sum(1 for _ in file.decode(video=0))
  except av.error.FFmpegError:
    return 0


def test_after_a_kill_the_partial_file_plays_and_a_rerun_completes_it(tmp_path):
  output, began = tmp_path / "out.mp4", []
  for wait, last in ((0.2, "90"), (0.5, "180"), (None, "200")):
    process = subprocess.Popen([sys.executable, "-c", _FILM, str(output), last], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    began.append(int(process.stdout.readline()))
    if wait is None:
      process.communicate(timeout=300)
      assert process.returncode == 0
    else:
      deadline = time.monotonic() + 300
      while not held(tmp_path / "out.partial.mp4") > began[-1]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
      time.sleep(wait)
      os.kill(process.pid, signal.SIGKILL)
      process.communicate()
      assert held(tmp_path / "out.partial.mp4") > began[-1]
  assert 0 == began[0] < began[1] < began[2]
  levels = [int(frame.mean().round()) for frame in read_frames(output)]
  assert len(levels) == 200 and np.abs(np.subtract(levels, range(200))).max() <= 3


def test_refuses_a_damaged_partial_file(tmp_path):
  (tmp_path / "out.partial.mp4").write_bytes(b"\0\0\0\x10mdatnonsense")
  with pytest.raises(UserError, match="damaged"):
    ResumableWriter(tmp_path / "out.mp4", 10, {}, resume=True)


def test_refuses_invalid_flags(tmp_path, run, person):
  for flag, message in (
    ("--steps=0", "between 1"),
    ("--fps=0", "above 0"),
    ("--window=2", "below the window"),
    ("--size=64x100", "multiples of 64"),
  ):
    with pytest.raises(UserError, match=message):
      run(tmp_path / "out.mp4", flag, "--overlap=3") if "window" in flag else run(tmp_path / "out.mp4", flag)
  with pytest.raises(UserError, match=r"ends in \.mp4"):
    run(tmp_path / "out.avi")
  with pytest.raises(UserError, match="fit 8 devices"):
    from anchor_jax.core import sharding

    sharding.sampling_mesh(9, 1)
  assert pathlib.Path(person).exists() and not list(tmp_path.iterdir())
