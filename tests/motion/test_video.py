import av
import numpy as np
import pytest

from anchor_jax.errors import UserError
from anchor_jax.motion.video import VideoWriter, probe, read_frames


def pictures(count=12, height=32, width=48):
  y, x = np.indices((height, width))
  return [np.stack([x * 4, y * 6, (x + y + 5 * i) % 200], axis=-1).astype(np.uint8) for i in range(count)]


def write(path, frames, **options):
  with VideoWriter(path, 25, **options) as writer:
    for frame in frames:
      writer.write(frame)
  return path


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
  assert data.index(b"moov") < data.index(b"mdat")  # the index is in front
  assert [p.name for p in path.parent.iterdir()] == ["clip.mp4"]


def test_lossless_round_trip(tmp_path):
  frames = list(np.random.default_rng(0).integers(0, 256, (5, 17, 23, 3), np.uint8))
  path = write(tmp_path / "clip.mkv", frames, lossless=True)
  np.testing.assert_array_equal(np.stack(list(read_frames(path))), np.stack(frames))


def test_odd_size_is_padded(tmp_path):
  path = write(tmp_path / "clip.mp4", pictures(height=31, width=45))
  assert (probe(path).width, probe(path).height) == (46, 32)


def test_failure_leaves_earlier_file(tmp_path):
  path = write(tmp_path / "clip.mp4", pictures())
  before = path.read_bytes()
  with pytest.raises(RuntimeError):
    with VideoWriter(path, 25) as writer:
      writer.write(pictures(1)[0])
      raise RuntimeError("stopped")
  with pytest.raises(UserError, match="no frame"):
    write(path, [])
  assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_unwritable_outputs(tmp_path):
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
  data = write(tmp_path / f"whole.{suffix}", pictures(40)).read_bytes()
  cut = tmp_path / f"cut.{suffix}"
  cut.write_bytes(data[: int(len(data) * share)])
  for read in (probe, lambda path: list(read_frames(path))):
    with pytest.raises(UserError) as error:
      read(cut)
    assert "\n" not in str(error.value) and str(cut) in str(error.value)


def test_what_is_not_a_video(tmp_path):
  write(tmp_path / "clip.mp4", pictures(2))
  (tmp_path / "text.mp4").write_text("no video" * 100)
  with pytest.raises(UserError, match="Did you mean"):
    probe(tmp_path / "clpi.mp4")
  with pytest.raises(UserError, match="not a video"):
    probe(tmp_path / "text.mp4")
  with pytest.raises(UserError, match="is a folder"):
    probe(tmp_path)


def test_rotation_is_undone(tmp_path):
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
