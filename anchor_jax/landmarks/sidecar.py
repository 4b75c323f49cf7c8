"""Sidecars: a video `NAME.mp4` whose poses are known has a folder `NAME.anchor/` beside it.

  pose.mkv        the pose render of every frame (lossless RGB)
  masks.mkv       the person's mask in the red channel, the face's in the green one (lossless; 0 or 255)
  surface.mkv     the surface map of every frame (lossless; chart, u, v of body/charts.py); older sidecars lack it
  landmarks.npz   five face landmarks a frame, x and y in pixels of the displayed video, NaN where missing
  sidecar.json    format version, frames, width, height, fps

`prepare` and `read_motion` use it in place of the landmark model. Studio videos have one.
"""

import dataclasses
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from tqdm import tqdm

from anchor_jax.core.errors import UserError, one_line
from anchor_jax.core.shapes import Bool, Float, NdArray, UInt8
from anchor_jax.core.values import Within
from anchor_jax.files.arrays import read_arrays
from anchor_jax.files.fields import read_fields
from anchor_jax.files.manifest import FolderKind
from anchor_jax.files.outputs import SIDECAR, new_folder
from anchor_jax.video.read import VideoInfo, probe, read_frames
from anchor_jax.video.write import VideoWriter

FORMAT = 1
_POSES, _MASKS, _SURFACES = "pose.mkv", "masks.mkv", "surface.mkv"
# Identifies sidecars of earlier versions, which have no list of their files.
_WRITTEN = FolderKind("sidecar", lambda folder: (_POSES, _MASKS, _SURFACES, "landmarks.npz", "sidecar.json"))
_LARGEST_FACTS = 2**20  # bytes of sidecar.json, which normally has about a hundred


@runtime_checkable
class Posed(Protocol):
  """A frame with its pose, such as a `PosedFrame` or a studio frame."""

  @property
  def frame(self) -> UInt8[NdArray, "H W 3"]:
    """The picture, RGB."""
    ...

  @property
  def pose(self) -> UInt8[NdArray, "H W 3"]:
    """Its pose render, RGB."""
    ...

  @property
  def person_mask(self) -> UInt8[NdArray, "H W"]:
    """255 where the person is, between 0 and 255 for a share of a pixel."""
    ...

  @property
  def face_mask(self) -> UInt8[NdArray, "H W"]:
    """255 where the face is in the pose render."""
    ...

  @property
  def landmarks(self) -> Float[NdArray, "5 2"]:
    """Five face landmarks, x and y in pixels; NaN where missing."""
    ...

  @property
  def surface(self) -> UInt8[NdArray, "H W 3"] | None:
    """The pose render's surface map (chart, u, v); None if unknown."""
    ...


class PoseRender(NamedTuple):
  """Pose render, face mask and surface map of a frame; see `Posed`."""

  pose: UInt8[NdArray, "H W 3"]
  face_mask: UInt8[NdArray, "H W"]
  surface: UInt8[NdArray, "H W 3"] | None = None


class PosedFrame(NamedTuple):
  """A frame of a video with its pose, masks and landmarks, all of one size; see `Posed`."""

  frame: UInt8[NdArray, "H W 3"]
  pose: UInt8[NdArray, "H W 3"]
  person_mask: UInt8[NdArray, "H W"]
  face_mask: UInt8[NdArray, "H W"]
  landmarks: Float[NdArray, "5 2"]
  surface: UInt8[NdArray, "H W 3"] | None = None


def sidecar_path(video: str | os.PathLike) -> Path:
  """Returns the folder of a video's sidecar: `a/clip.mp4` -> `a/clip.anchor`."""
  return Path(os.path.splitext(video)[0] + SIDECAR)


def has_sidecar(video: str | os.PathLike) -> bool:
  """Returns whether a video has a sidecar."""
  return os.path.isdir(sidecar_path(video))


