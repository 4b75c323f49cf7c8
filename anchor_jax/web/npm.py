"""Files of packages of the npm registry, copied into the folder: it then works without any network.

A package comes as the .tgz file that `npm pack NAME` leaves, or as the folder that npm installed. Only the files that
are named here are read from it, and none is run.
"""

import tarfile
from pathlib import Path
from typing import NamedTuple

from anchor_jax.core.errors import UserError
from anchor_jax.files.inputs import read_bytes, regular_file, strict_json

_LARGEST = 256 * 2**20  # bytes of a file; what is larger is something else


class Package(NamedTuple):
  """A package, and which of its files a page needs.

  Attributes:
    name: in the registry.
    flag: of the command, for messages.
    files: paths in the package.
  """

  name: str
  flag: str
  files: tuple[str, ...]


# Of each pair, the first is for graphics processors (WebGPU), the second for any browser.
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
  """Whether npm installed it in the working directory."""
  return _installed(package).is_dir()


def _installed(package: Package) -> Path:
  return Path("node_modules", *package.name.split("/"))


def read_package(path: Path | None, package: Package) -> tuple[str, dict[str, bytes]]:
  """Returns the version of a package and its files by the last part of their names.

  Args:
    path: the .tgz file, or the folder; None looks in node_modules of the working directory.
    package: which one.

  Raises:
    UserError: there is none, it is another package, or a file is missing.
  """
  path = _installed(package) if path is None else path
  how = f"get it with `npm pack {package.name}` and name the file: {package.flag}=FILE.tgz"
  if not path.exists():
    raise UserError(f"the page needs {package.name}, which is not in {path}: {how}")
  try:
    held = _folder(path, package) if path.is_dir() else _archive(regular_file(path, "package"), package)
    about = strict_json(held.pop("package.json"))
    name, version = about["name"], str(about["version"])
  except (OSError, tarfile.TarError, EOFError, ValueError, KeyError, TypeError):
    raise UserError(f"{path} is not the npm package {package.name} as it is published: {how}") from None
  if name != package.name:
    raise UserError(f"{path} is another package than {package.name}: {how}")
  return version, {Path(file).name: data for file, data in held.items()}


def _folder(path: Path, package: Package) -> dict[str, bytes]:
  try:
    return {name: read_bytes(path / name, "file of a package", _LARGEST) for name in ("package.json", *package.files)}
  except UserError as error:
    raise ValueError(str(error)) from None


def _archive(path: Path, package: Package) -> dict[str, bytes]:
  held = {}
  with tarfile.open(path, "r:gz") as archive:
    for name in ("package.json", *package.files):
      member = archive.getmember(f"package/{name}")
      file = archive.extractfile(member) if member.isreg() and member.size <= _LARGEST else None
      if file is None:
        raise ValueError(name)
      held[name] = file.read()
  return held
