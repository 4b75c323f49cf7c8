"""The folder for browsers: packed motions, npm packages, refused input. Nothing is converted."""

import io
import itertools
import json
import sys
import tarfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from globes import film
from jax.extend.core import jaxpr_as_fun

from anchor_jax import export
from anchor_jax.core.errors import UserError
from anchor_jax.motion.frames import MotionFrame
from anchor_jax.web.fold import fold
from anchor_jax.web.folder import pack_frames
from anchor_jax.web.npm import RUNTIME, read_package


def motion_frames(count=3, **changes):
  for frame in itertools.islice(film(count), count):
    yield MotionFrame(frame.pose, frame.face_mask[..., None], frame.landmarks, frame.surface)._replace(**changes)


def test_frames_survive_packing_as_differences():
  frames = list(motion_frames())
  packed = list(pack_frames(frames, 32, True))
  back = np.cumsum(np.stack(packed), axis=0, dtype=np.uint8)
  np.testing.assert_array_equal(back, np.stack([np.stack([frame.pose, frame.surface]) for frame in frames]))
  assert [piece.shape for piece in pack_frames(frames, 32, False)] == [(1, 32, 32, 3)] * 3
  with pytest.raises(UserError, match="poses of 32 pixels, and the person has 64"):
    next(pack_frames(frames, 64, True))
  with pytest.raises(UserError, match="no surface maps"):
    next(pack_frames(motion_frames(surface=None), 32, True))


def test_constants_are_folded():
  table = np.arange(6, dtype=np.float32)

  def function(x):
    return jax.nn.silu(jnp.sin(table) @ jnp.ones((6, 2))) * x + jax.jit(jnp.cos)(jnp.float32(3))

  shape = jax.ShapeDtypeStruct((2,), jnp.float32)
  folded = fold(function, [shape])
  assert [equation.primitive.name for equation in folded.jaxpr.eqns] == ["mul", "add"]
  np.testing.assert_allclose(jaxpr_as_fun(folded)(jnp.ones(2))[0], function(jnp.ones(2)), rtol=1e-6)


def package(path, name="onnxruntime-web", skip=(), link=False):
  with tarfile.open(path, "w:gz") as archive:
    for file in ("package.json", *RUNTIME.files):
      if file in skip:
        continue
      data = json.dumps({"name": name, "version": "1.2.3"}).encode() if file == "package.json" else file.encode()
      member = tarfile.TarInfo(f"package/{file}")
      member.size = len(data)
      if link and file != "package.json":
        member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0
      archive.addfile(member, None if link and file != "package.json" else io.BytesIO(data))
  return path


def test_runtime_is_read_from_an_archive_or_a_folder(tmp_path, monkeypatch):
  version, files = read_package(package(tmp_path / "ort.tgz"), RUNTIME)
  assert version == "1.2.3" and len(files) == len(RUNTIME.files)
  assert files["ort.wasm.min.mjs"] == b"dist/ort.wasm.min.mjs"
  with tarfile.open(tmp_path / "ort.tgz") as archive:
    archive.extractall(tmp_path, filter="data")
  (tmp_path / "node_modules").mkdir()
  (tmp_path / "package").rename(tmp_path / "node_modules/onnxruntime-web")
  monkeypatch.chdir(tmp_path)
  assert read_package(None, RUNTIME) == (version, files)


@pytest.mark.parametrize(
  "changes,message",
  [
    ({"name": "other"}, "another package"),
    ({"skip": ["dist/ort.wasm.min.mjs"]}, "as it is published"),
    ({"skip": ["package.json"]}, "as it is published"),
    ({"link": True}, "as it is published"),
  ],
)
def test_other_packages_are_refused(tmp_path, changes, message):
  with pytest.raises(UserError, match=message):
    read_package(package(tmp_path / "ort.tgz", **changes), RUNTIME)


def test_files_that_are_no_package_are_refused(tmp_path):
  with pytest.raises(UserError, match="npm pack onnxruntime-web"):
    read_package(tmp_path / "no.tgz", RUNTIME)
  (tmp_path / "text.tgz").write_text("hello")
  for path in (tmp_path, tmp_path / "text.tgz"):
    with pytest.raises(UserError, match="as it is published"):
      read_package(path, RUNTIME)


@pytest.mark.parametrize(
  "flags,message",
  [
    (["--motion=a.mp4"], "--motion is for --web"),
    (["--decoder=light"], "--decoder is for --web"),
    (["--web", "--seconds=0"], "seconds above 0"),
  ],
)
def test_incompatible_flags_are_refused(tmp_path, monkeypatch, capsys, flags, message):
  monkeypatch.setattr(sys, "argv", ["export", f"--checkpoint={tmp_path}", f"--output={tmp_path / 'out'}", *flags])
  with pytest.raises(SystemExit):
    export.main()
  assert message in capsys.readouterr().err