def write_posed_video(
  path: str | os.PathLike,
  frames: Iterable[Posed],
  fps: float | int,
  *,
  total: int | None = None,
  progress: str | None = None,
  metadata: dict[str, str] | None = None,
) -> int:
  """Writes a video and its sidecar; returns the number of frames.

  Args:
    path: the video, an .mp4 file; the sidecar goes beside it.
    frames: frames with poses, consumed one at a time.
    fps: frames per second.
    total: expected number of frames, for the progress bar.
    progress: label of the progress bar; None for no bar.
    metadata: text tags of the video file.

  Raises:
    UserError: the video or the sidecar cannot be written, or there is no frame.
    ValueError: only some of the frames have a surface map.
  """
  landmarks, size, surfaces = [], (0, 0), None
  with ExitStack() as stack:
    folder = stack.enter_context(new_folder(sidecar_path(path), _WRITTEN))
    video = stack.enter_context(VideoWriter(path, fps, metadata=metadata))
    poses = stack.enter_context(VideoWriter(folder / _POSES, fps, lossless=True))
    masks = stack.enter_context(VideoWriter(folder / _MASKS, fps, lossless=True))
    for item in tqdm(frames, desc=progress, total=total, disable=progress is None, unit="frame"):
      size = item.frame.shape[1], item.frame.shape[0]
      video.write(item.frame)
      poses.write(item.pose)
      masks.write(np.stack([item.person_mask, item.face_mask, np.zeros_like(item.face_mask)], axis=-1))
      if item.surface is not None and not landmarks:
        surfaces = stack.enter_context(VideoWriter(folder / _SURFACES, fps, lossless=True))
      if (surfaces is None) != (item.surface is None):
        raise ValueError(f"frame {len(landmarks)} of {path}: either all frames have a surface map or none")
      if surfaces is not None and item.surface is not None:
        surfaces.write(item.surface)
      landmarks.append(item.landmarks)
    np.savez_compressed(folder / "landmarks.npz", landmarks=np.asarray(landmarks, np.float32).reshape(-1, 5, 2))
    facts = dict(format=FORMAT, frames=len(landmarks), width=size[0], height=size[1], fps=float(fps))
    (folder / "sidecar.json").write_text(json.dumps(facts, indent=2) + "\n")
  return len(landmarks)


def _error(video: Path, reason: str) -> UserError:
  return UserError(f"the poses of {video} in {sidecar_path(video)} {reason}: {_remedy(video)}")


def _remedy(video: Path) -> str:
  return f"write the poses of {video} again, or move that folder away"


@dataclasses.dataclass(frozen=True)
class PosedVideo:
  """A video and its sidecar, both checked by `open_posed_video`.

  Attributes:
    path: the video.
    info: from `probe`, with the width and height of the poses.
    landmarks: five face landmarks of every frame, x and y in pixels of the video, NaN where missing.
    pose_info, mask_info, surface_info: of the sidecar's streams; None without surface maps.
  """

  path: Path
  info: VideoInfo
  landmarks: Float[NdArray, "T 5 2"]
  pose_info: VideoInfo
  mask_info: VideoInfo
  surface_info: VideoInfo | None = None

  def frames(self, first: int = 0) -> Iterator[PosedFrame]:
    """Yields frames with their poses from number `first` on, at the video's size.

    Raises:
      UserError: a stream is damaged.
    """
    height, width = self.info.height, self.info.width
    pictures = read_frames(self.path, first, self.info)
    streams = itertools.islice(self._streams(first), max(0, self.info.frames - first))
    for frame, (pose, masks, surface), points in zip(pictures, streams, self.landmarks[first:], strict=True):
      frame = np.ascontiguousarray(frame[:height, :width])
      yield PosedFrame(frame, pose, masks[..., 0].copy(), masks[..., 1].copy(), points, surface)

  def person_mask(self, number: int) -> UInt8[NdArray, "H W"]:
    """Returns the person's mask of a frame, 0 or 255."""
    return next(read_frames(sidecar_path(self.path) / _MASKS, number, self.mask_info))[..., 0]

  def shows_person(self, first: int, last: int) -> Bool[NdArray, " T"]:
    """Returns for frames `first` to `last` (exclusive) whether the person covers a thousandth of the picture."""
    return np.array([(mask > 127).mean() > 0.001 for mask in self.person_masks(first, last)], bool)

  def person_masks(self, first: int, last: int) -> Iterator[UInt8[NdArray, "H W"]]:
    """Yields the person masks of frames `first` to `last` (exclusive), without decoding the video itself."""
    masks = read_frames(sidecar_path(self.path) / _MASKS, first, self.mask_info)
    return (mask[..., 0] for mask in itertools.islice(masks, last - first))

  def poses(self, first: int = 0) -> Iterator[PoseRender]:
    """Yields the pose renders from number `first` on, without decoding the video itself."""
    for pose, masks, surface in itertools.islice(self._streams(first), max(0, self.info.frames - first)):
      yield PoseRender(pose, masks[..., 1].copy(), surface)

  def _streams(
    self, first: int
  ) -> Iterator[tuple[UInt8[NdArray, "H W 3"], UInt8[NdArray, "H W 3"], UInt8[NdArray, "H W 3"] | None]]:
    folder = sidecar_path(self.path)
    poses = read_frames(folder / _POSES, first, self.pose_info)
    masks = read_frames(folder / _MASKS, first, self.mask_info)
    if self.surface_info is None:
      return zip(poses, masks, itertools.repeat(None))
    return zip(poses, masks, read_frames(folder / _SURFACES, first, self.surface_info), strict=True)


