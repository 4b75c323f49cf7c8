"""Writes a person as a folder of static files that animates the person in a browser; any file server can serve it.

    index.html, style.css, *.js    the page, the same for every person
    person.json                    sizes, the layout of the other files, the motions, and the versions that wrote them
    frame.onnx                     the body: from a pose render and pose channels to a picture
    tables.bin                     the person's texture, if the networks use it
    motions/NUMBER.bin             pose renders and surface maps of a motion
    ort/                           onnxruntime-web
    body.json                      the body description, for rendering poses from landmarks
    holistic/                      the landmark model, if the page has a camera
    serve.py                       a local server whose headers let the browser use several threads

Files named .bin are compressed with gzip.
"""

import dataclasses
import gzip
import importlib.metadata
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.core.shapes import NdArray, UInt8
from anchor_jax.files.inputs import read_json
from anchor_jax.files.manifest import FolderKind, not_newer
from anchor_jax.files.outputs import check_folder, new_folder
from anchor_jax.inference.animate import placed_pose_channels
from anchor_jax.inference.reference import Reference, fitted_reference
from anchor_jax.landmarks.proportions.measures import BodyMeasures
from anchor_jax.motion.frames import Motion, MotionFrame
from anchor_jax.store.part import Part
from anchor_jax.texture.channels import PoseChannels, needs_texture
from anchor_jax.texture.look_up.plain import LookUpTables, plate_size
from anchor_jax.web import serve
from anchor_jax.web.body import body_description
from anchor_jax.web.npm import LANDMARKS, RUNTIME, is_installed, read_package
from anchor_jax.web.program import convert, frame_function, input_shapes, require_converter

FORMAT = "anchor_jax web 1"
_PAGE = Path(__file__).with_name("page")
_KINDS = {"uint8": np.uint8, "int8": np.int8, "int16": np.int16, "int32": np.int32}


@dataclasses.dataclass(frozen=True)
class NamedMotion:
  """A motion offered on the page.

  Attributes:
    label: its name on the page.
    motion: its frames, with pose renders of the size of the person's pictures.
  """

  label: str
  motion: Motion


def check_web(folder: Path, runtime: Path | None, landmarks: Path | None = None) -> None:
  """Checks, before a person is loaded, that `write_web` has what it needs; raises UserError otherwise."""
  check_folder(folder, PAGE)
  require_converter()
  read_package(runtime, RUNTIME)
  if landmarks is not None:
    read_package(landmarks, LANDMARKS)


def write_web(
  folder: Path,
  body: Part,
  motions: Sequence[NamedMotion],
  reference: Reference | None = None,
  runtime: Path | None = None,
  landmarks: Path | None = None,
  measures: BodyMeasures | None = None,
  seed: int = 0,
) -> None:
  """Writes the page to a temporary folder, which replaces `folder` once it is complete.

  Args:
    folder: created, or replaced if it holds a person's page.
    body: the body; the head is not used.
    motions: at least one.
    reference: replaces the reference saved in training.
    runtime: onnxruntime-web, see `read_package`.
    landmarks: the landmark model, see `read_package`; None writes a page without a camera unless npm installed it.
    measures: the person's body measures, onto which camera motion is mapped.
    seed: of the noise.

  Raises:
    UserError: something is missing, the page can't show this kind of person, or the folder can't be written.
  """
  check_web(folder, runtime, landmarks)
  picture = fitted_reference(reference, body.reference_image, body.frame_size)
  kind = body.config.data.pose_channels
  if kind == "coordinates":
    raise UserError('--web does not support persons trained with config.data.pose_channels "coordinates"')
  pose_channels = placed_pose_channels(body, reference)
  if pose_channels.tables is not None and (known := plate_size(pose_channels.tables)) != body.frame_size:
    raise UserError(
      f"the appearance has {known} pixels and the body {body.size}: prepare its film again with --size={body.size}"
    )
  version, files = read_package(runtime, RUNTIME)
  versions, camera = {RUNTIME.name: version}, landmarks is not None or is_installed(LANDMARKS)
  program = convert(frame_function(body, picture, seed), input_shapes(body))
  with new_folder(folder, PAGE) as new:
    for file in sorted(_PAGE.iterdir()):
      shutil.copyfile(file, new / file.name)
    shutil.copyfile(serve.__file__, new / "serve.py")
    _write_files(new / "ort", files)
    if camera:
      versions[LANDMARKS.name], model = read_package(landmarks, LANDMARKS)
      _write_files(new / "holistic", model)
    (new / "body.json").write_text(json.dumps(body_description()))
    (new / "frame.onnx").write_bytes(program.onnx)
    about: dict[str, Any] = {
      "format": FORMAT,
      "synthetic": True,
      "size": body.frame_size.to_json(),
      "appearance": kind,
      "seed": seed,
    }
    about["channels"] = input_shapes(body)[1].shape[-1] if kind else 0
    about |= {"camera": camera, "check": program.check, "measures": None if measures is None else measures.to_json()}
    about["tables"] = _write_tables(new / "tables.bin", pose_channels)
    (new / "motions").mkdir()
    about["motions"] = [
      _write_motion(new, number, named, body.frame_size, bool(kind)) for number, named in enumerate(motions)
    ]
    packages = ("anchor_jax", "jax", "jax2onnx")
    about["made_by"] = {name: importlib.metadata.version(name) for name in packages} | versions
    (new / "person.json").write_text(json.dumps(about, indent=1) + "\n")


