"""Files of the landmark networks: taken from a wheel by name and hash, checked when read, replaced when damaged."""

import hashlib
import zipfile

import pytest

from anchor_jax.core.errors import UserError
from anchor_jax.landmarks.networks import files as model_files


@pytest.fixture
def wheel(tmp_path, monkeypatch):
  """A wheel with two small networks and a program beside them, and an empty folder for the networks."""
  contents = {"a/one": b"first network", "b/two": b"second network"}
  modules = {
    path.split("/")[1]: model_files._Source(path, hashlib.sha256(data).hexdigest()) for path, data in contents.items()
  }
  monkeypatch.setattr(model_files, "_MODULES", modules)
  monkeypatch.setenv("ANCHOR_JAX_LANDMARKS", str(tmp_path / "networks"))
  model_files.read_models.cache_clear()
  yield write_wheel(tmp_path / "some.whl", contents)
  model_files.read_models.cache_clear()


def write_wheel(path, contents):
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("mediapipe/__init__.py", "raise SystemExit('this must not run')")
    for name, data in contents.items():
      archive.writestr(f"mediapipe/modules/{name}.tflite", data)
  return path


def test_networks_are_taken_out_by_name_and_hash(wheel, tmp_path):
  assert not model_files.landmarks_installed()
  assert model_files.install(wheel) == tmp_path / "networks"
  assert {path.name for path in (tmp_path / "networks").iterdir()} == {"one.tflite", "two.tflite"}
  assert model_files.read_models() == {"one": b"first network", "two": b"second network"}
  assert model_files.landmarks_installed()


def test_a_damaged_network_is_refused_and_replaced(wheel, tmp_path):
  model_files.install(wheel)
  (tmp_path / "networks/one.tflite").write_bytes(b"first networt")
  model_files.read_models.cache_clear()
  with pytest.raises(UserError, match=r"one\.tflite is damaged: run `make landmarks`"):
    model_files.read_models()
  model_files.install(wheel)
  assert model_files.read_models()["one"] == b"first network"


@pytest.mark.parametrize("content", [b"another network", None])
def test_a_wheel_with_other_networks_is_refused(wheel, tmp_path, content):
  contents = {"b/two": b"second network"} | ({} if content is None else {"a/one": content})
  with pytest.raises(UserError, match=r"does not hold the landmark network a/one\.tflite as it was published"):
    model_files.install(write_wheel(tmp_path / "other.whl", contents))
  assert not model_files.landmarks_installed()


def test_what_is_no_wheel_takes_one_line(wheel, tmp_path):
  (tmp_path / "text.whl").write_text("no archive")
  with pytest.raises(UserError, match="is no wheel"):
    model_files.install(tmp_path / "text.whl")


def test_what_is_missing_is_said_with_what_to_do(wheel):
  with pytest.raises(UserError, match=r"film\.mp4 comes without poses, .*python -m anchor_jax\.landmarks") as error:
    model_files.require_landmarks("film.mp4")
  assert "\n" not in str(error.value)
