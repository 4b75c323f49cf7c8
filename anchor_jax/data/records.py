"""Prepared folders: a model's training records, in array_record files of tensorflow-datasets.

  *.array_record, dataset_info.json, features.json   the records, with random access
  meta.json      size (a square's side, or width and height), fps, people, their body measures (null where unknown;
                 not in folders of earlier versions), and the videos in order, each with its first record, number of
                 frames and, if its camera moves, camera path
  preview.png    a contact sheet for inspection before training
  report.html    what was found in the films, used, left out, and why (films/report.py); in meta.json as "films"; not in
                 folders of earlier versions
  appearance*.safetensors, appearance.png   the people's textures and their contact sheet (data/textures.py); optional

A record: frame, pose, surface (u8 [H W 3]), person_mask, face_mask (u8 [H W 1], 0 or 255; person masks of films without
a sidecar hold the person's share of each pixel), landmarks (f32 [5 2], x and y in pixels, NaN where missing), person,
video (numbers into meta.json), index (of the frame in its video).
"""

import contextlib
import io
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from anchor_jax.core.errors import UserError, one_line
from anchor_jax.core.frame_size import FrameSize
from anchor_jax.core.shapes import NdArray, Shaped, UInt8
from anchor_jax.data.meta import META, meta_text, read_meta
from anchor_jax.data.record_fields import FIELDS, FORMAT, IMAGES, SPLIT
from anchor_jax.files.inputs import read_json, regular_file
from anchor_jax.files.manifest import FolderKind
from anchor_jax.files.outputs import FULL, check_folder, check_name, new_folder, prepare_parent, refuse
from anchor_jax.films.poses import PosedClip
from anchor_jax.landmarks.proportions.measures import BodyMeasures, median_measures
from anchor_jax.texture.background.camera_path import STILL, to_json

_DESCRIBED = ("dataset_info.json", "features.json")
_DTYPES = {"landmarks": np.float32, "person": np.int32, "video": np.int32, "index": np.int32}


def _encode(image: UInt8[NdArray, "H W *C"]) -> bytes:
  image = image[..., ::-1] if image.ndim == 3 and image.shape[-1] == 3 else image
  return cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def _decode(data: bytes, channels: int) -> UInt8[NdArray, "H W C"]:
  image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
  if image is None:
    raise ValueError("not a picture")
  return np.ascontiguousarray(image[..., ::-1]) if channels == 3 else image[..., None]


class Recorder:
  """Iterates over the encoded records of clips, and collects the contents of meta.json on the way."""

  def __init__(self, clips: Iterable[PosedClip], size: FrameSize, progress: tqdm):
    self._clips, self._size, self._progress = clips, size, progress
    self.people: list[str] = []
    self.measured: list[list[tuple[BodyMeasures, int]]] = []  # for each person: measures and frames of each video
    self.videos: list[dict[str, Any]] = []
    self.without_landmarks: list[int] = []
    self.without_surface: list[int] = []
    self.count = 0
    self.error: Exception | None = None

  def __iter__(self) -> Iterator[dict[str, Any]]:
    try:
      yield from self._records()
    except Exception as error:  # tensorflow-datasets may wrap it; `build` raises the original
      self.error = error
      raise

  def _records(self) -> Iterator[dict[str, Any]]:
    for number, clip in enumerate(self._clips):
      if clip.person not in self.people:
        self.people.append(clip.person)
        self.measured.append([])
      person = self.people.index(clip.person)
      entry: dict[str, Any] = dict(
        name=clip.name,
        person=person,
        fps=float(clip.fps),
        first=self.count,
        square=clip.crop and list(clip.crop),
      )
      if clip.cameras is not None:
        entry["cameras"] = to_json(clip.cameras)
      frames = 0
      for item in clip.frames:
        if item.frame.shape != (*self._size.shape, 3):
          raise ValueError(f"{clip.name}: frame of shape {item.frame.shape} in a prepared folder of size {self._size}")
        if not np.isfinite(item.landmarks).all():
          self.without_landmarks.append(self.count)
        images = {name: getattr(item, name) for name in IMAGES}
        if item.surface is None:
          self.without_surface.append(self.count)
        yield {
          **{name: _encode(np.zeros_like(item.pose) if image is None else image) for name, image in images.items()},
          "landmarks": np.asarray(item.landmarks, np.float32),
          "person": person,
          "video": number,
          "index": frames,
        }
        frames += 1
        self.count += 1
        self._progress.update()
      if not frames:
        raise UserError(f"{clip.name} holds no frame: leave it out, or record it again")
      self.videos.append({**entry, "frames": frames})
      if clip.measures is not None:
        self.measured[person].append((clip.measures, frames))
    if not self.count:
      raise UserError("there is no frame to prepare: name at least one video")