def open_posed_video(video: str | os.PathLike, cut_off: bool = False) -> PosedVideo:
  """Opens a video and its sidecar; checks each file once, and that sizes and lengths match.

  If the end of the video is missing, only the poses of the frames that exist are used.

  Args:
    video: the file.
    cut_off: accept any missing amount; see `probe`.

  Raises:
    UserError: video and sidecar do not match, or either is damaged or missing.
  """
  video = Path(video)
  info = probe(video, cut_off)
  folder = sidecar_path(video)
  if not has_sidecar(video):
    raise UserError(f"{video} has no sidecar: there is no {folder}")
  facts = _read_facts(video)
  stored = info.geometry._replace(stretched=None)
  if info.geometry.stretched is not None and stored.size == (facts["width"], facts["height"]):
    # written by a version that took all pixels for square ones
    info = dataclasses.replace(info, geometry=stored, width=facts["width"], height=facts["height"])
  for name, count in facts.items():
    # H.264 pads odd sizes by one row or column; the poses have the true size
    slack = range(2) if name != "frames" else range(-info.missing, 1)
    if getattr(info, name) - count not in slack:
      raise _error(video, f"have {name} {count}, the video {getattr(info, name)}")
  streams = []
  for stream in (_POSES, _MASKS, *([_SURFACES] if (folder / _SURFACES).exists() else [])):
    streams.append(probe(folder / stream))
    for name, count in facts.items():
      if getattr(streams[-1], name) != count:
        raise _error(video, f"have {stream} with {name} {getattr(streams[-1], name)} instead of {count}")
  landmarks = _read_landmarks(video, facts["frames"])[: info.frames]
  return PosedVideo(video, dataclasses.replace(info, width=facts["width"], height=facts["height"]), landmarks, *streams)


@dataclasses.dataclass(frozen=True)
class _Facts:
  """The fields of sidecar.json."""

  format: Literal[1]
  frames: Annotated[int, Within(1, 2**40)]
  height: Annotated[int, Within(1, 2**16)]
  width: Annotated[int, Within(1, 2**16)]


def _read_facts(video: Path) -> dict[str, int]:
  """Frames, height and width from sidecar.json."""
  path = sidecar_path(video) / "sidecar.json"
  facts = read_fields(path, _Facts, "sidecar", _remedy(video), max_bytes=_LARGEST_FACTS, version=FORMAT)
  return {name: getattr(facts, name) for name in ("frames", "height", "width")}


def _read_landmarks(video: Path, frames: int) -> Float[NdArray, "T 5 2"]:
  """The landmarks of a sidecar."""
  path, name = sidecar_path(video) / "landmarks.npz", "landmarks"
  arrays = read_arrays(path, "sidecar", _remedy(video), names=(name,))
  if name not in arrays:
    raise _error(video, f"have no {name} in {path.name}")
  landmarks = arrays[name]
  if landmarks.shape != (frames, 5, 2):
    raise _error(video, f"have landmarks of shape {one_line(landmarks.shape)} for {frames} frames")
  if landmarks.dtype.kind not in "fiu":
    raise _error(video, f"have landmarks of type {one_line(landmarks.dtype)} instead of real numbers")
  return landmarks.astype(np.float32)
