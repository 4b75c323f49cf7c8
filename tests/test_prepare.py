import json
import pathlib
import resource
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from anchor_jax import prepare as command
from anchor_jax.core.errors import UserError
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.data.records import open_prepared
from anchor_jax.data.textures import stored_texture
from anchor_jax.inference.motions import read_motion
from anchor_jax.landmarks.sidecar import open_posed_video, write_posed_video
from anchor_jax.studio import write_studio_video
from anchor_jax.texture.background.film_plate import film_plate_of
from anchor_jax.video.read import probe, read_frames
from anchor_jax.video.write import VideoWriter


@pytest.fixture(scope="module")
def film(tmp_path_factory):
  path = tmp_path_factory.mktemp("film") / "film.mp4"
  count = write_studio_video(
    path, identity_seed=3, motion_seed=4, seconds=0.4, size=64, fps=10, workers=1, progress=None
  )
  assert count == 4
  return path


def test_prepares_a_studio_video(film, tmp_path):
  meta = command.prepare([film], tmp_path / "ana", size=32)
  source = open_prepared(tmp_path / "ana")
  assert len(source) == meta["frames"] == 4 and source.has_landmarks.all() and meta["people"] == ["ana"]
  record = source[2]
  assert record["frame"].shape == record["pose"].shape == (32, 32, 3)
  assert 0 < (record["face_mask"] > 0).sum() < (record["person_mask"] > 0).sum()
  assert meta["videos"][0]["square"] == [0, 0, 64]
  room = film_plate_of(tmp_path / "ana")  # of the full picture, at the film's resolution
  assert room is not None and room.plate.shape == (64, 64, 3) and room.crop == (0, 0, 64, 64)
  above = room.plate[:8, :8].astype(int) - next(read_frames(film))[:8, :8]
  assert (room.coverage[:8, :8] == 255).all() and np.abs(above).mean() < 3
  like = command.prepare([film], tmp_path / "like", size=32, like=tmp_path / "ana", fps=5, person="Ana")
  assert like["frames"] == 2 and like["people"] == ["Ana"] and like["fps"] == 5


def test_frames_take_a_shape_or_that_of_the_person_in_the_film(tmp_path):
  film, wide, auto = tmp_path / "film.mp4", tmp_path / "wide", tmp_path / "auto"
  options = {"identity_seed": 3, "motion_seed": 4, "seconds": 0.2, "fps": 10, "workers": 1, "progress": None}
  write_studio_video(film, size=FrameSize(192, 64), **options)
  meta = command.prepare(film, wide, size="128x64")
  assert meta["size"] == [128, 64] and meta["videos"][0]["square"][1:] == [0, 128, 64]
  source, first = open_prepared(wide), meta["videos"][0]["square"][0]
  assert source.size == FrameSize(128, 64) and source[0]["frame"].shape == source[0]["pose"].shape == (64, 128, 3)
  texture = stored_texture(source)
  assert texture is not None and texture.plate.shape == (64, 128, 3)
  motion = read_motion(film, size=(128, 64))
  pose = next(motion.frames(0)).pose
  assert motion.size == FrameSize(128, 64) and np.array_equal(pose, source[0]["pose"])
  meta = command.prepare(film, auto, size="auto:64")
  size = open_prepared(auto).size
  left, _, width, *_ = meta["videos"][0]["square"]
  shown = open_prepared(wide)[0]["person_mask"][..., 0].any(axis=0).nonzero()[0] + first  # columns of the film
  assert width < 128 and left <= shown.min() and shown.max() < left + width
  like = command.prepare(film, tmp_path / "like", size="auto", like=auto)
  assert FrameSize.from_json(like["size"]) == size and like["videos"][0]["square"] == meta["videos"][0]["square"]
  with pytest.raises(UserError, match=r"has frames of 128x64, in other proportions: leave out --like, or give"):
    command.prepare(film, tmp_path / "other", size=64, like=wide)


def truncate_film(film, hole):
  """Truncates a film near its middle, so that the rest lacks a frame before its last one (`hole`) or is contiguous.

  Returns the number of frames left and their duration in frames. The bytes of a film differ between machines, so the
  place is found from its packets: encoders store reference frames before frames that are shown earlier.
  """
  with av.open(str(film)) as container:
    packets = [packet for packet in container.demux(container.streams.video[0]) if packet.size]
  stamps, step = [packet.pts for packet in packets], sorted(packet.pts for packet in packets)[1]
  count = next(n for n in range(10, 30) if (max(stamps[:n]) > (n - 1) * step) == hole)
  film.write_bytes(film.read_bytes()[: packets[count].pos + 1])
  return count, max(stamps[:count]) // step + 1


@pytest.mark.parametrize("hole", [False, True])
def test_cut_off_accepts_a_film_with_a_missing_end(tmp_path, posed_frames, hole):
  film = tmp_path / "film.mkv"
  write_posed_video(film, posed_frames(40), 25)
  count, length = truncate_film(film, hole)
  assert (length > count) == hole
  with pytest.raises(UserError, match="--cut-off"):
    command.prepare(film, tmp_path / "ana", size=32)
  run(film, f"--output={tmp_path / 'ana'}", "--size=32", "--cut-off")
  assert probe(film, cut_off=True).frames == count
  assert len(open_prepared(tmp_path / "ana")) == length  # a missing frame repeats its neighbor


