"""Writes a studio person in motion as a video file with its sidecar."""

import os

from anchor_jax.core.frame_size import FrameSize
from anchor_jax.landmarks.sidecar import write_posed_video
from anchor_jax.studio.clips import render_clip
from anchor_jax.studio.identity import make_identity
from anchor_jax.studio.motion import make_motion


def write_studio_video(
  path: str | os.PathLike,
  *,
  identity_seed: int,
  motion_seed: int,
  seconds: float | int,
  size: int | tuple[int, int] | FrameSize,
  fps: float | int = 25.0,
  start: float | int = 0.0,
  workers: int | None = None,
  progress: str | None = "studio video",
) -> int:
  """Renders a studio person in motion into an .mp4 with its sidecar folder, and returns the number of frames.

  Args:
    path: the .mp4 file.
    identity_seed, motion_seed: of the person and of the motion, 0 or more, independent of each other.
    seconds: length of the video.
    size: a square's side in pixels, or (width, height).
    fps: frames per second; the video has round(seconds * fps) frames, at least one.
    start: time of the first frame in the motion, in seconds.
    workers: number of processes, as for `clips.render_clip`.
    progress: label of the progress bar; None for no bar.
  """
  times = [start + i / fps for i in range(max(1, round(seconds * fps)))]
  identity, motion = make_identity(identity_seed), make_motion(motion_seed)
  frames = render_clip(identity, motion, times, size, workers=workers)
  tags = {"comment": f"synthetic: studio person {identity_seed}, motion {motion_seed}"}
  return write_posed_video(path, frames, fps, total=len(times), progress=progress, metadata=tags)
