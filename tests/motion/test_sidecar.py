import json
import shutil

import numpy as np
import pytest

from anchor_jax.errors import UserError
from anchor_jax.motion import sidecar


@pytest.fixture
def clip(tmp_path, posed_frames):
  path = tmp_path / "clip.mp4"
  assert sidecar.write_posed_video(path, posed_frames(6, (30, 41), missing=(2,)), 25) == 6
  return path


def test_round_trip(clip, posed_frames):
  video = sidecar.open_posed_video(clip)
  info = video.info
  assert (info.frames, info.width, info.height) == (6, 41, 30)  # of the poses; H.264 pads to even sizes
  back = list(video.frames())
  for found, true in zip(back, posed_frames(6, (30, 41), missing=(2,)), strict=True):
    assert found.frame.shape == (30, 41, 3) and np.abs(found.frame.astype(int) - true.frame).mean() < 10
    for name in ("pose", "person_mask", "face_mask", "landmarks"):
      np.testing.assert_array_equal(getattr(found, name), getattr(true, name))


def test_nothing_half_done_is_left(tmp_path, posed_frames):
  def breaks():
    yield from posed_frames(3)
    raise RuntimeError("stopped")

  with pytest.raises(RuntimeError):
    sidecar.write_posed_video(tmp_path / "clip.mp4", breaks(), 25)
  with pytest.raises(UserError, match="no frame"):
    sidecar.write_posed_video(tmp_path / "clip.mp4", [], 25)
  assert not list(tmp_path.iterdir())


def test_counts_and_sizes_must_match(clip, tmp_path, posed_frames):
  sidecar.write_posed_video(tmp_path / "other.mp4", posed_frames(5, (30, 41)), 25)
  shutil.copy(tmp_path / "other.mp4", clip)
  with pytest.raises(UserError, match="frames 6, the video 5"):
    sidecar.open_posed_video(clip)
  sidecar.write_posed_video(tmp_path / "other.mp4", posed_frames(6, 32), 25)
  shutil.copy(tmp_path / "other.mp4", clip)
  with pytest.raises(UserError, match="height 30, the video 32"):
    sidecar.open_posed_video(clip)


def test_damage_is_told(clip):
  folder = sidecar.sidecar_path(clip)
  facts = json.loads((folder / "sidecar.json").read_text())
  (folder / "sidecar.json").write_text(json.dumps(facts | {"format": 99}))
  with pytest.raises(UserError, match="format 99"):
    sidecar.open_posed_video(clip)
  (folder / "sidecar.json").write_text("{")
  with pytest.raises(UserError, match="damaged"):
    sidecar.open_posed_video(clip)
  (folder / "sidecar.json").write_text(json.dumps(facts))
  (folder / "pose.mkv").write_bytes(b"")
  with pytest.raises(UserError, match="is empty"):
    sidecar.open_posed_video(clip)
  shutil.rmtree(folder)
  assert not sidecar.has_sidecar(clip)
  with pytest.raises(UserError, match="has no sidecar"):
    sidecar.open_posed_video(clip)