def test_prepares_studio_people(tmp_path):
  meta = command.prepare_studio(2, 2, tmp_path / "people", size=32)
  source = open_prepared(tmp_path / "people")
  assert meta["people"] == ["studio 0", "studio 1"] and source.people.tolist() == [0, 0, 1, 1]
  assert np.abs(source[0]["frame"].astype(int) - source[2]["frame"]).mean() > 5


def run(*arguments):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sys, "argv", ["prepare", *map(str, arguments)])
    command.main()


@pytest.mark.parametrize(
  "arguments, message",
  [
    (["FILM/flim.mp4", "--output=OUT/x"], "Did you mean"),
    (["FILM", "--output=OUT/x"], "is a folder"),
    (["OUT/empty.mp4", "--output=OUT/x"], "is empty"),
    (["OUT/cut.mp4", "--output=OUT/x"], "cut off"),
    (["OUT/film.mp4", "--output=OUT/x"], "frames"),
    (["FILM/film.mp4", "--output=OUT/empty.mp4/x"], "cannot write"),
    (["FILM/film.mp4", "--output=OUT"], "which was not written by this command"),
    (["FILM/film.mp4", "--output=OUT/x", "--size=33"], "multiples of 8"),
    (["FILM/film.mp4", "--output=OUT/x", "--size=auto:"], "give auto:SIDE"),
    (["--studio=2", "--output=OUT/x", "--size=auto"], "films of one person"),
    (["FILM/film.mp4", "--output=OUT/x", "--fps=0"], "--fps=0"),
    (["FILM/film.mp4", "--output=OUT/x", "--like=FILM"], "not a prepared folder"),
    (["FILM/film.mp4"], "--output"),
    (["--output=OUT/x"], "name the videos"),
    (["FILM/film.mp4", "--studio=3", "--output=OUT/x"], "not both"),
    (["--studio=0", "--output=OUT/x"], "at least 1"),
    (["FILM/film.mp4", "--outptu=OUT/x", "--output=OUT/x"], "--outptu"),
    (["FILM/film.mp4", "--output=FILM/film.mp4"], "would overwrite an input"),
    (["FILM/film.mp4", "--output=FILM"], "would overwrite an input"),
    (["FILM/film.mp4", "--output=FILM/film.anchor"], "would overwrite an input"),
    (["FILM/film.mp4", "--output=FILM/film.anchor/x"], "would overwrite an input"),
    (["OUT/odd\udcff.mp4", "--output=OUT/x"], "not UTF-8"),
    (["FILM/film.mp4", "--output=OUT/odd\udcff"], "not UTF-8"),
    (["FILM/film.mp4", "--output=OUT/x", "--like=OUT/odd\udcff"], "not UTF-8"),
    (["FILM/" + "n" * 300, "--output=OUT/x"], "there is no video"),
    (["FILM/film.mp4", "--output=OUT/" + "n" * 300], "too long"),
    (["FILM/film.mp4", "--output=OUT/" + "n" * 250], "too long"),
    (["FILM/film.mp4", "--output=OUT/x", "--like=FILM/" + "n" * 300], "there is no prepared folder"),
  ],
)
def test_mistakes_are_one_line_errors(film, tmp_path, capsys, arguments, message):
  data = film.read_bytes()
  (tmp_path / "empty.mp4").write_bytes(b"")
  (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
  with VideoWriter(tmp_path / "film.mp4", 10) as writer:  # not as long as its poses
    writer.write(np.zeros((64, 64, 3), np.uint8))
  (tmp_path / "film.anchor").symlink_to(film.with_suffix(".anchor"))
  with pytest.raises(SystemExit) as ended:
    run(*(argument.replace("FILM", str(film.parent)).replace("OUT", str(tmp_path)) for argument in arguments))
  printed = capsys.readouterr()
  assert ended.value.code == 2 and message in printed.err
  assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
  assert not (tmp_path / "x").exists()


def test_a_failed_run_keeps_the_earlier_folder(film, tmp_path):
  run(film, f"--output={tmp_path / 'ana'}", "--size=32")
  (tmp_path / "cut.mp4").write_bytes(film.read_bytes()[:-200])
  with pytest.raises(UserError):
    command.prepare([film, tmp_path / "nothing.mp4"], tmp_path / "ana")
  assert len(open_prepared(tmp_path / "ana")) == 4


def test_reports_the_share_of_the_background_that_is_never_visible(film, tmp_path, capsys):
  run(film, f"--output={tmp_path / 'ana'}", "--size=32")
  lines = capsys.readouterr().out.splitlines()
  unseen = float((stored_texture(open_prepared(tmp_path / "ana")).plate_coverage == 0).mean())
  assert len(lines) == 2 and f"behind ana is never visible in {100 * unseen:.1f} % of the picture" in lines[1]
  assert f"{tmp_path / 'ana' / 'appearance.png'}" in lines[1] and (tmp_path / "ana" / "appearance.png").is_file()


def test_help_shows_an_example():
  done = subprocess.run([sys.executable, "-m", "anchor_jax.prepare", "--help"], capture_output=True, text=True)
  assert done.returncode == 0 and "python -m anchor_jax.prepare ana_1.mp4" in done.stdout


def test_records_are_the_frames_of_the_film(film, tmp_path):
  command.prepare([film], tmp_path / "same", size=64)
  assert film_plate_of(tmp_path / "same") is None  # the frame is all that there is
  source = open_prepared(tmp_path / "same")
  frames = list(open_posed_video(film).frames())
  assert len(source) == len(frames) == 4
  for i, frame in enumerate(frames):
    record = source[i]
    for name in ("frame", "pose", "person_mask", "face_mask", "landmarks"):
      np.testing.assert_array_equal(record[name].squeeze(), getattr(frame, name))
    assert (record["person"], record["video"], record["index"]) == (0, 0, i)


def test_an_output_that_is_also_an_input_is_refused(film, tmp_path):
  command.prepare([film], tmp_path / "ana", size=32)
  with pytest.raises(UserError, match="would overwrite an input"):
    command.prepare([film], tmp_path / "ana", size=32, like=tmp_path / "ana")
  inside = tmp_path / "ana" / "film.mp4"
  inside.write_bytes(film.read_bytes())
  with pytest.raises(UserError, match="would overwrite an input"):
    command.prepare([inside], tmp_path / "ana", size=32)
  assert inside.exists() and len(open_prepared(tmp_path / "ana")) == 4


def write_1800_fps_film(path, posed, step):
  """Writes a posed video whose header claims 1,800 frames per second, with a frame every `step` / 1800 seconds."""
  write_posed_video(path.with_suffix(".mp4"), posed, 25)
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=1800)
    stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
    stream.codec_context.time_base = Fraction(1, 1800)
    for number, frame in enumerate(read_frames(path.with_suffix(".mp4"))):
      picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
      picture.pts, picture.time_base = number * step, Fraction(1, 1800)
      container.mux(stream.encode(picture))
    container.mux(stream.encode(None))
  return path