def build(
  clips: Iterable[PosedClip],
  output: str | os.PathLike,
  size: int | FrameSize,
  *,
  total: int | None = None,
  progress: str | None = None,
  facts: Mapping[str, Any] | None = None,
  finish: Callable[["PreparedSource"], None] | None = None,
) -> dict[str, Any]:
  """Writes a prepared folder atomically; it may replace an earlier one.

  Args:
    clips: the videos, read one frame at a time.
    output: the folder.
    size: width and height of the frames in pixels, or the side of squares.
    total: number of frames, for the progress bar.
    progress: label of the progress bar; None for no bar.
    facts: additional entries of meta.json.
    finish: called before the folder is renamed to its final name, to add files to it.

  Returns:
    The contents of meta.json.

  Raises:
    UserError: there is no clip, a clip has no frames, or the folder cannot be written.
  """
  check_prepared_target(output)
  size = FrameSize.of(size)
  with new_folder(output, PREPARED) as folder:
    with tqdm(desc=progress, total=total, disable=progress is None, unit="frame") as bar:
      recorder = Recorder(clips, size, bar)
      _run_builder(recorder, size, folder, output)
    meta = dict(
      format=FORMAT,
      size=size.to_json(),
      fps=recorder.videos[0]["fps"],
      frames=recorder.count,
      people=recorder.people,
      measures=[median_measures(*zip(*videos)).to_json() if videos else None for videos in recorder.measured],
      videos=recorder.videos,
      without_landmarks=recorder.without_landmarks,
      without_surface=recorder.without_surface,
      **(facts or {}),
      files={path.name: path.stat().st_size for path in sorted(folder.glob("*.array_record*"))},
    )
    (folder / META).write_text(meta_text(meta))
    source = PreparedSource(folder)
    write_preview(source)
    if finish is not None:
      finish(source)
  return meta


def check_prepared_target(output: str | os.PathLike) -> None:
  """Checks ahead of long work that a prepared folder can be written here; it may only replace a prepared folder.

  Raises:
    UserError: the folder cannot be written, or contains something else.
  """
  check_folder(output, PREPARED)
  prepare_parent(output)


def _earlier(folder: Path) -> set[str]:
  """Names of the files in a prepared folder of an earlier version, which has no list of files besides meta.json's."""
  try:
    meta = read_json(folder / "meta.json")
    records = {name for name, size in meta["files"].items() if (folder / name).stat().st_size == size}
    if type(meta["format"]) is not int or type(meta["frames"]) is not int:
      return set()
  except (UserError, OSError, ValueError, KeyError, TypeError, AttributeError):
    return set()
  textures = {path.name for path in folder.glob("appearance*.safetensors") if re.fullmatch(_TEXTURE, path.name)}
  return records | textures | _FILES


_FILES = {"meta.json", "dataset_info.json", "features.json", "preview.png", "report.html", "appearance.png"}
_TEXTURE = r"appearance(_[0-9]+)?\.safetensors"
# May be replaced together with the encoded records that training adds (training/precompute.py).
PREPARED = FolderKind(
  "prepared", _earlier, r"(cache|conditions)-[0-9a-f]{16}/([a-z_]+-)?[0-9]{5}(\.partial-[0-9a-f]+)?\.(npy|json)"
)


def _run_builder(recorder: Recorder, size: FrameSize, folder: Path, output: str | os.PathLike) -> None:
  """Writes the records into `folder`; messages name `output`."""
  import tensorflow_datasets as tfds  # slow to import, and only needed to read and write records

  from anchor_jax.data.builder import PreparedFrames, same_bytes

  work = folder / "work"
  tfds.disable_progress_bar()  # this package shows its own
  try:
    with contextlib.redirect_stdout(io.StringIO()), same_bytes():  # hides messages about downloads
      builder = PreparedFrames(recorder, size, data_dir=str(work))
      builder.download_and_prepare()
  except Exception as error:
    if recorder.error is not None:
      raise recorder.error from None
    # The array_record writer raises RuntimeError with the operating system's message, such as for a full disk.
    refused = next((code for code in FULL if os.strerror(code) in str(error)), None)
    if refused is None:
      raise
    raise refuse(output, OSError(refused, os.strerror(refused))) from error
  for path in Path(builder.data_dir).iterdir():
    path.rename(folder / path.name)
  shutil.rmtree(work)


