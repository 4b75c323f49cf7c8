"""Files of npm packages, which are copied to the page's folder so that it works offline.

A package is the .tgz file that `npm pack NAME` writes, or the folder that npm installed. Only the files listed here are
read, and none is run.
"""

import tarfile
from pathlib import Path
from typing import NamedTuple

from anchor_jax.core.errors import UserError
from anchor_jax.files.inputs import read_bytes, regular_file, strict_json

_LARGEST = 256 * 2**20  # bytes; larger files are not these packages'


class Package(NamedTuple):
  """A package and the files of it that a page needs.

  Attributes:
    name: in the npm registry.
    flag: command-line flag that names it, for messages.
    files: paths in the package.
  """

  name: str
  flag: str
  files: tuple[str, ...]


# The first three files are for GPUs (WebGPU), the others for any browser.
RUNTIME = Package(
  "onnxruntime-web",
  "--onnxruntime",
  tuple(
    f"dist/{name}"
    for name in (
      "ort.webgpu.min.mjs",
      "ort-wasm-simd-threaded.asyncify.mjs",
      "ort-wasm-simd-threaded.asyncify.wasm",
      "ort.wasm.min.mjs",
      "ort-wasm-simd-threaded.mjs",
      "ort-wasm-simd-threaded.wasm",
    )
  ),
)

LANDMARKS = Package(
  "@mediapipe/holistic",
  "--landmarks",
  (
    "holistic.js",
    "holistic.binarypb",
    "holistic_solution_packed_assets.data",
    "holistic_solution_packed_assets_loader.js",
    "holistic_solution_simd_wasm_bin.data",
    "holistic_solution_simd_wasm_bin.js",
    "holistic_solution_simd_wasm_bin.wasm",
    "holistic_solution_wasm_bin.js",
    "holistic_solution_wasm_bin.wasm",
    "pose_landmark_full.tflite",
  ),
)


def is_installed(package: Package) -> bool:
  """Whether npm installed the package in the working directory."""
  return _installed(package).is_dir()


def _installed(package: Package) -> Path:
  return Path("node_modules", *package.name.split("/"))


def read_package(path: Path | None, package: Package) -> tuple[str, dict[str, bytes]]:
  """Returns the version of a package and its files by base name.

  Args:
    path: the .tgz file or the folder; None looks in node_modules of the working directory.
    package: the package to read.

  Raises:
    UserError: it does not exist, is another package, or lacks a file.
  """
  path = _installed(package) if path is None else path
  how = f"get it with `npm pack {package.name}` and name the file: {package.flag}=FILE.tgz"
  if not path.exists():
    raise UserError(f"the page needs {package.name}, which is not in {path}: {how}")
  try:
    contents = _folder(path, package) if path.is_dir() else _archive(regular_file(path, "package"), package)
    about = strict_json(contents.pop("package.json"))
    name, version = about["name"], str(about["version"])
  except (OSError, tarfile.TarError, EOFError, ValueError, KeyError, TypeError):
    raise UserError(f"{path} is not the npm package {package.name} as it is published: {how}") from None
  if name != package.name:
    raise UserError(f"{path} is another package than {package.name}: {how}")
  return version, {Path(file).name: data for file, data in contents.items()}


def _folder(path: Path, package: Package) -> dict[str, bytes]:
  try:
    return {name: read_bytes(path / name, "file of a package", _LARGEST) for name in ("package.json", *package.files)}
  except UserError as error:
    raise ValueError(str(error)) from None


def _archive(path: Path, package: Package) -> dict[str, bytes]:
  contents = {}
  with tarfile.open(path, "r:gz") as archive:
    for name in ("package.json", *package.files):
      member = archive.getmember(f"package/{name}")
      file = archive.extractfile(member) if member.isreg() and member.size <= _LARGEST else None
      if file is None:
        raise ValueError(name)
      contents[name] = file.read()
  return contents