def test_implausible_frame_rates(tmp_path, posed_frames):
  assert (
    command.prepare([write_1800_fps_film(tmp_path / "old.mkv", posed_frames(12), 72)], tmp_path / "old", size=32)["fps"]
    == 25
  )
  fast = write_1800_fps_film(tmp_path / "fast.mov", posed_frames(12), 1)
  with pytest.raises(UserError, match=r"1800 frames per second .* --fps=25") as error:
    command.prepare([fast], tmp_path / "fast", size=32)
  assert "\n" not in str(error.value) and not (tmp_path / "fast").exists()
  meta = command.prepare([fast], tmp_path / "fast", size=32, fps=12)
  assert (meta["fps"], meta["frames"]) == (12, 12)


def test_a_full_disk_is_a_one_line_error(tmp_path, posed_frames):
  film = tmp_path / "film.mp4"
  write_posed_video(film, posed_frames(20, 64), 25)
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))  # no file may grow larger
  try:
    with pytest.raises(UserError, match="disk is full while writing") as error:
      command.prepare([film], tmp_path / "out", size=64)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  assert "\n" not in str(error.value) and sorted(p.name for p in tmp_path.iterdir()) == ["film.anchor", "film.mp4"]


@pytest.mark.parametrize(
  "change, message",
  [
    (lambda meta: meta.pop("videos"), "videos is missing"),
    (lambda meta: meta["videos"][0].update(frames=2.5), "frames is 2.5: expected int"),
    (lambda meta: meta["videos"][0].update(frames=10**15), "frames is 10+: it must be"),
    (lambda meta: meta.update(measures=[{"neck": 0.2}]), "body measures"),
    (lambda meta: meta.update(measures=[None, None]), "for 2 people"),
    (lambda meta: meta.update(videos=[]), "the videos have 0"),
    (lambda meta: meta.update(without_landmarks=["x"]), "is 'x': expected int"),
    (lambda meta: meta.update(without_landmarks=[99]), "names a record beyond"),
    (lambda meta: meta["videos"][0].update(frames=3), "frames is 4, and the videos have 3"),
  ],
)
def test_a_wrong_meta_json_is_a_one_line_error(film, tmp_path, change, message):
  folder: pathlib.Path = film.parent / "prepared"
  if not folder.exists():
    command.prepare([film], folder, size=32)
  (tmp_path / "copy").mkdir()
  for path in folder.iterdir():
    (tmp_path / "copy" / path.name).write_bytes(path.read_bytes())
  meta = json.loads((folder / "meta.json").read_text())
  change(meta)
  (tmp_path / "copy" / "meta.json").write_text(json.dumps(meta))
  with pytest.raises(UserError, match=message) as error:
    open_prepared(tmp_path / "copy")
  assert "\n" not in str(error.value)
