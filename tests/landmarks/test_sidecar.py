"""Sidecars are written, read back, and checked against their video."""

import json
import os
import shutil
import zipfile

import numpy as np
import pytest

from anchor_jax.core.errors import UserError
from anchor_jax.landmarks import sidecar


@pytest.fixture
def clip(tmp_path, posed_frames):
  path = tmp_path / "clip.mp4"
  assert sidecar.write_posed_video(path, posed_frames(6, (30, 41), missing=(2,)), 25) == 6
  return path


def test_a_posed_video_round_trips(clip, posed_frames):
  video = sidecar.open_posed_video(clip)
  info = video.info
  assert (info.frames, info.width, info.height) == (6, 41, 30)  # of the poses; H.264 pads to even sizes
  read = list(video.frames())
  for found, true in zip(read, posed_frames(6, (30, 41), missing=(2,)), strict=True):
    assert found.frame.shape == (30, 41, 3) and np.abs(found.frame.astype(int) - true.frame).mean() < 10
    for name in ("pose", "person_mask", "face_mask", "landmarks"):
      np.testing.assert_array_equal(getattr(found, name), getattr(true, name))


def with_maps(frames):
  for number, frame in enumerate(frames):
    yield frame._replace(surface=np.random.default_rng(number).integers(0, 256, frame.pose.shape).astype(np.uint8))


def test_surface_maps_are_lossless(tmp_path, posed_frames):
  path = tmp_path / "clip.mp4"
  sidecar.write_posed_video(path, with_maps(posed_frames(5, (30, 41))), 25)
  video = sidecar.open_posed_video(path)
  true = [frame.surface for frame in with_maps(posed_frames(5, (30, 41)))]
  np.testing.assert_array_equal([frame.surface for frame in video.frames()], true)
  np.testing.assert_array_equal([item.surface for item in video.poses(2)], true[2:])
  assert json.loads((sidecar.sidecar_path(path) / "sidecar.json").read_text())["format"] == 1


def test_a_sidecar_without_surface_maps_is_read_as_before(clip):
  assert not (sidecar.sidecar_path(clip) / "surface.mkv").exists()
  video = sidecar.open_posed_video(clip)
  assert [frame.surface for frame in video.frames()] == [None] * 6 == [item.surface for item in video.poses()]


def test_surface_maps_that_do_not_fit_are_refused(tmp_path, posed_frames):
  path, other = tmp_path / "clip.mp4", tmp_path / "other.mp4"
  sidecar.write_posed_video(path, with_maps(posed_frames(5)), 25)
  sidecar.write_posed_video(other, with_maps(posed_frames(4)), 25)
  shutil.copy(sidecar.sidecar_path(other) / "surface.mkv", sidecar.sidecar_path(path) / "surface.mkv")
  with pytest.raises(UserError, match=r"surface\.mkv with frames 4 instead of 5"):
    sidecar.open_posed_video(path)
  with pytest.raises(ValueError, match="either all frames"):
    sidecar.write_posed_video(tmp_path / "both.mp4", [*with_maps(posed_frames(2)), *posed_frames(1)], 25)


def test_a_failed_write_leaves_no_files(tmp_path, posed_frames):
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


def _facts(change):
  def write(folder):
    facts = json.loads((folder / "sidecar.json").read_text())
    (folder / "sidecar.json").write_text(json.dumps(change(facts)))

  return write


def _without(name):
  return _facts(lambda facts: {key: value for key, value in facts.items() if key != name})


def _arrays(**arrays):
  return lambda folder: np.savez_compressed(folder / "landmarks.npz", **arrays)


def _claims(folder, shape, kind="<f4"):
  """An .npz of a few bytes whose array claims this shape."""
  with zipfile.ZipFile(folder / "landmarks.npz", "w") as archive, archive.open("landmarks.npy", "w") as file:
    np.lib.format.write_array_header_2_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
    file.write(bytes(64))


def make_pipe(folder, name):
  (folder / name).unlink()
  os.mkfifo(folder / name)


HOSTILE = {
  "no frames": (_without("frames"), "sidecar.json.frames is missing"),
  "no format": (_without("format"), "sidecar.json.format is missing"),
  "float count": (_facts(lambda facts: facts | {"frames": 6.0}), "frames is 6.0: expected int"),
  "text count": (_facts(lambda facts: facts | {"width": "41"}), "width is '41': expected int"),
  "true count": (_facts(lambda facts: facts | {"height": True}), "height is True: expected int"),
  "null count": (_facts(lambda facts: facts | {"height": None}), "height is None: expected int"),
  "huge count": (_facts(lambda facts: facts | {"frames": 10**30}), "frames is 10+: it must be"),
  "negative count": (_facts(lambda facts: facts | {"frames": -6}), "frames is -6: it must be 1"),
  "a list": (_facts(lambda facts: [facts]), "sidecar.json must be a group"),
  "nested": (
    lambda folder: (folder / "sidecar.json").write_text("[" * 100_000),
    "sidecar.json is damaged .it is nested too deep",
  ),
  "large": (lambda folder: (folder / "sidecar.json").write_text(" " * 2**21), "sidecar.json has 2097152 bytes"),
  "bytes": (lambda folder: (folder / "sidecar.json").write_bytes(b"\xff{"), "sidecar.json is damaged .'utf-8'"),
  "strings": (_arrays(landmarks=np.full((6, 5, 2), "x")), "type <U1 instead of real"),
  "complex": (_arrays(landmarks=np.zeros((6, 5, 2), complex)), "type complex128"),
  "objects": (_arrays(landmarks=np.full((6, 5, 2), None)), "landmarks.npz .* type object"),
  "other name": (_arrays(points=np.zeros((6, 5, 2))), "no landmarks in landmarks.npz"),
  "shape": (_arrays(landmarks=np.zeros((7, 5, 2))), "shape .7, 5, 2. for 6 frames"),
  "terabytes": (lambda folder: _claims(folder, (10**12, 5, 2)), "shape .1000000000000, 5, 2. claims"),
  "wide items": (lambda folder: _claims(folder, (6, 5, 2), "<U99999999"), "claims 23999999760"),
  "cut array": (lambda folder: _claims(folder, (6, 5, 2)), "landmarks.npz"),
  "a pipe": (lambda folder: make_pipe(folder, "landmarks.npz"), "landmarks.npz is a pipe"),
  "a pipe of facts": (lambda folder: make_pipe(folder, "sidecar.json"), "sidecar.json is a pipe"),
  "a pipe of poses": (lambda folder: make_pipe(folder, "pose.mkv"), "pose.mkv is a pipe"),
  "not a number": (_facts(lambda facts: facts | {"fps": float("nan")}), "NaN is not a number"),
  "no zip": (lambda folder: (folder / "landmarks.npz").write_bytes(b"nonsense"), "landmarks.npz .*damaged"),
  "a folder": (
    lambda folder: ((folder / "landmarks.npz").unlink(), (folder / "landmarks.npz").mkdir()),
    "landmarks.npz",
  ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_sidecars_take_one_line(clip, name):
  change, message = HOSTILE[name]
  change(sidecar.sidecar_path(clip))
  with pytest.raises(UserError, match=message) as error:
    sidecar.open_posed_video(clip)
  assert "\n" not in str(error.value) and len(str(error.value)) < 1000


def test_damaged_sidecars_are_reported(clip):
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


def test_paths_without_a_name_have_no_sidecar():
  for path in (".", "..", "/", "clip"):
    assert not sidecar.has_sidecar(path)
