"""What travels with a video whose poses are known: `NAME.mp4` and beside it a folder `NAME.anchor/`.

  pose.mkv        the pose render of every frame (lossless RGB)
  masks.mkv       the person's mask in the red channel, the face's in the green (lossless; 0 or 255)
  landmarks.npz   five face landmarks a frame, x and y in pixels of the video, NaN where missing
  sidecar.json    format version, frames, width, height, fps

`prepare` and `generate` use it instead of the landmark model. The studio's videos come with one.
"""

import dataclasses
import json
import os
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from tqdm import tqdm

from anchor_jax.errors import UserError
from anchor_jax.files import SIDECAR, new_folder
from anchor_jax.motion.video import VideoInfo, VideoWriter, probe, read_frames
from anchor_jax.shapes import Float, NdArray, UInt8

FORMAT = 1


@runtime_checkable
class Posed(Protocol):
  """One frame of a video with all that is known about it: a `PosedFrame`, or a frame of the studio."""

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
    """255 where the person is."""
    ...

  @property
  def face_mask(self) -> UInt8[NdArray, "H W"]:
    """255 where the face is in the pose render."""
    ...

  @property
  def landmarks(self) -> Float[NdArray, "5 2"]:
    """Five face landmarks, x and y in pixels; NaN where missing."""
    ...


class PosedFrame(NamedTuple):
  """What was read about one frame of a video, at the video's size."""

  frame: UInt8[NdArray, "H W 3"]
  pose: UInt8[NdArray, "H W 3"]
  person_mask: UInt8[NdArray, "H W"]
  face_mask: UInt8[NdArray, "H W"]
  landmarks: Float[NdArray, "5 2"]


def sidecar_path(video: str | os.PathLike) -> Path:
  """Where the sidecar of a video is: `a/clip.mp4` -> `a/clip.anchor`."""
  return Path(video).with_suffix(SIDECAR)


def has_sidecar(video: str | os.PathLike) -> bool:
  """Whether poses, masks and landmarks travel with this video."""
  return sidecar_path(video).is_dir()


def write_posed_video(
  path: str | os.PathLike,
  frames: Iterable[Posed],
  fps: float | int,
  *,
  total: int | None = None,
  progress: str | None = None,
  metadata: dict[str, str] | None = None,
) -> int:
  """Writes a video and its sidecar from frames as the studio renders them; returns the number of frames.

  Args:
    path: the video, an .mp4 file; the sidecar goes beside it.
    frames: anything with the fields of `PosedFrame`, taken one at a time.
    fps: frames per second.
    total: number of frames to come, for the progress bar.
    progress: what the progress bar says; None for no bar.
    metadata: text tags of the video file.

  Raises:
    UserError: the video or the sidecar cannot be written, or there is no frame.
  """
  landmarks, size = [], (0, 0)
  with ExitStack() as stack:
    folder = stack.enter_context(new_folder(sidecar_path(path)))
    video = stack.enter_context(VideoWriter(path, fps, metadata=metadata))
    poses = stack.enter_context(VideoWriter(folder / "pose.mkv", fps, lossless=True))
    masks = stack.enter_context(VideoWriter(folder / "masks.mkv", fps, lossless=True))
    for item in tqdm(frames, desc=progress, total=total, disable=progress is None, unit="frame"):
      size = item.frame.shape[1], item.frame.shape[0]
      video.write(item.frame)
      poses.write(item.pose)
      masks.write(np.stack([item.person_mask, item.face_mask, np.zeros_like(item.face_mask)], axis=-1))
      landmarks.append(item.landmarks)
    np.savez_compressed(folder / "landmarks.npz", landmarks=np.asarray(landmarks, np.float32).reshape(-1, 5, 2))
    facts = dict(format=FORMAT, frames=len(landmarks), width=size[0], height=size[1], fps=float(fps))
    (folder / "sidecar.json").write_text(json.dumps(facts, indent=2) + "\n")
  return len(landmarks)


def _refuse(video: Path, why: str) -> UserError:
  return UserError(f"the poses of {video} in {sidecar_path(video)} {why}: write them again, or move that folder away")


def _read_facts(video: Path) -> tuple[dict, Float[NdArray, "T 5 2"]]:
  folder = sidecar_path(video)
  try:
    facts = json.loads((folder / "sidecar.json").read_text())
    if facts["format"] != FORMAT:
      raise _refuse(video, f"have format {facts['format']}, this version reads {FORMAT}")
    with np.load(folder / "landmarks.npz", allow_pickle=False) as arrays:
      landmarks = arrays["landmarks"]
    if landmarks.shape != (facts["frames"], 5, 2):
      raise _refuse(video, f"have landmarks of shape {landmarks.shape} for {facts['frames']} frames")
  except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError):
    raise _refuse(video, "are incomplete or damaged") from None
  return facts, landmarks.astype(np.float32)


def check_sidecar(video: str | os.PathLike) -> VideoInfo:
  """Compares a video's size and length with those of its sidecar; returns the video's facts, with the poses' size.

  Raises:
    UserError: they do not match, or either is damaged or missing.
  """
  video = Path(video)
  info = probe(video)
  if not has_sidecar(video):
    raise UserError(f"no poses travel with {video}: there is no {sidecar_path(video)}")
  facts, _ = _read_facts(video)
  for name in ("frames", "height", "width"):
    # H.264 pads an odd picture by one row or column; the poses keep the true size
    slack = 1 if name != "frames" else 0
    if not 0 <= getattr(info, name) - facts[name] <= slack:
      raise _refuse(video, f"have {name} {facts[name]}, the video {getattr(info, name)}")
  for stream in ("pose.mkv", "masks.mkv"):
    part = probe(sidecar_path(video) / stream)
    for name in ("frames", "height", "width"):
      if getattr(part, name) != facts[name]:
        raise _refuse(video, f"have {stream} with {name} {getattr(part, name)} instead of {facts[name]}")
  return dataclasses.replace(info, width=facts["width"], height=facts["height"])


def read_landmarks(video: str | os.PathLike) -> Float[NdArray, "T 5 2"]:
  """The five landmarks of every frame of a video with a sidecar, NaN where missing."""
  return _read_facts(Path(video))[1]


def read_posed_video(video: str | os.PathLike) -> Iterator[PosedFrame]:
  """Reads a video together with its sidecar, frame by frame; sizes and counts are checked first.

  Raises:
    UserError: as `check_sidecar`, or damaged on the way.
  """
  video = Path(video)
  check_sidecar(video)
  facts, landmarks = _read_facts(video)
  height, width = facts["height"], facts["width"]
  folder = sidecar_path(video)
  streams = zip(
    read_frames(video), read_frames(folder / "pose.mkv"), read_frames(folder / "masks.mkv"), landmarks, strict=True
  )
  for frame, pose, masks, points in streams:
    yield PosedFrame(
      np.ascontiguousarray(frame[:height, :width]), pose, masks[..., 0].copy(), masks[..., 1].copy(), points
    )