class PreparedSource:
  """Random access to the records of a prepared folder; `open_prepared` opens it.

  Attributes:
    folder: its path.
    meta: the contents of its meta.json.
    size: width and height of the frames in pixels; `size.shape` is (height, width), as in the shape of arrays.
    fps: frames per second of its first video.
    people, videos: number of each record's person and video.
    has_landmarks: mask of the records whose five landmarks are known.
    has_surface: mask of the records whose surface maps are known; other maps are 0.
    measures: body measures of each person; None where unknown, as in folders of earlier versions.
    cameras: the camera of each record (texture/background/camera_path.py); None if every video's camera is still.
  """

  def __init__(self, folder: str | os.PathLike):
    """Reads meta.json and opens the records; see `open_prepared` for the errors."""
    self.folder = Path(folder)
    _check_folder(self.folder)
    self.meta, fields = read_meta(self.folder)
    self.size, self.fps = FrameSize.of(fields.size), fields.fps
    counts = [video.frames for video in fields.videos]
    self.people = np.repeat(np.array([video.person for video in fields.videos], np.int32), counts)
    self.videos = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    self.cameras = None
    if any(video.cameras is not None for video in fields.videos):
      paths = [video.cameras or (STILL,) * video.frames for video in fields.videos]
      self.cameras = np.concatenate([np.array(path, np.float64) for path in paths])
    try:
      self.measures = fields.body_measures()
    except UserError as error:
      raise _damaged(self.folder, error) from None
    self.has_landmarks = np.ones(len(self.people), bool)
    self.has_landmarks[np.asarray(fields.without_landmarks, np.int64)] = False
    # Folders of earlier versions have no surface maps and no entry about them.
    self.has_surface = np.full(len(self.people), fields.without_surface is not None)
    self.has_surface[np.asarray(fields.without_surface or (), np.int64)] = False
    self._open()

  def _open(self) -> None:
    import tensorflow_datasets as tfds

    for name in _DESCRIBED:
      regular_file(self.folder / name, "description of records")
    try:
      builder: Any = tfds.builder_from_directory(str(self.folder))
      raw = {name: tfds.decode.SkipDecoding() for name in IMAGES if name in builder.info.features}
      self._records = builder.as_data_source(split=SPLIT, decoders=raw)
      count = len(self._records)
    except Exception as error:
      raise _damaged(self.folder, error) from error
    if count != len(self.people):
      raise _damaged(self.folder, f"{count} records instead of {len(self.people)}")

  def __getstate__(self) -> dict[str, Any]:
    return {name: value for name, value in self.__dict__.items() if name != "_records"}

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__dict__.update(state)
    self._open()  # in a worker process

  def __len__(self) -> int:
    return len(self.people)

  def __repr__(self) -> str:  # logged by grain
    return f"PreparedSource({str(self.folder)!r}, {len(self)} records)"

  def __getitem__(self, index: int) -> dict[str, Shaped[NdArray, "..."]]:
    return self.read(index, FIELDS)

  def read(self, index: int, fields: Sequence[str]) -> dict[str, Shaped[NdArray, "..."]]:
    """The named fields of a record, decoded.

    Args:
      index: of the record, 0 to len - 1.
      fields: names from `FIELDS`.

    Raises:
      UserError: the record cannot be read.
    """
    if not 0 <= index < len(self):
      raise IndexError(index)
    try:
      record = self._records[index]
      return {name: self._field(record, index, name) for name in fields}
    except KeyError:
      raise
    except Exception as error:
      raise _damaged(self.folder, f"record {index}: {error}") from error

  def _field(self, record: Mapping[str, Any], index: int, name: str) -> NdArray:
    if name == "surface" and not self.has_surface[index]:
      return np.zeros((*self.size.shape, 3), np.uint8)
    return _decode(record[name], IMAGES[name]) if name in IMAGES else np.asarray(record[name], _DTYPES.get(name))


def _damaged(folder: Path, cause: object) -> UserError:
  return UserError(f"the prepared folder {folder} is damaged ({one_line(cause)}): prepare it again")


def _check_folder(folder: Path) -> None:
  check_name(folder)
  if not os.path.exists(folder):
    raise UserError(
      f"there is no prepared folder {folder}: create it with python -m anchor_jax.prepare VIDEO --output={folder}"
    )
  if not is_prepared(folder):
    raise UserError(
      f"{folder} is not a prepared folder: create one with python -m anchor_jax.prepare VIDEO --output=DIR"
    )


def is_prepared(path: str | os.PathLike) -> bool:
  """Whether a path is a prepared folder, judging by its meta.json, rather than a video."""
  return os.path.isfile(os.path.join(path, META))


def open_prepared(folder: str | os.PathLike) -> PreparedSource:
  """Opens a prepared folder for random access.

  Raises:
    UserError: the folder is missing, not a prepared one, damaged, or of another format.
  """
  return PreparedSource(folder)


def write_preview(source: PreparedSource) -> None:
  """Writes the contact sheet of a prepared folder into it."""
  sheet = cv2.imencode(".png", record_sheet(source)[..., ::-1])[1]
  (source.folder / "preview.png").write_bytes(sheet.tobytes())


def record_sheet(source: PreparedSource, rows: int = 6) -> UInt8[NdArray, "h w 3"]:
  """A contact sheet with a row per sampled record: frame, pose, and person and face with the rest dimmed.

  Landmarks are drawn on the last picture of a row.
  """
  sheet = []
  for index in np.unique(np.linspace(0, len(source) - 1, rows).round().astype(int)):
    record = source[int(index)]
    frame, scale = record["frame"], max(1, round(256 / max(source.size)))
    dimmed = [np.where(record[name] > 127, frame, frame // 4) for name in ("person_mask", "face_mask")]
    tiles = [
      cv2.resize(tile, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
      for tile in (frame, record["pose"], *dimmed)
    ]
    for x, y in record["landmarks"][np.isfinite(record["landmarks"]).all(axis=-1)]:
      cv2.circle(tiles[-1], (round((x + 0.5) * scale), round((y + 0.5) * scale)), 2, (0, 255, 80), -1, cv2.LINE_AA)
    sheet.append(np.concatenate(tiles, axis=1))
  return np.concatenate(sheet, axis=0)