def _write_files(folder: Path, files: dict[str, bytes]) -> None:
  folder.mkdir()
  for name, data in files.items():
    (folder / name).write_bytes(data)


def _write_tables(path: Path, pose_channels: PoseChannels) -> dict[str, Any] | None:
  """Writes the look-up's tables; returns their layout in the file, or None if there are none."""
  if not needs_texture(pose_channels.kind) or pose_channels.tables is None:
    return None
  arrays = web_tables(pose_channels.tables)
  about, parts, start = {}, [], 0
  # Widest types first, so that each array is aligned to its item size.
  for name, array in sorted(arrays.items(), key=lambda pair: -pair[1].itemsize):
    about[name] = {"type": array.dtype.name, "start": start, "shape": list(array.shape)}
    parts.append(array.tobytes())
    start += array.nbytes
  path.write_bytes(gzip.compress(b"".join(parts), mtime=0))
  return about


def web_tables(tables: LookUpTables) -> dict[str, NdArray]:
  """Returns the tables in the layout of look_up.js, in the smallest integer types that hold them."""
  as_type = lambda array, kind: np.ascontiguousarray(np.asarray(array), dtype=_KINDS[kind])
  return {
    "pixels": as_type(tables.key_places[..., 2], "int32"),
    "places": as_type(tables.key_places[..., :2], "int16"),
    "wraps": as_type(tables.wraps, "uint8"),
    "atlas": as_type(tables.atlas, "uint8"),
    "frames": as_type(tables.key_frames, "uint8"),
    "outlines": as_type(tables.key_outlines, "int8"),
    "plate": as_type(tables.plate, "uint8"),
  }


def _write_motion(folder: Path, number: int, named: NamedMotion, size: FrameSize, mapped: bool) -> dict[str, Any]:
  """Writes a motion, with surface maps if `mapped`; returns its entry in person.json."""
  file, count = f"motions/{number}.bin", 0

  def counted() -> Iterator[MotionFrame]:
    nonlocal count
    for frame in named.motion.frames(0):
      count += 1
      yield frame

  with gzip.GzipFile(folder / file, "wb", mtime=0) as packed:
    for data in pack_frames(counted(), size, mapped):
      packed.write(data.tobytes())
  if not count:
    raise UserError(f"the motion {named.label} has no frames: give one with at least one frame")
  return {"label": named.label, "file": file, "frames": count, "fps": named.motion.fps}


def pack_frames(
  frames: Iterable[MotionFrame], size: int | FrameSize, mapped: bool
) -> Iterator[UInt8[NdArray, "P H W 3"]]:
  """Yields each frame's pose render and surface map as differences from the previous frame, modulo 256.

  Raises:
    UserError: frames have another size, or lack the surface maps that the person needs.
  """
  size = FrameSize.of(size)
  previous = np.zeros((1 + mapped, *size.shape, 3), np.uint8)
  for frame in frames:
    if frame.pose.shape[:2] != size.shape:
      height, width = frame.pose.shape[:2]
      raise UserError(
        f"the motion has poses of {FrameSize(width, height)} pixels, and the person has {size}: prepare it again"
      )
    if mapped and frame.surface is None:
      raise UserError("the motion has no surface maps, which this person needs: prepare its video again")
    current = np.stack([frame.pose, frame.surface] if mapped and frame.surface is not None else [frame.pose])
    yield current - previous
    previous = current


def _earlier(folder: Path) -> set[str]:
  """Names of the files in a page of an earlier version, which has no list of its files."""
  try:
    about = read_json(folder / "person.json")
    if not str(about["format"]).startswith("anchor_jax web"):
      return set()
    names = {"person.json", "body.json", "frame.onnx", "tables.bin", "serve.py"}
    names |= {str(motion["file"]) for motion in about["motions"]} | {file.name for file in _PAGE.iterdir()}
    names |= {f"{below}/{name}" for below in ("ort", "holistic") for name in _PACKED}
  except (UserError, OSError, ValueError, KeyError, TypeError):
    return set()
  return not_newer(folder, names, "person.json")


_PACKED = {Path(name).name for package in (RUNTIME, LANDMARKS) for name in package.files}
PAGE = FolderKind("page", _earlier)  # what `write_web` replaces
